package contract_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares b with a file. A difference is a change of a format that other
// processes read: bump its version and keep reading the old one.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	var indented bytes.Buffer
	if err := json.Indent(&indented, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	indented.WriteByte('\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, indented.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, indented.Bytes()) {
		t.Errorf("%s: the format has changed:\n%s\nwant\n%s", name, indented.Bytes(), want)
	}
}

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func grant() contract.Grant {
	return contract.Grant{
		Format: contract.GrantFormat, Version: 7, TokenID: "tok", CustomerID: "cus", BoxID: "box", Tier: "pro", Status: contract.StatusActive,
		RequestsPerSecond: 10, Burst: 20, Concurrent: 8, MonthlyLimit: 5_000_000, LimitVersion: 3,
		Period:  contract.Period{ID: "2026-11", Start: start, End: start.AddDate(0, 1, 0)},
		Weights: contract.Weights{Prompt: 1, Cached: 1, Completion: 1}, Models: []string{"kimi-coding/k2p5"},
	}
}

func event() contract.Event {
	return contract.Event{
		Replica: "r1", Seq: 12, AdmittedAt: start.Add(time.Hour), PeriodID: "2026-11", RequestID: "req_1", UpstreamRequestID: "up1",
		CustomerID: "cus", BoxID: "box", TokenID: "tok", Tier: "pro", ModelAsked: "kimi-coding/k2p5", ModelServed: "kimi-for-coding",
		Face: contract.FaceAnthropic, Upstream: "kimi", Prompt: 100, Cached: 80, Completion: 20, Reasoning: 5,
		Settled: 120, Unbilled: 0, Reserved: 4096, Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
		TTFBMicros: 800_000, DurationMicros: 2_500_000,
	}
}

func TestGrantFormat(t *testing.T) {
	g := grant()
	b, err := contract.EncodeGrant(g)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "grant.json", b)
	back, err := contract.DecodeGrant(b)
	if err != nil || !reflect.DeepEqual(*back, g) {
		t.Errorf("round trip: %+v, %v", back, err)
	}
}

func TestChangeFormat(t *testing.T) {
	g := grant()
	c := contract.Change{Format: contract.ChangeFormat, Seq: 5, Kind: contract.ChangeGrant, Digest: strings.Repeat("0a", 32), Grant: &g}
	b, err := contract.EncodeChange(c)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "change.json", b)
	back, err := contract.DecodeChange(b)
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("round trip: %+v, %v", back, err)
	}
}

func TestBatchFormat(t *testing.T) {
	e := event()
	b, err := contract.EncodeBatch(contract.Batch{Replica: "r1", Events: []contract.Event{e}})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "batch.json", b)
	raw, err := contract.DecodeBatch(b)
	if err != nil || len(raw.Events) != 1 {
		t.Fatalf("round trip: %+v, %v", raw, err)
	}
	back, err := contract.DecodeEvent(raw.Events[0])
	if err != nil || !reflect.DeepEqual(back, e) {
		t.Errorf("round trip: %+v, %v", back, err)
	}
}

// Readers accept version N and N-1 and nothing else.
func TestVersions(t *testing.T) {
	g := grant()
	for format, ok := range map[int]bool{contract.GrantFormat: true, contract.GrantFormat - 1: true, contract.GrantFormat + 1: false, -1: false} {
		g.Format = format
		b, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := contract.DecodeGrant(b); (err == nil) != ok {
			t.Errorf("grant of format %d: %v", format, err)
		}
		batch, err := json.Marshal(contract.Batch{Format: format, Replica: "r", Events: nil})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := contract.DecodeBatch(batch); (err == nil) != ok {
			t.Errorf("batch of format %d: %v", format, err)
		}
	}
}

