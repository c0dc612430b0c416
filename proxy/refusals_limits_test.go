package proxy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// occupy starts a stream that reserves that many tokens of output, and returns once
// its first event is there. end hangs up and waits for the usage event.
func (r *replica) occupy(f face, token string, tokens int) (end func()) {
	r.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	body := capped(chat(true, sim(kimisim.Behavior{StallAfterEvents: 3, OutputTokens: 8})), tokens)
	resp, err := r.request(ctx, f, token, body)
	if err != nil {
		cancel()
		r.w.t.Fatal(err)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil || resp.StatusCode != http.StatusOK {
		r.w.t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
	return func() {
		cancel()
		_ = resp.Body.Close()
		eventually(r.w.t, "the stream has its event", func() bool {
			return slices.ContainsFunc(r.w.readEvents(), func(e contract.Event) bool { return e.RequestID == resp.Header.Get("X-Request-Id") })
		})
	}
}

// patientUpstream lets upstreams be silent for long.
func patientUpstream(c *proxy.Config) {
	for i := range c.Upstreams {
		c.Upstreams[i].IdleTimeout = proxy.Duration(time.Minute)
		c.Upstreams[i].FirstByteTimeout = proxy.Duration(time.Minute)
	}
}

// capped replaces the output cap of a chat.
func capped(body string, tokens int) string {
	return strings.Replace(body, `"max_tokens":64`, `"max_tokens":`+strconv.Itoa(tokens), 1)
}

func TestRefusedRate(t *testing.T) {
	t.Parallel()
	want := refusal{status: 429, typ: "rate_limit_exceeded", retry: "1", says: "per second"}
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			tok, g := w.token(func(g *contract.Grant) { g.RequestsPerSecond, g.Burst, g.Concurrent = 0.2, 3, 1 })
			for i := range 3 {
				a := r.served(f, tok)
				limitHeaders(t, a, true, true)
				if got := a.header.Get("X-Ratelimit-Remaining-Requests"); got != strconv.Itoa(2-i) {
					t.Errorf("%s requests remain after %d of 3", got, i+1)
				}
				if got := a.header.Get("X-Ratelimit-Limit-Requests"); got != "3" {
					t.Errorf("the limit is %s", got)
				}
			}
			a := r.post(f, tok, chat(false, "hello"))
			want.check(t, f, a)
			limitHeaders(t, a, true, true)
			if got := a.header.Get("X-Ratelimit-Remaining-Requests"); got != "0" {
				t.Errorf("%s requests remain", got)
			}
			if len(w.chats()) != 3 || r.inFlight() != "0" {
				t.Errorf("%d requests forwarded, %s in flight", len(w.chats()), r.inFlight())
			}
			r.nothingHeld(g)
			w.events(3)
			// The bucket fills again.
			eventually(t, "a request is served again", func() bool { return r.post(f, tok, chat(false, "hello")).status == 200 })
		})
	}
}

func TestRefusedConcurrency(t *testing.T) {
	t.Parallel()
	want := refusal{status: 429, typ: "rate_limit_exceeded", retry: "1", says: "in flight"}
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream)
			tok, g := w.token(func(g *contract.Grant) { g.Concurrent = 2 })
			other, _ := w.token(one)
			end1, end2 := r.occupy(f, tok, 64), r.occupy(f, tok, 64)
			for range 3 {
				want.check(t, f, r.post(f, tok, chat(false, "hello")))
			}
			if n := len(w.chats()); n != 2 {
				t.Errorf("%d requests forwarded", n)
			}
			r.served(f, other) // another customer's requests are his own
			end1()
			eventually(t, "one place is free", func() bool { return r.post(f, tok, chat(false, "hello")).status == 200 })
			end2()
			r.nothingHeld(g)
			w.events(4)
		})
	}
}

// Tokens that others merely hold: the request waits, and is refused with a short
// Retry-After when they stay held.
func TestRefusedHeld(t *testing.T) {
	t.Parallel()
	want := refusal{status: 429, typ: "rate_limit_exceeded", retry: "1", says: "held"}
	const patience = 200 * time.Millisecond
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream, func(c *proxy.Config) { c.Timeouts.WaitForHold = proxy.Duration(patience) })
			tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 10_000 })
			end := r.occupy(f, tok, 6000)
			held := r.leases.Stats().Held
			start := time.Now()
			a := r.post(f, tok, capped(chat(false, "hello"), 5000)) // would fit but for the stream
			if took := time.Since(start); took < patience || took > patience+3*time.Second {
				t.Errorf("it waited for %v, want %v", took, patience)
			}
			want.check(t, f, a)
			limitHeaders(t, a, true, true)
			if n := len(w.sim.Ledger()); n != 1 {
				t.Errorf("%d requests forwarded", n)
			}
			if got := r.leases.Stats().Held; got != held || held < 6000 {
				t.Errorf("%d tokens are held after the refusal, %d before", got, held)
			}
			r.served(f, tok) // what fits beside the stream does not wait
			end()
			r.served(f, tok)
			r.nothingHeld(g)
			w.events(3)
		})
	}
}

