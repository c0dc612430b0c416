package journal

import (
	"bytes"
	"math"
	"testing"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// FuzzPayloads decodes any bytes as intent and event; what can be decoded encodes to
// something that decodes to the same.
func FuzzPayloads(f *testing.F) {
	in := testIntent("req")
	intent, end := appendIntent(nil, &in)
	ev := testEvent(&in, 300)
	event := appendOutcome(bytes.Clone(intent[:end]), &ev)
	f.Add(intent)
	f.Add(event)
	f.Add([]byte{payloadVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if in, err := decodeIntent(b); err == nil {
			again, _ := appendIntent(nil, &in)
			// Names that are longer than any that are written are cut.
			if got, err := decodeIntent(again); err != nil || got != in && len(again) >= len(b) {
				t.Fatalf("intent %+v became %+v, %v", in, got, err)
			}
		}
		if e, err := decodeEvent(b, "r", 1); err == nil && utf8.Valid(b) {
			in := Intent{AdmittedAt: e.AdmittedAt, PeriodID: e.PeriodID, RequestID: e.RequestID, CustomerID: e.CustomerID, BoxID: e.BoxID, TokenID: e.TokenID, Tier: e.Tier, ModelAsked: e.ModelAsked, Face: e.Face, Reserved: e.Reserved}
			again := appendOutcome(appendAdmission([]byte{payloadVersion}, &in), &e)
			if got, err := decodeEvent(again, "r", 1); err != nil || got != e && len(again) >= len(b) {
				t.Fatalf("event %+v became %+v, %v", e, got, err)
			}
		}
	})
}

// FuzzAttach overwrites parts of a journal. Whatever is opened has numbered events
// without gaps, none of them twice, and opens to the same again.
func FuzzAttach(f *testing.F) {
	whole := image(f)
	f.Add(uint32(0), []byte("x"), uint32(9000), []byte{0})
	f.Add(uint32(stateAt), whole[stateAt2:stateAt2+64], uint32(slotsAt), make([]byte, 16))
	f.Add(uint32(slotsAt+slotBytes), whole[slotsAt:slotsAt+slotBytes], uint32(slotsAt+5*slotBytes), make([]byte, 8))
	f.Fuzz(func(t *testing.T, at1 uint32, b1 []byte, at2 uint32, b2 []byte) {
		b := bytes.Clone(whole)
		copy(b[int(at1)%len(b):], b1)
		copy(b[int(at2)%len(b):], b2)
		_, _ = salvage(bytes.Clone(b))
		before := bytes.Clone(b)
		j, err := attachBytes(b)
		if err != nil {
			if !bytes.Equal(b, before) {
				t.Fatal("a journal that cannot be opened was changed")
			}
			return
		}
		events, err := j.Next(0, math.MaxInt)
		if err != nil {
			t.Fatal(err)
		}
		want := j.Forgotten()
		for _, e := range events {
			if want++; e.Seq != want {
				t.Fatalf("event %d where %d should be", e.Seq, want)
			}
		}
		j2, err := attachBytes(b)
		if err != nil || len(j2.Recovered()) != 0 || j2.Last() != j.Last() {
			t.Fatalf("opened again: %v", err)
		}
		in := testIntent("after")
		if s, err := j2.Begin(&in); err == nil {
			s.Sent()
			s.Complete(&contract.Event{})
		}
	})
}
