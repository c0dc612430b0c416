package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// attempt is one request of the load as its client saw it. The number in the name of the
// model that it asks for is what names it in the books, whoever died.
type attempt struct {
	id       int // also in the traceparent that the upstream sees
	customer int
	model    string
	kind     *kind
	stream   bool
	bodyLen  int64
	cap      int64 // output tokens, as asked for
	proxy    int
	start    time.Time

	// What came of it; valid when done.
	done      bool
	status    int    // 0: no head came
	refusal   string // type of the error, when refused
	used      int64  // with monthly_limit_exceeded, as it says
	limit     int64
	requestID string
	received  int64 // completion tokens that came
	got       bool  // something of an answer came
	whole     bool  // it came to its own end
	abandoned bool  // its client hung up
}

// row is one row of usage_events.
type row struct {
	replica, requestID, upstreamID, customer, model string
	seq                                             int64
	admitted                                        time.Time
	prompt, cached, completion, reasoning           int64
	settled, unbilled, reserved                     int64
	basis, outcome                                  string
}

// books are the counters of one customer when all is over.
type books struct {
	id         string
	limit      int64
	redis      *int64 // settled; nil if Redis has no record
	held       int64  // held or leased in Redis
	postgres   int64  // settled, in the period's totals
	requests   int64
	overBy     int64 // the most that Redis or Postgres ever said above the limit
	overAt     time.Time
	overWhere  string
	unserved   string // why a request that fits into what is left was not served in the end
	limitMoved int
}

// facts are everything that is known of a run when it is over.
type facts struct {
	attempts    []*attempt
	entries     []kimisim.Entry // of the simulator
	rows        []row
	books       []books         // by customer's number
	lost        map[string]bool // request ids, and modelKeys, that stood in a journal that was lost
	deadLetters []string
	crashes     []string // processes that ended by themselves, files that were set aside as damaged
	late        []string // what was not over within its bound
	weak        []string // what was missing for the run to prove anything
	verify      string   // what `openclawctl ledger verify` complains of
}

// The violations, as the summary names them.
const (
	vMissing   = "missing"
	vTwice     = "twice"
	vUnknown   = "of no request"
	vResent    = "sent twice"
	vDifferent = "different"
	vOutside   = "outside"
	vInexact   = "not exact"
	vOver      = "over the limit"
	vBooks     = "books differ"
	vHeld      = "still held"
	vRefused   = "refused wrongly"
	vUnserved  = "not served"
	vDead      = "dead letters"
	vCrashed   = "crashed"
	vLate      = "not in time"
	vWeak      = "too weak"
)

// promises says for each violation what it breaks.
var promises = []struct{ name, promise string }{
	{vMissing, "one row per forwarded request: none missing"},
	{vTwice, "one row per forwarded request: none twice"},
	{vUnknown, "a row belongs to a request"},
	{vResent, "a request is sent upstream once"},
	{vDifferent, "rows of basis upstream equal the upstream's own count"},
	{vOutside, "rows of basis estimated or recovered are within [relayed, reserved]"},
	{vInexact, "an answer that came whole, with its count, is billed by that count"},
	{vOver, "settled never exceeds the limit"},
	{vBooks, "rows, totals in Postgres and counters in Redis agree"},
	{vHeld, "nothing is held or leased when nothing is in flight"},
	{vRefused, "a valid token that has tokens left is not refused for lack of either"},
	{vUnserved, "a request that fits into what is left is served"},
	{vDead, "no event is parked"},
	{vCrashed, "no process ends by itself, no file is damaged"},
	{vLate, "all is settled in time after the faults"},
	{vWeak, "the drill itself was hard enough"},
}

// violation is one broken promise.
type violation struct {
	what     string // one of the names above
	customer int    // -1: of no customer
	text     string
}

// line is what the table shows of one customer.
type line struct {
	forwarded int // requests that the upstream saw
	rows      int
	basis     map[string]*basisSum
	lost      int // rows missing that stood in a lost journal
	count     map[string]int
}

// basisSum adds up the rows of one basis.
type basisSum struct {
	rows                      int
	ledger                    int64 // what the upstream counted, or had produced
	billed, relayed, reserved int64
}

// verdict is what a run came to.
type verdict struct {
	lines      []line // by customer
	violations []violation
	lost       int
}

func (v *verdict) blame(what string, customer int, format string, args ...any) {
	v.violations = append(v.violations, violation{what, customer, fmt.Sprintf(format, args...)})
	if customer >= 0 {
		v.lines[customer].count[what]++
	}
}

// total counts the violations of one name.
func (v *verdict) total(what string) int {
	n := 0
	for _, x := range v.violations {
		if x.what == what {
			n++
		}
	}
	return n
}