func TestServedWhenTheHoldEnds(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			slow := func(c *proxy.Config) { c.Timeouts.WaitForHold = proxy.Duration(20 * time.Second) }
			a, b := w.replica(patientUpstream, slow), w.replica(patientUpstream, slow)
			tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 10_000 })
			end := a.occupy(f, tok, 6000)
			answers := make(chan answer, 2)
			for _, r := range []*replica{a, b} { // one hears of the settlement, one has to ask
				go func() { answers <- r.post(f, tok, capped(chat(false, "hello"), 5000)) }()
			}
			select {
			case got := <-answers:
				t.Errorf("answered %d while the tokens are held: %s", got.status, got.body)
			case <-time.After(150 * time.Millisecond):
			}
			end()
			for range 2 {
				if got := <-answers; got.status != http.StatusOK {
					t.Errorf("status %d: %s", got.status, got.body)
				}
			}
			for _, e := range w.chats()[1:] {
				if e.OutputCap != 5000 {
					t.Errorf("the output cap became %d because of a hold", e.OutputCap)
				}
			}
			w.events(3)
			b.nothingHeld(g)
		})
	}
}

// Output is shortened to what the limit leaves, never to what others leave of it.
func TestHoldsDoNotShortenOutput(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(patientUpstream, func(c *proxy.Config) { c.Timeouts.WaitForHold = proxy.Duration(20 * time.Second) })
			tok, _ := w.token(func(g *contract.Grant) { g.MonthlyLimit = 10_000 })
			end := r.occupy(f, tok, 6000)
			answers := make(chan answer, 1)
			body := capped(chat(false, "hello"), 1_000_000)
			go func() { answers <- r.post(f, tok, body) }()
			select {
			case got := <-answers:
				t.Errorf("answered %d while the tokens are held: %s", got.status, got.body)
			case <-time.After(150 * time.Millisecond):
			}
			end()
			if got := <-answers; got.status != http.StatusOK {
				t.Errorf("status %d: %s", got.status, got.body)
			}
			settled := int(w.events(2)[0].Settled)
			if got, want := w.chats()[1].OutputCap, 10_000-settled-exactPrompt(f, body, 5); got != want {
				t.Errorf("the cap became %d, want %d", got, want)
			}
		})
	}
}

// long wants more output than any cap here allows.
func long() string {
	return sim(kimisim.Behavior{OutputTokens: 1_000_000, TokensPerChunk: 50})
}

// The monthly limit is reached when not even 256 tokens are left after the prompt, and a
// request that wants less is served as long as it fits.
func TestMonthlyLimitBoundaries(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			probe, _ := w.token(nil)
			text := long()
			r.post(f, probe, chat(true, text))
			counted := w.chats()[0].PromptTokens // of this text
			for _, c := range []struct {
				asked, left int // output tokens
				cap         int // that the upstream gets; 0: refused
			}{
				{5000, 256, 256}, {5000, 255, 0}, {5000, 4999, 4999}, {5000, 5000, 5000}, {5000, 5001, 5000},
				{64, 64, 64}, {64, 63, 0}, {256, 256, 256}, {1, 1, 1}, {1, 0, 0},
			} {
				name := fmt.Sprintf("%d asked, %d left", c.asked, c.left)
				body := capped(chat(true, text), c.asked)
				exact := exactPrompt(f, body, counted)
				tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = int64(exact + c.left) })
				before := len(w.chats())
				a := r.post(f, tok, body)
				if c.cap == 0 {
					refusal{status: 429, typ: "monthly_limit_exceeded", retry: a.header.Get("Retry-After"), noRetry: true}.check(t, f, a)
					if len(w.chats()) != before {
						t.Errorf("%s: forwarded", name)
					}
					if n := r.nothingHeld(g); n != 0 {
						t.Errorf("%s: %d tokens are settled", name, n)
					}
					continue
				}
				if a.status != http.StatusOK || len(w.chats()) != before+1 {
					t.Errorf("%s: status %d, %d forwarded: %s", name, a.status, len(w.chats())-before, a.body)
					continue
				}
				if got := w.chats()[before].OutputCap; got != c.cap {
					t.Errorf("%s: the cap became %d, want %d", name, got, c.cap)
				}
				if end := map[bool]string{false: `"finish_reason":"length"`, true: `"stop_reason":"max_tokens"`}[f.anthropic]; !strings.Contains(a.body, end) {
					t.Errorf("%s: the answer does not end with %s", name, end)
				}
				if n := r.nothingHeld(g); n != int64(counted+c.cap) || n > g.MonthlyLimit {
					t.Errorf("%s: %d tokens are settled, want %d; the limit is %d", name, n, counted+c.cap, g.MonthlyLimit)
				}
			}
			if r.inFlight() != "0" {
				t.Errorf("%s requests are in flight", r.inFlight())
			}
		})
	}
}

