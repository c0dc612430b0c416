//go:build !race

// The race detector allocates by itself.

package quota_test

import (
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func TestRatesAllocateNothing(t *testing.T) {
	server := testenv.Redis(t)
	r := newRates(t, server, quota.RateOptions{Replica: "a"})
	rate := quota.RequestRate{PerSecond: 10, Burst: 20}
	for _, c := range []string{"admitted", "refused"} {
		if c == "refused" {
			for range 30 {
				r.Allow(c, rate, time.Now())
			}
		} else {
			rate.Burst = 100_000
			r.Allow(c, rate, time.Now())
		}
		if n := testing.AllocsPerRun(2000, func() { r.Allow(c, rate, time.Now()) }); n != 0 {
			t.Errorf("%s: %v allocations", c, n)
		}
	}
}