// judge compares what the clients, the simulator, Postgres and Redis say.
func judge(f *facts) *verdict {
	v := &verdict{lines: make([]line, len(f.books))}
	for i := range v.lines {
		v.lines[i] = line{basis: map[string]*basisSum{}, count: map[string]int{}}
	}
	entries := v.matchEntries(f)
	rows := v.matchRows(f)
	for _, a := range f.attempts {
		v.judgeAttempt(f, a, entries[a.id], rows[a.id])
	}
	for i := range f.books {
		v.judgeBooks(f, i)
	}
	if f.verify != "" {
		v.blame(vBooks, -1, "%s", f.verify)
	}
	for what, texts := range map[string][]string{vDead: f.deadLetters, vCrashed: f.crashes, vLate: f.late, vWeak: f.weak} {
		for _, text := range texts {
			v.blame(what, -1, "%s", text)
		}
	}
	return v
}

// matchEntries finds for each attempt what the simulator says of it.
func (v *verdict) matchEntries(f *facts) map[int]*kimisim.Entry {
	byID := make(map[int]*kimisim.Entry, len(f.entries))
	known := make(map[int]*attempt, len(f.attempts))
	for _, a := range f.attempts {
		known[a.id] = a
	}
	for i := range f.entries {
		e := &f.entries[i]
		if e.Kind != kimisim.KindChat {
			continue
		}
		id, ok := attemptOf(e.Header.Get("Traceparent"))
		a := known[id]
		switch {
		case !ok || a == nil:
			v.blame(vUnknown, -1, "the upstream saw a request that nobody sent: %s, traceparent %q", e.ID, e.Header.Get("Traceparent"))
		case byID[id] != nil:
			v.blame(vResent, a.customer, "attempt %d (%s) reached the upstream as %s and as %s", id, a.kind.name, byID[id].ID, e.ID)
		default:
			byID[id] = e
			v.lines[a.customer].forwarded++
		}
	}
	return byID
}

// clockSkew is what times of different processes of one machine may be apart.
const clockSkew = 2 * time.Second

// matchRows finds the rows of each attempt: by customer and model, and, as names of
// models return in a long run, by request id or time.
func (v *verdict) matchRows(f *facts) map[int][]*row {
	type key struct {
		customer int
		model    string
	}
	attempts := map[key][]*attempt{}
	for _, a := range f.attempts {
		k := key{a.customer, a.model}
		attempts[k] = append(attempts[k], a)
	}
	customers := map[string]int{}
	for i, b := range f.books {
		customers[b.id] = i
	}
	out := map[int][]*row{}
	for i := range f.rows {
		r := &f.rows[i]
		c, ok := customers[r.customer]
		if !ok {
			v.blame(vUnknown, -1, "row %s-%d is of customer %s, who is not of this run", r.replica, r.seq, r.customer)
			continue
		}
		v.lines[c].rows++
		var of *attempt
		for _, a := range attempts[key{c, r.model}] {
			if a.requestID != "" && a.requestID == r.requestID {
				of = a
				break
			}
			if !a.start.After(r.admitted.Add(clockSkew)) && (of == nil || a.start.After(of.start)) {
				of = a
			}
		}
		if of == nil {
			v.blame(vUnknown, c, "row %s-%d (request %s, model %s, %s) belongs to no request", r.replica, r.seq, r.requestID, r.model, r.basis)
			continue
		}
		out[of.id] = append(out[of.id], r)
	}
	return out
}

func (v *verdict) judgeAttempt(f *facts, a *attempt, e *kimisim.Entry, rows []*row) {
	l := &v.lines[a.customer]
	switch {
	case a.status == 401:
		v.blame(vRefused, a.customer, "attempt %d: a valid token was answered 401 by proxy %d", a.id, a.proxy)
	case a.refusal == monthlyReached && a.limit-a.used >= a.bodyLen+spareOutput:
		v.blame(vRefused, a.customer, "attempt %d: refused as above the monthly limit with %d of %d used and a body of %d bytes", a.id, a.used, a.limit, a.bodyLen)
	}
	if len(rows) == 0 {
		switch {
		case e == nil:
		case f.lost[a.requestID] && a.requestID != "" || f.lost[modelKey(f.books[a.customer].id, a.model)]:
			l.lost++
			v.lost++
		default:
			v.blame(vMissing, a.customer, "attempt %d (%s, proxy %d, request %s) reached the upstream as %s at %s (%s, %d tokens produced) and has no row",
				a.id, a.kind.name, a.proxy, a.requestID, e.ID, e.Time.Format(clock), e.Outcome, e.ProducedTokens)
		}
		return
	}
	for _, r := range rows[1:] {
		v.blame(vTwice, a.customer, "attempt %d (%s, proxy %d) has the rows %s-%d and %s-%d (requests %s and %s, %s and %s)",
			a.id, a.kind.name, a.proxy, rows[0].replica, rows[0].seq, r.replica, r.seq, rows[0].requestID, r.requestID, rows[0].basis, r.basis)
	}
	for _, r := range rows {
		v.judgeRow(a, e, r)
	}
}

