package kimisim_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// tokensBefore is how many of the first n events carry a token, with one token each: the
// first event on the OpenAI face does not, the first two on the Anthropic face do not.
func tokensBefore(f face, n int) int {
	if f.name == "openai" {
		return max(n-1, 0)
	}
	return max(n-2, 0)
}

func TestEveryErrorCase(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		for _, c := range kimisim.ErrorCases() {
			sim, err := json.Marshal(kimisim.Behavior{Error: c.Case})
			if err != nil {
				t.Fatal(err)
			}
			r := ask(t, s, f, string(sim), nil)
			if r.status != c.Status {
				t.Errorf("%s: status %d", c.Case, r.status)
			}
			for k, v := range c.Headers {
				if k != "Msh-Request-Id" && r.header.Get(k) != v {
					t.Errorf("%s: header %s is %q, want %q", c.Case, k, r.header.Get(k), v)
				}
			}
			if e := closedEntry(t, s, r.header.Get("Msh-Request-Id")); e.Outcome != kimisim.OutcomeError || e.Status != c.Status || e.UsageSent || e.ProducedTokens != 0 {
				t.Errorf("%s: ledger %+v", c.Case, e)
			}
			if f.name == "openai" && c.BodyText == "" && r.raw != string(c.Body) || r.raw == "" {
				t.Errorf("%s: body %s", c.Case, r.raw)
			}
			anthropicShape := strings.HasPrefix(r.raw, `{"type":"error"`) || strings.HasPrefix(r.raw, `{"error":{"type":"rate_limit_error"`)
			if f.name == "anthropic" && c.BodyText == "" && anthropicShape != (c.Status != 401 && c.Status != 429 || strings.Contains(c.Case, "anthropic")) {
				t.Errorf("%s: body %s", c.Case, r.raw)
			}
		}
	})
}

func TestErrorsOnKimiCodeHaveTheAnthropicShape(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	r := ask(t, s, face{"anthropic", "/coding/v1/messages"}, `{"error":"429 RPM"}`, nil)
	if r.status != 429 || !strings.HasPrefix(r.raw, `{"type":"error","error":{"type":"rate_limit_error"`) {
		t.Errorf("%d %s", r.status, r.raw)
	}
}

func TestErrorResponsesOfOnesOwn(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		r := ask(t, s, f, `{"error":{"status":418,"headers":{"X-Odd":"1","Content-Type":"text/plain"},"body":"short and stout"},"retry_after":"90s"}`, nil)
		if r.status != 418 || r.raw != "short and stout" || r.header.Get("X-Odd") != "1" || r.header.Get("Retry-After") != "90" {
			t.Errorf("%d %v %q", r.status, r.header, r.raw)
		}
		r = ask(t, s, f, `{"error":"429 RPM","retry_after":"-1s"}`, nil)
		if r.status != 429 || r.header.Get("Retry-After") != "" || r.header.Get("X-Retry-After") != "" {
			t.Errorf("%d %v", r.status, r.header)
		}
		r = ask(t, s, f, `{"non2xx_html":true}`, nil)
		if r.status != 502 || !strings.Contains(r.raw, "<html>") {
			t.Errorf("%d %q", r.status, r.raw)
		}
	})
}

func TestStreamFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sim     string // %d is the position
		outcome string
		clean   bool // the body ends without an error
		extra   int  // events that the client can read besides those before the fault
	}{
		{`{"error_after_events":%d}`, kimisim.OutcomeErrorEvent, true, 1},
		{`{"cut_after_events":%d}`, kimisim.OutcomeCut, false, 0},
		{`{"cut_mid_event":%d}`, kimisim.OutcomeCut, false, 0},
		{`{"cut_on_chunk_boundary":%d}`, kimisim.OutcomeCut, false, 0},
		{`{"cut_after_events":%d,"close_delimited":true}`, kimisim.OutcomeCut, true, 0},
		{`{"cut_after_events":%d,"chunk_bytes":11,"events_per_write":3}`, kimisim.OutcomeCut, false, 0},
	} {
		for _, at := range []int{-1, 1, 3, 5} {
			for _, f := range faces {
				t.Run(fmt.Sprintf("%s/%d/%s", tc.sim, at, f.name), func(t *testing.T) {
					t.Parallel()
					s := start(t, kimisim.Config{})
					r := ask(t, s, f, fmt.Sprintf(tc.sim, at), map[string]any{"messages": []any{map[string]any{"role": "user", "content": "hello"}}})
					e := closedEntry(t, s, r.header.Get("Msh-Request-Id"))
					n := max(at, 0)
					if e.Outcome != tc.outcome || e.Status != 200 || e.UsageSent {
						t.Errorf("ledger %+v", e)
					}
					if (r.err == nil) != tc.clean || r.done || r.finish != "" {
						t.Errorf("read error %v, end mark %v", r.err, r.done)
					}
					if len(r.events) != n+tc.extra {
						t.Errorf("%d events, want %d: %s", len(r.events), n+tc.extra, r.raw)
					}
					if want := tokensBefore(f, n); e.ProducedTokens != want || r.tokens() != want {
						t.Errorf("produced %d, received %d, want %d", e.ProducedTokens, r.tokens(), want)
					}
					partial := r.raw != "" && !strings.HasSuffix(r.raw, "\n\n")
					if want := strings.Contains(tc.sim, "mid") || strings.Contains(tc.sim, "boundary"); partial != want {
						t.Errorf("ends inside an event: %v, want %v: %q", partial, want, r.raw)
					}
					if tc.extra == 1 {
						last := r.events[len(r.events)-1]
						if last["error"] == nil || f.name == "anthropic" && r.names[len(r.names)-1] != "error" {
							t.Errorf("last event %v", last)
						}
					}
				})
			}
		}
	}
}

// rawAnswer sends a request by hand and returns the raw bytes of the answer.
func rawAnswer(t *testing.T, s *kimisim.Server, sim string) (string, error) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := body(t, nil)
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer %s\r\nX-Sim: %s\r\nContent-Length: %d\r\n\r\n%s", fakeKey, sim, len(b), b)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	raw, err := io.ReadAll(c)
	return string(raw), err
}

func TestWhereTheBytesStop(t *testing.T) {
	t.Parallel()
	s := start(t, kimisim.Config{})
	raw, err := rawAnswer(t, s, `{"cut_after_events":2}`)
	if err != nil || !strings.HasSuffix(raw, "}\n\n\r\n") {
		t.Errorf("cut after events: %v, %q", err, raw)
	}
	raw, err = rawAnswer(t, s, `{"cut_on_chunk_boundary":2}`)
	if err != nil || !strings.HasSuffix(raw, "\r\n") || strings.HasSuffix(raw, "\n\n\r\n") {
		t.Errorf("cut on a chunk boundary: %v, %q", err, raw)
	}
	raw, err = rawAnswer(t, s, `{"cut_mid_event":2}`)
	if err != nil || strings.HasSuffix(raw, "\n") {
		t.Errorf("cut inside an event: %v, %q", err, raw)
	}
	raw, err = rawAnswer(t, s, `{"cut_before_head":true}`)
	if err != nil || raw != "" {
		t.Errorf("cut before the head: %v, %q", err, raw)
	}
	if raw, err = rawAnswer(t, s, `{"reset":true}`); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v, %q", err, raw)
	}
	if raw, err = rawAnswer(t, s, `{"cut_mid_event":2,"reset":true}`); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset in the middle: %v, %q", err, raw)
	}
	if raw, err = rawAnswer(t, s, `{"cut_after_events":2,"reset":true}`); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset after events: %v, %q", err, raw)
	}
	for _, e := range s.Ledger() {
		if e, err := s.WaitClosed(e.ID, time.Minute); err != nil || e.Outcome != kimisim.OutcomeCut {
			t.Errorf("%v %+v", err, e)
		}
	}
}

