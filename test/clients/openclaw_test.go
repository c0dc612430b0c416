package clients_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// pod is OpenClaw as a customer's pod runs it: a home with its configuration, in which
// token-proxy is the provider and the proxy token the key.
type pod struct {
	dir  string // of the installation
	home string
}

// anthropicUserAgent is what OpenClaw's built-in provider for Kimi Code sends.
const anthropicUserAgent = "claude-code/0.1.0"

// newPod writes openclaw.json for one of the APIs that OpenClaw speaks.
func newPod(t *testing.T, s *system, api string, tok stack.Token) pod {
	t.Helper()
	dir, err := openclawDir()
	if err != nil {
		t.Fatal(err)
	}
	p := pod{dir: dir, home: t.TempDir()}
	base, headers := s.Proxies[0].URL+"/v1", map[string]string{}
	if api == "anthropic-messages" {
		// OpenClaw's own name for its client here is "undici", which Kimi Code refuses.
		headers["User-Agent"] = anthropicUserAgent
	}
	cfg := map[string]any{
		"gateway": map[string]any{"mode": "local"},
		"agents": map[string]any{"defaults": map[string]any{
			"workspace": filepath.Join(p.home, "workspace"),
			"model":     map[string]any{"primary": "kimi/kimi-coding/k2p5"},
		}},
		"models": map[string]any{"mode": "merge", "providers": map[string]any{"kimi": map[string]any{
			"baseUrl": base, "apiKey": tok.Raw, "api": api, "headers": headers,
			"models": []any{map[string]any{
				"id": "kimi-coding/k2p5", "name": "Kimi", "reasoning": false, "input": []string{"text"},
				"cost":          map[string]int{"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
				"contextWindow": 262144, "maxTokens": 32768,
			}},
		}}},
	}
	raw, err := json.Marshal(cfg)
	if err == nil {
		err = os.MkdirAll(filepath.Join(p.home, ".openclaw"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(p.home, ".openclaw", "openclaw.json"), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// said is what OpenClaw made of a message.
type said struct {
	stdout, stderr string
	err            error // not nil when it exited with an error
	took           time.Duration
}

// ask lets OpenClaw answer a message by itself, without its gateway.
func (p pod) ask(t *testing.T, message string) said {
	t.Helper()
	sdks, err := nodeSDKs()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries(p.dir), "openclaw"),
		"agent", "--local", "--agent", "main", "--message", message, "--json")
	cmd.Dir, cmd.Env = p.home, nodeEnv(p.home, binaries(sdks))
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err = cmd.Run()
	return said{stdout.String(), stderr.String(), err, time.Since(began)}
}

func (a said) String() string {
	return fmt.Sprintf("after %v: %v\nstdout: %s\nstderr: %s", a.took, a.err, clip(a.stdout, 4000), clip(a.stderr, 4000))
}

// text returns what OpenClaw shows its user.
func (a said) text() string {
	var out struct{ Payloads []struct{ Text string } }
	if json.Unmarshal([]byte(a.stdout), &out) != nil || len(out.Payloads) != 1 {
		return ""
	}
	return out.Payloads[0].Text
}

// Messages for the agent. OpenClaw takes [[…]] out of them, so they cannot carry the
// simulator's orders as other prompts do.
const (
	greetOpenAI    = "Greet me through the OpenAI face."
	greetAnthropic = "Greet me through the Anthropic face."
	greetMonthly   = "Greet me although there is nothing left."
	greetBusy      = "Greet me when there is time."
)

// greetings makes the simulator answer each message with a text of its own; the tag is
// the message.
func greetings(r *kimisim.RequestInfo) *kimisim.Behavior {
	for _, m := range []string{greetOpenAI, greetAnthropic, greetMonthly, greetBusy} {
		if strings.Contains(string(r.Body), m) {
			return &kimisim.Behavior{Tag: m, Text: "Hello. You said: " + m}
		}
	}
	return nil
}

// The tests of the SDKs depend on time, so they do not run beside this one, which needs
// all there is of the processor.
func TestOpenClaw(t *testing.T) {
	if _, err := openclawDir(); err != nil {
		t.Fatal(err)
	}
	s := newSystem(t)
	s.Sim.Script(greetings)
	for _, api := range []struct{ name, face, message string }{
		{"openai-completions", "openai", greetOpenAI}, {"anthropic-messages", "anthropic", greetAnthropic},
	} {
		t.Run("answers through "+api.name, func(t *testing.T) {
			t.Parallel()
			tok := s.Customer("Pod "+api.face, "starter")
			a := newPod(t, s, api.name, tok).ask(t, api.message)
			if a.err != nil || a.text() != "Hello. You said: "+api.message {
				t.Fatalf("not the upstream's answer %v", a)
			}
			entries := s.tagged(api.message)
			if len(entries) != 1 {
				t.Fatalf("the upstream was asked %d times, want once: %v", len(entries), a)
			}
			e := entries[0]
			if e.Face != api.face || e.Model != "kimi-for-coding" || !e.Stream {
				t.Errorf("asked for %s on face %s, stream %v", e.Model, e.Face, e.Stream)
			}
			if api.face == "anthropic" && e.UserAgent != anthropicUserAgent {
				t.Errorf("the upstream saw User-Agent %q", e.UserAgent)
			}
			r := s.rowOf(t, tok, e.ID)
			want := row{
				UpstreamRequestID: e.ID, CustomerID: tok.Customer, Prompt: int64(e.PromptTokens), Completion: int64(e.CompletionTokens),
				Settled: int64(e.PromptTokens + e.CompletionTokens), Basis: "upstream", Outcome: "ok", Face: api.face,
			}
			if r != want {
				t.Errorf("Postgres has %+v, want %+v", r, want)
			}
			t.Logf("answered after %v, body of %d bytes, %d+%d tokens, User-Agent %s", a.took.Round(time.Millisecond), e.BodySize, r.Prompt, r.Completion, e.UserAgent)
		})
	}

	// The limit is told and not asked for again and again.
	t.Run("monthly limit", func(t *testing.T) {
		t.Parallel()
		a := newPod(t, s, "openai-completions", s.exhausted).ask(t, greetMonthly)
		if a.err == nil {
			t.Errorf("it claims to have answered %v", a)
		}
		lines := s.requests(s.exhausted.Customer)
		if len(lines) == 0 || len(lines) > 2 {
			t.Errorf("%d requests, want 1 or 2", len(lines))
		}
		for _, l := range lines {
			if l.Status != http.StatusTooManyRequests || l.Blocked != "monthly" {
				t.Errorf("status %d, blocked by %q", l.Status, l.Blocked)
			}
		}
		if n := len(s.tagged(greetMonthly)); n != 0 {
			t.Errorf("the upstream was asked %d times", n)
		}
		if !strings.Contains(a.stdout, "monthly token limit reached") {
			t.Errorf("the user is not told why %v", a)
		}
	})

	// Refused for a moment: OpenClaw waits the second of Retry-After, and answers.
	t.Run("waits when refused for a moment", func(t *testing.T) {
		t.Parallel()
		tok := s.Customer("Busy", "starter")
		s.changeGrant(tok, func(g *contract.Grant) { g.Concurrent = 1 })
		p := newPod(t, s, "openai-completions", tok)
		release := s.occupy(t, tok)
		done := make(chan said, 1)
		go func() {
			done <- p.ask(t, greetBusy)
		}()
		blocked := func(l logLine) bool {
			return l.Status == http.StatusTooManyRequests && l.Blocked == "concurrency"
		}
		var a said
		for waiting := true; waiting; {
			select {
			case a = <-done:
				t.Fatalf("ended before it was refused, %v", a)
			case <-time.After(20 * time.Millisecond):
				waiting = !slices.ContainsFunc(s.requests(tok.Customer), blocked)
			}
		}
		release()
		a = <-done
		if a.err != nil || a.text() != "Hello. You said: "+greetBusy {
			t.Errorf("not the upstream's answer %v", a)
		}
		refused := 0
		for _, l := range s.requests(tok.Customer) {
			if blocked(l) {
				refused++
			}
		}
		if n := len(s.tagged(greetBusy)); n != 1 || refused > 2 {
			t.Errorf("refused %d times and forwarded %d times, want 1 and 1", refused, n)
		}
	})
}

// occupy keeps a request of the customer in flight until release is called.
func (s *system) occupy(t *testing.T, tok stack.Token) (release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	const body = `{"model":"` + model + `","stream":true,"max_tokens":3000,"messages":[{"role":"user",
		"content":"Take your time. [[sim:{\"output_tokens\":3000,\"tokens_per_second\":5}]]"}]}`
	req, err := http.NewRequestWithContext(ctx, "POST", s.Proxies[0].URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tok.Raw)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("occupy: %v, %+v", err, resp)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return cancel
}
