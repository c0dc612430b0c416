package customers_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// never arranges nothing: what it would is not what is tested.
type never struct{}

func (never) RevokeTokenAt(context.Context, *store.Tx, string, time.Time) error { return nil }

// step calls a method of Service that changes something.
type step struct {
	// before prepares what the method needs; what it does is not looked at.
	before func(*env) (customer, token string)
	do     func(e *env, customer, token string) error
	tells  bool // the proxies must know
}

// changing has one for every method of Service that changes something.
func changing() map[string]step {
	served := func(e *env) (string, string) {
		e.Now = func() time.Time { return time.Now().Add(-2 * time.Hour) }
		c := e.customer("pro")
		e.Now = nil
		_, token := e.token(c.Customer.ID)
		return c.Customer.ID, token.ID
	}
	suspended := func(e *env) (string, string) {
		customer, token := served(e)
		_, err := e.SuspendCustomer(e.t.Context(), "test", customer, "")
		e.committed(err)
		return customer, token
	}
	subscribed := func(e *env) (string, string) {
		customer, token := served(e)
		e.committed(apply(e, customer, control.SubscriptionActive, "pro", 1))
		return customer, token
	}
	// above has used more than its limit, of which a part is paid for token by token.
	above := func(e *env) (string, string) {
		customer, token := subscribed(e)
		_, err := e.SetOverage(e.t.Context(), "test", customer, 500)
		e.committed(err)
		e.pg.Query("UPDATE usage_periods SET settled_tokens = limit_tokens - 1 WHERE customer_id = '" + customer + "' AND overage_tokens > 0")
		return customer, token
	}
	ended := func(e *env) (string, string) {
		customer, token := served(e)
		e.pg.Query("UPDATE usage_periods SET starts_at = starts_at - interval '40 days', ends_at = now() - interval '1 day' WHERE customer_id = '" + customer + "'")
		e.pg.Query("UPDATE customers SET renews_at = now() - interval '1 day' WHERE id = '" + customer + "'")
		return customer, token
	}
	nobody := func(*env) (string, string) { return "", "" }
	// onBox decides something about the customer's box.
	onBox := func(do func(e *env, ref customers.BoxRef) error) func(*env, string, string) error {
		return func(e *env, customer, _ string) error {
			return do(e, customers.BoxRef{ID: e.boxOf(customer), CustomerID: customer})
		}
	}
	held := func(e *env) (string, string) {
		customer, token := served(e)
		_, err := e.SuspendBox(e.t.Context(), "test", customers.BoxRef{ID: e.boxOf(customer)}, "")
		e.committed(err)
		return customer, token
	}
	subscription := func(before func(*env) (string, string), status control.SubscriptionStatus, tier string, n int) step {
		return step{before, func(e *env, customer, _ string) error { return apply(e, customer, status, tier, n) }, true}
	}
	return map[string]step{
		"CreateCustomer": {nobody, func(e *env, _, _ string) error {
			_, err := e.CreateCustomer(e.t.Context(), "test", customers.NewCustomer{Name: "Ada", Tier: "pro"})
			return err
		}, false}, // of which no proxy knows before it has a token
		"AddBox": {subscribed, func(e *env, c, _ string) error { _, err := e.AddBox(e.t.Context(), "test", c, "x"); return err }, false},
		"RestartBox": {served, onBox(func(e *env, ref customers.BoxRef) error {
			_, err := e.RestartBox(e.t.Context(), "test", ref, "x")
			return err
		}), false},
		"RotateBoxToken": {served, onBox(func(e *env, ref customers.BoxRef) error {
			_, err := e.RotateBoxToken(e.t.Context(), "test", ref, "x")
			return err
		}), false},
		"SuspendBox": {served, onBox(func(e *env, ref customers.BoxRef) error {
			_, err := e.SuspendBox(e.t.Context(), "test", ref, "x")
			return err
		}), false},
		"ResumeBox": {held, onBox(func(e *env, ref customers.BoxRef) error {
			_, err := e.ResumeBox(e.t.Context(), "test", ref, "x")
			return err
		}), false},
		"DestroyBox": {served, onBox(func(e *env, ref customers.BoxRef) error {
			_, err := e.DestroyBox(e.t.Context(), "test", ref, "x")
			return err
		}), true},
		"ResizeBox": {served, onBox(func(e *env, ref customers.BoxRef) error {
			_, err := e.ResizeBox(e.t.Context(), "test", ref, "team", "x")
			return err
		}), false},
		"FollowLanguage": {served, func(e *env, c, _ string) error { return e.FollowLanguage(e.t.Context(), "test", c) }, false},
		"UpdateBoxSettings": {served, onBox(func(e *env, ref customers.BoxRef) error {
			zone := "Europe/Lisbon"
			_, err := e.UpdateBoxSettings(e.t.Context(), "test", ref, customers.BoxSettingsChange{TimeZone: &zone})
			return err
		}), false},
		"SetTelegramToken": {served, onBox(func(e *env, ref customers.BoxRef) error {
			_, err := e.SetTelegramToken(e.t.Context(), "test", ref, fakeBot)
			return err
		}), false},
		"CreateToken":     {served, func(e *env, c, _ string) error { _, _, err := e.CreateToken(e.t.Context(), "test", c, ""); return err }, true},
		"RevokeToken":     {served, func(e *env, _, k string) error { _, err := e.RevokeToken(e.t.Context(), "test", k); return err }, true},
		"RotateToken":     {served, func(e *env, _, k string) error { _, _, err := e.RotateToken(e.t.Context(), "test", k, 0); return err }, true},
		"SetLimit":        {served, func(e *env, c, _ string) error { _, err := e.SetLimit(e.t.Context(), "test", c, 5); return err }, true},
		"SuspendCustomer": {served, func(e *env, c, _ string) error { _, err := e.SuspendCustomer(e.t.Context(), "test", c, ""); return err }, true},
		"ResumeCustomer":  {suspended, func(e *env, c, _ string) error { _, err := e.ResumeCustomer(e.t.Context(), "test", c, ""); return err }, true},
		"DeleteCustomer":  {served, func(e *env, c, _ string) error { return e.DeleteCustomer(e.t.Context(), "test", c) }, true},
		"RenewDue":        {ended, func(e *env, _, _ string) error { _, err := e.RenewDue(e.t.Context()); return err }, true},
		"SetOverage":      {subscribed, func(e *env, c, _ string) error { _, err := e.SetOverage(e.t.Context(), "test", c, 500); return err }, true},
		"ReportOverage":   {above, func(e *env, _, _ string) error { _, err := e.ReportOverage(e.t.Context()); return err }, false},
		"ReportOverageOf": {above, func(e *env, c, _ string) error { return e.ReportOverageOf(e.t.Context(), c) }, false},
		"ChangeLimit": {served, func(e *env, c, _ string) error {
			_, err := e.ChangeLimit(e.t.Context(), "test", c, customers.LimitChange{Add: 5})
			return err
		}, true},
		"RotateToken, with an overlap": {served, func(e *env, _, k string) error {
			_, _, err := e.RotateToken(e.t.Context(), "test", k, time.Hour)
			return err
		}, true},
		"ApplySubscription":                    subscription(served, control.SubscriptionActive, "pro", 1),
		"ApplySubscription, an upgrade":        subscription(subscribed, control.SubscriptionActive, "team", 2),
		"ApplySubscription, a missing payment": subscription(subscribed, control.SubscriptionUnpaid, "pro", 2),
		"ApplySubscription, its end":           subscription(subscribed, control.SubscriptionCanceled, "pro", 2),
		"ReplaceSubscription":                  {subscribed, func(e *env, c, _ string) error { return replace(e, c) }, true},
		"SetTiers":                             {served, func(e *env, _, _ string) error { return e.sell("concurrent: 8", "concurrent: 9") }, false}, // RollOutTiers tells
		"RollOutTiers": {func(e *env) (string, string) {
			customer, token := served(e)
			if err := e.sell("concurrent: 8", "concurrent: 9"); err != nil {
				e.t.Fatal(err)
			}
			return customer, token
		}, func(e *env, _, _ string) error { _, err := e.RollOutTiers(e.t.Context()); return err }, true},
		"PublishPending, of a token whose version Postgres has lost": {
			func(e *env) (string, string) {
				customer, token := served(e)
				if _, err := e.PublishPending(e.t.Context()); err != nil {
					e.t.Fatal(err)
				}
				k, err := e.Store.Token(e.t.Context(), token)
				if err != nil {
					e.t.Fatal(err)
				}
				g := *e.grant(k.Digest)
				g.Version = 9
				if _, err := e.Grants.PutGrantAfter(e.t.Context(), k.Digest, g, 0); err != nil {
					e.t.Fatal(err)
				}
				e.stopRedis()
				_, err = e.SetLimit(e.t.Context(), "test", customer, 7) // version 2, which 9 is newer than
				e.committed(err)
				e.startRedis()
				return customer, token
			}, nil, true,
		},
	}
}

