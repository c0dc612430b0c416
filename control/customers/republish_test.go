package customers_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func (e *env) seq() int64 {
	e.t.Helper()
	s, err := feed.NewPublisher(e.client).State(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return s.Seq
}

func TestRepublishAfterRedisLostItsData(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	if done, err := e.RepublishLost(t.Context()); err != nil || done.Tokens != 0 {
		t.Fatalf("on an empty system: %+v, %v", done, err)
	}
	c, other := e.customer("pro"), e.customer("starter")
	_, active := e.token(c.Customer.ID)
	_, revoked := e.token(c.Customer.ID)
	_, gone := e.token(other.Customer.ID)
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 777); err != nil {
		t.Fatal(err)
	}
	if _, err := e.RevokeToken(t.Context(), "test", revoked.ID); err != nil {
		t.Fatal(err)
	}
	before, seq := e.grant(active.Digest), e.seq()
	if done, err := e.RepublishLost(t.Context()); err != nil || done.Customers != 0 {
		t.Fatalf("with everything there: %+v, %v", done, err)
	}
	e.pg.Query("UPDATE customers SET tier = 'gone' WHERE id = '" + other.Customer.ID + "'")

	e.redis.FlushAll()
	done, err := e.RepublishLost(t.Context())
	if done != (customers.Republished{Customers: 2, Tokens: 2, Skipped: 1}) || !errors.Is(err, control.ErrNotFound) || !strings.Contains(err.Error(), gone.ID) {
		t.Errorf("republished %+v, %v", done, err)
	}
	if g := e.grant(active.Digest); g == nil || g.Version != before.Version || g.MonthlyLimit != 777 || g.Status != contract.StatusActive {
		t.Errorf("active token: %+v, before %+v", g, before)
	}
	if g := e.grant(revoked.Digest); g == nil || g.Status != contract.StatusRevoked {
		t.Errorf("revoked token: %+v", g)
	}
	if s := e.seq(); s <= seq {
		t.Errorf("changes are numbered from %d again, after %d", s, seq)
	}
	if done, err := e.RepublishLost(t.Context()); err != nil || done.Customers != 0 {
		t.Errorf("once more: %+v, %v", done, err)
	}
}

// A Redis that comes back with an older copy of its data has everything that the check
// for an empty one looks for. Once another change was published under the number of what was lost,
// numbers alone do not tell any more.
func TestRepublishAfterRedisWentBack(t *testing.T) {
	t.Parallel()
	for name, since := range map[string]bool{"nothing published since": false, "its number given out again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			if _, err := e.RepublishLost(t.Context()); err != nil {
				t.Fatal(err)
			}
			c := e.customer("pro")
			_, token := e.token(c.Customer.ID)
			_, other := e.token(c.Customer.ID)
			old := e.client.Get(t.Context(), contract.GrantKey(token.Digest)).Val()
			seq := e.client.HGet(t.Context(), contract.FeedStateKey, contract.FeedSeq).Val()
			revoke := func(id string) {
				if _, err := e.RevokeToken(t.Context(), "test", id); err != nil {
					t.Fatal(err)
				}
			}
			revoke(token.ID)
			e.client.Set(t.Context(), contract.GrantKey(token.Digest), old, 0)
			e.client.HSet(t.Context(), contract.FeedStateKey, contract.FeedSeq, seq)
			e.client.Del(t.Context(), contract.FeedLogKey)
			if since {
				revoke(other.ID)
			}
			if done, err := e.RepublishLost(t.Context()); done.Tokens != 2 || err != nil {
				t.Errorf("republished %+v, %v", done, err)
			}
			if g := e.grant(token.Digest); g.Status != contract.StatusRevoked {
				t.Errorf("grant %+v", g)
			}
			if done, err := e.RepublishLost(t.Context()); err != nil || done.Customers != 0 {
				t.Errorf("once more: %+v, %v", done, err)
			}
		})
	}
}

// Postgres went back, and nobody changed anything since: republishing makes its state
// the proxies' state, except where a token was revoked.
func TestRepublishAfterPostgresWentBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	_, active := e.token(c.Customer.ID)
	_, revoked := e.token(c.Customer.ID)
	dump := e.pg.Query("SELECT limit_tokens FROM usage_periods")
	for range 3 {
		if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.RevokeToken(t.Context(), "test", revoked.ID); err != nil {
		t.Fatal(err)
	}
	e.pg.Query("UPDATE usage_periods SET limit_version = 9, limit_tokens = " + dump)
	e.pg.Query("UPDATE proxy_tokens SET version = 1, status = 'active', revoked_at = NULL")
	if _, err := e.RepublishAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(active.Digest); g.MonthlyLimit != 5_000_000 || g.Version != 5 {
		t.Errorf("grant %+v", g)
	}
	if g := e.grant(revoked.Digest); g.Status != contract.StatusRevoked {
		t.Errorf("grant %+v", g)
	}
	if n := e.pending(); n != 0 {
		t.Errorf("%d changes are pending", n)
	}
}

// losing flushes Redis in the middle of the work.
type losing struct {
	customers.GrantPublisher
	flush func()
}

func (l losing) StoreGrants(ctx context.Context, entries []feed.Entry) ([]error, error) {
	failed, err := l.GrantPublisher.StoreGrants(ctx, entries)
	l.flush()
	return failed, err
}

func TestRedisLosesItsDataAgainWhileRepublishing(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	_, token := e.token(c.Customer.ID)
	healthy := e.Grants
	e.Grants = losing{healthy, e.redis.FlushAll}
	if _, err := e.RepublishLost(t.Context()); !errors.Is(err, feed.ErrLostAgain) {
		t.Errorf("%v, want ErrLostAgain", err)
	}
	e.Grants, e.PublishWithin = healthy, patience
	if done, err := e.RepublishLost(t.Context()); done.Tokens != 1 || err != nil {
		t.Errorf("republished %+v, %v", done, err)
	}
	if e.grant(token.Digest) == nil {
		t.Error("the token is unknown")
	}
}

// One process republishes at a time.
func TestOneRepublishes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	e.token(c.Customer.ID)
	began, goOn := make(chan struct{}), make(chan struct{})
	slow := *e.Service
	slow.Grants = losing{e.Grants, func() { close(began); <-goOn }}
	first := make(chan error, 1)
	go func() { _, err := slow.RepublishLost(t.Context()); first <- err }()
	<-began
	if done, err := e.RepublishLost(t.Context()); err != nil || done.Customers != 0 {
		t.Errorf("the second: %+v, %v", done, err)
	}
	if _, err := e.RepublishAll(t.Context()); !errors.Is(err, customers.ErrRepublishing) {
		t.Errorf("by hand: %v, want ErrRepublishing", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if done, err := e.RepublishAll(t.Context()); err != nil || done.Tokens != 1 {
		t.Errorf("afterwards: %+v, %v", done, err)
	}
}
