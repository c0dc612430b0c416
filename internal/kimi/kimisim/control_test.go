package kimisim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

func call(t *testing.T, s *kimisim.Server, method, path, body string, into any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if into != nil {
		if err := json.NewDecoder(res.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	return res.StatusCode
}

// Every way to choose a behaviour works, and the more special one wins.
func TestWhereABehaviourComesFrom(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		tokens := func(sim string, fields map[string]any) int { return ask(t, s, f, sim, fields).tokens() }
		user := func(text any) map[string]any {
			return map[string]any{"messages": []any{map[string]any{"role": "user", "content": text}}}
		}
		check := func(what string, got, want int) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %d tokens, want %d", what, got, want)
			}
		}
		s.SetDefaults(kimisim.Behavior{OutputTokens: 1})
		check("defaults", tokens("", nil), 1)
		s.SetKeyBehavior(fakeKey, kimisim.Behavior{OutputTokens: 2})
		check("key", tokens("", nil), 2)
		s.Script(func(r *kimisim.RequestInfo) *kimisim.Behavior {
			if r.LastUser != "script" || r.Face != f.name || r.Key != fakeKey || r.Model != "kimi-k2.5" || !r.Stream || len(r.Body) == 0 || r.PromptTokens == 0 {
				return nil
			}
			return &kimisim.Behavior{OutputTokens: 3}
		})
		check("script that does not care", tokens("", nil), 2)
		check("script", tokens("", user("script")), 3)
		s.ScriptNext(kimisim.Behavior{OutputTokens: 4}, kimisim.Behavior{OutputTokens: 5})
		check("first of the queue", tokens("", user("script")), 4)
		check("second of the queue", tokens("", user("script")), 5)
		check("queue is empty", tokens("", user("script")), 3)
		check("marker", tokens("", user(`script this: [[sim:{"output_tokens":6}]] please`)), 6)
		check("marker in a part", tokens("", user([]any{map[string]any{"type": "text", "text": `[[sim: {"output_tokens":7} ]]`}})), 7)
		id := map[string]any{"safety_identifier": `sim:{"output_tokens":8}`}
		if f.name == "anthropic" {
			id = map[string]any{"metadata": map[string]any{"user_id": `sim:{"output_tokens":8}`}}
		}
		check("user id", tokens("", id), 8)
		check("header", tokens(`{"output_tokens":9}`, id), 9)
		check("a request that says only part of it", tokens(`{"tag":"x"}`, nil), 2)
		if e := closedEntry(t, s, ""); e.Tag != "x" {
			t.Errorf("tag %q", e.Tag)
		}
	})
}

func TestControlEndpoints(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{KeepBodies: true})
	if n := call(t, s, "GET", "/healthz", "", nil); n != 200 {
		t.Errorf("healthz %d", n)
	}
	if n := call(t, s, "PUT", "/sim/behavior", `{"output_tokens":3,"ttft":"1ms","error":""}`, nil); n != 200 {
		t.Errorf("behavior %d", n)
	}
	var b kimisim.Behavior
	if call(t, s, "GET", "/sim/behavior", "", &b); b.OutputTokens != 3 || b.TTFT != time.Millisecond {
		t.Errorf("behaviour %+v", b)
	}
	if n := call(t, s, "POST", "/sim/script", `[{"output_tokens":4},{"error":"401 bad key"}]`, nil); n != 200 {
		t.Errorf("script %d", n)
	}
	for path, bad := range map[string]string{"/sim/script": `[{"x":1}]`, "/sim/script?": `{"usage_place":"moon"}`} {
		if n := call(t, s, "POST", path, bad, nil); n != 400 {
			t.Errorf("%s %s: %d", path, bad, n)
		}
	}
	if n := call(t, s, "PUT", "/sim/behavior", `{"error":"no such case"}`, nil); n != 400 {
		t.Errorf("unknown error case: %d", n)
	}
	first, second, third := ask(t, s, faces[0], "", nil), ask(t, s, faces[1], "", nil), ask(t, s, faces[1], `{"tag":"mine"}`, nil, "Authorization", "Bearer other")
	if first.tokens() != 4 || second.status != 401 || third.tokens() != 3 {
		t.Errorf("%d tokens, status %d, %d tokens", first.tokens(), second.status, third.tokens())
	}
	var l struct {
		Entries []kimisim.Entry
		Totals  map[string]kimisim.Totals
	}
	id := first.header.Get("Msh-Request-Id")
	hex := strings.TrimPrefix(first.events[0]["id"].(string), "chatcmpl-")
	for query, want := range map[string]int{
		"": 3, "?key=other": 1, "?key=none": 0, "?tag=mine": 1, "?outcome=complete": 2, "?kind=estimate": 0,
		"?request=" + id: 1, "?request=chatcmpl-" + hex: 1, "?request=" + hex: 1, "?request=" + id + "&key=other": 0,
	} {
		if n := call(t, s, "GET", "/sim/ledger"+query, "", &l); n != 200 || len(l.Entries) != want {
			t.Errorf("%s: %d, %d entries, want %d", query, n, len(l.Entries), want)
		}
	}
	if n := call(t, s, "GET", "/sim/ledger?request=none", "", nil); n != 404 {
		t.Errorf("unknown request: %d", n)
	}
	call(t, s, "GET", "/sim/ledger?request="+id, "", &l)
	e := l.Entries[0]
	if e.Body != body(t, nil) || e.BodySize != len(e.Body) || len(e.BodySHA) != 64 || e.Header.Get("Content-Type") != "application/json" {
		t.Errorf("entry %+v", e)
	}
	if l.Totals[fakeKey].CompletionTokens != 4 || l.Totals["other"].ProducedTokens != 3 || !reflect.DeepEqual(l.Totals, s.Totals()) {
		t.Errorf("totals %+v", l.Totals)
	}
	if n := call(t, s, "PUT", "/sim/limit?key="+fakeKey, `{"concurrency":1,"rpm":1}`, nil); n != 200 {
		t.Errorf("limit %d", n)
	}
	ask(t, s, faces[0], "", nil)
	if r := ask(t, s, faces[0], "", nil); r.status != 429 {
		t.Errorf("after the limit was set: %d", r.status)
	}
	if n := call(t, s, "POST", "/sim/reset", "", nil); n != 200 || len(s.Ledger()) != 0 || len(s.Totals()) != 0 {
		t.Errorf("reset %d", n)
	}
	var cases []kimisim.ErrorResponse
	if call(t, s, "GET", "/sim/errors", "", &cases); len(cases) < 13 {
		t.Errorf("%d error cases", len(cases))
	}
}

