package main

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

var t0 = time.Date(2031, 5, 1, 10, 0, 0, 0, time.UTC)

// made is a run in which every promise was kept: customer 0 with one request of each
// basis and one that the proxy refused, customer 1 with one request.
func made() *facts {
	complete := &kind{name: "complete"}
	a := func(id, customer int, model string, change func(*attempt)) *attempt {
		x := &attempt{
			id: id, customer: customer, model: model, kind: complete, stream: true, bodyLen: 400, cap: 100,
			start: t0.Add(time.Duration(id) * time.Second), done: true, status: 200, requestID: "req" + model, got: true, received: 20, whole: true,
		}
		change(x)
		return x
	}
	entry := func(id, produced int, usage bool) kimisim.Entry {
		return kimisim.Entry{
			ID: "up", Kind: kimisim.KindChat, Header: http.Header{"Traceparent": {traceparent(id)}}, PromptTokens: 100, CachedTokens: 10,
			CompletionTokens: 20, ReasoningTokens: 5, ProducedTokens: produced, OutputCap: 100, UsageSent: usage, Time: t0.Add(time.Duration(id) * time.Second),
		}
	}
	r := func(id int, seq int64, customer, model, basis, outcome string, completion int64) row {
		return row{
			replica: "r", seq: seq, requestID: "req" + model, customer: customer, model: model, admitted: t0.Add(time.Duration(id) * time.Second),
			prompt: 100, cached: 10, completion: completion, reasoning: 5, settled: 100 + completion, reserved: 500, basis: basis, outcome: outcome,
		}
	}
	redis0, redis1 := int64(120+150+200), int64(120)
	f := &facts{
		attempts: []*attempt{
			a(1, 0, "m1", func(*attempt) {}),
			a(2, 0, "m2", func(x *attempt) { x.whole, x.received = false, 12 }),
			a(3, 0, "m3", func(x *attempt) { x.whole, x.received, x.requestID = false, 7, "" }),
			a(4, 0, "m4", func(x *attempt) {
				x.status, x.got, x.whole, x.received, x.refusal = 503, false, false, 0, "quota_unavailable"
			}),
			a(5, 1, "m1", func(*attempt) {}),
		},
		entries: []kimisim.Entry{entry(1, 20, true), entry(2, 14, false), entry(3, 9, false), entry(5, 20, true), {Kind: kimisim.KindEstimate}},
		rows: []row{
			r(1, 1, "c0", "m1", "upstream", "ok", 20),
			r(2, 2, "c0", "m2", "estimated", "client_gone", 50),
			r(3, 3, "c0", "m3", "recovered", "proxy_crashed", 100),
			r(5, 4, "c1", "m1", "upstream", "ok", 20),
		},
		books: []books{
			{id: "c0", limit: 1000, redis: &redis0, postgres: redis0, requests: 3},
			{id: "c1", limit: 1000, redis: &redis1, postgres: redis1, requests: 1},
		},
		lost: map[string]bool{},
	}
	f.rows[2].requestID = "nobody learnt it"
	return f
}

func TestNothingIsWrongWithARunThatIsRight(t *testing.T) {
	v := judge(made())
	for _, x := range v.violations {
		t.Error(x)
	}
	l := v.lines[0]
	if l.forwarded != 3 || l.rows != 3 || l.basis["upstream"].rows != 1 || l.basis["estimated"].relayed != 112 || l.basis["recovered"].billed != 200 {
		t.Errorf("customer 0: %+v", l)
	}
}

