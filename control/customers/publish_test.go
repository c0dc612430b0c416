package customers_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Postgres comes back from a backup that is older than what the proxies know. What is
// changed afterwards reaches them all the same.
func TestPostgresGoesBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	_, kept := e.token(c.Customer.ID)
	_, revoked := e.token(c.Customer.ID)
	for limit := range int64(5) {
		if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 1000+limit); err != nil {
			t.Fatal(err)
		}
	}
	e.pg.Query("UPDATE proxy_tokens SET version = 1")

	if _, err := e.RevokeToken(t.Context(), "test", revoked.ID); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(revoked.Digest); g.Status != contract.StatusRevoked || g.Version != 7 {
		t.Errorf("revoked: grant %s, version %d; want 7", g.Status, g.Version)
	}
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 77); err != nil {
		t.Fatal(err)
	}
	g := e.grant(kept.Digest)
	if g.MonthlyLimit != 77 || g.Version != 7 {
		t.Errorf("limit %d, version %d; want 77, 7", g.MonthlyLimit, g.Version)
	}
	if row, err := e.Store.Token(t.Context(), kept.ID); err != nil || row.Version != g.Version {
		t.Errorf("the token's row has version %d, %v; the proxies have %d", row.Version, err, g.Version)
	}
	if n := e.pending(); n != 0 {
		t.Errorf("%d changes are pending", n)
	}
}

// The same where the billing-worker has to publish.
func TestPostgresGoesBackWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	_, token := e.token(c.Customer.ID)
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 1); err != nil {
		t.Fatal(err)
	}
	e.pg.Query("UPDATE proxy_tokens SET version = 1")
	e.stopRedis()
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 2); !errors.Is(err, customers.ErrUnpublished) {
		t.Fatal(err)
	}
	e.startRedis()
	if _, err := e.PublishPending(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(token.Digest); g.MonthlyLimit != 2 || g.Version != 3 {
		t.Errorf("limit %d, version %d; want 2, 3", g.MonthlyLimit, g.Version)
	}
	if n := e.pending(); n != 0 {
		t.Errorf("%d changes are pending", n)
	}
}

// A change that comes after a newer one of the same token is void, and its version is
// not taken for one that was lost.
func TestLateChangeIsVoid(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	_, token := e.token(c.Customer.ID)
	healthy := e.Grants
	e.Grants, e.PublishWithin = dying{healthy}, impatience
	for limit := range int64(3) {
		if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 10+limit); !errors.Is(err, customers.ErrUnpublished) {
			t.Fatal(err)
		}
	}
	e.Grants, e.PublishWithin = healthy, patience
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 99); err != nil {
		t.Fatal(err)
	}
	if _, err := e.PublishPending(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(token.Digest); g.MonthlyLimit != 99 || g.Version != 5 {
		t.Errorf("grant %+v", g)
	}
	if n := e.pending(); n != 0 {
		t.Errorf("%d changes are pending", n)
	}
	if n := e.pg.Query(fmt.Sprintf("SELECT version FROM proxy_tokens WHERE id = '%s'", token.ID)); n[0] != '5' {
		t.Errorf("the token's row has version %s", n)
	}
}