func TestGrantValidation(t *testing.T) {
	for name, change := range map[string]func(*contract.Grant){
		"no version":    func(g *contract.Grant) { g.Version = 0 },
		"no token":      func(g *contract.Grant) { g.TokenID = "" },
		"no customer":   func(g *contract.Grant) { g.CustomerID = "" },
		"no box":        func(g *contract.Grant) { g.BoxID = "" },
		"odd status":    func(g *contract.Grant) { g.Status = "paused" },
		"no rate":       func(g *contract.Grant) { g.RequestsPerSecond = 0 },
		"no burst":      func(g *contract.Grant) { g.Burst = 0 },
		"no concurrent": func(g *contract.Grant) { g.Concurrent = 0 },
		"limit below 0": func(g *contract.Grant) { g.MonthlyLimit = -1 },
		"no period":     func(g *contract.Grant) { g.Period = contract.Period{} },
		"period ends":   func(g *contract.Grant) { g.Period.End = g.Period.Start },
		"weight":        func(g *contract.Grant) { g.Weights.Cached = -1 },
	} {
		g := grant()
		change(&g)
		if _, err := contract.EncodeGrant(g); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestEventValidation(t *testing.T) {
	for name, change := range map[string]func(*contract.Event){
		"no replica":       func(e *contract.Event) { e.Replica = "" },
		"no number":        func(e *contract.Event) { e.Seq = 0 },
		"no time":          func(e *contract.Event) { e.AdmittedAt = time.Time{} },
		"no period":        func(e *contract.Event) { e.PeriodID = "" },
		"no request":       func(e *contract.Event) { e.RequestID = "" },
		"no customer":      func(e *contract.Event) { e.CustomerID = "" },
		"odd face":         func(e *contract.Event) { e.Face = "gemini" },
		"odd basis":        func(e *contract.Event) { e.Basis = "guessed" },
		"no outcome":       func(e *contract.Event) { e.Outcome = "" },
		"negative":         func(e *contract.Event) { e.Cached = -1 },
		"negative charge":  func(e *contract.Event) { e.Unbilled = -1 },
		"over reservation": func(e *contract.Event) { e.Settled = e.Reserved + 1 },
	} {
		e := event()
		change(&e)
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := contract.DecodeEvent(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWeigh(t *testing.T) {
	w := contract.Weights{Prompt: 2, Cached: 1, Completion: 3}
	for _, c := range []struct{ prompt, cached, completion, want int64 }{
		{0, 0, 0, 0}, {10, 0, 5, 35}, {10, 4, 5, 31}, {10, 10, 0, 10}, {10, 99, 0, 10}, {-5, -5, -5, 0},
	} {
		if got := contract.Weigh(w, c.prompt, c.cached, c.completion); got != c.want {
			t.Errorf("Weigh(%d, %d, %d) = %d, want %d", c.prompt, c.cached, c.completion, got, c.want)
		}
	}
}

func TestQuotaKeyIsReadBack(t *testing.T) {
	key := contract.QuotaKey("cus", "2026-11")
	if c, p, ok := contract.ParseQuotaKey(key); key != "oc:quota:{cus}:2026-11" || c != "cus" || p != "2026-11" || !ok {
		t.Errorf("%s is of %q and %q, %v", key, c, p, ok)
	}
	for _, other := range []string{contract.RateKey("c"), contract.QuotaEpochKey, "oc:quota:{c}", "oc:quota:c:p"} {
		if c, p, ok := contract.ParseQuotaKey(other); ok {
			t.Errorf("%s is of %q and %q", other, c, p)
		}
	}
}

// Keys that one script touches must share a hash tag, or Redis Cluster refuses it.
func TestKeysShareTheirSlot(t *testing.T) {
	tag := func(key string) string {
		_, rest, _ := strings.Cut(key, "{")
		tag, _, ok := strings.Cut(rest, "}")
		if !ok || tag == "" {
			t.Errorf("%s has no hash tag", key)
		}
		return tag
	}
	for _, group := range [][]string{
		{contract.QuotaKey("c", "p"), contract.RateKey("c")},
		{contract.QuotaEpochKey, contract.QuotaBeatsKey, contract.QuotaMissingKey, contract.RecallChannel, contract.TrafficKey("r1"), contract.TrafficKey("r2")},
		{contract.FeedStateKey, contract.FeedAppliedKey, contract.FeedLogKey, contract.FeedChannel, contract.GrantKey(contract.Digest{1}), contract.GrantKey(contract.Digest{2})},
		{contract.UsageStreamKey, contract.UsageAckedKey},
	} {
		for _, key := range group {
			if tag(key) != tag(group[0]) {
				t.Errorf("%s and %s are in different slots", key, group[0])
			}
		}
	}
}
