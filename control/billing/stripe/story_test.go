package stripe_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/mail"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// In how many random orders the story runs, and which one is the first.
var (
	orders = flag.Int("orders", 8, "how many random orders TestStory plays")
	seed   = flag.Uint64("seed", 1, "number of the first of them")
)

// lanes is how many orders are played at once, each with databases of its own.
const lanes = 4

// The whole life of a customer. Each event comes at least twice, and again much later, in
// shuffled order within each step; the end state and all counters are the same.
func TestStory(t *testing.T) {
	t.Parallel()
	base := someMonthsAgo()
	var ends sync.Map // by what they are: which order ended so
	t.Cleanup(func() {
		var all []string
		ends.Range(func(end, order any) bool {
			all = append(all, fmt.Sprintf("order %d ends with\n%s", order, end))
			return true
		})
		if len(all) != 1 {
			t.Errorf("%d orders end in %d ways: %s", *orders, len(all), strings.Join(all, "\nbut "))
		}
	})
	for lane := range min(lanes, *orders) {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			t.Parallel()
			s := newShared(t)
			for n := lane; n < *orders; n += lanes {
				number := *seed + uint64(n)
				t.Run(fmt.Sprint("order ", number), func(t *testing.T) {
					ends.LoadOrStore(newStory(t, s.newEnv(t, base), number).play(), number)
				})
			}
		})
	}
}

type story struct {
	*env
	t            *testing.T
	random       *rand.Rand
	past         []stripesim.Event
	customer     string
	subscription string
	key          control.ProxyToken
}

func newStory(t *testing.T, e *env, seed uint64) *story {
	return &story{env: e, t: t, random: rand.New(rand.NewPCG(seed, 2))}
}

// step hands over what happened since the last step: each event at least twice, some of
// earlier steps as well, in any order, while two workers are at it.
func (s *story) step(name string) {
	s.t.Helper()
	events := s.sim.Events()
	if len(events) == 0 {
		s.t.Fatalf("%s: nothing happened", name)
	}
	var list []stripesim.Event
	for _, ev := range events {
		for range 2 + s.random.IntN(2) {
			list = append(list, ev)
		}
	}
	for range min(len(s.past), 3) {
		list = append(list, s.past[s.random.IntN(len(s.past))])
	}
	s.past = append(s.past, events...)
	s.random.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	cut := s.random.IntN(len(list))
	for i, ev := range list {
		if i == cut {
			s.bothWork(name)
		}
		s.receive(s.t, ev.Body)
	}
	// An operator has an old event done once more.
	if s.random.IntN(2) == 0 {
		err := s.store.InTx(s.t.Context(), func(tx *store.Tx) error {
			return tx.RetryStripeEvent(s.t.Context(), "operator", s.past[s.random.IntN(len(s.past))].ID, true)
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.bothWork(name)
	if in, err := s.store.StripeInbox(s.t.Context()); err != nil || in.Waiting != 0 {
		s.t.Fatalf("%s: the inbox: %+v, %v: %s", name, in, err, s.query("SELECT string_agg(error, '; ') FROM stripe_events WHERE processed_at IS NULL"))
	}
}

func (s *story) bothWork(name string) {
	s.t.Helper()
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := s.processor.ProcessDue(s.t.Context()); err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
		})
	}
	both.Wait()
}

