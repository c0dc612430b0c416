package journal

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// storyOfCrashes is a run in which everything happens: slots reused, counts advanced,
// events shipped and forgotten, the log wrapped around several times.
func storyOfCrashes(s *script) {
	a, b := s.begin(), s.begin()
	s.send(a)
	s.advance(a, 1)
	s.send(b)
	s.advance(a, 10)
	s.advance(a, 7)
	s.complete(b, 3)
	c := s.begin()
	s.abandon(c)
	d := s.begin()
	s.send(d)
	s.abandon(d)
	s.ship(0)
	s.complete(a, 11)
	e := s.begin()
	s.complete(e, 0) // never sent: an upstream that could not be reached
	s.ship(2)
	long := s.begin()
	s.send(long)
	s.advance(long, 4001)
	for k := range int64(70) {
		r := s.begin()
		s.send(r)
		s.advance(r, k)
		s.complete(r, k)
		if k%3 == 2 {
			s.ship(s.j.Last() - k%2)
		}
	}
	s.advance(long, 4999)
	s.ship(s.j.Last())
	s.complete(long, 5000)
}

// TestRecoveryAfterEveryStore kills a run after each of its stores, by opening a copy of
// the bytes as they are then; and kills many of those recoveries after each of their own stores.
func TestRecoveryAfterEveryStore(t *testing.T) {
	t.Parallel()
	b := inMemory(3, 2*pageBytes)
	s := &script{t: t, j: mustAttach(t, b), o: newOracle()}
	kills, nested := 0, 0
	s.j.m.onStore = func() {
		kills++
		image := bytes.Clone(b)
		again := kills%16 == 0
		m := mapping{b: image}
		if again {
			m.onStore = func() {
				nested++
				j, err := attachBytes(bytes.Clone(image))
				if err != nil {
					t.Fatalf("killed after store %d, then in its recovery: %v", kills, err)
				}
				if err := s.o.check(j); err != nil {
					t.Fatalf("killed after store %d, then in its recovery: %v", kills, err)
				}
			}
		}
		// Another thread may have shipped and forgotten, just before the kill, whatever
		// readers can see.
		forgotten := bytes.Clone(image)
		seen := s.forgetIn(forgotten)
		o, _ := Options{}.withDefaults()
		j, err := attach(m, o, [2]uint64{1, 2})
		if err != nil {
			t.Fatalf("killed after store %d: %v", kills, err)
		}
		if err := s.o.check(j); err != nil {
			t.Fatalf("killed after store %d: %v", kills, err)
		}
		if j, err = attachBytes(forgotten); err != nil {
			t.Fatalf("forgotten up to %d and killed after store %d: %v", s.j.Last(), kills, err)
		}
		if err := seen.check(j); err != nil {
			t.Fatalf("forgotten up to %d and killed after store %d: %v", s.j.Last(), kills, err)
		}
	}
	storyOfCrashes(s)
	if s.j.head < uint64(s.j.logBytes)+1024 {
		t.Fatalf("the log never wrapped around: head %d of %d", s.j.head, s.j.logBytes)
	}
	if kills < 1000 || nested < 1000 {
		t.Fatalf("only %d kills, %d of them again in recovery", kills, nested)
	}
	t.Logf("%d kills, %d more in recoveries", kills, nested)
}

// forgetIn does to a copy of the bytes what Forget would do if it ran now, on another
// thread, for all that readers can see. It returns the oracle that has seen that.
func (s *script) forgetIn(b []byte) *oracle {
	o := &oracle{requests: s.o.requests, shipped: maps.Clone(s.o.shipped)}
	st, err := readState(b[:pageBytes])
	if err != nil {
		s.t.Fatal(err)
	}
	for st.forgotten < s.j.last.Load() {
		r, err := s.j.recordFrom(st.tail)
		if err != nil {
			s.t.Fatal(err)
		}
		e, err := decodeEvent(r.payload, s.j.replica, r.seq)
		if err != nil {
			s.t.Fatal(err)
		}
		o.shipped[r.seq] = e
		st.forgotten, st.tail = r.seq, r.next
	}
	st.n++
	copy(b[st.place():], st.encode())
	return o
}

// TestRandomRunsSurviveKills drives random schedules, kills them at random stores, and
// goes on with the recovered journal, many times over.
func TestRandomRunsSurviveKills(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 7))
		b := inMemory(1+rng.IntN(6), int64(1+rng.IntN(4))*pageBytes)
		s := &script{t: t, o: newOracle()}
		for range 40 {
			j, err := attachBytes(b)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err := s.o.check(j); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			s.j = j
			settleOracle(s)
			b = randomRun(s, b, rng)
		}
	}
}

// settleOracle tells the oracle what the journal made of the requests that were open.
func settleOracle(s *script) {
	s.t.Helper()
	s.ship(0)
	billed := make(map[string]bool)
	for _, e := range s.o.shipped {
		r := s.o.requests[e.RequestID]
		billed[e.RequestID] = true
		if e.Basis == contract.BasisRecovered {
			// Fixed for good: it must stay as it is, and single.
			r.sent, r.abandon, r.complete = returned, never, never
			r.advCalled, r.advReturned = e.Completion, e.Completion
		} else {
			r.complete = returned
		}
	}
	for id, r := range s.o.requests {
		if !billed[id] {
			r.sent, r.complete, r.abandon = never, never, returned
		}
	}
}

// randomRun works on s.j until a random store, and returns the bytes as they were then.
func randomRun(s *script, b []byte, rng *rand.Rand) (killed []byte) {
	stores, at := 0, rng.IntN(600)
	type dead struct{}
	s.j.m.onStore = func() {
		if stores++; stores > at {
			killed = bytes.Clone(b)
			panic(dead{})
		}
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(dead); !ok {
				panic(r)
			}
		}
	}()
	var open []scripted
	for {
		pick := func() scripted {
			k := rng.IntN(len(open))
			r := open[k]
			open = append(open[:k], open[k+1:]...)
			return r
		}
		switch n := rng.IntN(10); {
		case n < 3 && !s.j.Full():
			open = append(open, s.begin())
		case n < 5 && len(open) > 0:
			s.send(open[rng.IntN(len(open))])
		case n < 7 && len(open) > 0:
			if r := open[rng.IntN(len(open))]; r.sent == returned {
				s.advance(r, rng.Int64N(5000))
			}
		case n == 7 && len(open) > 0:
			s.complete(pick(), rng.Int64N(5000))
		case n == 8 && len(open) > 0 && rng.IntN(3) == 0:
			s.abandon(pick())
		case n == 9:
			s.ship(s.j.Forgotten() + rng.Int64N(s.j.Last()-s.j.Forgotten()+1))
		}
	}
}
