//go:build race

package quota

// raceEnabled reports whether the race detector makes everything slow. What explores states
// has one goroutine: it is not what the detector is for.
const raceEnabled = true