// apply has Stripe say something of a customer's one subscription, n times later than first.
func apply(e *env, customer string, status control.SubscriptionStatus, tier string, n int) error {
	c, err := e.Store.Customer(e.t.Context(), customer)
	if err != nil {
		return err
	}
	start := c.CreatedAt.Truncate(time.Second).Add(time.Hour)
	_, err = e.ApplySubscription(e.t.Context(), "test", control.StripeSubscription{
		ID: "sub_" + customer, CustomerID: customer, Status: status, Tier: tier, PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
	}, start.Add(time.Duration(n)*time.Minute), nil)
	return err
}

// replace has another subscription, of another tier, count instead of the one of apply.
func replace(e *env, customer string) error {
	c, err := e.Store.Customer(e.t.Context(), customer)
	if err != nil {
		return err
	}
	start := c.CreatedAt.Truncate(time.Second).Add(time.Hour)
	v := control.StripeSubscription{
		ID: "sub_" + customer, CustomerID: customer, Status: control.SubscriptionActive, Tier: "pro", PeriodStart: start, PeriodEnd: start.AddDate(0, 1, 0),
	}
	other := customers.Replaced{StripeSubscription: v, ReadAt: start.Add(2 * time.Minute)}
	v.ID, v.Tier = "sub_other_"+customer, "team"
	_, err = e.ReplaceSubscription(e.t.Context(), "test", v, start.Add(2*time.Minute), other, nil)
	return err
}

