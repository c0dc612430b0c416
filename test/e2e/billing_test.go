package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// billed is a system whose api and billing-worker speak to a Stripe, the latter to a mail
// server as well.
type billed struct {
	t        *testing.T
	s        *stack.Stack
	p        *platform
	sim      *stripesim.Server
	box      *mailbox
	api      *controlAPI
	checkout *stripe.Checkout
	meter    *stripe.Meter
}

// newBilled starts one. Stripe's clock says what ours does.
func newBilled(t *testing.T, more ...string) *billed {
	t.Helper()
	b := &billed{t: t, sim: stripesim.New(time.Now()), box: newMailbox(t)}
	t.Cleanup(b.sim.Close)
	args := append([]string{
		"--stripe-secret-key", stripesim.Key, "--stripe-url", b.sim.URL(), "--limit-mails-every", "200ms", "--report-overage-every", "200ms",
	}, b.box.arguments()...)
	b.s = stack.New(t, stack.Options{Billing: append(args, more...)})
	b.p = newPlatform(t, b.s, usual)
	b.api = newControlAPI(t, b.s, "--stripe-secret-key", stripesim.Key, "--stripe-url", b.sim.URL(), "--stripe-webhook-secrets", webhookSecret)
	account, err := stripe.NewAccount(stripesim.Key, b.sim.URL())
	b.must(err)
	_, err = stripe.Bootstrap(t.Context(), account, b.p.Tiers, "https://api.example.invalid/")
	b.must(err)
	b.checkout, err = stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: b.p.Service, SuccessURL: "https://a.invalid", CancelURL: "https://b.invalid", ReturnURL: "https://c.invalid",
	})
	b.must(err)
	b.meter = &stripe.Meter{Account: account, Customers: b.p.Service}
	return b
}