func TestWholeAnswerFaults(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		for _, sim := range []string{`{"cut_after_events":1}`, `{"cut_mid_event":1}`, `{"cut_mid_event":1,"chunk_bytes":9}`} {
			r := ask(t, s, f, sim, map[string]any{"stream": false})
			e := closedEntry(t, s, r.header.Get("Msh-Request-Id"))
			if !errors.Is(r.err, io.ErrUnexpectedEOF) || e.Outcome != kimisim.OutcomeCut || e.ProducedTokens != 0 || e.UsageSent {
				t.Errorf("%s: %v, %+v", sim, r.err, e)
			}
		}
		r := ask(t, s, f, `{"error_after_events":1}`, map[string]any{"stream": false})
		if e := closedEntry(t, s, ""); r.status != 200 || !strings.Contains(r.raw, `"error"`) || e.Outcome != kimisim.OutcomeErrorEvent || e.ProducedTokens != 0 {
			t.Errorf("%d %s %+v", r.status, r.raw, e)
		}
	})
}

func TestMissingEnds(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		r := ask(t, s, f, `{"no_end_mark":true}`, nil)
		if r.err != nil || r.done || r.finish == "" {
			t.Errorf("no end mark: %v %v %q", r.err, r.done, r.finish)
		}
		r = ask(t, s, f, `{"no_finish":true}`, nil)
		if r.err != nil || r.done || r.finish != "" || r.tokens() == 0 {
			t.Errorf("no finish: %v %v %q", r.err, r.done, r.finish)
		}
	})
}

// The client goes away in each phase; the ledger knows within a second and has counted
// what was sent.
func TestClientGoes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, sim string
		events    int
		outcome   string
	}{
		{"while streaming", `{"tokens_per_second":20,"output_tokens":500}`, 4, kimisim.OutcomeClientGone},
		{"as fast as possible", `{"output_tokens":5000000}`, 4, kimisim.OutcomeClientGone},
		{"in a stall", `{"stall_after_events":4}`, 4, kimisim.OutcomeStalled},
		{"before the first event", `{"early_head":true,"ttft":"1h"}`, 0, kimisim.OutcomeClientGone},
		{"in a stall before the first event", `{"stall_after_events":-1}`, 0, kimisim.OutcomeStalled},
	} {
		for _, f := range faces {
			t.Run(tc.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				s := start(t, kimisim.Config{})
				_, id, stop := firstEvents(t, s, f, tc.sim, tc.events, map[string]any{"max_tokens": 10_000_000})
				e, _ := s.Find(id)
				if e.Outcome != kimisim.OutcomeOpen || s.InFlight() != 1 {
					t.Fatalf("before the close: %+v, %d in flight", e, s.InFlight())
				}
				at := time.Now()
				stop()
				e = closedEntry(t, s, id)
				if e.Outcome != tc.outcome || e.UsageSent || e.ProducedTokens < tokensBefore(f, tc.events) || e.EventsSent < tc.events {
					t.Errorf("ledger %+v", e)
				}
				if e.ClosedAt.Before(at) || e.ClosedAt.Sub(at) > 30*time.Second {
					t.Errorf("closed at %v, noticed at %v", at, e.ClosedAt)
				}
				if s.InFlight() != 0 {
					t.Errorf("%d in flight", s.InFlight())
				}
			})
		}
	}
}

// An event of which one byte is missing does not count.
func TestOnlyWholeEventsCount(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		first, id, stop := firstEvents(t, s, f, `{"stall_after_events":1}`, 1, nil)
		stop()
		if e := closedEntry(t, s, id); e.EventsSent != 1 {
			t.Fatalf("%+v", e)
		}
		res, err := post(t, s.URL()+f.path, fmt.Sprintf(`{"chunk_bytes":%d,"chunk_pause":"1h"}`, len(first)-1), body(t, nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, len(first)-1)); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if e := closedEntry(t, s, res.Header.Get("Msh-Request-Id")); e.EventsSent != 0 || e.Outcome != kimisim.OutcomeClientGone {
			t.Errorf("%+v", e)
		}
	})
}

