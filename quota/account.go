package quota

import (
	"math"
	"slices"
	"sync"
	"time"
)

// accountKey names an account.
type accountKey struct{ customer, period string }

// spend is what one event of the journal used.
type spend struct{ seq, tokens int64 }

// account is one replica's share of one customer and period: pure arithmetic, no I/O.
//
//	lease = held + unsettled + idle
//
// The lease is what Redis keeps for this replica at least. Only an answer of Redis makes it
// larger; it is made smaller here before Redis is told. held is reserved by requests in
// flight. unsettled was used by requests that ended, and has not reached Redis as far as
// is known. idle can be given to the next request.
type account struct {
	key accountKey

	mu        sync.Mutex
	lease     int64
	held      int64
	unsettled int64
	pending   []spend // what unsettled consists of, in the order of the numbers

	// As of the last answer.
	limit   int64
	version int64 // of the limit
	settled int64
	others  int64 // leased by other replicas

	// The newest limit that a grant told of.
	grantLimit, grantVersion int64

	flight  *flight    // the call under way; at most one
	calls   int64      // number of the last call
	waiting []*wait    // reservations that wait for an answer, in the order in which they came
	dirty   bool       // to be called at a tick; see mark and later
	urgent  bool       // at the next one
	soon    bool       // list looks at it at the next tick
	ringed  bool       // list looks at it within routine ticks
	list    *dirtyList // nil in a test of the arithmetic

	spare int64 // what is best kept idle
	demand

	usedAt     time.Duration // when it last served: a request began or ended
	answeredAt time.Duration // when Redis last answered; 0 for never
	recallAt   time.Duration // when others were last asked for their idle tokens
	shyUntil   time.Duration // others wait: nothing spare is taken until then
	retryAt    time.Duration // not to be called at a tick before then
	recalled   bool          // others asked for what is idle while a call was under way
	gone       bool          // out of the map: look again
	declared   int64         // the newest epoch whose record knows the lease
}

// wait is a reservation that waits for an answer of Redis.
type wait struct {
	tokens  int64
	since   int64 // number of the last call before it came
	asked   int64 // number of the first call that asked for its tokens; 0 if none has
	granted bool  // it holds its tokens, and waits no more
}

// call is one message to Redis: see syncScript.
type call struct {
	epoch, number  int64
	floor          int64
	least, need    int64
	spare          int64
	limit, version int64
	base           int64
	batch          []spend
	sum            int64 // of batch
	surrender      bool  // nothing idle was kept
}

// maxBatch is how many settlements one call carries.
const maxBatch = 1000

// mark says whether a is to be called at the next tick.
func (a *account) mark(dirty bool) {
	a.dirty, a.urgent = dirty, dirty
	if dirty && !a.soon && a.list != nil {
		a.soon = true
		a.list.hurry(a)
	}
}

// later has a called within routine ticks: to tell Redis what was used does not hurry, for the
// lease contains it, unless little is left of it or there is more than one call can carry.
func (a *account) later() {
	a.dirty = true
	switch {
	case a.urgent:
	case a.low() || len(a.pending) >= maxBatch:
		a.mark(true)
	case !a.ringed && a.list != nil:
		a.ringed = true
		a.list.delay(a)
	}
}

// low reports whether so little is idle that the lease should be renewed. That requests hold what spare was
// planned to have for them is no reason: it comes back, and a call for it would lease as much again. The price:
// of who uses little, another request that begins meanwhile may have to ask Redis itself.
func (a *account) low() bool {
	least := a.spare / 2
	if a.held <= a.planned {
		least = (a.spare - a.held) / 2
	}
	return a.idle() < least
}

func (a *account) idle() int64 { return a.lease - a.held - a.unsettled }

// take reserves tokens if they are idle here.
func (a *account) take(tokens int64, now time.Duration) bool {
	if tokens > a.idle() {
		return false
	}
	a.held += tokens
	a.usedAt = now
	a.peak = max(a.peak, a.held)
	a.largest = max(a.largest, tokens)
	if a.dirty && !a.urgent && a.low() {
		a.mark(true)
	}
	return true
}

// give is take, unless the limit was lowered below what is leased: what becomes idle then is
// above it, and goes back.
func (a *account) give(tokens int64, now time.Duration) bool {
	return tokens <= max(a.idle()+min(a.free(), 0), 0) && a.take(tokens, now)
}

// release ends a reservation of which nothing was used.
func (a *account) release(tokens int64) { a.held -= tokens }

// spend ends a reservation of which used was used, by event seq. Numbers ascend.
func (a *account) spend(seq, reserved, used int64) {
	a.held -= reserved
	a.owe(seq, used)
	a.consumed += used
}

// recovered adds what an earlier life of this replica used; Redis keeps tokens for it.
func (a *account) recovered(seq, used int64) {
	a.lease += used
	a.settled = max(a.settled-used, 0)
	a.owe(seq, used)
}

func (a *account) owe(seq, used int64) {
	a.unsettled += used
	a.pending = append(a.pending, spend{seq, used})
	a.later()
}

