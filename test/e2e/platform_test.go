package e2e_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// platform changes customers as the control plane does, without a process for each change:
// when a method returns, the change is published.
type platform struct {
	*customers.Service
	t testing.TB
}

// unbound lifts what is not the subject of a test: requests per second and in flight.
func unbound(t *control.Tier) { t.RequestsPerSecond, t.Burst, t.Concurrent = 100_000, 100_000, 100_000 }

// usual leaves a tier as it is.
func usual(*control.Tier) {}

// newPlatform returns one for s, whose tiers are the usual ones with change applied to each.
// (The billing-worker knows only the usual ones: after a loss of Redis' data they hold again.)
func newPlatform(t testing.TB, s *stack.Stack, change func(*control.Tier)) *platform {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	table, err := tiers.Default()
	must(err)
	list := slices.Clone(table.All())
	for i := range list {
		change(&list[i])
	}
	table, err = control.NewTiers(list)
	must(err)
	hasher, err := contract.NewHasher([]byte(stack.Pepper))
	must(err)
	st, err := store.Open(t.Context(), s.Postgres.URL)
	must(err)
	t.Cleanup(st.Close)
	rdb := s.Redis.UniversalClient()
	// A replica is ready when it is registered. In the very first epoch it has to wait a
	// little longer for leases.
	s.Eventually("the epoch is open", 30*time.Second, func() bool {
		return rdb.HGet(t.Context(), contract.QuotaEpochKey, "state").Val() == "open"
	})
	return &platform{t: t, Service: &customers.Service{
		Store: st, Tiers: table, Grants: feed.NewPublisher(rdb), Limits: limits.NewRecords(st, rdb, 2*time.Second), Hasher: hasher,
		PublishWithin: time.Minute,
	}}
}

// customer creates a customer of tier team, with its limit and a token.
func (p *platform) customer(name string, limit int64) stack.Token {
	p.t.Helper()
	return p.customerOf("team", name, limit)
}

// several creates n customers of tier team, each with a token.
func (p *platform) several(n int) (all []stack.Token) {
	p.t.Helper()
	for i := range n {
		made, err := p.CreateCustomer(p.t.Context(), "test", customers.NewCustomer{Name: fmt.Sprint("customer ", i), Tier: "team"})
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, p.token(made.Customer.ID))
	}
	return all
}

func (p *platform) customerOf(tier, name string, limit int64) stack.Token {
	p.t.Helper()
	made, err := p.CreateCustomer(p.t.Context(), "test", customers.NewCustomer{Name: name, Tier: tier})
	if err != nil {
		p.t.Fatal(err)
	}
	id := made.Customer.ID
	p.limit(id, limit)
	return p.token(id)
}

// token creates another token of a customer.
func (p *platform) token(customer string) stack.Token {
	p.t.Helper()
	raw, tok, err := p.CreateToken(p.t.Context(), "test", customer, "")
	if err != nil {
		p.t.Fatal(err)
	}
	return stack.Token{Raw: raw.Reveal(), ID: tok.ID, Customer: customer}
}

// limit sets a customer's limit.
func (p *platform) limit(customer string, tokens int64) {
	p.t.Helper()
	if _, err := p.SetLimit(p.t.Context(), "test", customer, tokens); err != nil {
		p.t.Error(err)
	}
}
