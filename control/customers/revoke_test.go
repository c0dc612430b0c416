package customers_test

import (
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Revoking needs nothing but the token: not the customer's tier, and no period.
func TestRevokeNeedsNeitherTierNorPeriod(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		spoil func(e *env, customer string)
	}{
		{"the tier is gone", func(e *env, _ string) { e.Tiers = control.Tiers{} }},
		{"the tier is gone and the period has ended", func(e *env, _ string) {
			e.Tiers = control.Tiers{}
			e.Now = func() time.Time { return time.Now().AddDate(0, 2, 0) }
		}},
		{"the clock is before the first period", func(e *env, _ string) {
			e.Now = func() time.Time { return time.Now().AddDate(-1, 0, 0) }
		}},
		{"there is no period", func(e *env, customer string) {
			e.pg.Query("DELETE FROM usage_periods WHERE customer_id = '" + customer + "'")
			e.Tiers = control.Tiers{}
		}},
		{"the customer is cancelled", func(e *env, customer string) {
			e.pg.Query("UPDATE customers SET status = 'cancelled' WHERE id = '" + customer + "'")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			c := e.customer("pro")
			_, token := e.token(c.Customer.ID)
			tc.spoil(e, c.Customer.ID)
			revoked, err := e.RevokeToken(t.Context(), "test", token.ID)
			if err != nil || revoked.Status != contract.StatusRevoked {
				t.Fatalf("revoked %+v, %v", revoked, err)
			}
			g := e.grant(token.Digest)
			if g.Status != contract.StatusRevoked || g.TokenID != token.ID || g.CustomerID != c.Customer.ID || g.BoxID != c.Box.ID || g.Version != 2 {
				t.Errorf("grant %+v", g)
			}
			if n := e.pg.Query("SELECT count(*) FROM audit_log WHERE action = 'token.revoke'"); n[0] != '1' {
				t.Errorf("%s entries in the audit log", n)
			}
		})
	}
}
