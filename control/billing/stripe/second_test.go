package stripe_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// twice has a customer pay for one tier and, later, for another one, which someone sells it in
// Stripe's dashboard. The events wait.
func (e *env) twice(t *testing.T, first, second string) (customer, older, newer string) {
	t.Helper()
	customer, older = e.buy(t, first)
	e.sim.Advance(e.sim.Now().Add(time.Minute))
	newer, err := e.sim.Subscribe(e.stripeID(customer), "openclaw_"+second+"_monthly")
	if err != nil {
		t.Fatal(err)
	}
	e.sim.Advance(e.sim.Now().Add(time.Minute))
	return customer, older, newer
}

// stripeID is the id by which Stripe knows a customer.
func (e *env) stripeID(customer string) string {
	return e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
}

// Of two subscriptions that are paid the newer one counts, in whichever order they are heard
// of, and whichever was in force already. The other one is cancelled, and what was paid for it
// is the customer's credit.
func TestSecondSubscription(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	base := someMonthsAgo()
	want := ""
	for order := range uint64(12) {
		e := s.newEnv(t, base)
		random := rand.New(rand.NewPCG(order, 3))
		customer, older, newer := e.twice(t, "team", "pro")
		events := e.sim.Events()
		var list []stripesim.Event
		for _, ev := range events {
			// In every other order, the older one is in force before the newer one is heard of.
			if order%2 == 0 && strings.Contains(string(ev.Body), older) {
				e.receive(t, ev.Body)
				continue
			}
			list = append(list, ev, ev)
		}
		e.work(t)
		random.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
		for _, ev := range list {
			e.receive(t, ev.Body)
			if random.IntN(3) == 0 {
				e.work(t)
			}
		}
		e.work(t)
		key := e.token(t, customer)
		e.deliver(t) // that the older one has ended
		for _, ev := range events {
			e.receive(t, ev.Body)
		}
		e.query("UPDATE stripe_events SET processed_at = NULL, next_attempt_at = now() WHERE id LIKE 'evt_%s%%'", e.sim.Tag())
		e.work(t)
		if _, _, status := e.sim.Period(older); status != "canceled" {
			t.Errorf("order %d: the older subscription is %s", order, status)
		}
		if _, _, status := e.sim.Period(newer); status != "active" {
			t.Errorf("order %d: the newer subscription is %s", order, status)
		}
		if g := e.grant(t, key); g.Status != contract.StatusActive || g.Tier != "pro" || g.MonthlyLimit != 5_000_000 {
			t.Errorf("order %d: grant %+v", order, g)
		}
		stripeID := e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer)
		if credit := e.sim.Credit(stripeID); credit < 12_890 || credit > 12_900 {
			t.Errorf("order %d: of 12900 cents %d are the customer's credit", order, credit)
		}
		if e.metric(t, "billing_stripe_second_subscriptions_total", "") != 1 {
			t.Errorf("order %d: the alert is not raised once", order)
		}
		got := fmt.Sprint(e.query(`
			SELECT concat_ws(' ', status, tier, (SELECT string_agg(status, ',' ORDER BY id) FROM subscriptions WHERE customer_id = c.id))
			FROM customers c WHERE id = '%s'`, customer), " ", e.mails(customer), " ", e.query(`
			SELECT string_agg(wants || ' ' || (subscription_id = '%[2]s'), ',') || ' ' ||
				(SELECT count(*) FROM audit_log WHERE customer_id = '%[1]s' AND action = 'subscription.replaced' AND target = '%[3]s')
			FROM boxes WHERE customer_id = '%[1]s'`, customer, newer, older))
		if want == "" {
			want = got
		}
		if got != want || got != "active pro canceled,active welcome run true 1" {
			t.Errorf("order %d: %s", order, got)
		}
		// The end of the one that counts is the end.
		e.sim.Cancel(newer)
		e.deliver(t)
		if got := e.state(t, customer); !strings.HasPrefix(got, "cancelled pro") {
			t.Errorf("order %d: in the end the customer is %s", order, got)
		}
	}
}

