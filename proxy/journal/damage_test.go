package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// image is a journal as a kill leaves it, with something of everything in it.
func image(t testing.TB) []byte {
	b := inMemory(5, 2*pageBytes)
	s := &script{t: t, j: mustAttach(t, b), o: newOracle()}
	// Until the three events that are kept lie around the end of the log.
	for size := uint64(s.j.logBytes); s.j.tail%size < s.j.head%size || s.j.tail == 0; {
		r := s.begin()
		s.send(r)
		s.complete(r, 42)
		s.ship(s.j.Last() - 3)
	}
	open, sent, twice := s.begin(), s.begin(), s.begin()
	_ = open
	s.send(sent)
	s.send(twice)
	s.advance(twice, 9)
	s.advance(twice, 20)
	return b
}

// outcomes returns all that a journal holds after it was opened.
func outcomes(t testing.TB, j *Journal) map[string]contract.Event {
	t.Helper()
	events, err := j.Next(0, math.MaxInt)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]contract.Event)
	for _, e := range events {
		if _, ok := all[e.RequestID]; ok {
			t.Fatalf("%s has two events", e.RequestID)
		}
		all[e.RequestID] = e
	}
	return all
}

// TestEveryChangedByte changes each byte of a journal, in two ways: the journal then either
// says that it is damaged, or holds the same events. Only counts may become bounds, and
// events that were forgotten may be there again.
func TestEveryChangedByte(t *testing.T) {
	t.Parallel()
	whole := image(t)
	j := mustAttach(t, bytes.Clone(whole))
	want := outcomes(t, j)
	if len(want) != 5 || len(j.Recovered()) != 2 {
		t.Fatalf("the journal holds %d events, %d of them recovered", len(want), len(j.Recovered()))
	}
	damaged, repaired, bounded := 0, 0, 0
	b := make([]byte, len(whole))
	step := 1
	if raceEnabled {
		step = 7 // slower there, and no goroutines are involved
	}
	for at := 0; at < len(whole); at += step {
		for _, flip := range []byte{1 << (at % 8), 0xff} {
			copy(b, whole)
			b[at] ^= flip
			j, err := attachBytes(b)
			if err != nil {
				if !Damaged(err) && !errors.Is(err, ErrVersion) {
					t.Fatalf("byte %d: %v", at, err)
				}
				damaged++
				continue
			}
			if j.Stats().Repaired > 0 {
				repaired++
			}
			got := outcomes(t, j)
			for id, w := range want {
				g := got[id]
				if g.Basis == contract.BasisRecovered && g.Completion == 5000 && g.Prompt == 1000 && w.Completion <= 20 {
					bounded++
					continue
				}
				if g.Seq != w.Seq && g.Basis == contract.BasisRecovered {
					t.Fatalf("byte %d ^ %#x: %s is %+v, was %+v", at, flip, id, g, w)
				}
				if g != w {
					t.Fatalf("byte %d ^ %#x: %s is %+v, was %+v", at, flip, id, g, w)
				}
			}
			for id, g := range got {
				if _, ok := want[id]; !ok && g.Seq > j.Forgotten() && g.Basis != contract.BasisUpstream {
					t.Fatalf("byte %d ^ %#x: an event from nowhere: %+v", at, flip, g)
				}
			}
		}
	}
	t.Logf("%d found damaged, %d repaired, %d replaced counts by bounds", damaged, repaired, bounded)
	if damaged == 0 || repaired == 0 || bounded == 0 {
		t.Fatal("a kind of outcome never came")
	}
}

func TestTruncatedAndEmptyFiles(t *testing.T) {
	t.Parallel()
	whole := image(t)
	for _, n := range []int{0, 1, 511, pageBytes - 1, pageBytes, len(whole) - 1} {
		if _, err := attachBytes(bytes.Clone(whole[:n])); !Damaged(err) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := attachBytes(append(bytes.Clone(whole), 0)); !Damaged(err) {
		t.Errorf("one byte more: %v", err)
	}
	if _, err := attachBytes(make([]byte, len(whole))); !Damaged(err) {
		t.Errorf("zeros: %v", err)
	}
}

func TestUnknownVersionIsNotDamage(t *testing.T) {
	t.Parallel()
	b := image(t)
	w, ok := unsealed(b[identityAt:], identityWords)
	if !ok {
		t.Fatal("the identity is not whole")
	}
	w[1] = formatVersion + 1
	copy(b[identityAt:], sealed(w))
	copy(b[identityAt2:], sealed(w))
	if _, err := attachBytes(b); !errors.Is(err, ErrVersion) || Damaged(err) {
		t.Fatalf("opened a newer version: %v", err)
	}
}

// TestSalvage reads a journal with a damaged record: all others are still there.
func TestSalvage(t *testing.T) {
	t.Parallel()
	b := image(t)
	sound, err := salvage(bytes.Clone(b))
	if err != nil || len(sound.Damage) > 0 || len(sound.Events) != 3 || len(sound.Open) != 2 {
		t.Fatalf("of a sound journal: %+v, %v", sound, err)
	}
	j := mustAttach(t, bytes.Clone(b))
	if sound.Replica != j.Replica() || sound.Forgotten != j.Forgotten() || sound.Created.IsZero() {
		t.Fatalf("%+v", sound)
	}
	for k, e := range outcomes(t, j) {
		for _, got := range append(sound.Open, sound.Events...) {
			if got.Replica == "" {
				got.Replica, got.Seq = e.Replica, e.Seq
			}
			if got.RequestID == k && got != e {
				t.Errorf("salvaged %+v, was %+v", got, e)
			}
		}
	}

	middle := sound.Events[1]
	at := bytes.Index(b, fmt.Append(nil, "up-", middle.RequestID))
	b[at] ^= 1
	if _, err := attachBytes(bytes.Clone(b)); !Damaged(err) {
		t.Fatalf("opened a damaged journal: %v", err)
	}
	s, err := salvage(b)
	if err != nil || len(s.Damage) == 0 || len(s.Open) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	if len(s.Events) != 2 || s.Events[0] != sound.Events[0] || s.Events[1] != sound.Events[2] {
		t.Fatalf("salvaged %+v", s.Events)
	}
	if _, err := salvage(b[:100]); !Damaged(err) {
		t.Fatalf("of 100 bytes: %v", err)
	}
}
