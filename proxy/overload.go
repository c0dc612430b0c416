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
	// overloadFirst of what there is too much to do, as the growth of the wait tells it, are refused at
	// first, and at most overloadFirstMost: whoever is let in meanwhile waits for long. It may have been
	// no load at all, but a stall.
	overloadFirst     = 0.8
	overloadFirstMost = 0.6
	// overloadLeast requests per second are always let in, or overloadLeastPart of what was let in when
	// it began, if that is less: so that it is seen when the load is gone.
	overloadLeast     = 200.
	overloadLeastPart = 1. / 16
	overloadFewest    = 10. // requests per second, whatever was let in
	// overloadStep bounds what one look changes, as a part of the pace. After overloadCalm looks in
	// a row that found little to wait for, while some are refused, the pace grows by overloadRise with
	// each at least.
	overloadStep = 0.08
	overloadCalm = 25
	overloadRise = 0.04
	// overloadIntegral (per second, of the limit) and overloadProportional (per second) are the gains
	// with which the wait is brought to half of the limit. It grows by what there is to do beyond what
	// the processors can, by some tenths of a second per second. For such a plant these two make a loop
	// that hardly swings, and comes to rest within some seconds. Beyond the limit the first is
	// overloadHurry times as large: clients have a bounded number of connections, so the wait stops
	// growing while what waits behind the connections grows.
	overloadIntegral     = 0.3
	overloadProportional = 9.
	overloadDamping      = 0.45 // bounds the second where the limit is long and the first small
	overloadHurry        = 4.
	// overloadPatience is how many looks in a row may find a wait that the limit allows before the
	// pace grows, by overloadEase with each look: if that brings the wait back above the limit, it
	// was right; if not, something else has the processors, and refusing is no help.
	overloadPatience = 150
	overloadEase     = 0.006
	// overloadOver is how many looks in a row must find nobody refused, or little to wait for, whoever is
	// refused, before all is as it was. Who is told to wait, and does, is back before that; and what comes in
	// bursts is refused by any pace.
	overloadOver = int(5 * time.Second / overloadLook)
	// overloadRoom is how far above what is let in the pace stays while nobody is refused and less than
	// overloadShort looks in a row found too long a wait: stalls that come again and again are no load, and
	// would bring it down to where somebody is.
	overloadRoom  = 1.25
	overloadShort = 4
	// overloadSlack is what may be let in at once after a moment in which nothing came.
	overloadSlack = 10 * time.Millisecond
	// overloadMemory is how many looks the part that is refused is smoothed over.
	overloadMemory = 30
	// minSchedulingDelay is the least limit for which that is so.
	minSchedulingDelay = 10 * time.Millisecond
	// overloadUnit is all requests, as share has them.
	overloadUnit = 1 << 16
)

// overload lets in so many requests per second as the processors can answer while there are more,
// so that those are answered as fast as ever: to refuse costs a part of what to serve
// does, and whoever is refused knows at once. Without it all would wait, each for longer than
// its client does.
//
// What tells is how long a socket that has something to read waits until that is read; see
// queue. The pace follows it by a proportional-integral controller, as in PIE (RFC 8033 §4.2),
// which drops packets of a queue for the same reason: it needs to know neither what a request
// costs nor what a refusal does. PIE has a probability of dropping; here it is a pace, for most clients that are
// refused wait for some seconds, as they are told, so what comes swings from one second to the next, and
// a part of it would be now too much and now too little, while what can be done stays the same.
type overload struct {
	limit time.Duration // of the wait; negative: none
	began time.Time

	pace   atomic.Int64  // ns from one request that is let in to the next; 0: all are
	next   atomic.Int64  // when the next one may be let in, in ns since began
	passed atomic.Uint32 // requests let in since the last look
	turned atomic.Uint32 // requests refused since then
	share  atomic.Uint32 // of requests that were refused of late, in overloadUnit

	rate  float64       // requests per second to let in, as pace has it; 0: all
	first float64       // requests per second that were let in before that began
	usual float64       // requests per second that were let in of late
	last  time.Duration // the wait, of the last looks
	long  int           // looks in a row that found more than limit, while nothing is refused
	grow  int           // looks in a row that found more than next to nothing, while nothing is refused
	calm  int           // looks in a row that found next to nothing, while something is
	fine  int           // looks in a row that found what the limit allows, while something is
	over  int           // looks in a row that found more than limit, while something is refused
	spare int           // looks in a row that found nobody refused
}

