package e2e_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// While customers pay, fail to, change their tier and are given tokens, the api, which takes
// in Stripe's webhooks, and the billing-worker are killed at random. In the end each event is
// worked, each row is there that is there when nobody is killed, once, and Redis holds what
// Postgres does.
func TestKilledControlPlaneLosesNothing(t *testing.T) {
	t.Log("drawn at random, so no run is like another")
	beside(t)
	customers, each := full(12, 25), full(10, 40)
	plan := newPlan(rand.Uint64(), customers, each)
	var want, got []string
	k := &killer{every: full[int64](3, 4)}
	t.Run("at once", func(t *testing.T) {
		t.Run("undisturbed", func(t *testing.T) {
			t.Parallel()
			reference := newCrowd(t, plan, customers)
			reference.run(nil)
			want = reference.rows()
		})
		t.Run("killed", func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, plan, customers)
			began := time.Now()
			c.run(k)
			t.Logf("%d changes in %v: the api was killed %d times, the billing-worker %d times; %d requests to the api were repeated, %d webhooks delivered again, of which %d broke off",
				customers*each, time.Since(began).Round(time.Second), k.api, k.worker, c.repeated.Load(), c.api.redelivered.Load(), c.api.cut.Load())
			if least := full(2, 12); k.api < least || k.worker < least {
				t.Error("too few kills to show anything")
			}
			if c.api.redelivered.Load() == 0 {
				t.Error("no webhook met an api that was killed")
			}
			got = c.rows()
			c.events()
			c.redisEqualsPostgres()
			c.mails()
		})
	})
	if t.Failed() {
		return
	}
	rows := 0
	for who := range want {
		a, b := strings.Split(got[who], "\n"), strings.Split(want[who], "\n")
		for i := range max(len(a), len(b)) {
			rows++
			if i >= len(a) || i >= len(b) || !alike(a[i], b[i]) {
				t.Errorf("customer %d has %q, and without kills %q", who, a[min(i, len(a)):], b[min(i, len(b)):])
				break
			}
		}
	}
	t.Logf("%d rows of %d customers were compared", rows, customers)
}

// spread is by how many tokens two limits may differ: an upgrade gives 6 fewer with each second
// that it comes later, and two runs do not take the same time.
const spread = 6 * 60 * 10

// alike reports whether two rows are the same, but for limits that differ by no more than spread.
func alike(a, b string) bool {
	if a == b {
		return true
	}
	x, y := amounts.FindAllString(a, -1), amounts.FindAllString(b, -1)
	if amounts.ReplaceAllString(a, "N") != amounts.ReplaceAllString(b, "N") || len(x) != len(y) {
		return false
	}
	for i := range x {
		m, errM := strconv.ParseInt(x[i], 10, 64)
		n, errN := strconv.ParseInt(y[i], 10, 64)
		if errM != nil || errN != nil || max(m-n, n-m) > spread {
			return false
		}
	}
	return true
}

// step is one change of a customer.
type step struct {
	kind   string
	tokens int64 // that are added to the limit, with kind "quota"
}

// newPlan makes what each customer goes through. Only what can follow upon what came
// before is chosen.
func newPlan(seed uint64, customers, each int) [][]step {
	random := rand.New(rand.NewPCG(seed, 7))
	plan := make([][]step, customers)
	for who := range plan {
		tier, failures := 0, 0
		for range each {
			var may []string
			if failures == 0 {
				for i := range 3 {
					if i != tier {
						may = append(may, tierName(i))
					}
				}
				may = append(may, "renew", "decline")
			} else {
				may = append(may, "retry", "pay")
				if failures > 3 {
					may = may[1:]
				}
			}
			s := step{kind: may[random.IntN(len(may))]}
			if random.IntN(2) == 0 {
				s = step{kind: "quota", tokens: 2*spread + random.Int64N(1_000_000)}
			}
			switch s.kind {
			case "decline", "retry":
				failures++
			case "pay":
				failures = 0
			case "starter", "pro", "team":
				tier = slices.Index([]string{"starter", "pro", "team"}, s.kind)
			}
			plan[who] = append(plan[who], s)
		}
	}
	return plan
}

