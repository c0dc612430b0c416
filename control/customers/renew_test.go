package customers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Customers that can never be renewed, more of them than one page has, keep nobody
// else from it.
func TestRenewalGoesOnPastFailures(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const bad, good = 450, 3
	// All of them ended before the good ones, and come first by id as well.
	e.pg.Query(fmt.Sprintf(`
		WITH c AS (INSERT INTO customers (id, name, tier, created_at, renews_at)
			SELECT 'a' || n, 'x', 'gone', now() - interval '2 years', now() - interval '1 year' FROM generate_series(1, %d) n RETURNING id)
		INSERT INTO usage_periods (customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version)
		SELECT id, 'p', now() - interval '2 years', now() - interval '1 year', 1, 1 FROM c`, bad))
	var list []customers.Created
	for range good {
		list = append(list, e.customer("starter"))
	}
	e.Now = func() time.Time { return list[good-1].Period.End.Add(time.Hour) }
	n, err := e.RenewDue(t.Context())
	if n != good {
		t.Errorf("renewed %d, want %d", n, good)
	}
	if !errors.Is(err, control.ErrNotFound) || !strings.Contains(err.Error(), fmt.Sprintf("%d more failures", bad-5)) || len(err.Error()) > 2000 {
		t.Errorf("the error is %v", err)
	}
	for _, c := range list {
		if p, err := e.Store.PeriodAt(t.Context(), c.Customer.ID, e.Now()); err != nil || !p.Start.Equal(c.Period.End) {
			t.Errorf("period %+v, %v", p, err)
		}
	}
}

// With Redis away all are renewed, and the call does not wait for Redis once for each.
func TestRenewalWithRedisAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	const n = 6
	var last customers.Created
	for range n {
		last = e.customer("starter")
		e.token(last.Customer.ID)
	}
	e.Now = func() time.Time { return last.Period.End.Add(time.Hour) }
	e.stopRedis()
	start := time.Now()
	if got, err := e.RenewDue(t.Context()); got != n || !errors.Is(err, customers.ErrUnpublished) {
		t.Errorf("renewed %d, %v", got, err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
	e.startRedis()
	if got, err := e.PublishPending(t.Context()); got != n || err != nil {
		t.Errorf("published %d, %v", got, err)
	}
}

// publishing looks, when a grant is published, whether its limit's record is there.
type publishing struct {
	customers.GrantPublisher
	e       *env
	without []string // tokens whose grants came before their records
}

func (p *publishing) PutGrantAfter(ctx context.Context, d contract.Digest, g contract.Grant, newest int64) (int64, error) {
	limit := p.e.client.HGet(ctx, contract.QuotaKey(g.CustomerID, g.Period.ID), "limit").Val()
	if g.Status != contract.StatusRevoked && limit == "" {
		p.without = append(p.without, g.TokenID)
	}
	return p.GrantPublisher.PutGrantAfter(ctx, d, g, newest)
}

// The first request after a token was made, or a period opened, finds the limit's record.
func TestRecordsComeBeforeGrants(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	p := &publishing{GrantPublisher: e.Grants, e: e}
	e.Grants = p
	e.openEpoch()
	c := e.customer("starter")
	e.token(c.Customer.ID)
	e.Now = func() time.Time { return c.Period.End.Add(time.Hour) }
	if n, err := e.RenewDue(t.Context()); n != 1 || err != nil {
		t.Fatalf("renewed %d, %v", n, err)
	}
	if len(p.without) > 0 {
		t.Errorf("tokens %v", p.without)
	}
	period, err := e.Store.PeriodAt(t.Context(), c.Customer.ID, e.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{c.Period.ID, period.ID} {
		if limit := e.client.HGet(t.Context(), contract.QuotaKey(c.Customer.ID, id), "limit").Val(); limit != "1000000" {
			t.Errorf("period %s: limit %q", id, limit)
		}
	}
}
