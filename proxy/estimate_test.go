package proxy_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// exactPrompt is the bound of the prompt that a proxy learns near the limit: on the OpenAI
// face the upstream's count of the messages and the bytes of the rest, else its count of
// the body as the text of one message.
func exactPrompt(f face, body string, counted int) int {
	if f.anthropic {
		return 3 + kimisim.CountText(4, body) // as the simulator's configuration has it
	}
	i, j := strings.Index(body, `"messages":`)+len(`"messages":`), strings.LastIndex(body, "}]")+len("}]")
	return counted + len(body) - (j - i)
}

// Far from the limit nothing is asked of the upstream but the completion; near it, a
// broken estimate endpoint only costs precision.
func TestEstimateNearTheLimitOnly(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			estimateNearTheLimitOnly(t, f)
		})
	}
}

func estimateNearTheLimitOnly(t *testing.T, f face) {
	w := newWorld(t)
	r := w.replica()
	estimates := func() (n int) {
		for _, e := range w.sim.Ledger() {
			if e.Kind == kimisim.KindEstimate {
				n++
			}
		}
		return n
	}
	body := capped(chat(true, strings.Repeat("many words ", 200)), 1000)
	rich, _ := w.token(nil)
	r.post(f, rich, body)
	if n := estimates(); n != 0 {
		t.Errorf("%d estimates far from the limit", n)
	}
	counted := w.chats()[0].PromptTokens
	near := func(g *contract.Grant) { g.MonthlyLimit = int64(exactPrompt(f, body, counted) + 1000) }
	tok, _ := w.token(near)
	if a := r.post(f, tok, body); a.status != http.StatusOK || estimates() != 1 || w.chats()[1].OutputCap != 1000 {
		t.Errorf("status %d, %d estimates, cap %d", a.status, estimates(), w.chats()[1].OutputCap)
	}
	for _, broken := range []kimisim.Behavior{{Error: "500 server error"}, {Non2xxHTML: true}, {CutBeforeHead: true}, {Error: "429 RPM"}} {
		w.sim.SetEstimateBehavior(broken)
		tok, g := w.token(near)
		a := r.post(f, tok, body)
		refusal{status: 429, typ: "monthly_limit_exceeded", retry: a.header.Get("Retry-After"), noRetry: true}.check(t, f, a)
		r.nothingHeld(g)
		tok, _ = w.token(func(g *contract.Grant) { g.MonthlyLimit = int64(len(body) + 300) })
		if a := r.post(f, tok, body); a.status != http.StatusOK || w.chats()[len(w.chats())-1].OutputCap != 300 {
			t.Errorf("with a broken estimate: status %d, cap %d", a.status, w.chats()[len(w.chats())-1].OutputCap)
		}
	}
}

// A body that is mostly text has several bytes for a token. It fits by its tokens, on
// either face, and is charged what the upstream counts.
func TestLongPromptsFitByTheirTokens(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorldWith(t, kimisim.Config{KeepBodies: true})
			r := w.replica()
			picture := `{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}`
			if f.anthropic {
				picture = `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"%s"}}`
			}
			for what, body := range map[string]string{
				"text":    chat(false, strings.Repeat("lorem \"ipsum\"\ndolor ", 3000)),
				"a model": strings.Replace(chat(false, strings.Repeat("lorem ipsum dolor ", 3000)), model, "alias/k2p5", 1),
				"pictures": strings.Replace(chat(false, strings.Repeat("lorem ipsum dolor ", 2000)), `"messages":[`,
					`"messages":[{"role":"user","content":[`+fmt.Sprintf(picture, strings.Repeat("QUJD", 10_000))+`]},`, 1),
			} {
				tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 32_000 })
				if a := r.post(f, tok, body); a.status != http.StatusOK {
					t.Errorf("%s: status %d: %s", what, a.status, a.body)
					continue
				}
				chats := w.chats()
				e := chats[len(chats)-1]
				if n := r.nothingHeld(g); n != int64(e.PromptTokens+e.CompletionTokens) || e.OutputCap != 64 {
					t.Errorf("%s: %d tokens are settled, the upstream counted %d and %d; the cap became %d", what, n, e.PromptTokens, e.CompletionTokens, e.OutputCap)
				}
			}
			for _, e := range w.sim.Ledger() {
				if e.Kind == kimisim.KindEstimate && f.anthropic && strings.Contains(e.Body, "QUJDQUJD") {
					t.Error("the data of a picture was counted as text")
				}
			}
		})
	}
}

// An estimate that we stop waiting for says nothing about the upstream's completions.
func TestStalledEstimateLeavesTheBreakerClosed(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	hung := make(chan struct{})
	o.next(func(c net.Conn) {
		_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"))
		_, _ = c.Read(make([]byte, 1)) // until the proxy hangs up
		close(hung)
	})
	w := newWorld(t)
	r := w.replica(patientUpstream, o.upstreams, func(c *proxy.Config) { c.Upstreams[0].BreakerFailures = 1 })
	tok, _ := w.token(func(g *contract.Grant) { g.MonthlyLimit = 150 })
	a := r.post(faces[0], tok, chat(false, strings.Repeat("hello ", 10)))
	refusal{status: 429, typ: "monthly_limit_exceeded", retry: a.header.Get("Retry-After"), noRetry: true}.check(t, faces[0], a)
	<-hung
	if n := r.metric(`token_proxy_upstream_breaker_open{upstream="kimi"}`); n != "0" {
		t.Errorf("the breaker's gauge is %s", n)
	}
}