func (b *billed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// payer is a customer whom Stripe bills.
type payer struct {
	*billed
	random  *rand.Rand
	past    []stripesim.Event
	id      string
	email   string
	cookies []*http.Cookie // of the session, if it signed up at the api
	sub     string
	tok     stack.Token
}

// signUp has somebody sign up at the api.
func (b *billed) signUp(email string) *payer {
	b.t.Helper()
	c := &payer{billed: b, random: rand.New(rand.NewPCG(rand.Uint64(), 0)), email: email}
	c.post("/v1/signup", http.StatusCreated, map[string]any{"name": "Ada", "email": email, "password": fakePassword}, nil)
	c.id = strings.TrimSpace(b.s.Postgres.Query("SELECT id FROM customers WHERE email = '" + email + "'"))
	return c
}

// post has the customer ask the api for something, with the cookies that it has got, and wants
// a status; the answer goes into v, unless v is nil.
func (c *payer) post(path string, want int, body, v any) {
	c.t.Helper()
	b, err := json.Marshal(body)
	c.must(err)
	header := http.Header{"Content-Type": {"application/json"}, "X-Openclaw-Csrf": {"1"}}
	for _, k := range c.cookies {
		header.Add("Cookie", k.Name+"="+k.Value)
	}
	status, answer, cookies, err := c.api.send(c.api.customers, path, header, b)
	if err != nil || status != want {
		c.t.Fatalf("%s: %d %s, %v", path, status, answer, err)
	}
	c.cookies = append(c.cookies, cookies...)
	if v != nil {
		c.must(json.Unmarshal(answer, v))
	}
}

// buy has the customer pay for a tier; the events wait. Without a session no api is asked.
func (c *payer) buy(tier string) {
	c.t.Helper()
	var page struct{ URL string }
	var err error
	if c.cookies != nil {
		c.post("/v1/me/checkout", http.StatusOK, map[string]any{"tier": tier}, &page)
	} else {
		page.URL, err = c.checkout.CheckoutURL(c.t.Context(), c.id, tier)
		c.must(err)
	}
	c.sub, err = c.sim.Complete(page.URL)
	c.must(err)
}

// deliver hands over to the running api what happened at Stripe: each event at least twice,
// some of earlier steps once more, in any order. It returns when the first one was
// acknowledged.
func (c *payer) deliver() time.Time {
	c.t.Helper()
	events := c.sim.Events()
	list := slices.Concat(events, events)
	for range min(len(c.past), 4) {
		list = append(list, c.past[c.random.IntN(len(c.past))])
	}
	c.past = append(c.past, events...)
	return c.receive(list)
}

func (c *payer) receive(list []stripesim.Event) (first time.Time) {
	c.t.Helper()
	c.random.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	for i, ev := range list {
		c.must(c.api.deliver(ev))
		if i == 0 {
			first = time.Now()
		}
	}
	return first
}

// done waits until the worker has done with all events.
func (c *payer) done() {
	c.t.Helper()
	c.s.Eventually("the events are processed", 20*time.Second, func() bool {
		in, err := c.p.Store.StripeInbox(c.t.Context())
		return err == nil && in.Waiting == 0
	})
}

// becomes hands over what happened, and wants the proxy to answer with status within a
// second of the first event, and still when the worker has done with all of them.
func (c *payer) becomes(what string, status int) {
	c.t.Helper()
	first := c.deliver()
	for got := c.ask(); got != status; got = c.ask() {
		if time.Since(first) > aSecond() {
			c.t.Fatalf("%s: the proxy answers %d a second later, want %d", what, got, status)
		}
	}
	c.t.Logf("%s: %d after %v", what, status, time.Since(first).Round(time.Millisecond))
	c.done()
	if got := c.ask(); got != status {
		c.t.Errorf("%s: %d when all events are processed, want %d", what, got, status)
	}
}

// ask sends a small request, no more often than the tier allows.
func (c *payer) ask() int {
	time.Sleep(110 * time.Millisecond)
	return ask(c.s.Proxies[0], c.tok.Raw)
}

// use has the agent ask for so many tokens of output, no more often than the tier allows, and
// returns what came of it.
func (c *payer) use(tokens int64) reply {
	time.Sleep(110 * time.Millisecond)
	return send(c.t.Context(), http.DefaultClient, c.s.Proxies[0], chat{
		token: c.tok.Raw, body: chatBody(0, tokens, false, kimisim.Behavior{OutputTokens: int(tokens)}),
	}, nil)
}

// settled waits until all that was forwarded is recorded, and returns what is settled of the
// present period.
func (c *payer) settled() int64 {
	c.t.Helper()
	c.s.Eventually("all requests are recorded", 20*time.Second, func() bool {
		chats := 0
		for _, e := range c.s.Sim.Ledger() {
			if e.Kind == "chat" {
				chats++
			}
		}
		return strings.TrimSpace(c.s.Postgres.Query("SELECT count(*) FROM usage_events")) == fmt.Sprint(chats)
	})
	p, err := c.p.Store.PeriodAt(c.t.Context(), c.id, time.Now())
	c.must(err)
	return p.Totals.Settled
}

// told waits for a mail.
func (c *payer) told(letter string) {
	c.t.Helper()
	c.s.Eventually("a mail: "+letter, 20*time.Second, func() bool { return slices.Contains(c.box.letters(c.email), letter) })
}

// renews lets the period end, and the next one begin, with or without its payment.
func (c *payer) renews(paid bool) {
	c.t.Helper()
	end := time.Now().Add(1500 * time.Millisecond).Truncate(time.Second)
	c.sim.EndPeriod(c.sub, end)
	c.becomes("the period will end in a moment", http.StatusOK)
	time.Sleep(time.Until(end))
	c.sim.Decline(c.sub, !paid)
	c.sim.Advance(end)
}

// books is all that is known of the customer, but for what every request changes.
func (c *payer) books() string {
	const all = `
		SELECT 'customer: ' || concat_ws(' ', status, tier, payment_hold) FROM customers WHERE id = '%[1]s'
		UNION ALL SELECT 'subscription: ' || concat_ws(' ', id, status, tier, period_start, period_end, failed_payments, coalesce(pending_tier, '-')) FROM subscriptions WHERE customer_id = '%[1]s'
		UNION ALL SELECT 'box: ' || concat_ws(' ', wants, generation, state, subscription_id) FROM boxes WHERE customer_id = '%[1]s'
		UNION ALL SELECT 'token: ' || concat_ws(' ', status, version) FROM proxy_tokens WHERE customer_id = '%[1]s'
		UNION ALL (SELECT 'period: ' || concat_ws(' ', period_id, starts_at, ends_at, limit_tokens, limit_version, overage_tokens, requests, settled_tokens) FROM usage_periods WHERE customer_id = '%[1]s' ORDER BY starts_at)
		UNION ALL (SELECT 'mail: ' || concat_ws(' ', kind, cause, attempts) FROM mails WHERE customer_id = '%[1]s' ORDER BY kind, cause)
		UNION ALL (SELECT 'audit: ' || concat_ws(' ', action, count(*)) FROM audit_log WHERE customer_id = '%[1]s' GROUP BY action ORDER BY action)
		UNION ALL (SELECT 'change: ' || concat_ws(' ', kind, count(*), count(published_at)) FROM config_changes WHERE customer_id = '%[1]s' GROUP BY kind ORDER BY kind)`
	return c.s.Postgres.Query(fmt.Sprintf(all, c.id))
}

// The whole life of a customer, in front of a running token-proxy, api and billing-worker:
// what is paid for decides what the proxy answers. Each event of Stripe comes at least twice,
// some again much later, in shuffled order within each step.
func TestCustomerLifeByStripe(t *testing.T) {
	t.Log("drawn at random, so no run is like another")
	beside(t)
	b := newBilled(t)
	c := b.signUp("ada@example.com")
	c.buy("starter")
	c.deliver()
	c.done()
	p, err := b.p.Store.PeriodAt(t.Context(), c.id, time.Now())
	b.must(err)
	start, end, status := b.sim.Period(c.sub)
	if status != "active" || !p.Start.Equal(start) || !p.End.Equal(end) || p.LimitTokens != 1_000_000 {
		t.Errorf("paid, and the period is %+v; Stripe's is %s to %s, %s", p, start, end, status)
	}
	c.tok = b.p.token(c.id)
	b.s.Eventually("the grant is live", 10*time.Second, func() bool { return c.ask() == http.StatusOK })
	c.told("1 x Welcome to OpenClaw Starter")

	// Requests are metered, up to the limit; a smaller one spares time.
	const limit = 60_000
	b.p.limit(c.id, limit)
	for c.settled() < limit*85/100 {
		if r := c.use(2800); r.status != http.StatusOK || r.tokens != 2800 {
			t.Fatalf("below the limit: %+v", r)
		}
	}
	if got := c.box.letters(c.email); slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "90 %") }) {
		t.Errorf("mails below 90 %%: %q", got)
	}
	for c.settled() < limit*90/100 {
		c.use(600)
	}
	c.told("1 x You have used 90 % of your tokens")
	for n := 0; ; n++ {
		r := c.use(2800)
		if r.status == http.StatusTooManyRequests && r.code == monthly && r.limit == limit {
			break
		}
		if r.status != http.StatusOK || n > 20 {
			t.Fatalf("near the limit: %+v", r)
		}
	}
	if got := c.settled(); got > limit || got < limit*99/100 {
		t.Errorf("%d tokens are settled of %d", got, limit)
	}
	c.told("1 x Your tokens are used up: your agent pauses")

	b.must(b.sim.ChangePrice(c.sub, "openclaw_pro_monthly"))
	c.becomes("upgraded", http.StatusOK)
	if p, err := b.p.Store.PeriodAt(t.Context(), c.id, time.Now()); err != nil || p.LimitTokens > limit+4_000_000 || p.LimitTokens < limit+3_990_000 {
		t.Errorf("upgraded, and the limit is %d, %v", p.LimitTokens, err)
	}

	c.renews(true)
	c.becomes("renewed", http.StatusOK)
	p, err = b.p.Store.PeriodAt(t.Context(), c.id, time.Now())
	if start, end, _ := b.sim.Period(c.sub); err != nil || !p.Start.Equal(start) || !p.End.Equal(end) || p.LimitTokens != 5_000_000 {
		t.Errorf("renewed, and the period is %+v, %v; Stripe's is %s to %s", p, err, start, end)
	}

	c.renews(false)
	c.becomes("the first payment has failed", http.StatusOK)
	b.must(b.sim.Retry(c.sub))
	c.becomes("the second one has failed", http.StatusOK)
	b.must(b.sim.Retry(c.sub))
	c.becomes("the third one has failed", http.StatusForbidden)
	c.told("1 x Your agent is suspended")
	b.sim.Decline(c.sub, false)
	b.must(b.sim.Retry(c.sub))
	c.becomes("paid after all", http.StatusOK)
	c.told("1 x Your agent is back")
	b.sim.Cancel(c.sub)
	c.becomes("cancelled", http.StatusUnauthorized)
	c.told("1 x Your subscription has ended")

	// Much later all of it comes once more, and an operator has it all done again.
	c.settled()
	before := c.books()
	c.receive(slices.Clone(c.past))
	c.done()
	b.s.Postgres.Query("UPDATE stripe_events SET processed_at = NULL, next_attempt_at = now()")
	c.done()
	if after := c.books(); after != before {
		t.Errorf("when all events came once more, it became\n%s\nand was\n%s", after, before)
	}
	if got := c.ask(); got != http.StatusUnauthorized {
		t.Errorf("in the end the proxy answers %d", got)
	}
	got := c.box.letters(c.email)
	for _, letter := range []string{
		"1 x Welcome to OpenClaw Starter", "1 x You have used 90 % of your tokens", "1 x Your tokens are used up: your agent pauses",
		"2 x Your payment did not go through", "1 x Your agent is suspended", "1 x Your agent is back", "1 x Your subscription has ended",
	} {
		if !slices.Contains(got, letter) {
			t.Errorf("mails %q, want %q", got, letter)
		}
	}
	// One row per forwarded request, with the upstream's own numbers. A request that a suspension
	// ended before the upstream's answer came has none, nor the upstream's name for it, and is estimated from above.
	rows, nameless := map[string]row{}, 0
	for _, r := range readRows(t, b.s) {
		if rows[r.UpstreamRequestID] = r; r.UpstreamRequestID == "" {
			nameless++
			if r.Outcome == string(contract.OutcomeOK) {
				t.Errorf("a whole answer, and not the upstream's name for it: %+v", r)
			}
		}
	}
	for _, e := range b.s.Sim.Ledger() {
		r, ok := rows[e.ID]
		if !ok && e.Kind == "chat" && nameless > 0 {
			nameless--
			continue
		}
		if e.Kind == "chat" && (!ok || r.Prompt != int64(e.PromptTokens) || r.Completion != int64(e.CompletionTokens)) {
			t.Errorf("the upstream counts %d+%d of %s, the row is %+v; all: %+v", e.PromptTokens, e.CompletionTokens, e.ID, r, rows)
		}
	}
	if nameless > 0 {
		t.Errorf("%d rows of requests that the upstream does not know", nameless)
	}
}