// sell puts the built-in tier table into effect with some of its text replaced.
func (e *env) sell(pairs ...string) error {
	text, err := os.ReadFile("../tiers/tiers.yaml")
	if err != nil {
		return err
	}
	_, err = e.SetTiers(e.t.Context(), "test", []byte(strings.NewReplacer(pairs...).Replace(string(text))))
	return err
}

// committed ends the test unless a change was committed.
func (e *env) committed(err error) {
	e.t.Helper()
	if err != nil && !errors.Is(err, customers.ErrUnpublished) {
		e.t.Fatal(err)
	}
}

// unaudited lists rows that were written in a transaction, from one on, that wrote nothing to
// the audit log. What only keeps track of the publishing is left out.
func (e *env) unaudited(from string) string {
	var parts []string
	for name := range strings.FieldsSeq(e.pg.Query(`SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE n.nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT LIKE 'quota_%'
			AND relname NOT IN ('goose_db_version', 'audit_log', 'config_changes')`)) {
		parts = append(parts, fmt.Sprintf(`SELECT '%[1]s ' || x::text FROM %[1]s x
			WHERE xmin::text::bigint >= %[2]s AND xmin::text NOT IN (SELECT xmin::text FROM audit_log)`, name, from))
	}
	return strings.TrimSpace(e.pg.Query(strings.Join(parts, " UNION ALL ")))
}

