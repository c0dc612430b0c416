package e2e_test

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// verify runs "openclawctl ledger verify" and returns its exit code and what it said.
func (b *billed) verify() (int, string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), testenv.BuildBinary(b.t, "./cmd/openclawctl"), "ledger", "verify", "--wait", "10s")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+b.s.Postgres.URL, "REDIS_URL="+b.s.Redis.RedisURL(),
		"STRIPE_SECRET_KEY="+stripesim.Key, "STRIPE_URL="+b.sim.URL())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// A customer who allowed it goes over its limit, up to what it will pay, and not beyond. Stripe
// is told of each token above the limit once, although the worker that tells it is killed.
func TestOverageAtTheProxy(t *testing.T) {
	beside(t)
	const limit, above = 30_000, 10_000
	b := newBilled(t, "--stripe-events-lease", "1s", "--ledger-claim-idle", "300ms")
	c := b.signUp("ada@example.com")
	c.buy("starter")
	c.deliver()
	c.done()
	c.tok = b.p.token(c.id)
	// As if its tier had no more: what an operator lowers, overage does not raise again.
	b.p.limit(c.id, limit)
	b.s.Postgres.Query("UPDATE usage_periods SET included_tokens = limit_tokens, ceiling_tokens = NULL")
	b.s.Eventually("the grant is live", 5*time.Second, func() bool { return c.ask() == http.StatusOK })
	// untilRefused uses tokens until there are none, and returns what is settled then.
	untilRefused := func(limit int64) int64 {
		t.Helper()
		for n := 0; ; n++ {
			r := c.use(1500)
			if r.status == http.StatusTooManyRequests && r.code == monthly && r.limit == limit {
				return c.settled()
			}
			if r.status != http.StatusOK || n > 60 {
				t.Fatalf("under a limit of %d: %+v", limit, r)
			}
		}
	}
	if got := untilRefused(limit); got > limit {
		t.Fatalf("%d tokens are settled of %d, without overage", got, limit)
	}
	if ids := b.sim.MeterIdentifiers(); len(ids) != 0 {
		t.Errorf("Stripe was told %q although nobody allowed overage", ids)
	}

	// 3 cents pay for 10,000 tokens.
	if _, err := b.checkout.SetOverage(t.Context(), "customer", c.id, 3); err != nil {
		t.Fatal(err)
	}
	c.deliver()
	began := time.Now()
	for r := c.use(1500); r.status != http.StatusOK; r = c.use(1500) {
		if time.Since(began) > aSecond() {
			t.Fatalf("a second after overage was allowed: %+v", r)
		}
	}
	kills := make(chan struct{})
	go func() {
		defer close(kills)
		for range 4 {
			time.Sleep(150 * time.Millisecond)
			b.s.Billing.Kill()
			b.s.RestartBilling()
		}
	}()
	settled := untilRefused(limit + above)
	<-kills
	if settled <= limit || settled > limit+above || settled < (limit+above)*98/100 {
		t.Errorf("%d tokens are settled of %d and %d above", settled, limit, above)
	}
	stripeID := strings.TrimSpace(b.s.Postgres.Query("SELECT stripe_customer_id FROM customers"))
	b.s.Eventually("Stripe knows of all tokens above the limit", 20*time.Second, func() bool {
		return b.sim.Metered(stripeID) == (settled-limit)*300 // millionths of a cent
	})
	// Each report of the outbox is one meter event, under our identifier.
	ours := strings.Fields(b.s.Postgres.Query("SELECT id FROM meter_reports ORDER BY id"))
	slices.Sort(ours)
	if theirs := b.sim.MeterIdentifiers(); !slices.Equal(ours, theirs) {
		t.Errorf("we reported %q, and Stripe has %q", ours, theirs)
	}
	c.done()
	b.s.Eventually("all reports are noted", 20*time.Second, func() bool {
		return strings.TrimSpace(b.s.Postgres.Query("SELECT count(*) FROM meter_reports WHERE reported_at IS NULL")) == "0"
	})
	if code, out := b.verify(); code != 0 {
		t.Errorf("ledger verify: exit code %d\n%s", code, out)
	}
	t.Logf("%d tokens above the limit in %d reports", settled-limit, len(ours))
	// What Stripe was never told of is found, and that nobody used it.
	b.s.Postgres.Query("UPDATE meter_reports SET tokens_to = tokens_to + 7 WHERE tokens_from = (SELECT max(tokens_from) FROM meter_reports)")
	if code, out := b.verify(); code != 4 || !strings.Contains(out, "Stripe counts other tokens") ||
		!strings.Contains(out, "of 1 periods something else was reported") {
		t.Errorf("ledger verify of what Stripe does not have: exit code %d\n%s", code, out)
	}
}