func TestClientGoesBeforeTheHead(t *testing.T) {
	t.Parallel()
	for sim, outcome := range map[string]string{
		`{"stall_before_head":true}`: kimisim.OutcomeStalled, `{"ttft":"1h"}`: kimisim.OutcomeClientGone,
		`{"ttft":"1h","error":"429 RPM"}`: kimisim.OutcomeClientGone,
	} {
		for _, stream := range []bool{true, false} {
			s := start(t, kimisim.Config{})
			c, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			b := body(t, map[string]any{"stream": stream})
			fmt.Fprintf(c, "POST /v1/messages HTTP/1.1\r\nHost: sim\r\nX-Api-Key: k\r\nX-Sim: %s\r\nContent-Length: %d\r\n\r\n%s", sim, len(b), b)
			if _, err := s.WaitLedger(time.Minute, func(e []kimisim.Entry) bool { return len(e) == 1 && e[0].PromptTokens > 0 }); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if e := closedEntry(t, s, ""); e.Outcome != outcome || e.Status != 0 || e.ClosedAt.IsZero() {
				t.Errorf("%s: %+v", sim, e)
			}
		}
	}
}

func TestCloseEndsStalls(t *testing.T) {
	t.Parallel()
	s, err := kimisim.New(kimisim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, id, stop := firstEvents(t, s, faces[0], `{"stall_after_events":1}`, 1, nil)
	defer stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if e, _ := s.Find(id); e.Outcome == kimisim.OutcomeOpen {
		t.Errorf("still open after Close: %+v", e)
	}
	if s.OpenConns() != 0 {
		t.Errorf("%d connections", s.OpenConns())
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		for _, stream := range []bool{true, false} {
			r := ask(t, s, f, `{"gzip":true,"output_tokens":4}`, map[string]any{"stream": stream}, "Accept-Encoding", "gzip, deflate")
			if r.header.Get("Content-Encoding") != "gzip" {
				t.Fatalf("headers %v", r.header)
			}
			z, err := gzip.NewReader(strings.NewReader(r.raw))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(z)
			if err != nil || !strings.Contains(string(plain), "tok3 ") {
				t.Errorf("%v %s", err, plain)
			}
			if e := closedEntry(t, s, r.header.Get("Msh-Request-Id")); e.Outcome != kimisim.OutcomeComplete || e.ProducedTokens != 4 {
				t.Errorf("%+v", e)
			}
		}
		if r := ask(t, s, f, `{"gzip":true}`, nil, "Accept-Encoding", "identity"); r.header.Get("Content-Encoding") != "" || !r.done {
			t.Errorf("not asked for: %v", r.header)
		}
	})
}

// A kept-alive connection that dies while idle, or just as the next request arrives.
func TestConnectionsThatDie(t *testing.T) {
	t.Parallel()
	for _, sim := range []string{`{"close_idle":true}`, `{"drop_next":true}`, `{}`} {
		s := start(t, kimisim.Config{})
		c, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		send := func() error {
			b := body(t, map[string]any{"stream": false})
			fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nAuthorization: Bearer k\r\nX-Sim: %s\r\nContent-Length: %d\r\n\r\n%s", sim, len(b), b)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, res.Body)
			return err
		}
		if err := send(); err != nil {
			t.Fatalf("%s: first request: %v", sim, err)
		}
		if sim == `{"close_idle":true}` {
			if _, err := in.ReadByte(); err == nil {
				t.Error("the idle connection stayed open")
			}
			continue
		}
		err = send()
		if (err == nil) != (sim == `{}`) {
			t.Errorf("%s: second request on the connection: %v", sim, err)
		}
		entries := s.Ledger()
		if len(entries) != 2 || entries[0].Conn != entries[1].Conn {
			t.Errorf("%s: entries %+v", sim, entries)
		}
	}
}

func TestExtraHeaders(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		r := ask(t, s, f, `{"extra_headers":true,"headers":{"X-Mine":"1"},"cached_tokens":3}`, nil)
		for _, h := range []string{"Msh-Org-Id", "Msh-Uid", "Msh-Gid", "Msh-Project-Id", "Set-Cookie", "Cf-Ray", "X-Mine", "Msh-Trace-Mode", "X-Msh-Trace-Id"} {
			if r.header.Get(h) == "" {
				t.Errorf("no %s", h)
			}
		}
		if r.header.Get("Msh-Context-Cache-Token-Saved") != "3" {
			t.Errorf("headers %v", r.header)
		}
	})
}