func tierName(i int) string { return []string{"starter", "pro", "team"}[i] }

// crowd is customers of a system on which a plan is carried out.
type crowd struct {
	*billed
	plan   [][]step
	payers []*payer

	atStripe sync.Mutex // so that the events of a change are known

	done     atomic.Int64 // changes
	asking   atomic.Int64 // requests to the api that are not answered
	repeated atomic.Int64 // requests to the api

	mu        sync.Mutex
	delivered map[string]bool // events of changes that were acknowledged
	unknown   map[string]bool // events that were not processed when that was asked for
	asked     time.Time
}

func newCrowd(t *testing.T, plan [][]step, customers int) *crowd {
	t.Helper()
	c := &crowd{plan: plan, delivered: make(map[string]bool)}
	c.billed = newBilled(t, "--stripe-events-every", "20ms", "--stripe-events-lease", "1s", "--publish-every", "100ms")
	c.api.addOperator()
	for i := range customers {
		// Not by the api, which takes its time for each password.
		id, email := control.NewID(control.CustomerID), fmt.Sprintf("%d@example.com", i)
		c.must(c.p.Store.SignUp(t.Context(), control.Account{
			Customer: control.Customer{ID: id, Name: "Ada", Email: email, Tier: "starter", Status: control.CustomerPending, CreatedAt: time.Now()},
			Language: control.English,
		}, control.Identity{ID: control.NewID(control.IdentityID), CustomerID: id, Provider: control.ProviderPassword, Subject: email, SecretHash: "fake", CreatedAt: time.Now()}))
		p := &payer{billed: c.billed, random: rand.New(rand.NewPCG(uint64(i), 0)), id: id, email: email}
		p.buy("starter")
		p.deliver()
		c.payers = append(c.payers, p)
	}
	for _, p := range c.payers {
		p.done()
		p.tok = c.p.token(p.id)
	}
	return c
}

// run carries out the plan, the customers side by side, and each one's changes one after the
// other, while k kills.
func (c *crowd) run(k *killer) {
	c.t.Helper()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		if k != nil {
			k.run(c, stop)
		}
	}()
	var all sync.WaitGroup
	for who, steps := range c.plan {
		all.Go(func() {
			for i, s := range steps {
				if err := c.change(c.payers[who], s, fmt.Sprintf("change-%d-%d", who, i)); err != nil {
					c.t.Errorf("customer %d, change %d (%s): %v", who, i, s.kind, err)
					return
				}
				c.done.Add(1)
			}
		})
	}
	all.Wait()
	close(stop)
	<-stopped
	if c.t.Failed() {
		c.t.FailNow()
	}
	c.s.Eventually("all mails are sent or in hand", 30*time.Second, func() bool {
		return strings.TrimSpace(c.s.Postgres.Query("SELECT count(*) FROM mails WHERE claimed_at IS NULL AND failed_at IS NULL")) == "0"
	})
	c.s.Eventually("all is published", 20*time.Second, func() bool {
		return strings.TrimSpace(c.s.Postgres.Query("SELECT count(*) FROM config_changes WHERE published_at IS NULL")) == "0"
	})
}