// untold lists tokens of whose present version, written in a transaction from one on, the outbox
// has nothing by the same transaction; and tokens that are not revoked of customers and
// periods that were changed without them.
func (e *env) untold(from string) string {
	return strings.TrimSpace(e.pg.Query(fmt.Sprintf(`
		SELECT 'token ' || k.id FROM proxy_tokens k
		WHERE (k.xmin::text::bigint >= %[1]s
			OR k.status <> 'revoked' AND EXISTS (SELECT FROM customers c WHERE c.id = k.customer_id AND c.xmin::text::bigint >= %[1]s)
			OR k.status <> 'revoked' AND EXISTS (SELECT FROM usage_periods p WHERE p.customer_id = k.customer_id AND p.xmin::text::bigint >= %[1]s))
		AND NOT EXISTS (SELECT FROM config_changes g WHERE g.digest = k.digest AND g.xmin = k.xmin AND (g.payload->>'version')::bigint = k.version)`, from)))
}

// Whatever Service changes is in the audit log by the same transaction, and what the proxies
// must know is in the outbox by the same one. Every method is called: one that is new fails.
func TestChangesAreAuditedAndTold(t *testing.T) {
	t.Parallel()
	steps := changing()
	quiet := map[string]bool{ // they write nothing to Postgres but what was published
		"BotTaken": true, "Clock": true, "LoadTiers": true, "WithNote": true, "PublishPending": true, "RepublishAll": true, "RepublishLost": true,
		"Used": true, "VerifyOverage": true,
	}
	allLookedAt(t, reflect.TypeFor[*customers.Service](), steps, quiet)
	walk(t, steps)
}

// walk calls methods, and looks for what they did not tell of.
func walk(t *testing.T, steps map[string]step) {
	for _, name := range slices.Sorted(maps.Keys(steps)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, s := newEnv(t), steps[name]
			e.Later, e.Seals = never{}, keys(t, fakeKey)
			customer, token := s.before(e)
			wakes := e.withJobs()
			generations := e.generations()
			from := strings.TrimSpace(e.pg.Query("SELECT txid_current() + 1"))
			if s.do == nil {
				if _, err := e.PublishPending(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				// What cannot be published stays in the outbox as it was committed.
				e.stopRedis()
				e.committed(s.do(e, customer, token))
			}
			if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE xmin::text::bigint >= " + from)); n == "0" {
				t.Error("nothing is in the audit log")
			}
			if rows := e.unaudited(from); rows != "" {
				t.Errorf("changed without a word in the audit log:\n%s", rows)
			}
			for box, generation := range e.generations() {
				if generations[box] != generation && !wakes(box) {
					t.Errorf("nobody is told of generation %s of box %s", generation, box)
				}
			}
			if s.do == nil {
				return // it was published, which the outbox notes in another transaction
			}
			if rows := e.untold(from); rows != "" {
				t.Errorf("the proxies are not told:\n%s", rows)
			}
			if told := strings.TrimSpace(e.pg.Query("SELECT count(*) > 0 FROM config_changes WHERE xmin::text::bigint >= " + from)); (told == "t") != s.tells {
				t.Errorf("something is in the outbox: %s", told)
			}
		})
	}
}

// allLookedAt fails for methods that are neither called nor quiet.
func allLookedAt(t *testing.T, of reflect.Type, steps map[string]step, quiet map[string]bool) {
	t.Helper()
	for i := range of.NumMethod() {
		name := of.Method(i).Name
		if _, ok := steps[name]; !ok && !quiet[name] {
			t.Errorf("%s.%s is not looked at", of, name)
		}
	}
}

// generations are those of all boxes.
func (e *env) generations() map[string]string {
	out := make(map[string]string)
	for line := range strings.FieldsSeq(e.pg.Query("SELECT id || '/' || generation FROM boxes")) {
		id, generation, _ := strings.Cut(line, "/")
		out[id] = generation
	}
	return out
}

// The looks of the test above find what is missing.
func TestMissingAuditIsFound(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	_, token := e.token(c.Customer.ID)
	from := strings.TrimSpace(e.pg.Query("SELECT txid_current() + 1"))
	if err := e.Store.InTx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.UpdateToken(t.Context(), token.ID, contract.StatusRevoked, time.Now())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if rows := e.unaudited(from); !strings.HasPrefix(rows, "proxy_tokens") || strings.Contains(rows, "\n") {
		t.Errorf("without an audit entry: %q", rows)
	}
	if rows := e.untold(from); rows != "token "+token.ID {
		t.Errorf("without a row in the outbox: %q", rows)
	}
}