// forgetSpends begins a new epoch: what was used is added anew, from where the rebuilt
// record ends.
func (a *account) forgetSpends() {
	a.lease -= a.unsettled
	a.settled += a.unsettled // all in all as before, until an answer says better
	a.unsettled, a.pending = 0, nil
	a.mark(a.lease > 0) // whatever call was not answered can lease nothing any more
}

// learn takes note of a limit that a grant has.
func (a *account) learn(limit, version int64) {
	if version > a.grantVersion {
		a.grantLimit, a.grantVersion = limit, version
	}
}

// current reports whether the last answer of Redis knew the newest limit.
func (a *account) current() bool { return a.version >= a.grantVersion }

// exceeds reports whether tokens do not fit into limit − settled, as far as is known.
func (a *account) exceeds(tokens int64) bool {
	if tokens > maxTokens {
		return true
	}
	return a.answeredAt != 0 && tokens > max(a.newest()-a.settled-a.unsettled, 0)
}

// newest is the newest limit that is known.
func (a *account) newest() int64 {
	if a.current() {
		return a.limit
	}
	return a.grantLimit
}

// build makes the next call. With open false it asks for nothing more than there is. With
// surrender it first gives up what is idle, so that replicas that each have too little do
// not wait for each other.
func (a *account) build(epoch int64, life uint64, open, surrender bool) call {
	a.calls++
	n := min(len(a.pending), maxBatch)
	c := call{
		epoch: epoch, number: callNumber(life, a.calls), batch: slices.Clip(a.pending[:n]),
		limit: min(max(a.grantLimit, 0), maxTokens), version: max(a.grantVersion, 0),
	}
	for _, s := range c.batch {
		c.sum += s.tokens
	}
	keep := a.idle()
	if surrender {
		keep = 0
	}
	if len(a.waiting) == 0 {
		keep = min(keep, 2*a.spare)
	}
	a.lease -= a.idle() - keep
	c.floor = a.lease - c.sum
	c.surrender = keep == 0
	if !open {
		return c
	}
	least := int64(maxTokens + 1) // more than there can be
	for _, w := range a.waiting {
		if a.exceeds(w.tokens) {
			continue // it waits for the answer, but would only keep others from theirs
		}
		if w.asked == 0 {
			w.asked = a.calls
		}
		c.need = addSat(c.need, w.tokens)
		least = min(least, w.tokens)
	}
	c.need = min(max(c.need-keep, 0), maxTokens)
	switch {
	case len(a.waiting) == 0:
	case least > maxTokens:
		c.least = least
	default:
		c.least = max(least-keep, 0)
	}
	if len(a.waiting) > 0 || !surrender {
		c.spare = min(max(a.spare-keep, 0), maxTokens)
	}
	return c
}

// apply makes the answer to c effective. What was idle above the limit, if that has been
// lowered, is given up at once; Redis hears of it with the next call.
func (a *account) apply(c *call, r reply) {
	n := 0
	for ; n < len(a.pending) && a.pending[n].seq <= r.mark; n++ {
		a.unsettled -= a.pending[n].tokens
	}
	a.pending = a.pending[n:]
	if len(a.pending) == 0 {
		a.pending = nil
	}
	a.lease = r.lease
	a.limit, a.version, a.settled, a.others = r.limit, r.version, r.settled, r.others
	if len(a.pending) > 0 { // what was used meanwhile, or more than one call carries
		a.later()
	}
	if above := min(a.idle(), -a.free()); above > 0 {
		a.lease -= above
		a.mark(true)
	}
}

// free is what nobody leased as of the last answer; less than 0 once the limit was lowered.
func (a *account) free() int64 { return a.limit - a.settled - a.others - a.lease }

// serve gives what is idle to those who wait, in their order.
func (a *account) serve(now time.Duration) {
	a.waiting = slices.DeleteFunc(a.waiting, func(w *wait) bool {
		w.granted = a.take(w.tokens, now)
		return w.granted
	})
}

// unwait takes a reservation off the list.
func (a *account) unwait(w *wait) {
	if i := slices.Index(a.waiting, w); i >= 0 {
		a.waiting = slices.Delete(a.waiting, i, i+1)
	}
}

// impatient reports whether somebody waits whom a call did not help.
func (a *account) impatient() bool {
	return slices.ContainsFunc(a.waiting, func(w *wait) bool { return w.asked > 0 })
}

// answer says what is known, with the given verdict.
func (a *account) answer(v Verdict, tokens int64) Answer {
	out := Answer{Verdict: v, Limit: a.newest(), Settled: a.settled + a.unsettled, Held: a.held}
	if v == Granted {
		out.Hold = Hold{Customer: a.key.customer, PeriodID: a.key.period, Tokens: tokens}
	}
	return out
}

// empty reports whether nothing would be lost with the account.
func (a *account) empty() bool {
	return a.lease == 0 && a.held == 0 && a.unsettled == 0 && len(a.waiting) == 0 && a.flight == nil && !a.dirty
}

// settledUpTo returns the number up to which all of the account's events are in Redis.
func (a *account) settledUpTo() int64 {
	if len(a.pending) == 0 {
		return math.MaxInt64
	}
	return a.pending[0].seq - 1
}
