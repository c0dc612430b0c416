//go:build race

package testenv

// raceEnabled reports whether this test was built with the race detector.
const raceEnabled = true
