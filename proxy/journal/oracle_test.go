package journal

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// phase is how far a call on a slot came: begun, or returned as well.
type phase uint8

const (
	never phase = iota
	called
	returned
)

// request is what a test knows of one request: what it asked the journal to keep, and
// which of it the journal said it keeps.
type request struct {
	intent                         Intent
	begin, sent, complete, abandon phase
	advCalled, advReturned         int64 // highest completion tokens
	event                          contract.Event
}

// oracle is what a test knows of a whole journal.
type oracle struct {
	requests map[string]*request
	shipped  map[int64]contract.Event // what Next returned
}

func newOracle() *oracle {
	return &oracle{requests: make(map[string]*request), shipped: make(map[int64]contract.Event)}
}

func testIntent(id string) Intent {
	return Intent{
		AdmittedAt: time.Date(2026, 7, 1, 12, 0, 0, 123456000, time.UTC), PeriodID: "2026-07", RequestID: id,
		CustomerID: "cust-1", BoxID: "box-1", TokenID: "tok-1", Tier: "pro",
		ModelAsked: "kimi", ModelServed: "kimi-k2.5", Face: contract.FaceOpenAI, Upstream: "moonshot",
		Reserved: 6000, Weights: contract.Weights{Prompt: 1, Cached: 1, Completion: 1}, PromptBound: 1000, OutputBound: 5000,
	}
}

// testEvent is an event as a proxy makes it at the end of a request.
func testEvent(in *Intent, completion int64) contract.Event {
	e := in.event()
	e.UpstreamRequestID = "up-" + in.RequestID
	e.Prompt, e.Cached, e.Completion, e.Reasoning = 700, 100, completion, completion/2
	e.Settled = 700 + completion
	e.Basis, e.Outcome, e.Status = contract.BasisUpstream, contract.OutcomeOK, 200
	e.TTFBMicros, e.DurationMicros = 1500, 92000
	return e
}

// check compares a journal that was opened after a kill with what was known before it.
func (o *oracle) check(j *Journal) error {
	events, err := j.Next(0, math.MaxInt)
	if err != nil {
		return err
	}
	byID := make(map[string][]contract.Event)
	for seq := int64(1); seq <= j.Forgotten(); seq++ {
		e, ok := o.shipped[seq]
		if !ok {
			return fmt.Errorf("event %d is forgotten and was never shipped", seq)
		}
		byID[e.RequestID] = append(byID[e.RequestID], e)
	}
	want := j.Forgotten() + 1
	for _, e := range events {
		if e.Seq != want {
			return fmt.Errorf("event %d where %d should be", e.Seq, want)
		}
		want++
		if was, ok := o.shipped[e.Seq]; ok && was != e {
			return fmt.Errorf("event %d was shipped as %+v and is now %+v", e.Seq, was, e)
		}
		if err := e.Validate(); err != nil {
			return err
		}
		byID[e.RequestID] = append(byID[e.RequestID], e)
	}
	for seq := range o.shipped {
		if seq >= want {
			return fmt.Errorf("event %d was shipped and is gone", seq)
		}
	}
	if got := j.Last(); got != want-1 {
		return fmt.Errorf("last is %d, and %d is there", got, want-1)
	}
	for id := range byID {
		if o.requests[id] == nil {
			return fmt.Errorf("an event of request %q, which never was", id)
		}
	}
	for id, r := range o.requests {
		if err := r.check(byID[id]); err != nil {
			return fmt.Errorf("request %s (%+v): %w", id, *r, err)
		}
	}
	if s := j.Stats(); s.Open != 0 {
		return fmt.Errorf("%d slots are open after recovery", s.Open)
	}
	return nil
}

func (r *request) check(events []contract.Event) error {
	least, most := 0, 0
	switch {
	case r.complete == returned:
		least, most = 1, 1
	case r.abandon == returned:
	case r.abandon == called:
		most = 1
	case r.sent == returned:
		least, most = 1, 1
	case r.sent == called, r.complete == called:
		most = 1
	}
	if len(events) < least || len(events) > most {
		return fmt.Errorf("has %d events, should have %d to %d: %+v", len(events), least, most, events)
	}
	for _, e := range events {
		e.Seq, e.Replica = 0, ""
		if e.Basis != contract.BasisRecovered {
			if want := r.event; r.complete == never || e != want {
				return fmt.Errorf("event %+v should be %+v", e, want)
			}
			continue
		}
		if r.complete == returned {
			return fmt.Errorf("was complete and is recovered as %+v", e)
		}
		if e.Outcome != contract.OutcomeProxyCrashed || e.Completion < r.advReturned || e.Completion > r.advCalled {
			return fmt.Errorf("recovered as %+v, should have %d to %d completion tokens", e, r.advReturned, r.advCalled)
		}
		if e.Settled+e.Unbilled != e.Prompt+e.Completion || e.Prompt != r.intent.PromptBound && e.Prompt != 700 {
			return fmt.Errorf("recovered as %+v", e)
		}
	}
	return nil
}

// script drives a journal and keeps the oracle.
type script struct {
	t testing.TB
	j *Journal
	o *oracle
	n int
}

type scripted struct {
	*request
	slot Slot
}

func (s *script) begin() scripted {
	s.t.Helper()
	s.n++
	r := &request{intent: testIntent(fmt.Sprintf("req-%d", s.n)), begin: called}
	s.o.requests[r.intent.RequestID] = r
	slot, err := s.j.Begin(&r.intent)
	if err != nil {
		s.t.Fatal(err)
	}
	r.begin = returned
	return scripted{r, slot}
}

func (s *script) send(r scripted) {
	r.sent = called
	r.slot.Sent()
	r.sent = returned
}

func (s *script) advance(r scripted, completion int64) {
	r.advCalled = max(r.advCalled, completion)
	r.slot.Advance(700*(completion%2), 100, completion, completion/2, true)
	r.advReturned = max(r.advReturned, completion)
}

func (s *script) complete(r scripted, completion int64) {
	s.t.Helper()
	r.event = testEvent(&r.intent, completion)
	r.complete = called
	e := r.event
	if r.slot.Complete(&e) == 0 {
		s.t.Fatal("Complete did nothing")
	}
	r.complete = returned
}

func (s *script) abandon(r scripted) {
	r.abandon = called
	r.slot.Abandon()
	r.abandon = returned
}

// ship reads everything and forgets up to a number.
func (s *script) ship(upTo int64) {
	s.t.Helper()
	events, err := s.j.Next(s.j.Forgotten(), math.MaxInt)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range events {
		s.o.shipped[e.Seq] = e
	}
	if err := s.j.Forget(upTo); err != nil {
		s.t.Fatal(err)
	}
}

// inMemory returns an empty journal that no file is behind.
func inMemory(slots int, logBytes int64) []byte {
	o, _ := Options{}.withDefaults()
	g := geometry{slots: slots, logBytes: logBytes}
	b := make([]byte, g.fileBytes())
	copy(b, newHeader(newIdentity(g, o), state{}))
	return b
}

func attachBytes(b []byte) (*Journal, error) {
	o, _ := Options{}.withDefaults()
	return attach(mapping{b: b}, o, [2]uint64{1, 2})
}

func mustAttach(t testing.TB, b []byte) *Journal {
	t.Helper()
	j, err := attachBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return j
}