func (s *story) notify() {
	s.t.Helper()
	n := mail.LimitNotices{Store: s.store, Add: directMails{}.AddMail, Now: s.sim.Now}
	for range 2 {
		if _, err := n.Notify(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *story) is(state string, status contract.Status, limit int64) {
	s.t.Helper()
	s.want(s.t, s.customer, state)
	g := s.grant(s.t, s.key)
	start, end, _ := s.sim.Period(s.subscription)
	if g.Status != status || status == contract.StatusActive && (g.MonthlyLimit != limit || !g.Period.Start.Equal(start) || !g.Period.End.Equal(end)) {
		s.t.Errorf("%s: the grant is %+v; want %s, limit %d, %s to %s", state, g, status, limit, start, end)
	}
}

func (s *story) renew() {
	_, end, _ := s.sim.Period(s.subscription)
	s.sim.Advance(end)
}

func (s *story) play() string {
	t := s.t
	s.customer, s.subscription = s.buy(t, "starter")
	s.want(t, s.customer, "pending starter -")
	s.step("paid")
	s.want(t, s.customer, "active starter active")
	s.key = s.token(t, s.customer)
	s.is("active starter active", contract.StatusActive, 1_000_000)

	s.use(t, s.customer, 899_999)
	s.notify()
	if got := s.mails(s.customer); got != "welcome" {
		t.Errorf("mails below 90 %%: %s", got)
	}
	s.use(t, s.customer, 1)
	s.notify()
	s.use(t, s.customer, 100_000)
	s.notify()

	s.sim.Advance(s.sim.Now().Add(10 * 24 * time.Hour))
	if err := s.sim.ChangePrice(s.subscription, "openclaw_pro_monthly"); err != nil {
		t.Fatal(err)
	}
	s.step("upgrade")
	start, end, _ := s.sim.Period(s.subscription)
	left := end.Sub(start) - 10*24*time.Hour // of which the upgrade gives its part of four million
	s.is("active pro active", contract.StatusActive, 1_000_000+int64(4_000_000*(left.Seconds()/end.Sub(start).Seconds())))
	s.use(t, s.customer, 2_000_000)
	s.notify()

	s.renew()
	s.step("renewal")
	s.is("active pro active", contract.StatusActive, 5_000_000)
	s.use(t, s.customer, 500)

	s.sim.Decline(s.subscription, true)
	s.renew()
	s.step("first failure")
	s.is("active pro past_due", contract.StatusActive, 5_000_000)
	for n := range 2 {
		s.sim.Advance(s.sim.Now().Add(3 * 24 * time.Hour))
		if err := s.sim.Retry(s.subscription); err != nil {
			t.Fatal(err)
		}
		s.sim.ActionRequired(s.subscription)
		s.step(fmt.Sprint("failure ", n+2))
	}
	s.is("suspended pro past_due", contract.StatusSuspended, 0)

	s.sim.Decline(s.subscription, false)
	if err := s.sim.Retry(s.subscription); err != nil {
		t.Fatal(err)
	}
	s.step("recovery")
	s.is("active pro active", contract.StatusActive, 5_000_000)

	if err := s.sim.ChangePrice(s.subscription, "openclaw_starter_monthly"); err != nil {
		t.Fatal(err)
	}
	s.step("downgrade")
	s.is("active pro active", contract.StatusActive, 5_000_000)
	s.renew()
	s.step("smaller period")
	s.is("active starter active", contract.StatusActive, 1_000_000)

	s.sim.CancelAtPeriodEnd(s.subscription, true)
	s.step("to be cancelled")
	s.is("active starter active", contract.StatusActive, 1_000_000)
	s.renew()
	s.step("cancelled")
	s.is("cancelled starter canceled", contract.StatusRevoked, 0)

	// Long after, all of it comes once more.
	s.query("UPDATE stripe_events SET processed_at = NULL, next_attempt_at = now() WHERE id LIKE 'evt_%s%%'", s.sim.Tag())
	for _, i := range s.random.Perm(len(s.past)) {
		s.receive(t, s.past[i].Body)
	}
	s.bothWork("afterwards")
	s.is("cancelled starter canceled", contract.StatusRevoked, 0)
	return s.everything()
}

// everything is all that is known of the customer and must not depend on the order.
func (s *story) everything() string {
	s.t.Helper()
	const all = `
		SELECT 'customer: ' || concat_ws(' ', status, tier, payment_hold, stripe_customer_id) FROM customers WHERE id = '%[1]s'
		UNION ALL SELECT 'subscription: ' || concat_ws(' ', id, status, tier, period_start, period_end, cancel_at_period_end, failed_payments, coalesce(pending_tier, '-')) FROM subscriptions WHERE customer_id = '%[1]s'
		UNION ALL SELECT 'box: ' || concat_ws(' ', wants, generation, state, subscription_id) FROM boxes WHERE customer_id = '%[1]s'
		UNION ALL SELECT 'token: ' || concat_ws(' ', status, version) FROM proxy_tokens WHERE customer_id = '%[1]s'
		UNION ALL (SELECT 'period: ' || concat_ws(' ', period_id, starts_at, ends_at, limit_tokens, limit_version, overage_tokens, requests, settled_tokens) FROM usage_periods WHERE customer_id = '%[1]s' ORDER BY starts_at)
		UNION ALL (SELECT 'mail: ' || concat_ws(' ', kind, cause, language) FROM mails WHERE customer_id = '%[1]s' ORDER BY kind, cause)
		UNION ALL (SELECT 'audit: ' || concat_ws(' ', action, count(*)) FROM audit_log WHERE customer_id = '%[1]s' GROUP BY action ORDER BY action)
		UNION ALL (SELECT 'change: ' || concat_ws(' ', kind, count(*), count(published_at)) FROM config_changes WHERE customer_id = '%[1]s' GROUP BY kind ORDER BY kind)
		UNION ALL SELECT 'events: ' || count(*) FROM stripe_events WHERE processed_at IS NOT NULL AND id LIKE 'evt_%[2]s%%'`
	return strings.NewReplacer(s.customer, "CUSTOMER", s.sim.Tag(), "ID").Replace(s.query(all, s.customer, s.sim.Tag()))
}
