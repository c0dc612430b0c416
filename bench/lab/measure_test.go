package lab

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

func TestTheLeastDisturbedTryIsKept(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		foreign []float64 // of one try after the other; negative: it fails
		kept    float64
		tries   int
		err     error
	}{
		"quiet at once":      {[]float64{0.1}, 0.1, 1, nil},
		"quiet in the end":   {[]float64{0.9, 0.8, 0.2}, 0.2, 3, nil},
		"quiet in between":   {[]float64{0.9, 0.4}, 0.4, 2, nil},
		"never quiet":        {[]float64{0.9, 0.5, 0.7}, 0.5, 3, nil},
		"the first is least": {[]float64{0.6, 0.9, 0.7}, 0.6, 3, nil},
		"fails":              {[]float64{-1}, -1, 1, failed},
		"fails later":        {[]float64{0.9, -1}, 0.9, 1, failed},
	} {
		calls, least := 0, 0.0
		s, err := leastDisturbed(2, 0.4, func(try int, foreign float64) (record.Sample, error) {
			if try != calls || foreign != least {
				t.Errorf("%s: try %d is called as %d, after %v", name, calls, try, foreign)
			}
			f := c.foreign[calls]
			if calls++; calls == 1 || f < least {
				least = f
			}
			if f < 0 {
				return record.Sample{Foreign: f}, failed
			}
			return record.Sample{Foreign: f, SettleSeconds: 2}, nil
		})
		if calls != len(c.foreign) || s.Foreign != c.kept || s.Tries != c.tries || !errors.Is(err, c.err) {
			t.Errorf("%s: %+v after %d calls, %v", name, s, calls, err)
		}
		if c.err == nil && s.SettleSeconds != float64(2*c.tries) {
			t.Errorf("%s: waited for %v s", name, s.SettleSeconds)
		}
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	if f := foreign(3*time.Second, 2, time.Second, 1500*time.Millisecond); f != 0.25 {
		t.Errorf("0.5 s of 2 s are %v processors", f)
	}
	if f := foreign(time.Second, 2, 1005*time.Millisecond); f != 0 { // the whole is known less exactly than its parts
		t.Errorf("%v", f)
	}
}

func TestUncounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cfg     load.Config
		seconds float64
		want    float64
	}{
		{load.Config{}, 5, 1},
		{load.Config{Warmup: 3 * time.Second}, 6, 1.5},
		{load.Config{Warmup: 3 * time.Second, Ramp: 2 * time.Second}, 4, 1.5},
		{load.Config{Warmup: time.Second, Ramp: 5 * time.Second}, 1, 1.5}, // a ramp beyond the warm-up is as bad as one as long
	} {
		if got := uncounted(&c.cfg, c.seconds); got != c.want {
			t.Errorf("%+v: %v times as much as in %v s, want %v", c.cfg, got, c.seconds, c.want)
		}
	}
}

// Streams with TLS begin at a rate that leaves time for handshakes, and all last as long as they
// are asked to.
func TestStreamsBeginSlowly(t *testing.T) {
	t.Parallel()
	plain, tls := &peers.Running{Addr: "h:1"}, &peers.Running{Addr: "h:1", Peer: peers.Peer{TLS: true}}
	if a, b := OpenTime(plain, 10_000), OpenTime(tls, 2000); a != 4*time.Second || b != 3*time.Second {
		t.Errorf("10,000 streams begin in %v, 2,000 with TLS in %v", a, b)
	}
	cfg := Streams(plain, load.Shape{BodyBytes: 500}, 20, 50*time.Millisecond, 10*time.Second)
	if !cfg.Closed || cfg.Connections != 20 || cfg.Ramp < OpenTime(plain, 20) {
		t.Errorf("%+v", cfg)
	}
	want := load.Shape{BodyBytes: 500, Stream: true, Stamp: true, TokensPerSecond: 20, OutputTokens: 200}.Jobs("h:1", "", nil)(0)
	if got := cfg.Jobs(0); string(got.Head) != string(want.Head) {
		t.Errorf("%s, want %s", got.Head, want.Head)
	}
}

// However many streams there are, no two begin at the same moment of the interval, and they leave no
// gap in it: the widest is not much wider than the narrowest.
func TestStreamsAreOutOfStep(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 20, 100, 500, 1000, 2000, 5000, 10_000} {
		for _, interval := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, time.Second} {
			least := OpenTime(&peers.Running{}, n)
			ramp := outOfStep(least, n, interval)
			if ramp < least || ramp > 2*least {
				t.Errorf("%d streams with an event each %v begin in %v, where %v are needed", n, interval, ramp, least)
			}
			if float64(n)*float64(interval) < math.Phi*float64(least) {
				continue // one by one
			}
			var phases []float64
			for i := range n {
				_, phase := math.Modf(float64(i) * float64(ramp) / float64(n) / float64(interval))
				phases = append(phases, phase)
			}
			slices.Sort(phases)
			narrow, wide := 1., phases[0]+1-phases[n-1]
			for i := 1; i < n; i++ {
				gap := phases[i] - phases[i-1]
				narrow, wide = min(narrow, gap), max(wide, gap)
			}
			if wide*float64(n) > 3 || narrow*float64(n) < 0.2 {
				t.Errorf("%d streams with an event each %v: gaps from %.3f to %.3f of what they were if all were alike", n, interval, narrow*float64(n), wide*float64(n))
			}
		}
	}
}
