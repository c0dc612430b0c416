package e2e_test

import (
	"flag"
	"time"
)

// long runs the tests that have a short form at full length: as long, and as often, as what
// is promised says.
var long = flag.Bool("long", false, "run at full length: each test takes minutes")

// aSecond is how long what is promised within a second may take: at full length just that, and
// otherwise longer, for then other packages' tests and the race detector have the processors too.
func aSecond() time.Duration { return full(4*time.Second, time.Second) }

// full returns whole at full length, and short otherwise.
func full[T any](short, whole T) T {
	if *long {
		return whole
	}
	return short
}
