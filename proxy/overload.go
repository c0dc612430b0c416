package proxy

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"
)

const (
	// overloadLook is how often it is looked how long sockets wait.
	overloadLook = 20 * time.Millisecond
	// overloadLooks is how many looks in a row must find that too long, before anything is refused. With
	// eight, opening ten thousand streams in four seconds was taken for too much, which it is for a
	// moment only.
	overloadLooks = 15
	// overloadMost of all requests are refused at most, so that it is seen when the load is gone.
	overloadMost = 15. / 16
	// overloadFirst of what there is too much to do, as the growth of the wait tells it, are refused at
	// first, and at most overloadFirstMost: whoever is let in meanwhile waits for long. It may have been
	// no load at all, but a stall.
	overloadFirst     = 0.8
	overloadFirstMost = 0.6
	// overloadStep bounds what one look changes, as a part of all requests. After overloadCalm looks in
	// a row that found little to wait for, overloadFall of what is refused is given up with each.
	overloadStep = 0.08
	overloadCalm = 25
	overloadFall = 0.02
	// overloadIntegral (per second, of the limit) and overloadProportional (per second) are the gains
	// with which the wait is brought to half of the limit. It grows by what there is to do beyond what
	// the processors can: by about one second per second at twice that, and refusing a request saves
	// half of it or more. For such a plant these two make a loop that hardly swings, and comes to rest
	// within some seconds. Beyond the limit the first is overloadHurry times as large: clients have
	// a bounded number of connections, so the wait stops growing, or shrinks as more is refused, while
	// what waits behind the connections grows.
	overloadIntegral     = 0.3
	overloadProportional = 9.
	overloadDamping      = 0.45 // bounds the second where the limit is long and the first small
	overloadHurry        = 4.
	// overloadPatience is how many looks in a row may find a wait that the limit allows before less
	// is refused, overloadEase of it with each look: if that brings the wait back above the
	// limit, it was needed; if not, something else has the processors, and refusing is no help.
	overloadPatience = 150
	overloadEase     = 0.006
	// minSchedulingDelay is the least limit for which that is so.
	minSchedulingDelay = 10 * time.Millisecond
	// overloadUnit is all requests, as share has them.
	overloadUnit = 1 << 16
)

// overload refuses a share of the requests while there is more to do than the processors can,
// so that the others are answered as fast as ever: to refuse costs a part of what to serve
// does, and whoever is refused knows at once. Without it all would wait, each for longer than
// its client does.
//
// What tells is how long a socket that has something to read waits until that is read; see
// queue. The share follows it by a proportional-integral controller, as in PIE (RFC 8033 §4.2),
// which drops packets of a queue for the same reason: it needs to know neither what a request
// costs nor what a refusal does.
type overload struct {
	limit time.Duration // of the wait; negative: none
	share atomic.Uint32 // of requests to refuse, in overloadUnit

	last time.Duration // the wait, of the last looks
	long int           // looks in a row that found more than limit, while nothing is refused
	grow int           // looks in a row that found more than next to nothing, while nothing is refused
	calm int           // looks in a row that found next to nothing, while something is
	fine int           // looks in a row that found what the limit allows, while something is
}

// refuses decides on one request.
func (o *overload) refuses() bool {
	s := o.share.Load()
	return s > 0 && rand.Uint32N(overloadUnit) < s // #nosec G404 -- a share of requests, no secret
}

// refused returns which part of the requests is refused.
func (o *overload) refused() float64 { return float64(o.share.Load()) / overloadUnit }

// run looks until ctx ends.
func (o *overload) run(ctx context.Context, log *slog.Logger) {
	if o.limit <= 0 {
		return
	}
	q, err := newQueue()
	if err != nil {
		log.Error("it cannot be seen when there is more to do than the processors can: nothing will be refused for that", "error", err)
		return
	}
	defer q.close()
	// No ticker: it would come twice in a row after it had to wait itself.
	t := time.NewTimer(overloadLook)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		before := o.share.Load()
		o.step(q.look())
		switch after := o.share.Load(); {
		case before == 0 && after > 0:
			log.Warn("more to do than the processors can: a share of the requests is refused")
		case before > 0 && after == 0:
			log.Info("no requests are refused for want of processors any more")
		}
		t.Reset(overloadLook)
	}
}

// step takes in for how long a socket has waited.
func (o *overload) step(wait time.Duration) {
	part, little := o.refused(), o.limit/4
	if part == 0 {
		o.set(o.first(wait, little))
		return
	}
	// One look finds now more, now less of a queue of the same length.
	last := o.last
	wait = (wait + last) / 2
	o.last = wait
	integral := overloadIntegral * overloadLook.Seconds() * float64(wait-o.limit/2) / float64(o.limit)
	if o.fine++; wait > o.limit {
		o.fine = 0
		integral *= overloadHurry
	}
	change := integral + min(overloadProportional, overloadDamping/o.limit.Seconds())*(wait-last).Seconds()
	if o.fine > overloadPatience {
		change = min(change, -overloadEase*part)
	}
	if wait >= little {
		o.calm = 0
	} else if o.calm++; o.calm > overloadCalm {
		// The load is gone, or something else had the processors and far too much is refused.
		change = min(change, -overloadFall*part)
	}
	part += max(min(change, overloadStep), -overloadStep)
	if part < 1./1024 && wait < o.limit {
		part = 0
	}
	o.set(part)
}

// first returns which part to refuse when nothing is refused yet.
func (o *overload) first(wait, little time.Duration) float64 {
	o.last, o.calm, o.fine = wait, 0, 0
	if o.grow++; wait < little {
		o.grow = 0
	}
	if o.long++; wait <= o.limit {
		o.long = 0
	}
	// Something else may have had the processors for a moment.
	if o.long < overloadLooks {
		return 0
	}
	growth := wait.Seconds() / (float64(o.grow) * overloadLook.Seconds())
	o.long, o.grow = 0, 0
	return min(overloadFirst*growth, overloadFirstMost)
}

// set has a part of the requests refused.
func (o *overload) set(part float64) {
	o.share.Store(uint32(max(min(part, overloadMost), 0) * overloadUnit))
}

// queue tells how long it takes from when there is something to read from a file until its
// goroutine has read it. It sends what everybody's bytes wait with, through a pipe: in the
// kernel's list of ready files until the runtime asks for it, some at a time, and then for a
// processor. The runtime's own figures know of the second only, which is the shorter one when
// thousands of connections are busy.
type queue struct {
	r, w  *os.File
	began time.Time
	sent  atomic.Int64 // when the byte under way was written, in ns since began; 0: none is
	took  atomic.Int64 // ns that the last one was under way
}

func newQueue() (*queue, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	q := &queue{r: r, w: w, began: time.Now()}
	go q.read()
	return q, nil
}

// close ends the goroutine that reads.
func (q *queue) close() {
	_ = q.w.Close()
}

func (q *queue) read() {
	defer q.r.Close()
	var b [1]byte
	for {
		if _, err := q.r.Read(b[:]); err != nil {
			return
		}
		q.took.Store(int64(time.Since(q.began)) - q.sent.Load())
		q.sent.Store(0)
	}
}

// look returns how long the last byte was under way, or the one that still is, and sends the
// next. It is for one goroutine.
func (q *queue) look() time.Duration {
	now := int64(time.Since(q.began))
	if sent := q.sent.Load(); sent != 0 {
		return time.Duration(max(now-sent, q.took.Load()))
	}
	took := time.Duration(q.took.Load())
	q.sent.Store(now)
	if _, err := q.w.Write([]byte{0}); err != nil {
		q.sent.Store(0)
	}
	return took
}