// refuses decides on one request.
func (o *overload) refuses() bool {
	pace := o.pace.Load()
	if pace == 0 {
		o.passed.Add(1)
		return false
	}
	now := int64(time.Since(o.began))
	for {
		next := o.next.Load()
		if next > now {
			o.turned.Add(1)
			return true
		}
		if o.next.CompareAndSwap(next, max(next, now-int64(overloadSlack))+pace) {
			o.passed.Add(1)
			return false
		}
	}
}

// limiting reports whether requests may be refused.
func (o *overload) limiting() bool { return o.pace.Load() != 0 }

// refused returns which part of the requests is refused.
func (o *overload) refused() float64 { return float64(o.share.Load()) / overloadUnit }

// told returns for how long one that is refused is told to wait: not all for the same time, for they
// would come back together.
func (o *overload) told() time.Duration {
	return time.Duration(1+rand.IntN(3)) * time.Second // #nosec G404 -- no secret
}

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
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		before, now := o.limiting(), time.Now()
		o.step(q.look(), now.Sub(last), float64(o.passed.Swap(0)), float64(o.turned.Swap(0)))
		last = now
		switch after := o.limiting(); {
		case !before && after:
			log.Warn("more to do than the processors can: some requests are refused", "let_in_per_second", int(o.rate))
		case before && !after:
			log.Info("no requests are refused for want of processors any more")
		}
		t.Reset(overloadLook)
	}
}

// step takes in for how long a socket has waited, and how many requests were let in and refused within
// the time since the last look.
func (o *overload) step(wait, since time.Duration, passed, turned float64) {
	o.usual += (passed/since.Seconds() - o.usual) / overloadLooks
	if o.rate == 0 {
		o.begin(wait)
		return
	}
	if all := passed + turned; all > 0 {
		o.share.Store(uint32((o.refused() + (turned/all-o.refused())/overloadMemory) * overloadUnit))
	}
	// One look finds now more, now less of a queue of the same length.
	last := o.last
	wait = (wait + last) / 2
	o.last = wait
	change := -overloadIntegral * overloadLook.Seconds() * float64(wait-o.limit/2) / float64(o.limit)
	if o.fine++; wait > o.limit {
		o.fine = 0
		change *= overloadHurry
	}
	change -= min(overloadProportional, overloadDamping/o.limit.Seconds()) * (wait - last).Seconds()
	if o.fine > overloadPatience {
		change = max(change, overloadEase)
	}
	if o.calm++; wait >= o.limit/4 {
		o.calm = 0
	}
	if o.calm > overloadCalm {
		// The load is gone, or something else had the processors and far too much is refused.
		change = max(change, overloadRise)
	}
	if o.over++; wait <= o.limit {
		o.over = 0
	}
	if o.spare++; turned > 0 {
		o.spare = 0
	}
	if o.spare > overloadOver || o.calm > overloadOver {
		o.let(0)
		return
	}
	least := min(overloadLeast, max(overloadFewest, o.first*overloadLeastPart))
	if turned == 0 {
		change = min(change, 0) // whether more could be let in is not known
		if o.over < overloadShort {
			least = max(least, min(o.rate, overloadRoom*o.usual))
		}
	}
	o.let(max(o.rate*(1+max(min(change, overloadStep), -overloadStep)), least))
}

// begin takes in the wait when nothing is refused yet.
func (o *overload) begin(wait time.Duration) {
	o.last, o.calm, o.fine, o.over, o.spare = wait, 0, 0, 0, 0
	if o.grow++; wait < o.limit/4 {
		o.grow = 0
	}
	if o.long++; wait <= o.limit {
		o.long = 0
	}
	// Something else may have had the processors for a moment.
	if o.long < overloadLooks {
		return
	}
	growth := wait.Seconds() / (float64(o.grow) * overloadLook.Seconds())
	o.long, o.grow = 0, 0
	o.first = o.usual
	o.let(max(o.usual*(1-min(overloadFirst*growth, overloadFirstMost)), min(overloadLeast, max(overloadFewest, o.first*overloadLeastPart))))
}

// let has so many requests per second be let in; 0: all.
func (o *overload) let(rate float64) {
	o.rate = rate
	if rate == 0 {
		o.share.Store(0)
		o.pace.Store(0)
		return
	}
	o.pace.Store(max(1, int64(float64(time.Second)/rate)))
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