// Each sort of wrong data is found, and as what it is.
func TestEachViolationIsFound(t *testing.T) {
	inRow := func(i int, change func(*row)) func(*facts) { return func(f *facts) { change(&f.rows[i]) } }
	for _, c := range []struct {
		name   string
		change func(*facts)
		want   []string // sorted
	}{
		{"a row is missing", func(f *facts) { f.rows = slices.Delete(f.rows, 1, 2) }, []string{vBooks, vMissing}},
		{"the row of a killed request is missing", func(f *facts) { f.rows = slices.Delete(f.rows, 2, 3) }, []string{vBooks, vMissing}},
		{"a lost journal excuses only its own requests", func(f *facts) {
			f.lost[modelKey("c0", "m2")], f.lost["reqm3"] = true, true
			f.rows = slices.Delete(f.rows, 2, 3)
		}, []string{vBooks, vMissing}},
		{"a row is there twice", func(f *facts) {
			r := f.rows[1]
			r.seq = 9
			f.rows = append(f.rows, r)
		}, []string{vBooks, vTwice}},
		{"a recovered request has an event as well", func(f *facts) {
			r := f.rows[2]
			r.replica, r.requestID, r.basis = "r2", "another name", "estimated"
			f.rows = append(f.rows, r)
		}, []string{vBooks, vTwice}},
		{"a row of a model that nobody asked for", inRow(0, func(r *row) { r.model = "m77" }), []string{vMissing, vUnknown}},
		{"a row of a customer that there is not", inRow(3, func(r *row) { r.customer = "c9" }), []string{vBooks, vMissing, vUnknown}},
		{"a row from before the request", inRow(0, func(r *row) { r.requestID, r.admitted = "x", t0.Add(-time.Hour) }), []string{vMissing, vUnknown}},
		{"the upstream saw what nobody sent", func(f *facts) { f.entries[0].Header = http.Header{"Traceparent": {traceparent(99)}} }, []string{vDifferent, vUnknown}},
		{"the upstream saw it twice", func(f *facts) { f.entries = append(f.entries, f.entries[1]) }, []string{vResent}},
		{"prompt differs", inRow(0, func(r *row) { r.prompt--; r.completion++ }), []string{vDifferent}},
		{"cached differs", inRow(0, func(r *row) { r.cached++ }), []string{vDifferent}},
		{"reasoning differs", inRow(0, func(r *row) { r.reasoning++ }), []string{vDifferent}},
		{"less is settled than counted", inRow(0, func(r *row) { r.settled -= 5; r.unbilled += 5 }), []string{vBooks, vDifferent}},
		{"settled does not follow from the counts", inRow(1, func(r *row) { r.completion++ }), []string{vDifferent}},
		{"billed as the upstream's, which never saw it", func(f *facts) { f.entries = slices.Delete(f.entries, 0, 1) }, []string{vDifferent}},
		{"nothing is billed for an answer that came", inRow(0, func(r *row) { r.prompt, r.completion, r.settled, r.outcome = 0, 0, 0, "upstream_error" }), []string{vBooks, vDifferent}},
		{"estimated below what was relayed", inRow(1, func(r *row) { r.completion, r.settled = 11, 111 }), []string{vBooks, vOutside}},
		{"recovered without the prompt", inRow(2, func(r *row) { r.prompt, r.settled = 0, 100 }), []string{vBooks, vOutside}},
		{"nothing for a byte that was relayed", inRow(2, func(r *row) { r.prompt, r.completion, r.settled = 0, 0, 0 }), []string{vBooks, vOutside}},
		{"more settled than reserved", inRow(1, func(r *row) { r.reserved = 149 }), []string{vOutside}},
		{"more reserved than the request can need", inRow(1, func(r *row) { r.reserved = 501 }), []string{vOutside}},
		{"a whole answer is estimated", inRow(0, func(r *row) { r.basis = "estimated" }), []string{vInexact}},
		{"a whole answer is recovered", inRow(0, func(r *row) { r.basis = "recovered" }), []string{vInexact}},
		{"above the limit for a moment", func(f *facts) { f.books[0].overBy, f.books[0].overWhere = 1, "Redis" }, []string{vOver}},
		{"Redis has less than Postgres", func(f *facts) { *f.books[1].redis -= 1 }, []string{vBooks}},
		{"Redis has no record", func(f *facts) { f.books[1].redis = nil }, []string{vBooks}},
		{"Postgres' totals are not the rows'", func(f *facts) { f.books[1].postgres++; *f.books[1].redis++ }, []string{vBooks}},
		{"Postgres counts other requests", func(f *facts) { f.books[1].requests++ }, []string{vBooks}},
		{"the system's own comparison complains", func(f *facts) { f.verify = "1 of 2 periods differ" }, []string{vBooks}},
		{"something is held", func(f *facts) { f.books[0].held = 1 }, []string{vHeld}},
		{"the last request was not served", func(f *facts) { f.books[0].unserved = "429" }, []string{vUnserved}},
		{"a valid token was unknown", func(f *facts) { f.attempts[3].status = 401 }, []string{vRefused}},
		{"refused with tokens left", func(f *facts) {
			a := f.attempts[3]
			a.status, a.refusal, a.used, a.limit = 429, monthlyReached, 300, 1000
		}, []string{vRefused}},
		{"an event was parked", func(f *facts) { f.deadLetters = []string{"1-1"} }, []string{vDead}},
		{"a process ended by itself", func(f *facts) { f.crashes = []string{"proxy"} }, []string{vCrashed}},
		{"the run proves nothing", func(f *facts) { f.weak = []string{"no kills"} }, []string{vWeak}},
		{"something never ended", func(f *facts) { f.late = []string{"stream"} }, []string{vLate}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := made()
			c.change(f)
			v := judge(f)
			var got []string
			for _, p := range promises {
				if v.total(p.name) > 0 {
					got = append(got, p.name)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("found %q, want %q: %v", got, c.want, v.violations)
			}
		})
	}
}