func (c *crowd) change(p *payer, s step, key string) error {
	if s.kind == "quota" {
		return c.addTokens(p, s.tokens, key)
	}
	events, err := c.changeAtStripe(p, s.kind)
	if err != nil {
		return err
	}
	list := slices.Concat(events, events)
	p.random.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
	for _, ev := range list {
		if err := c.api.deliver(ev); err != nil {
			return err
		}
		c.mu.Lock()
		c.delivered[ev.ID] = true
		c.mu.Unlock()
	}
	received := time.Now()
	for c.waiting(events, received) {
		if time.Since(received) > patience {
			return errors.New("its events are not processed")
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// waiting reports whether any of the events was not processed when that was asked for last,
// or that was not asked for since.
func (c *crowd) waiting(events []stripesim.Event, since time.Time) bool {
	const pause = 100 * time.Millisecond
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.asked) > pause {
		asked := time.Now()
		c.unknown = make(map[string]bool)
		for _, id := range strings.Fields(c.s.Postgres.Query("SELECT id FROM stripe_events WHERE processed_at IS NULL")) {
			c.unknown[id] = true
		}
		c.asked = asked
	}
	return !c.asked.After(since) || slices.ContainsFunc(events, func(ev stripesim.Event) bool { return c.unknown[ev.ID] })
}

func (c *crowd) changeAtStripe(p *payer, kind string) ([]stripesim.Event, error) {
	// An upgrade gives tokens by what is left of its period when Stripe bills it. All are billed
	// at the same time of their period, so that they give the same with and without kills.
	start, _, _ := c.sim.Period(p.sub)
	billed := start.Add(time.Second)
	if kind == "starter" || kind == "pro" || kind == "team" {
		time.Sleep(time.Until(billed))
	}
	c.atStripe.Lock()
	defer c.atStripe.Unlock()
	var err error
	switch kind {
	case "renew", "decline":
		c.sim.Decline(p.sub, kind == "decline")
		// A period lasts at least a second, and ends in the past.
		end := time.Now().Truncate(time.Second)
		for !end.After(start) {
			time.Sleep(50 * time.Millisecond)
			end = time.Now().Truncate(time.Second)
		}
		c.sim.EndPeriod(p.sub, end)
		c.sim.Advance(time.Now())
	case "retry":
		err = c.sim.Retry(p.sub)
	case "pay":
		c.sim.Decline(p.sub, false)
		err = c.sim.Retry(p.sub)
	default:
		c.sim.Advance(billed)
		err = c.sim.ChangePrice(p.sub, "openclaw_"+kind+"_monthly")
	}
	return c.sim.Events(), err
}

// addTokens asks the api until it answers.
func (c *crowd) addTokens(p *payer, tokens int64, key string) error {
	body := map[string]any{"action": "add", "tokens": tokens, "reason": key}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		c.asking.Add(1)
		status, answer, err := c.api.post(c.api.operators, "/v1/customers/"+p.id+"/quota", key, body)
		c.asking.Add(-1)
		if err == nil && (status == http.StatusOK || status == http.StatusAccepted) {
			return nil
		}
		if err == nil && status != http.StatusConflict && status != http.StatusTooManyRequests && status < 500 {
			return fmt.Errorf("the api answers %d %s", status, answer)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the api does not answer: %d %s, %v", status, answer, err)
		}
		c.repeated.Add(1)
	}
}

// killer kills a process whenever so many changes have been made, or some more or less, and
// starts it again.
type killer struct {
	every       int64
	api, worker int
}

func (k *killer) run(c *crowd, stop <-chan struct{}) {
	for next := int64(0); ; next = c.done.Load() + 1 + rand.Int64N(2*k.every) {
		for c.done.Load() < next {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
		kill := &k.worker
		if k.api < k.worker || k.api == k.worker && rand.IntN(2) == 0 {
			kill = &k.api
			for began := time.Now(); c.asking.Load()+c.api.hooks.Load() == 0 && time.Since(began) < time.Second; {
				time.Sleep(time.Millisecond)
			}
		}
		time.Sleep(time.Duration(rand.IntN(15_000)) * time.Microsecond)
		select {
		case <-stop:
			return
		default:
		}
		if *kill++; kill == &k.api {
			c.api.Kill()
			// What it had in hand waits for its lease; nobody here waits for so long.
			c.s.Postgres.Query("UPDATE idempotency_keys SET leased_until = now() WHERE status IS NULL")
			c.api.start()
		} else {
			c.s.Billing.Kill()
			c.s.RestartBilling()
		}
	}
}

var (
	times = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:\d\d)?)?`)
	days  = regexp.MustCompile(`20\d{6}T\d{6}Z|\d{4}-\d\d-\d\d`)
	ids   = regexp.MustCompile(`\b(sub|in|cus)_[0-9a-z]+`)
	hints = regexp.MustCompile(`"hint": "[^"]*"`)
	// No other number of a row is that large.
	amounts = regexp.MustCompile(`\b\d{6,}\b`)
)

