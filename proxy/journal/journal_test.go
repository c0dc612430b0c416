package journal

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// The limit is charged from the journal.
var _ quota.Journal = (*Journal)(nil)

func newScript(t testing.TB, slots int, logBytes int64) *script {
	return &script{t: t, j: mustAttach(t, inMemory(slots, logBytes)), o: newOracle()}
}

func TestEventsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	s := newScript(t, 4, 1<<16)
	r := s.begin()
	s.send(r)
	want := testEvent(&r.intent, 321)
	ev := want
	// What is fixed at admission cannot be changed at the end.
	ev.AdmittedAt, ev.CustomerID, ev.PeriodID, ev.Reserved = time.Now(), "another", "", 1
	if seq := r.slot.Complete(&ev); seq != 1 || ev.Seq != 1 || ev.Replica != s.j.Replica() {
		t.Fatalf("seq %d, event %+v", seq, ev)
	}
	want.Replica, want.Seq = s.j.Replica(), 1
	got, err := s.j.Next(0, 10)
	if err != nil || len(got) != 1 || got[0] != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	if err := got[0].Validate(); err != nil {
		t.Error(err)
	}
}

func TestLongNamesAreCutAndLongIDsRefused(t *testing.T) {
	t.Parallel()
	s := newScript(t, 4, 1<<16)
	in := testIntent(strings.Repeat("r", MaxID))
	in.PeriodID, in.CustomerID, in.BoxID, in.TokenID = in.RequestID, in.RequestID, in.RequestID, in.RequestID
	in.ModelAsked = strings.Repeat("é", MaxName)
	in.ModelServed, in.Tier, in.Upstream = in.ModelAsked, in.ModelAsked, in.ModelAsked
	in.Reserved, in.Weights = math.MaxInt64, contract.Weights{Prompt: math.MaxInt64, Cached: math.MaxInt64, Completion: math.MaxInt64}
	in.PromptBound, in.OutputBound = math.MaxInt64, math.MaxInt64
	slot, err := s.j.Begin(&in)
	if err != nil {
		t.Fatal(err)
	}
	ev := testEvent(&in, math.MaxInt64)
	ev.UpstreamRequestID = "x" + in.ModelAsked
	ev.Basis, ev.Outcome = contract.Basis(in.ModelAsked), contract.Outcome(in.ModelAsked)
	ev.Prompt, ev.Cached, ev.Reasoning, ev.Settled, ev.Unbilled = math.MinInt64, math.MinInt64, math.MinInt64, math.MinInt64, math.MinInt64
	ev.Status, ev.TTFBMicros, ev.DurationMicros = math.MinInt64, math.MinInt64, math.MinInt64
	slot.Complete(&ev)
	got, err := s.j.Next(0, 1)
	if err != nil {
		t.Fatal(err)
	}
	cut := strings.Repeat("é", MaxName/2)
	if e := got[0]; e.ModelAsked != cut || e.ModelServed != cut || e.UpstreamRequestID != "x"+cut[:MaxName-2] || e.Prompt != math.MinInt64 || e.Status != math.MinInt64 || e.RequestID != in.RequestID {
		t.Fatalf("%+v", e)
	}
	for name, spoil := range map[string]func(*Intent){
		"long id":   func(in *Intent) { in.TokenID = strings.Repeat("t", MaxID+1) },
		"no id":     func(in *Intent) { in.CustomerID = "" },
		"no time":   func(in *Intent) { in.AdmittedAt = time.Time{} },
		"no face":   func(in *Intent) { in.Face = "" },
		"negative":  func(in *Intent) { in.Reserved = -1 },
		"no period": func(in *Intent) { in.PeriodID = "" },
	} {
		in := testIntent("r")
		spoil(&in)
		if _, err := s.j.Begin(&in); err == nil || errors.Is(err, ErrFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if open := s.j.Stats().Open; open != 0 {
		t.Errorf("%d slots are open", open)
	}
}

func TestEndedSlotsDoNothing(t *testing.T) {
	t.Parallel()
	s := newScript(t, 1, 1<<16)
	a := s.begin()
	s.send(a)
	s.complete(a, 5)
	b := s.begin() // has the slot that a had
	a.slot.Sent()
	a.slot.Advance(1, 1, 4000, 1, true)
	a.slot.Abandon()
	if ev := a.event; a.slot.Complete(&ev) != 0 {
		t.Error("a request was completed twice")
	}
	var zero Slot
	zero.Sent()
	zero.Abandon()
	zero.Advance(1, 1, 1, 1, true)
	if zero.Complete(&contract.Event{}) != 0 {
		t.Error("the zero slot was completed")
	}
	if err := s.o.check(mustAttach(t, bytes.Clone(s.j.m.b))); err != nil {
		t.Error(err)
	}
	s.abandon(b)
	if st := s.j.Stats(); st.Open != 0 || st.Last != 1 {
		t.Errorf("%+v", st)
	}
}

func TestRecoveredCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		drive func(Slot)
		want  contract.Event // counts only
	}{
		"nothing came":                  {func(s Slot) {}, contract.Event{Prompt: 1000, Settled: 1000}},
		"relayed, prompt not reported":  {func(s Slot) { s.Advance(0, 0, 7, 3, true) }, contract.Event{Prompt: 1000, Completion: 7, Reasoning: 3, Settled: 1007}},
		"prompt reported":               {func(s Slot) { s.Advance(800, 200, 1, 0, true); s.Advance(0, 0, 50, 0, true) }, contract.Event{Prompt: 800, Cached: 200, Completion: 50, Settled: 850}},
		"last reported prompt counts":   {func(s Slot) { s.Advance(800, 0, 1, 0, true); s.Advance(700, 10, 2, 0, true) }, contract.Event{Prompt: 700, Cached: 10, Completion: 2, Settled: 702}},
		"completion never falls":        {func(s Slot) { s.Advance(0, 0, 90, 40, true); s.Advance(0, 0, 80, 30, false) }, contract.Event{Prompt: 1000, Completion: 90, Reasoning: 40, Settled: 1090}},
		"never above what was reserved": {func(s Slot) { s.Advance(2000, 1500, 9000, 9000, true) }, contract.Event{Prompt: 1000, Cached: 1000, Completion: 5000, Reasoning: 5000, Settled: 6000, Unbilled: 5000}},
		"more output than was reserved": {func(s Slot) { s.Advance(500, 0, 5001, 0, true) }, contract.Event{Prompt: 500, Completion: 5000, Settled: 5500, Unbilled: 1}},
		"negative counts count nothing": {func(s Slot) { s.Advance(-5, -5, -5, -5, true) }, contract.Event{Prompt: 1000, Settled: 1000}},
	} {
		s := newScript(t, 2, 1<<16)
		r := s.begin()
		s.send(r)
		c.drive(r.slot)
		got := mustAttach(t, s.j.m.b).Recovered()
		want := r.intent.event()
		want.Basis, want.Outcome, want.Replica, want.Seq = contract.BasisRecovered, contract.OutcomeProxyCrashed, s.j.Replica(), 1
		want.Prompt, want.Cached, want.Completion, want.Reasoning, want.Settled = c.want.Prompt, c.want.Cached, c.want.Completion, c.want.Reasoning, c.want.Settled
		want.Unbilled = c.want.Unbilled
		if len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	// A relayed byte is never free of charge, and what the limit cannot take is unbilled.
	o := openSlot{intent: testIntent("r"), counts: counts{relayed: true}, exact: true}
	o.intent.PromptBound = 0
	if e := o.event(); e.Completion != 1 || e.Settled != 1 {
		t.Errorf("%+v", e)
	}
	o.intent.PromptBound, o.intent.Reserved = 1000, 400
	if e := o.event(); e.Settled != 400 || e.Unbilled != 600 {
		t.Errorf("%+v", e)
	}
}

func TestFullBySlots(t *testing.T) {
	t.Parallel()
	s := newScript(t, 2, 1<<16)
	a, b := s.begin(), s.begin()
	in := testIntent("more")
	if _, err := s.j.Begin(&in); !errors.Is(err, ErrFull) || !s.j.Full() {
		t.Fatalf("a third request in two slots: %v", err)
	}
	s.complete(a, 1)
	s.abandon(b)
	if s.j.Full() {
		t.Fatal("still full")
	}
	s.begin()
	if st := s.j.Stats(); st.Refused != 1 || st.Open != 1 || st.Waiting != 1 || st.Oldest.IsZero() {
		t.Errorf("%+v", st)
	}
}

// TestFullByEvents fills the log while requests are open: each of them can still end,
// and room comes back with Forget alone.
func TestFullByEvents(t *testing.T) {
	t.Parallel()
	for logBytes := int64(2 * pageBytes); logBytes <= 6*pageBytes; logBytes += pageBytes {
		s := newScript(t, 4, logBytes)
		for lap := range 5 {
			open := []scripted{s.begin(), s.begin()}
			for !s.j.Full() {
				s.complete(s.begin(), int64(lap))
			}
			in := testIntent("more")
			if _, err := s.j.Begin(&in); !errors.Is(err, ErrFull) {
				t.Fatalf("begun in a full journal: %v", err)
			}
			for _, r := range open {
				s.send(r)
				s.complete(r, 9)
			}
			if err := s.o.check(mustAttach(t, bytes.Clone(s.j.m.b))); err != nil {
				t.Fatal(err)
			}
			s.ship(s.j.Last())
			if st := s.j.Stats(); st.LogUsed != 0 || st.Waiting != 0 || !st.Oldest.IsZero() {
				t.Fatalf("%+v", st)
			}
		}
	}
}

func TestNextAndForget(t *testing.T) {
	t.Parallel()
	s := newScript(t, 4, 1<<20)
	for k := range int64(100) {
		s.complete(s.begin(), k)
	}
	readers := []int64{0, 10, 20, 30, 40} // one more than are remembered
	for range 9 {
		for k, after := range readers {
			events, err := s.j.Next(after, 7)
			if err != nil {
				t.Fatal(err)
			}
			for n, e := range events {
				if e.Seq != after+int64(n)+1 {
					t.Fatalf("after %d came %d", after, e.Seq)
				}
			}
			if want := min(7, 100-after); int64(len(events)) != want {
				t.Fatalf("after %d came %d events, want %d", after, len(events), want)
			}
			readers[k] += int64(len(events))
		}
	}
	for _, step := range []struct{ upTo, want int64 }{{-1, 0}, {50, 50}, {20, 50}, {50, 50}, {99, 99}, {1000, 100}} {
		if err := s.j.Forget(step.upTo); err != nil {
			t.Fatal(err)
		}
		if got := s.j.Forgotten(); got != step.want {
			t.Fatalf("after Forget(%d): %d", step.upTo, got)
		}
		events, err := s.j.Next(0, 1)
		if err != nil || len(events) > 0 && events[0].Seq != step.want+1 || len(events) == 0 && step.want != 100 {
			t.Fatalf("after Forget(%d): %+v, %v", step.upTo, events, err)
		}
	}
	if j := mustAttach(t, s.j.m.b); j.Forgotten() != 100 || j.Last() != 100 {
		t.Errorf("reopened: forgotten %d, last %d", j.Forgotten(), j.Last())
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	s := newScript(t, 4, 1<<16)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := s.j.Wait(ctx, 0); err != nil {
				t.Error(err)
			}
		})
	}
	s.complete(s.begin(), 1)
	wg.Wait()
	cancel()
	if err := s.j.Wait(ctx, 0); err != nil {
		t.Errorf("an event is there: %v", err)
	}
	if err := s.j.Wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCloseEndsWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t, 4, 1<<16)
		go func() {
			if err := s.j.Wait(context.Background(), 0); !errors.Is(err, ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		}()
		synctest.Wait()
		if err := s.j.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestManyGoroutines is for the race detector, and for the locks' order.
func TestManyGoroutines(t *testing.T) {
	t.Parallel()
	j, err := Open(t.TempDir(), Options{Slots: 8, LogBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	const workers, each = 16, 300
	var wg sync.WaitGroup
	for g := range workers {
		wg.Go(func() {
			in := testIntent("r")
			for n := 0; n < each; {
				slot, err := j.Begin(&in)
				if errors.Is(err, ErrFull) {
					_ = j.Wait(context.Background(), j.Last()-1)
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				n++
				slot.Sent()
				wg.Go(func() { slot.Advance(1, 0, int64(n), 0, true) }) // as a late callback would
				ev := testEvent(&in, int64(g))
				slot.Complete(&ev)
			}
		})
	}
	seen := int64(0)
	for seen < workers*each {
		events, err := j.Next(seen, 50)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if seen++; e.Seq != seen {
				t.Fatalf("event %d where %d should be", e.Seq, seen)
			}
		}
		if err := j.Forget(seen); err != nil {
			t.Fatal(err)
		}
		j.Stats()
		if len(events) == 0 {
			if err := j.Wait(context.Background(), seen); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	if st := j.Stats(); st.Open != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseUnderLoad: what comes after Close does nothing, and nothing that came before
// is lost.
func TestCloseUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	total := int64(0)
	for range 5 {
		j, err := Open(dir, Options{Slots: 64, LogBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		total += int64(len(j.Recovered()))
		var wg sync.WaitGroup
		var mu sync.Mutex
		started := make(chan struct{}, 1)
		for range 8 {
			wg.Go(func() {
				in := testIntent("r")
				for {
					slot, err := j.Begin(&in)
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					slot.Sent()
					slot.Advance(1, 1, 1, 1, true)
					ev := testEvent(&in, 1)
					if slot.Complete(&ev) == 0 {
						return // left open: the next one recovers it
					}
					mu.Lock()
					total++
					full := total%100 == 0
					mu.Unlock()
					if full {
						_ = j.Forget(ev.Seq)
						select {
						case started <- struct{}{}:
						default:
						}
					}
				}
			})
		}
		<-started
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Errorf("closed twice: %v", err)
		}
		wg.Wait()
		if _, err := j.Next(0, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Next: %v", err)
		}
		if err := j.Forget(1); !errors.Is(err, ErrClosed) {
			t.Errorf("Forget: %v", err)
		}
		j.Stats()
	}
	j, err := Open(dir, Options{Slots: 64, LogBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	total += int64(len(j.Recovered()))
	if j.Last() != total {
		t.Errorf("%d events are there, %d should be", j.Last(), total)
	}
}
