package e2e_test

import "flag"

// long runs the tests that have a short form at full length: as long, and as often, as what
// is promised says.
var long = flag.Bool("long", false, "run at full length: each test takes minutes")

// full returns whole at full length, and short otherwise.
func full[T any](short, whole T) T {
	if *long {
		return whole
	}
	return short
}
