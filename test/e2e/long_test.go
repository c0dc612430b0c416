package e2e_test

import (
	"flag"
	"testing"
	"time"
)

// long runs the tests that have a short form at full length: as long, and as often, as what
// is promised says.
var long = flag.Bool("long", false, "run at full length: each test takes minutes")

// aSecond is how long what is promised within a second may take: at full length just that, and
// otherwise longer, for then other packages' tests and the race detector have the processors too.
func aSecond() time.Duration { return full(15*time.Second, time.Second) }

// beside lets a test run beside others, unless at full length, where it measures.
func beside(t *testing.T) {
	t.Helper()
	if !*long {
		t.Parallel()
	}
}

// full returns whole at full length, and short otherwise.
func full[T any](short, whole T) T {
	if *long {
		return whole
	}
	return short
}