func TestBehaviorSurvivesJSON(t *testing.T) {
	t.Parallel()
	want := kimisim.Behavior{
		Tag: "t", TTFT: time.Second, TokensPerSecond: 2.5, UsagePlace: kimisim.UsageBoth, RetryAfter: -time.Second,
		ErrorResponse: &kimisim.ErrorResponse{Status: 500, Headers: map[string]string{"A": "b"}, Body: json.RawMessage(`{"x":1}`)},
		Headers:       map[string]string{"C": "d"}, CutMidEvent: -1, ChunkPause: time.Millisecond, SlowHeaders: 3, StallFor: 4,
	}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got kimisim.Behavior
	if err := json.Unmarshal(raw, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: %s\n%+v\n%+v", err, raw, got, want)
	}
	if err := json.Unmarshal([]byte(`{"error":"429 RPM"}`), &got); err != nil || got.Error != "429 RPM" || got.ErrorResponse != nil || got.TTFT != time.Second {
		t.Errorf("laid over: %v %+v", err, got)
	}
}

func TestLedgerDropsTheOldestAndKeepsTotals(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{MaxLedger: 20})
	var first string
	for i := range 50 {
		r := ask(t, s, faces[i%2], `{"output_tokens":2}`, nil)
		if i == 0 {
			first = r.header.Get("Msh-Request-Id")
		}
	}
	entries := s.Ledger()
	if len(entries) > 20 || len(entries) < 18 || entries[len(entries)-1].Sequence != 50 {
		t.Errorf("%d entries, last %+v", len(entries), entries[len(entries)-1])
	}
	if _, ok := s.Find(first); ok {
		t.Error("the first entry is still there")
	}
	if got := s.Totals()[fakeKey]; got.Requests != 50 || got.ProducedTokens != 100 || got.CompletionTokens != 100 || got.PromptTokens != 50*5 {
		t.Errorf("totals %+v", got)
	}
}

// Many clients at once, a mix of everything: what they received is what the ledger says.
func TestLedgerIsExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	sims := []string{`{}`, `{"reasoning_tokens":5}`, `{"cut_after_events":6}`, `{"cut_mid_event":7}`, `{"error_after_events":5}`, `{"error":"429 TPM"}`, `{"chunk_bytes":13,"crlf":true}`, `{"reset":true}`}
	var wg sync.WaitGroup
	var mu sync.Mutex
	received := map[string]int{}
	for w := range 8 {
		wg.Go(func() {
			for i := range 25 {
				tag := fmt.Sprintf("%d-%d", w, i)
				sim := sims[(w+i)%len(sims)]
				sim = `{"tag":"` + tag + `",` + sim[1:]
				if sim[len(sim)-2] == ',' {
					sim = sim[:len(sim)-2] + "}"
				}
				r := ask(t, s, faces[i%2], sim, nil)
				mu.Lock()
				received[tag] = r.tokens()
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	entries, err := s.WaitLedger(time.Minute, func(es []kimisim.Entry) bool {
		for _, e := range es {
			if e.Outcome == kimisim.OutcomeOpen {
				return false
			}
		}
		return len(es) == 200
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if received[e.Tag] != e.ProducedTokens {
			t.Errorf("%s received %d, ledger %+v", e.Tag, received[e.Tag], e)
		}
	}
	if s.InFlight() != 0 {
		t.Errorf("%d in flight", s.InFlight())
	}
}