// rows returns all rows of each customer, without ids and times.
func (c *crowd) rows() []string {
	c.t.Helper()
	var out []string
	for _, p := range c.payers {
		text := c.s.Postgres.Query(fmt.Sprintf(`
			SELECT concat_ws(' ', 'audit', actor, action, detail) FROM audit_log WHERE customer_id = '%[1]s' ORDER BY id`, p.id)) + p.books()
		names := strings.NewReplacer(p.id, "CUSTOMER", p.sub, "SUBSCRIPTION", p.tok.ID, "TOKEN",
			strings.TrimSpace(c.s.Postgres.Query("SELECT id FROM boxes WHERE customer_id = '"+p.id+"'")), "BOX",
			strings.TrimSpace(c.s.Postgres.Query("SELECT id FROM operators")), "OPERATOR")
		text = hints.ReplaceAllString(names.Replace(text), "HINT")
		text = ids.ReplaceAllString(days.ReplaceAllString(times.ReplaceAllString(text, "TIME"), "DAY"), "$1")
		out = append(out, text)
	}
	return out
}

// events wants each event of Stripe's that was acknowledged to be in the inbox, once, and
// worked.
func (c *crowd) events() {
	c.t.Helper()
	want := len(c.delivered)
	for _, p := range c.payers {
		want += len(p.past)
	}
	if got := strings.TrimSpace(c.s.Postgres.Query("SELECT count(*), count(processed_at) FROM stripe_events")); got != fmt.Sprintf("%d|%d", want, want) {
		c.t.Errorf("events in the inbox, and those that are worked: %s; %d were acknowledged", got, want)
	}
}

// redisEqualsPostgres wants the grant of each token, and the record of each limit, to be what
// Postgres has.
func (c *crowd) redisEqualsPostgres() {
	c.t.Helper()
	rdb := c.s.Redis.UniversalClient()
	for i, p := range c.payers {
		period, err := c.p.Store.PeriodAt(c.t.Context(), p.id, time.Now())
		c.must(err)
		token, err := c.p.Store.Token(c.t.Context(), p.tok.ID)
		c.must(err)
		raw, err := rdb.Get(c.t.Context(), contract.GrantKey(token.Digest)).Bytes()
		c.must(err)
		grant, err := contract.DecodeGrant(raw)
		c.must(err)
		if grant.Version != token.Version || grant.MonthlyLimit != period.LimitTokens || grant.Period.ID != period.ID {
			c.t.Errorf("customer %d: the grant is %+v, and Postgres has version %d and period %+v", i, grant, token.Version, period)
		}
		// The record of a period whose worker died before it made it is made when a proxy asks.
		want := http.StatusOK
		if grant.Status == contract.StatusSuspended {
			want = http.StatusForbidden
		}
		c.s.Eventually(fmt.Sprintf("customer %d is answered %d", i, want), 10*time.Second, func() bool { return p.ask() == want })
		if want != http.StatusOK {
			continue
		}
		record := rdb.HMGet(c.t.Context(), contract.QuotaKey(p.id, period.ID), "limit", "limit_version").Val()
		if wanted := []any{strconv.FormatInt(period.LimitTokens, 10), strconv.FormatInt(period.LimitVersion, 10)}; !slices.Equal(record, wanted) {
			c.t.Errorf("customer %d: the record in Redis says %v, and Postgres %v", i, record, wanted)
		}
	}
}

// mails wants each mail to have gone out at most once; and exactly once, if that was noted.
func (c *crowd) mails() {
	c.t.Helper()
	sent, uncertain := 0, 0
	for line := range strings.Lines(c.s.Postgres.Query("SELECT concat_ws(' ', id, sent_at IS NOT NULL) FROM mails")) {
		id, noted, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch n := c.box.arrived(id); {
		case n > 1:
			c.t.Errorf("mail %s went out %d times", id, n)
		case noted == "t" && n != 1:
			c.t.Errorf("mail %s is noted as sent, and went out %d times", id, n)
		case noted == "t":
			sent++
		default:
			uncertain++
		}
	}
	c.t.Logf("%d mails went out once; of %d it is not known, and they are not sent again", sent, uncertain)
}