// What looks like a violation and is none.
func TestWhatIsAllowed(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*facts)
	}{
		{"refused with too little left for prompt and answer", func(f *facts) {
			a := f.attempts[3]
			a.status, a.refusal, a.used, a.limit = 429, monthlyReached, 400, 1000
		}},
		{"a row of a request that never reached the upstream", func(f *facts) {
			f.entries = slices.Delete(f.entries, 1, 2)
			f.attempts[1].got, f.attempts[1].received = false, 0
		}},
		{"an error of the upstream costs nothing", func(f *facts) {
			f.attempts[0].status, f.attempts[0].got, f.attempts[0].received = 400, false, 0
			r := &f.rows[0]
			r.prompt, r.cached, r.completion, r.reasoning, r.settled, r.outcome = 0, 0, 0, 0, 0, "upstream_error"
			f.books[0].postgres -= 120
			*f.books[0].redis -= 120
		}},
		{"an upstream that counts more than it was allowed", func(f *facts) {
			f.entries[0].CompletionTokens = 900
			r := &f.rows[0]
			r.completion, r.settled, r.unbilled = 900, 500, 500
			f.books[0].postgres += 380
			*f.books[0].redis += 380
		}},
		{"what was relayed beyond the cap is not billed", func(f *facts) {
			f.attempts[1].received, f.attempts[2].received = 600, 600
			f.entries[1].OutputCap = 50 // lowered by the proxy
		}},
		{"a whole answer without a count", func(f *facts) {
			f.rows[0].basis, f.entries[0].UsageSent = "estimated", false
		}},
		{"a name of a model that returns", func(f *facts) {
			again := *f.attempts[4]
			again.id, again.start, again.requestID = 6, t0.Add(time.Hour), ""
			f.attempts = append(f.attempts, &again)
			e := f.entries[3]
			e.Header = http.Header{"Traceparent": {traceparent(6)}}
			f.entries = append(f.entries, e)
			r := f.rows[3]
			r.seq, r.requestID, r.admitted = 5, "another", t0.Add(time.Hour)
			f.rows = append(f.rows, r)
			f.books[1].postgres, f.books[1].requests = 240, 2
			*f.books[1].redis = 240
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := made()
			c.change(f)
			for _, x := range judge(f).violations {
				t.Error(x)
			}
		})
	}
}

func TestLostWithItsJournal(t *testing.T) {
	f := made()
	f.lost[modelKey("c0", "m3")] = true
	f.rows = slices.Delete(f.rows, 2, 3)
	f.books[0].postgres, f.books[0].requests = 270, 2
	*f.books[0].redis = 270
	v := judge(f)
	if len(v.violations) != 0 || v.lost != 1 || v.lines[0].lost != 1 {
		t.Errorf("%d lost, %v", v.lost, v.violations)
	}
}

func TestTheTableShowsIt(t *testing.T) {
	f := made()
	f.rows = slices.Delete(f.rows, 1, 2)
	f.books[1].held = 12_345
	in := newInjector(nil, nil, nil, 1, nil)
	in.kills = []kill{{kind: killProxy, proxy: true, streams: 60}, {kind: killProxyAt, point: "a.b.before", proxy: true, streams: 40}, {kind: killRedis}}
	in.counts = map[string]int{"FLUSHALL": 3}
	var b bytes.Buffer
	show(&b, f, judge(f), in, 7)
	for _, want := range []string{"12,345", "BROKEN     1 missing", "BROKEN     1 still held", "kills 3, of these at commit points 1; kills of proxies 2, with 50 or more streams open there 1", "3  FLUSHALL", "a.b.before", "attempt 2"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, b.String())
		}
	}
}

func TestCeilings(t *testing.T) {
	see := func(c *ceiling, settled, held int64, trusted bool) {
		c.see("Redis", c.limit, settled, held, trusted, t0)
	}
	c := &ceiling{limit: 100, allowed: 100}
	see(c, 100, 0, true)
	if c.overBy != 0 {
		t.Errorf("%d over at the limit", c.overBy)
	}
	c.raise(200)
	see(c, 150, 0, true)
	c.lower(120)
	see(c, 180, 0, false) // held at the time of the change
	if c.overBy != 0 || c.allowed != 200 {
		t.Errorf("%d over, %d allowed before the change is seen", c.overBy, c.allowed)
	}
	see(c, 160, 25, true)
	if c.allowed != 185 {
		t.Errorf("%d allowed, want what was settled and held", c.allowed)
	}
	see(c, 186, 0, true)
	if c.overBy != 1 || c.overWhere != "Redis" {
		t.Errorf("%d over in %q, want 1 in Redis", c.overBy, c.overWhere)
	}
	c.see("Postgres", -1, 190, 0, false, t0)
	if c.overBy != 5 || c.overWhere != "Postgres" {
		t.Errorf("%d over in %q, want 5 in Postgres", c.overBy, c.overWhere)
	}
}