// clock is how times are shown.
const clock = "15:04:05.000"

func (v *verdict) judgeRow(a *attempt, e *kimisim.Entry, r *row) {
	sum := v.lines[a.customer].basis[r.basis]
	if sum == nil {
		sum = &basisSum{}
		v.lines[a.customer].basis[r.basis] = sum
	}
	sum.rows++
	sum.billed += r.settled
	sum.reserved += r.reserved
	at := fmt.Sprintf("attempt %d (%s, proxy %d): row %s-%d (%s, %s)", a.id, a.kind.name, a.proxy, r.replica, r.seq, r.basis, r.outcome)

	if r.settled > r.reserved || r.reserved > a.bodyLen+a.cap {
		v.blame(vOutside, a.customer, "%s: %d settled of %d reserved; the body has %d bytes and asks for %d tokens at most", at, r.settled, r.reserved, a.bodyLen, a.cap)
	}
	if r.settled+r.unbilled != r.prompt+r.completion {
		v.blame(vDifferent, a.customer, "%s: %d settled and %d unbilled of %d + %d tokens", at, r.settled, r.unbilled, r.prompt, r.completion)
	}
	// Only what the simulator handed out can have been relayed.
	var prompt, completion, cached, reasoning int64
	if e != nil {
		prompt, completion, cached, reasoning = int64(e.PromptTokens), int64(e.CompletionTokens), int64(e.CachedTokens), int64(e.ReasoningTokens)
	}
	if r.basis == "upstream" {
		switch {
		case r.prompt+r.completion == 0 && r.outcome == "upstream_error" && a.received == 0:
			// An answer that was an error: the upstream counts nothing.
		case e == nil:
			v.blame(vDifferent, a.customer, "%s: billed %d + %d, and the upstream never saw it", at, r.prompt, r.completion)
		case r.prompt != prompt || r.completion != completion || r.cached != cached || r.reasoning != reasoning || r.settled != min(prompt+completion, r.reserved):
			v.blame(vDifferent, a.customer, "%s: billed %d (%d cached) + %d (%d reasoning), %d settled; the upstream counted %d (%d) + %d (%d)",
				at, r.prompt, r.cached, r.completion, r.reasoning, r.settled, prompt, cached, completion, reasoning)
		}
		sum.ledger += prompt + completion
		return
	}
	// What an upstream sends beyond the cap that it was given was never reserved: the
	// customer is not billed for it.
	output := min(a.received, a.cap)
	if e != nil && e.OutputCap >= 0 {
		output = min(output, int64(e.OutputCap))
	}
	relayed := int64(0)
	if a.got {
		relayed = max(prompt+output, 1)
	}
	sum.relayed += relayed
	if e != nil {
		sum.ledger += prompt + int64(e.ProducedTokens)
	}
	if r.completion < output || r.settled < relayed {
		v.blame(vOutside, a.customer, "%s: %d + %d tokens, %d settled; at least %d + %d were relayed", at, r.prompt, r.completion, r.settled, prompt, output)
	}
	if a.whole && e != nil && e.UsageSent && !a.kind.noCount {
		v.blame(vInexact, a.customer, "%s: the answer came whole with its count of %d + %d, and is billed %d", at, prompt, completion, r.settled)
	}
}

func (v *verdict) judgeBooks(f *facts, i int) {
	b := &f.books[i]
	var settled, requests int64
	for j := range f.rows {
		if f.rows[j].customer == b.id {
			settled += f.rows[j].settled
			requests++
		}
	}
	if b.postgres != settled || b.requests != requests {
		v.blame(vBooks, i, "%d rows with %d tokens; the totals in Postgres say %d and %d", requests, settled, b.requests, b.postgres)
	}
	switch {
	case b.redis == nil && settled > 0:
		v.blame(vBooks, i, "Redis has no record of the %d tokens in Postgres", settled)
	case b.redis != nil && *b.redis != b.postgres:
		v.blame(vBooks, i, "Redis says %d settled, Postgres %d (%+d)", *b.redis, b.postgres, *b.redis-b.postgres)
	}
	if b.held != 0 {
		v.blame(vHeld, i, "%d tokens are still held or leased", b.held)
	}
	if b.overBy > 0 {
		v.blame(vOver, i, "%s said %d tokens more than the limit allowed, at %s", b.overWhere, b.overBy, b.overAt.Format(clock))
	}
	if b.unserved != "" {
		v.blame(vUnserved, i, "%s", b.unserved)
	}
}

// modelKey names an attempt in a journal, where its client never learnt the request id.
func modelKey(customer, model string) string { return customer + "/" + model }

// sorted returns the violations in the order of promises.
func (v *verdict) sorted() []violation {
	rank := map[string]int{}
	for i, p := range promises {
		rank[p.name] = i
	}
	out := slices.Clone(v.violations)
	slices.SortStableFunc(out, func(a, b violation) int { return rank[a.what] - rank[b.what] })
	return out
}
