package proxy

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	// overloadLook is how often it is looked how long goroutines wait for a processor.
	overloadLook = 100 * time.Millisecond
	// overloadLooks is how many looks in a row must find that too long.
	overloadLooks = 3
	// overloadFew is how many waits must have been counted for a look to say anything. The runtime
	// counts each eighth. After overloadIdle looks that say nothing there is little to do.
	overloadFew  = 20
	overloadIdle = 10
	// overloadWhole is all requests, in the unit of share; overloadMost of them are refused at
	// most, so that it is seen when the load is gone.
	overloadWhole = 1024
	overloadMost  = overloadWhole * 15 / 16
)

// overload refuses a share of the requests while there is more to do than the processors can,
// so that the others are answered as fast as ever: to refuse costs a third of what to serve
// does, and whoever is refused knows at once. What tells is how long goroutines that could run
// wait until they do. Without it all would wait, each for longer than its client does.
type overload struct {
	limit time.Duration // that nine of ten may wait; negative: for ever
	share atomic.Uint32 // of requests to refuse

	last    time.Duration // what the last look found
	long    int           // looks in a row that found it too long
	unknown int           // looks in a row that say nothing
}

// refuses decides on one request.
func (o *overload) refuses() bool {
	s := o.share.Load()
	return s > 0 && rand.Uint32N(overloadWhole) < s // #nosec G404 -- a share of requests, no secret
}

// run looks until ctx ends.
func (o *overload) run(ctx context.Context, log *slog.Logger) {
	if o.limit <= 0 {
		return
	}
	// No ticker: it would come twice in a row after it had to wait itself.
	t := time.NewTimer(overloadLook)
	defer t.Stop()
	w := newWaits()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		before := o.share.Load()
		if wait, ok := w.look(); ok {
			o.unknown = 0
			o.step(wait)
		} else if o.long, o.unknown = 0, o.unknown+1; o.unknown >= overloadIdle {
			o.step(0)
		}
		switch after := o.share.Load(); {
		case before == 0 && after > 0:
			log.Warn("more to do than the processors can: a share of the requests is refused")
		case before > 0 && after == 0:
			log.Info("no requests are refused for want of processors any more")
		}
		t.Reset(overloadLook)
	}
}

// step takes in for how long at most nine of ten goroutines have waited since the last look.
func (o *overload) step(wait time.Duration) {
	share := o.share.Load()
	switch {
	case wait > o.limit:
		// Not while it becomes shorter: then enough is refused, and what waits still was let in before.
		if o.long++; o.long >= overloadLooks && wait >= o.last {
			// Fast where it is far too long, for what is queued is late already.
			share += overloadWhole / 32 * uint32(min(wait/o.limit, 4)) //nolint:gosec // at most 4
		}
	case wait < o.limit/2:
		// Fast where much is refused: if something else had the processors for a moment, far too much is.
		o.long = 0
		share -= min(share, max(overloadWhole/64, share/8))
	default:
		o.long = 0
	}
	o.last = wait
	o.share.Store(min(share, overloadMost))
}

// waits reads how long goroutines wait for a processor, as the runtime counts it.
type waits struct {
	sample []metrics.Sample
	before []uint64 // counts at the last look
}

func newWaits() *waits {
	w := &waits{sample: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	w.look()
	return w
}

// look returns the upper bound of what nine of ten have waited since the last look that said
// something; ok is false where too few have.
func (w *waits) look() (wait time.Duration, ok bool) {
	metrics.Read(w.sample)
	h := w.sample[0].Value.Float64Histogram()
	if len(w.before) != len(h.Counts) {
		w.before = make([]uint64, len(h.Counts))
	}
	total := uint64(0)
	for i, n := range h.Counts {
		total += n - w.before[i]
	}
	if total < overloadFew {
		return 0, false
	}
	var bound float64
	for i, left := 0, total-total/10; i < len(h.Counts); i++ {
		n := h.Counts[i] - w.before[i]
		w.before[i] = h.Counts[i]
		if left > 0 && n >= left {
			bound = h.Buckets[min(i+1, len(h.Buckets)-2)] // the last one has no end
		}
		left -= min(left, n)
	}
	return time.Duration(bound * float64(time.Second)), true
}
