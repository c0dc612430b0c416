package customers_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestChangeLimit(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.PublishWithin = 20 * time.Second // they get into each other's way
	c := e.customer("starter")
	_, token := e.token(c.Customer.ID)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := e.ChangeLimit(context.Background(), "test", c.Customer.ID, customers.LimitChange{Add: 7, Reason: "sorry"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if g := e.grant(token.Digest); g.MonthlyLimit != 1_000_070 {
		t.Errorf("the proxies have %d", g.MonthlyLimit)
	}
	out, err := e.ChangeLimit(t.Context(), "test", c.Customer.ID, customers.LimitChange{Add: -5_000_000})
	if err != nil || out.Before != 1_000_070 || out.Period.LimitTokens != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	if out, err = e.ChangeLimit(t.Context(), "test", c.Customer.ID, customers.LimitChange{Reset: true}); err != nil || out.Period.LimitTokens != 1_000_000 {
		t.Errorf("%+v, %v", out, err)
	}
	bad := int64(-1)
	for _, ch := range []customers.LimitChange{{To: &bad}, {Add: 1 << 60}, {Add: -1 << 63}} {
		if _, err := e.ChangeLimit(t.Context(), "test", c.Customer.ID, ch); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%+v: %v", ch, err)
		}
	}
	if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE detail->>'reason' = 'sorry'")); n != "10" {
		t.Errorf("%s reasons", n)
	}
}

// What a note cannot be made of is not done.
func TestWithNote(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	_, token := e.token(c.Customer.ID)
	gone := errors.New("no")
	var results []any
	refuse := e.WithNote(func(_ context.Context, _ *store.Tx, result any) error { results = append(results, result); return gone })
	ctx := t.Context()
	_, err1 := refuse.CreateCustomer(ctx, "test", customers.NewCustomer{Name: "x", Tier: "pro"})
	_, _, err2 := refuse.CreateToken(ctx, "test", c.Customer.ID, "")
	_, err3 := refuse.RevokeToken(ctx, "test", token.ID)
	_, err4 := refuse.ChangeLimit(ctx, "test", c.Customer.ID, customers.LimitChange{Add: 5})
	_, err5 := refuse.SuspendCustomer(ctx, "test", c.Customer.ID, "")
	_, _, err6 := refuse.RotateToken(ctx, "test", token.ID, 0)
	err7 := refuse.DeleteCustomer(ctx, "test", c.Customer.ID)
	for i, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
		if !errors.Is(err, gone) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if len(results) != 7 {
		t.Fatalf("%d notes", len(results))
	}
	if r, ok := results[3].(customers.LimitChanged); !ok || r.Period.LimitTokens != 1_000_005 {
		t.Errorf("%+v", results[3])
	}
	if k, ok := results[2].(control.ProxyToken); !ok || k.Status != contract.StatusRevoked {
		t.Errorf("%+v", results[2])
	}
	if n := strings.TrimSpace(e.pg.Query("SELECT (SELECT count(*) FROM customers) || ' ' || (SELECT count(*) FROM proxy_tokens)")); n != "1 1" {
		t.Errorf("customers and tokens: %s", n)
	}
	if g := e.grant(token.Digest); g.Status != contract.StatusActive || g.MonthlyLimit != 1_000_000 {
		t.Errorf("%+v", g)
	}
}

type later struct{ at map[string]time.Time }

func (l later) RevokeTokenAt(_ context.Context, _ *store.Tx, token string, at time.Time) error {
	l.at[token] = at
	return nil
}

func TestRotateToken(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	_, token := e.token(c.Customer.ID)
	if _, _, err := e.RotateToken(t.Context(), "test", token.ID, time.Hour); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("an overlap that nobody ends: %v", err)
	}
	l := later{map[string]time.Time{}}
	e.Later = l
	raw, r, err := e.RotateToken(t.Context(), "test", token.ID, time.Hour)
	if err != nil || r.Token.BoxID != token.BoxID || r.Token.ID == token.ID || l.at[token.ID] != r.RevokedAfter || len(l.at) != 1 {
		t.Fatalf("%+v, %v, %v", r, l, err)
	}
	if e.grant(token.Digest).Status != contract.StatusActive || e.grant(e.Hasher.Digest([]byte(raw.Reveal()))).Status != contract.StatusActive {
		t.Error("one of the two is not good")
	}
	if _, _, err := e.RotateToken(t.Context(), "test", r.Token.ID, 0); err != nil {
		t.Error(err)
	}
	if e.grant(r.Token.Digest).Status != contract.StatusRevoked {
		t.Error("the old one is still good")
	}
	if _, _, err := e.RotateToken(t.Context(), "test", r.Token.ID, 0); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a revoked token: %v", err)
	}
	if _, _, err := e.RotateToken(t.Context(), "test", "tnone", 0); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("no token: %v", err)
	}
	if _, err := e.SuspendCustomer(t.Context(), "test", c.Customer.ID, ""); err != nil {
		t.Fatal(err)
	}
	raw, _, err = e.RotateToken(t.Context(), "test", token.ID, 0)
	if err != nil || e.grant(e.Hasher.Digest([]byte(raw.Reveal()))).Status != contract.StatusSuspended {
		t.Errorf("of a suspended customer: %v", err)
	}
}
