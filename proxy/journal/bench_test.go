package journal

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Log("not measured under the race detector, which drops pooled buffers")
		return
	}
	j := mustOpen(t, t.TempDir(), Options{})
	defer mustClose(t, j)
	in := testIntent("req")
	ev := testEvent(&in, 300)
	if n := testing.AllocsPerRun(1000, func() {
		s, err := j.Begin(&in)
		if err != nil {
			t.Fatal(err)
		}
		s.Sent()
		for k := range int64(10) {
			s.Advance(700, 0, k, 0, true)
		}
		s.Complete(&ev)
	}); n != 0 {
		t.Errorf("%v allocations per request", n)
	}
}

func benchOpen(b *testing.B) *Journal {
	j, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { j.Close() })
	return j
}

// BenchmarkRequest is all that one request costs, its share of forgetting included.
func BenchmarkRequest(b *testing.B) {
	j := benchOpen(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		in := testIntent("0123456789abcdef0123456789abcdef")
		ev := testEvent(&in, 300)
		for pb.Next() {
			s, err := j.Begin(&in)
			if err != nil {
				b.Error(err)
				return
			}
			s.Sent()
			s.Advance(700, 0, 300, 0, true)
			if seq := s.Complete(&ev); seq%1000 == 0 {
				_ = j.Forget(seq)
			}
		}
	})
}

func BenchmarkAdvance(b *testing.B) {
	j := benchOpen(b)
	in := testIntent("req")
	s, err := j.Begin(&in)
	if err != nil {
		b.Fatal(err)
	}
	s.Sent()
	b.ReportAllocs()
	for k := range int64(b.N) {
		s.Advance(700, 0, k, 0, true)
	}
}

func BenchmarkNext(b *testing.B) {
	j := benchOpen(b)
	in := testIntent("0123456789abcdef0123456789abcdef")
	for range 1000 {
		s, err := j.Begin(&in)
		if err != nil {
			b.Fatal(err)
		}
		ev := testEvent(&in, 300)
		s.Complete(&ev)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var events []contract.Event
	for range b.N {
		var err error
		if events, err = j.Next(0, 1000); err != nil || len(events) != 1000 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}