// Once tokens of the older one were used, its time is not paid back: tokens are not either. It
// does not matter whether Postgres knows of them yet.
func TestSecondSubscriptionAfterUse(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	for name, use := range map[string]func(e *env, customer string){
		"known": func(e *env, customer string) { e.use(t, customer, 20_000_000) },
		"under way": func(e *env, customer string) {
			period := e.query("SELECT period_id FROM usage_periods WHERE customer_id = '%s'", customer)
			if err := e.client.HSet(t.Context(), contract.QuotaKey(customer, period), "leased", 5000).Err(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		e := s.newEnv(t, someMonthsAgo())
		customer, older := e.buy(t, "team")
		e.deliver(t)
		use(e, customer)
		e.sim.Advance(e.sim.Now().Add(time.Hour))
		if _, err := e.sim.Subscribe(e.stripeID(customer), "openclaw_starter_monthly"); err != nil {
			t.Fatal(err)
		}
		e.deliver(t)
		e.deliver(t)
		if _, _, status := e.sim.Period(older); status != "canceled" {
			t.Errorf("%s: the older subscription is %s", name, status)
		}
		if credit := e.sim.Credit(e.stripeID(customer)); credit != 0 {
			t.Errorf("%s: %d cents are the customer's credit", name, credit)
		}
		if e.metric(t, "billing_stripe_second_subscriptions_total", "") != 1 {
			t.Errorf("%s: the alert is not raised once", name)
		}
		e.want(t, customer, "active starter active,canceled")
	}
}

// A second subscription that is not paid does not take the place of one that is.
func TestSecondSubscriptionIsNotPaid(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, older, newer := e.twice(t, "pro", "team")
	e.sim.SetStatus(newer, "past_due")
	e.deliver(t)
	e.deliver(t)
	if _, _, status := e.sim.Period(newer); status != "canceled" {
		t.Errorf("the one that is not paid is %s", status)
	}
	if _, _, status := e.sim.Period(older); status != "active" {
		t.Errorf("the one that is paid is %s", status)
	}
	if got := e.state(t, customer); !strings.HasPrefix(got, "active pro ") {
		t.Errorf("the customer is %s", got)
	}
	if got := e.mails(customer); got != "welcome" {
		t.Errorf("mails %s", got)
	}
}

// While Stripe cannot be told to cancel it, the events wait, and what counts is served.
func TestSecondSubscriptionIsCancelledLater(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, older, newer := e.twice(t, "starter", "team")
	for _, ev := range e.sim.Events() {
		if strings.Contains(string(ev.Body), older) {
			e.receive(t, ev.Body)
			e.work(t)
			continue
		}
		if ev.Type == "customer.subscription.updated" {
			e.receive(t, ev.Body)
		}
	}
	e.sim.FailRoute("DELETE /v1/subscriptions/{id}", 1)
	if _, err := e.processor.ProcessDue(t.Context()); err == nil {
		t.Error("no error although Stripe did not cancel the older one")
	}
	if got := e.state(t, customer); !strings.HasPrefix(got, "active team ") {
		t.Errorf("meanwhile the customer is %s", got)
	}
	if n := e.query("SELECT count(*) FROM stripe_events WHERE processed_at IS NULL"); n != "1" {
		t.Errorf("%s events wait", n)
	}
	e.due()
	e.work(t)
	if _, _, status := e.sim.Period(older); status != "canceled" {
		t.Errorf("the older subscription is %s", status)
	}
	if n := e.query("SELECT count(*) FROM stripe_events WHERE processed_at IS NULL"); n != "0" {
		t.Errorf("%s events wait in the end", n)
	}
	if _, err := e.checkout.CheckoutURL(t.Context(), customer, "team"); !errors.Is(err, control.ErrExists) {
		t.Errorf("a third checkout: %v", err)
	}
	if _, _, status := e.sim.Period(newer); status != "active" {
		t.Errorf("the newer subscription is %s", status)
	}
}

// Who comes back gets a box and tokens of its own anew; what was ended stays ended. Who was
// deleted does not come back.
func TestCheckoutAfterTheEnd(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	e.deliver(t)
	old := e.token(t, customer)
	e.sim.Cancel(sub)
	past := e.sim.Events()
	for _, ev := range past {
		e.receive(t, ev.Body)
	}
	e.work(t)
	e.want(t, customer, "cancelled pro canceled")
	e.sim.Advance(e.sim.Now().Add(40 * 24 * time.Hour))
	url, err := e.checkout.CheckoutURL(t.Context(), customer, "starter")
	if err != nil {
		t.Fatal(err)
	}
	again, err := e.sim.Complete(url)
	if err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	for _, ev := range past { // late duplicates of the end
		e.receive(t, ev.Body)
	}
	e.query("UPDATE stripe_events SET processed_at = NULL, next_attempt_at = now()")
	e.work(t)
	if got := e.state(t, customer); !strings.HasPrefix(got, "active starter ") {
		t.Errorf("the customer is %s", got)
	}
	if g := e.grant(t, old); g.Status != contract.StatusRevoked {
		t.Errorf("the old token: %+v", g)
	}
	fresh := e.token(t, customer)
	start, end, _ := e.sim.Period(again)
	if g := e.grant(t, fresh); g.Status != contract.StatusActive || g.MonthlyLimit != 1_000_000 || !g.Period.Start.Equal(start) || !g.Period.End.Equal(end) {
		t.Errorf("the new token: %+v", g)
	}
	if got := e.query("SELECT string_agg(wants || ' ' || (namespace = 'customer-' || customer_id), ',' ORDER BY created_at) FROM boxes WHERE customer_id = '%s'", customer); got != "destroy true,run false" {
		t.Errorf("boxes %s", got)
	}
	if got := e.mails(customer); got != "welcome cancelled welcome" {
		t.Errorf("mails %s", got)
	}
	e.sim.Cancel(again)
	e.deliver(t)
	e.want(t, customer, "cancelled starter canceled,canceled")
	if got := e.mails(customer); got != "welcome cancelled welcome cancelled" {
		t.Errorf("mails %s", got)
	}

	if err := e.service.DeleteCustomer(t.Context(), "test", customer); err != nil {
		t.Fatal(err)
	}
	if _, err := e.checkout.CheckoutURL(t.Context(), customer, "pro"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a checkout of a deleted customer: %v", err)
	}
}

// What is used above the limit costs what the customer's tier says, from when the tier holds:
// of an item whose price was changed Stripe would forget what was metered. It is never sold
// twice.
func TestOverageFollowsTheTier(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	prices := func(step string, want ...string) {
		t.Helper()
		for range 2 { // also the events of what was put right
			e.deliver(t)
		}
		if got := e.sim.Prices(sub); !slices.Equal(got, want) {
			t.Errorf("%s: it is for %q, want %q", step, got, want)
		}
		if n := e.query("SELECT count(*) FROM stripe_events WHERE processed_at IS NULL"); n != "0" {
			t.Errorf("%s: %s events wait", step, n)
		}
	}
	set := func() {
		t.Helper()
		if _, err := e.checkout.SetOverage(t.Context(), "customer", customer, 600); err != nil {
			t.Fatal(err)
		}
	}
	change := func(tier string) {
		t.Helper()
		if err := e.sim.ChangePrice(sub, "openclaw_"+tier+"_monthly"); err != nil {
			t.Fatal(err)
		}
	}
	limit := func(want string) {
		t.Helper()
		if got := e.query("SELECT limit_tokens FROM usage_periods WHERE customer_id = '%s' ORDER BY starts_at DESC LIMIT 1", customer); got != want {
			t.Errorf("limit %s, want %s", got, want)
		}
	}
	change("pro")
	prices("without overage", "openclaw_pro_monthly")
	set()
	prices("allowed", "openclaw_overage", "openclaw_pro_monthly")
	limit("7000000") // 2 million for 600 cents
	change("team")
	prices("upgraded", "openclaw_overage", "openclaw_team_monthly")
	limit("23000000") // 3 million
	set()
	prices("allowed once more", "openclaw_overage", "openclaw_team_monthly")
	change("starter") // from the next period on
	prices("to be downgraded", "openclaw_overage", "openclaw_starter_monthly")
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	prices("downgraded", "openclaw_overage", "openclaw_starter_monthly")
	limit("3000000")
	// Somebody added one in Stripe's dashboard.
	e.sim.AddPrice(sub, "openclaw_overage")
	prices("sold twice", "openclaw_overage", "openclaw_starter_monthly")
}

// What was used above the limit before an upgrade is billed, at the price of that time, and the
// cap holds for all of the period.
func TestOverageBeforeAnUpgradeIsBilled(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	if _, err := e.checkout.SetOverage(t.Context(), "customer", customer, 30_000); err != nil { // 100 million tokens
		t.Fatal(err)
	}
	start, end, _ := e.sim.Period(sub)
	e.sim.Advance(start.Add(end.Sub(start) / 2))
	e.use(t, customer, 26_000_000)
	if _, err := e.meter.ReportDue(t.Context()); err != nil { // so Stripe has some of it before the upgrade
		t.Fatal(err)
	}
	e.sim.Advance(e.sim.Now().Add(time.Hour))
	e.use(t, customer, 25_000_000) // 150 dollars by now, of which half is not reported yet
	if err := e.sim.ChangePrice(sub, "openclaw_team_monthly"); err != nil {
		t.Fatal(err)
	}
	e.deliver(t)
	if got := e.query("SELECT overage_tokens FROM usage_periods WHERE customer_id = '%s'", customer); got != "125000000" { // 50, and 75 for the other 150 dollars
		t.Errorf("%s tokens above the limit", got)
	}
	p := e.query("SELECT limit_tokens - settled_tokens FROM usage_periods WHERE customer_id = '%s'", customer)
	var left int64
	if _, err := fmt.Sscan(p, &left); err != nil {
		t.Fatal(err)
	}
	e.use(t, customer, left)
	if _, err := e.meter.ReportDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := e.sim.Invoiced(e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer))
	e.sim.Advance(end)
	after := e.sim.Invoiced(e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", customer))
	if got := after - before - 12_900; got != 30_000 {
		t.Errorf("%d cents are billed for what was used above the limit, want all of the cap, 30000", got)
	}
}

// Duplicates are recognised for as long as Stripe can send any. What is older than that is
// forgotten, and processed once more if it comes, which changes nothing.
func TestLateDuplicates(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "pro")
	events := e.sim.Events()
	for _, ev := range events {
		e.receive(t, ev.Body)
	}
	e.work(t)
	e.sim.Cancel(sub)
	e.deliver(t)
	const keep = 90 * 24 * time.Hour
	prune := func(want int64) {
		t.Helper()
		if n, err := e.store.PruneStripeEvents(t.Context(), keep, 1000); n != want || err != nil {
			t.Errorf("%d events are removed, %v, want %d", n, err, want)
		}
	}
	e.query("UPDATE stripe_events SET received_at = now() - interval '89 days'")
	prune(0)
	for _, ev := range events {
		e.receive(t, ev.Body)
	}
	if n := e.metric(t, "billing_stripe_webhooks_total", "repeated"); n != float64(len(events)) {
		t.Errorf("%v duplicates are recognised of %d", n, len(events))
	}
	e.query("UPDATE stripe_events SET received_at = now() - interval '91 days', processed_at = CASE WHEN id = '%s' THEN NULL ELSE processed_at END, next_attempt_at = 'infinity'", events[0].ID)
	prune(int64(len(events))) // and the one of the end; the one that waits stays
	if got := e.query("SELECT string_agg(id, ',') FROM stripe_events"); got != events[0].ID {
		t.Errorf("events %s", got)
	}
	before := e.query("SELECT count(*) FROM audit_log")
	for _, ev := range events {
		e.receive(t, ev.Body)
	}
	e.query("UPDATE stripe_events SET next_attempt_at = now()")
	e.work(t)
	e.want(t, customer, "cancelled pro canceled")
	if after := e.query("SELECT count(*) FROM audit_log"); after != before {
		t.Errorf("%s entries in the audit log, and %s before", after, before)
	}
}

// A subscription that is replaced stays so, whatever is said of it.
func TestReplacedStaysSo(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, older, newer := e.twice(t, "team", "pro")
	e.deliver(t)
	e.deliver(t)
	start, end, _ := e.sim.Period(older)
	v := control.StripeSubscription{ID: older, CustomerID: customer, Status: control.SubscriptionActive, Tier: "team", PeriodStart: start, PeriodEnd: end}
	if _, err := e.service.ApplySubscription(t.Context(), "test", v, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	var live control.Subscription
	err := e.store.InTx(t.Context(), func(tx *store.Tx) (err error) {
		live, err = tx.LiveSubscription(t.Context(), customer)
		return err
	})
	if err != nil || live.ID != newer {
		t.Errorf("%s counts, %v; want %s", live.ID, err, newer)
	}
}
