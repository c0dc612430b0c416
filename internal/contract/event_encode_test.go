package contract_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// texts are values that JSON writes as they are, and others.
var texts = []string{
	"", "cus_1", "kimi-k2.5", "a b~", `"`, `\`, "<script>&", "\x7f", "\n\t\x00", "ä€😀", "\xff\xfe", "\u2028\u2029",
}

// randomEvent fills every field of an Event, those that are yet to come too.
func randomEvent(t *testing.T, r *rand.Rand) contract.Event {
	t.Helper()
	var e contract.Event
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case time.Time:
			at := time.UnixMicro(r.Int64N(1 << 51)).UTC()
			if r.IntN(8) == 0 {
				at = at.In(time.FixedZone("", 3600))
			}
			f.Set(reflect.ValueOf(at))
		default:
			switch f.Kind() {
			case reflect.String:
				f.SetString(texts[r.IntN(len(texts))])
			case reflect.Int, reflect.Int64:
				f.SetInt(r.Int64() >> r.IntN(64) * int64(1-2*r.IntN(2)))
			default:
				t.Fatalf("a field of kind %s", f.Kind())
			}
		}
	}
	return e
}

// EncodeBatch writes what encoding/json does.
func TestEncodeBatchIsJSON(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		b := contract.Batch{Format: 99, Replica: texts[r.IntN(len(texts))]}
		if i > 0 {
			b.Events = []contract.Event{}
		}
		for range r.IntN(4) {
			b.Events = append(b.Events, randomEvent(t, r))
		}
		got, err := contract.EncodeBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		b.Format = contract.EventFormat
		want, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
	far := contract.Batch{Events: []contract.Event{{AdmittedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}}}
	if b, err := contract.EncodeBatch(far); err == nil {
		t.Errorf("a time that JSON has no form for: %s", b)
	}
}

func BenchmarkEncodeBatch(b *testing.B) {
	e := contract.Event{
		Replica: "r-0123456789abcdef", Seq: 123456, AdmittedAt: time.Now().UTC().Truncate(time.Microsecond), PeriodID: "2026-11",
		RequestID: "req_0123456789abcdef01234567", UpstreamRequestID: "0123456789", CustomerID: "cus_0123456789", BoxID: "box_0123456789", TokenID: "tok_0123456789",
		Tier: "starter", ModelAsked: "kimi-k2.5", ModelServed: "kimi-k2.5", Face: contract.FaceOpenAI, Upstream: "kimi",
		Prompt: 1000, Cached: 100, Completion: 200, Settled: 1200, Reserved: 5000, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK,
		Status: 200, TTFBMicros: 300_000, DurationMicros: 4_000_000,
	}
	batch := contract.Batch{Replica: e.Replica, Events: []contract.Event{e, e, e, e}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := contract.EncodeBatch(batch); err != nil {
			b.Fatal(err)
		}
	}
}