func TestMonthlyLimitReached(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			end := time.Now().Add(36 * time.Hour).UTC().Truncate(time.Second)
			tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit, g.Period.End, g.Concurrent = 5000, end, 1 })
			r.served(f, tok)
			used := r.nothingHeld(g)
			g.Version, g.LimitVersion, g.MonthlyLimit = 2, 2, used+100
			w.put(tok, g)
			var a answer
			eventually(t, "the lower limit is known", func() bool {
				used = r.nothingHeld(g) // what a refusal says is as of its decision
				a = r.post(f, tok, chat(false, "hello"))
				return a.status != 200
			})
			e := refusal{status: 429, typ: "monthly_limit_exceeded", retry: a.header.Get("Retry-After"), noRetry: true, says: "monthly token limit"}.check(t, f, a)
			if e.Error.Used == nil || e.Error.Limit == nil || *e.Error.Used != used || *e.Error.Limit != g.MonthlyLimit || !e.Error.ResetsAt.Equal(end) {
				t.Errorf("want used %d, limit %d, resets_at %v in %s", used, g.MonthlyLimit, end, a.body)
			}
			left := time.Until(end).Seconds()
			if n, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || float64(n) < left-1 || float64(n) > left+10 {
				t.Errorf("Retry-After is %q, the period ends in %.0f s", a.header.Get("Retry-After"), left)
			}
			limitHeaders(t, a, true, true)
			if got := a.header.Get("X-Ratelimit-Limit-Tokens"); got != strconv.FormatInt(g.MonthlyLimit, 10) {
				t.Errorf("the limit header says %s", got)
			}
			// Raised, it is served again, without a restart.
			g.Version, g.LimitVersion, g.MonthlyLimit = 3, 3, 100_000
			w.put(tok, g)
			eventually(t, "the higher limit is known", func() bool { return r.post(f, tok, chat(false, "hello")).status == 200 })
		})
	}
}

// However many ask at once, and whatever the upstream does with its cap, no more than the
// limit is settled, and what is settled is what the events say.
func TestSettledNeverExceedsTheLimit(t *testing.T) {
	t.Parallel()
	t.Log("drawn at random, so no run is like another")
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			short := func(c *proxy.Config) { c.Timeouts.WaitForHold = proxy.Duration(50 * time.Millisecond) }
			replicas := []*replica{w.replica(short), w.replica(short)}
			tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 12_000 })
			behaviors := []kimisim.Behavior{
				{OutputTokens: 300, TokensPerChunk: 20}, {OutputTokens: 5000, TokensPerChunk: 100},
				{OutputTokens: 900, ExceedCap: true, TokensPerChunk: 20}, {OutputTokens: 200, CutAfterEvents: 20},
				{UsagePlace: kimisim.UsageNone}, {ErrorAfterEvents: 5}, {Error: "500 server error"},
			}
			var wg sync.WaitGroup
			statuses := make([]int, 120)
			for i := range statuses {
				wg.Go(func() {
					body := chat(i%3 != 0, sim(behaviors[rand.IntN(len(behaviors))]))
					statuses[i] = replicas[i%2].post(f, tok, capped(body, 50+rand.IntN(700))).status
				})
				if i%12 == 11 {
					wg.Wait()
				}
			}
			wg.Wait()
			settled := replicas[0].nothingHeld(g)
			if settled > g.MonthlyLimit || settled < g.MonthlyLimit/2 {
				t.Errorf("%d tokens are settled, the limit is %d", settled, g.MonthlyLimit)
			}
			events := w.events(len(w.chats()))
			sum := int64(0)
			for _, e := range events {
				sum += e.Settled
				if e.Settled > e.Reserved {
					t.Errorf("settled more than reserved: %+v", e)
				}
			}
			if sum != settled {
				t.Errorf("the events add up to %d, the ledger says %d", sum, settled)
			}
			if n := len(w.chats()); n < 10 || n == len(statuses) {
				t.Errorf("%d of %d were forwarded: nothing was tested", n, len(statuses))
			}
		})
	}
}

// From 90 % on every answer says so; before, none does.
func TestTokenWarning(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			text := sim(kimisim.Behavior{OutputTokens: 1_000_000, TokensPerChunk: 100})
			probe, _ := w.token(nil)
			r.post(f, probe, chat(true, text))
			prompt := w.chats()[0].PromptTokens
			for used, warning := range map[int]string{1799: "", 1800: "90%", 1801: "90%"} {
				tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 2000 })
				if a := r.post(f, tok, capped(chat(true, text), used-prompt)); a.status != 200 || a.header.Get("X-Token-Warning") != "" {
					t.Errorf("status %d, warning %q with nothing used", a.status, a.header.Get("X-Token-Warning"))
				}
				if n := r.nothingHeld(g); n != int64(used) {
					t.Fatalf("%d tokens are settled, want %d", n, used)
				}
				a := r.post(f, tok, capped(chat(true, "hi"), 5))
				if got := a.header.Get("X-Token-Warning"); a.status != 200 || got != warning {
					t.Errorf("status %d, warning %q with %d of 2000 used", a.status, got, used)
				}
				r.nothingHeld(g)
				a = r.post(f, tok, capped(chat(true, "hi"), 5000))
				if got := a.header.Get("X-Token-Warning"); a.status != 429 || got != "90%" {
					t.Errorf("status %d, warning %q when refused", a.status, got)
				}
			}
		})
	}
}
