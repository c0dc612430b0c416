package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// victim is a customer whose ids somebody else has got hold of.
type victim struct {
	id, box, period, change                                   string
	token, subscription, session, key, replica, operator, evt string
	ended                                                     string // a subscription
	tiers                                                     int64  // version of a tier table that is not rolled out
}

func newVictim(t *testing.T, st *store.Store, pg *testenv.PostgresServer) victim {
	t.Helper()
	c := fill(t, st, pg)
	one := func(query string) string { return strings.TrimSpace(pg.Query(fmt.Sprintf(query, c.ID))) }
	v := victim{
		id: c.ID, box: one(`SELECT id FROM boxes WHERE customer_id = '%s'`), period: one(`SELECT period_id FROM usage_periods WHERE customer_id = '%s'`),
		change: one(`SELECT id FROM config_changes WHERE customer_id = '%s'`), token: "t-" + c.ID, subscription: "sub-" + c.ID, session: "s-" + c.ID,
		key: "k-" + c.ID, replica: "r-" + c.ID, operator: "op-" + c.ID, evt: "evt-" + c.ID, ended: "sub0-" + c.ID,
	}
	for _, statement := range []string{
		`INSERT INTO identities (id, customer_id, provider, subject, secret_hash, verified_at) VALUES ('p-%[1]s', '%[1]s', 'password', '%[1]s', 'x', now())`,
		`INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at)
			VALUES ('sub0-%[1]s', '%[1]s', 'canceled', 'pro', now(), now() + '1 month', now())`,
		`INSERT INTO boxes (id, customer_id, namespace, subscription_id) VALUES ('b2-%[1]s', '%[1]s', 'b2-%[1]s', 'sub-%[1]s')`,
		`UPDATE boxes SET telegram_token = 'sealed', detail = 'of node-7' WHERE customer_id = '%[1]s'`,
		`UPDATE boxes SET telegram_digest = sha256('%[1]s') WHERE id = 'b2-%[1]s'`,
		`INSERT INTO operators (id, email, role, password_hash) VALUES ('op-%[1]s', '%[1]s', 'admin', 'x')`,
		`INSERT INTO stripe_events (id, type, api_version, created_at, payload) VALUES ('evt-%[1]s', 'x', 'x', now(), '{}')`,
		`UPDATE customers SET status = 'suspended', payment_hold = true, email = '%[1]s@example.com' WHERE id = '%[1]s'`,
		`UPDATE usage_periods SET overage_tokens = 7, overage_most = 7 WHERE customer_id = '%[1]s'`,
		`INSERT INTO tier_tables (content, rolled_out_at) VALUES ('%[1]s', now())`,
	} {
		pg.Query(fmt.Sprintf(strings.ReplaceAll(statement, "\n", " "), c.ID))
	}
	if _, err := fmt.Sscan(pg.Query(`INSERT INTO tier_tables (content) VALUES ('x') RETURNING version`), &v.tiers); err != nil {
		t.Fatal(err)
	}
	return v
}

// attack calls a method of Tx with what belongs to the victim. What it returns is what the
// attacker gets to see.
type attack func(*store.Tx) (any, error)

// attacks has one for every method of Tx.
func (v victim) attacks(t *testing.T) map[string]attack {
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	digest := contract.Digest{7}
	b := control.Box{ID: "b9-" + v.id, CustomerID: v.id, Namespace: "b9-" + v.id, State: control.BoxPending, CreatedAt: now}
	k := control.ProxyToken{ID: "t9-" + v.id, CustomerID: v.id, BoxID: v.box, Digest: digest, Hint: "abcd", Version: 1, Status: contract.StatusActive, CreatedAt: now}
	sub := control.Subscription{StripeSubscription: control.StripeSubscription{
		ID: v.subscription, CustomerID: v.id, Status: control.SubscriptionPastDue, Tier: "pro", PeriodStart: now, PeriodEnd: now.AddDate(0, 1, 0),
	}}
	none := func(err error) (any, error) { return nil, err }
	return map[string]attack{
		"Account": func(tx *store.Tx) (any, error) { return tx.Account(ctx, v.id) },
		"AddAudit": func(tx *store.Tx) (any, error) {
			return none(tx.AddAudit(ctx, control.Audit{Actor: "x", Action: "x", CustomerID: v.id, Target: "x"}))
		},
		"AddChange": func(tx *store.Tx) (any, error) {
			return tx.AddChange(ctx, control.Change{Kind: control.ChangeLimit, CustomerID: v.id})
		},
		"AddMail": func(tx *store.Tx) (any, error) {
			return tx.AddMail(ctx, control.Mail{CustomerID: v.id, Kind: "back", Cause: "x"})
		},
		"AddMeterReport":  func(tx *store.Tx) (any, error) { return tx.AddMeterReport(ctx, "m9-"+v.id, sub, v.period, 50, 300) },
		"APIKeys":         func(tx *store.Tx) (any, error) { return tx.APIKeys(ctx, v.id) },
		"AuditPage":       func(tx *store.Tx) (any, error) { return tx.AuditPage(ctx, v.id, 0, 10) },
		"Boxes":           func(tx *store.Tx) (any, error) { return tx.Boxes(ctx, v.id) },
		"BoxesOf":         func(tx *store.Tx) (any, error) { return tx.BoxesOf(ctx, v.subscription) },
		"DisableOperator": func(tx *store.Tx) (any, error) { return none(tx.DisableOperator(ctx, "x", v.operator, now)) },
		"EraseCustomer":   func(tx *store.Tx) (any, error) { return none(tx.EraseCustomer(ctx, "x", v.id, now)) },
		"Export":          func(tx *store.Tx) (any, error) { return tx.Export(ctx, v.id) },
		"FinishStripeEvent": func(tx *store.Tx) (any, error) {
			return none(tx.FinishStripeEvent(ctx, control.StripeEvent{ID: v.evt}))
		},
		"FirstPeriodStart": func(tx *store.Tx) (any, error) { return tx.FirstPeriodStart(ctx, v.id) },
		"GrantsRolledOut":  func(tx *store.Tx) (any, error) { return none(tx.GrantsRolledOut(ctx, v.id, v.tiers)) },
		"InsertBox":        func(tx *store.Tx) (any, error) { return none(tx.InsertBox(ctx, b)) },
		"InsertToken":      func(tx *store.Tx) (any, error) { return none(tx.InsertToken(ctx, k)) },
		"LastPeriod":       func(tx *store.Tx) (any, error) { return tx.LastPeriod(ctx, v.id) },
		"LinkBox":          func(tx *store.Tx) (any, error) { return none(tx.LinkBox(ctx, "x", v.box, v.id, v.subscription)) },
		"LiveSubscription": func(tx *store.Tx) (any, error) { return tx.LiveSubscription(ctx, v.id) },
		"LockCustomer":     func(tx *store.Tx) (any, error) { return tx.LockCustomer(ctx, v.id) },
		"LockReplica":      func(tx *store.Tx) (any, error) { return tx.LockReplica(ctx, v.replica) },
		"MeterReports":     func(tx *store.Tx) (any, error) { return tx.MeterReports(ctx, v.id, v.period) },
		"MeterReportsOn": func(tx *store.Tx) (any, error) {
			return tx.MeterReportsOn(ctx, v.id, time.Time{}, now.AddDate(1, 0, 0))
		},
		"MovePeriodEnd":       func(tx *store.Tx) (any, error) { return tx.MovePeriodEnd(ctx, v.id, v.period, now.AddDate(1, 0, 0)) },
		"PaymentHold":         func(tx *store.Tx) (any, error) { return tx.PaymentHold(ctx, v.id) },
		"Period":              func(tx *store.Tx) (any, error) { return tx.Period(ctx, v.id, v.period) },
		"PeriodAt":            func(tx *store.Tx) (any, error) { return tx.PeriodAt(ctx, v.id, now) },
		"PeriodOverage":       func(tx *store.Tx) (any, error) { return tx.PeriodOverage(ctx, v.id, v.period) },
		"PeriodsSince":        func(tx *store.Tx) (any, error) { return tx.PeriodsSince(ctx, v.id, now.AddDate(-1, 0, 0)) },
		"WaitingMeterReports": func(tx *store.Tx) (any, error) { return tx.WaitingMeterReports(ctx, v.id) },
		"RaiseTokenVersion":   func(tx *store.Tx) (any, error) { return tx.RaiseTokenVersion(ctx, v.token, 9) },
		"RequestRepair":       func(tx *store.Tx) (any, error) { return none(tx.RequestRepair(ctx, "x")) },
		"RetryStripeEvent":    func(tx *store.Tx) (any, error) { return none(tx.RetryStripeEvent(ctx, "x", v.evt, true)) },
		"RevokeAPIKey":        func(tx *store.Tx) (any, error) { return none(tx.RevokeAPIKey(ctx, "x", v.id, v.key, now)) },
		"RevokeAPIKeys":       func(tx *store.Tx) (any, error) { return tx.RevokeAPIKeys(ctx, "x", v.id, "x", now) },
		"RevokeSession":       func(tx *store.Tx) (any, error) { return none(tx.RevokeSession(ctx, "x", v.session, "x", now)) },
		"RevokeSessions":      func(tx *store.Tx) (any, error) { return tx.RevokeSessions(ctx, "x", customerSubject(v.id), "x", now) },
		"SetCustomerStatus": func(tx *store.Tx) (any, error) {
			return tx.SetCustomerStatus(ctx, v.id, control.CustomerSuspended, now)
		},
		"SetCustomerTier": func(tx *store.Tx) (any, error) { return tx.SetCustomerTier(ctx, v.id, "team", now) },
		"SetLimit":        func(tx *store.Tx) (any, error) { return tx.SetLimit(ctx, v.id, v.period, 5, control.PeriodOverage{}) },
		"SetOverage":      func(tx *store.Tx) (any, error) { return tx.SetOverage(ctx, "x", sub, 500) },
		"AddPassword": func(tx *store.Tx) (any, error) {
			return none(tx.AddPassword(ctx, "x", control.Identity{ID: "i9-" + v.id, CustomerID: v.id, Provider: control.ProviderPassword, Subject: "x@example.com", SecretHash: "stolen", CreatedAt: now}))
		},
		"SetPassword":      func(tx *store.Tx) (any, error) { return none(tx.SetPassword(ctx, "x", v.id, "stolen", now)) },
		"SetPaymentHold":   func(tx *store.Tx) (any, error) { return none(tx.SetPaymentHold(ctx, v.id, false)) },
		"SetPendingTier":   func(tx *store.Tx) (any, error) { return tx.SetPendingTier(ctx, "x", sub, "team", now) },
		"SetPeriodOverage": func(tx *store.Tx) (any, error) { return none(tx.SetPeriodOverage(ctx, v.id, v.period, 9)) },
		"SetProfile": func(tx *store.Tx) (any, error) {
			return none(tx.SetProfile(ctx, "x", v.id, "stolen", control.Portuguese, now))
		},
		"SetReplicaLost": func(tx *store.Tx) (any, error) { return none(tx.SetReplicaLost(ctx, v.replica, "x", now)) },
		"SetStripeID":    func(tx *store.Tx) (any, error) { return none(tx.SetStripeID(ctx, "x", v.id, "cus_"+v.id)) },
		"Subscription":   func(tx *store.Tx) (any, error) { return tx.Subscription(ctx, v.subscription) },
		"Subscriptions":  func(tx *store.Tx) (any, error) { return tx.Subscriptions(ctx, v.id) },
		"Token":          func(tx *store.Tx) (any, error) { return tx.Token(ctx, v.token) },
		"Tokens":         func(tx *store.Tx) (any, error) { return tx.Tokens(ctx, v.id) },
		"UnpaidBoxes":    func(tx *store.Tx) (any, error) { return tx.UnpaidBoxes(ctx, v.id) },
		"UpdateToken":    func(tx *store.Tx) (any, error) { return tx.UpdateToken(ctx, v.token, contract.StatusRevoked, now) },
		"UsageByDay": func(tx *store.Tx) (any, error) {
			return tx.UsageByDay(ctx, v.id, now.AddDate(0, 0, -2), now.AddDate(0, 0, 2))
		},
		"EachEvent": func(tx *store.Tx) (any, error) {
			var seen []contract.Event
			err := tx.EachEvent(ctx, v.id, func(e contract.Event) error { seen = append(seen, e); return nil })
			return seen, err
		},
		"FinishIdempotent": func(tx *store.Tx) (any, error) {
			return none(tx.FinishIdempotent(ctx, control.IdempotentRequest{Subject: customerSubject(v.id), Key: "x"}, 1, control.Answer{Status: 200}))
		},
		"InsertAPIKey": func(tx *store.Tx) (any, error) {
			return none(tx.InsertAPIKey(ctx, "x", control.APIKey{ID: "k9-" + v.id, CustomerID: v.id, Digest: digest, Hint: "abcd", Name: "x", CreatedAt: now}))
		},
		"InsertCustomer": func(tx *store.Tx) (any, error) {
			return none(tx.InsertCustomer(ctx, control.Customer{ID: "c9-" + v.id, Name: "x", Tier: "pro", Status: control.CustomerActive, CreatedAt: now}))
		},
		"InsertOperator": func(tx *store.Tx) (any, error) {
			return none(tx.InsertOperator(ctx, "x", control.Operator{ID: "o9-" + v.id, Email: "x@example.com", Role: control.RoleAdmin, PasswordHash: "x", CreatedAt: now}))
		},
		"OpenPeriod": func(tx *store.Tx) (any, error) {
			return tx.OpenPeriod(ctx, control.FirstPeriod(v.id, now.AddDate(1, 0, 0), 5))
		},
		"PutSubscription": func(tx *store.Tx) (any, error) {
			before, after, err := tx.PutSubscription(ctx, "x", sub.StripeSubscription, now.Add(time.Hour))
			return []control.Subscription{before, after}, err
		},
		"RiverTx": func(tx *store.Tx) (any, error) {
			rows, err := tx.RiverTx().Query(ctx, `SELECT id FROM customers WHERE id = $1`, v.id)
			if err != nil {
				return nil, err
			}
			defer rows.Close()
			return rows.Next(), rows.Err()
		},
		"SupersedeChange": func(tx *store.Tx) (any, error) {
			var id int64
			if _, err := fmt.Sscan(v.change, &id); err != nil {
				return nil, err
			}
			return none(tx.SupersedeChange(ctx, id))
		},
		"AddressConfirmed": func(tx *store.Tx) (any, error) { return tx.AddressConfirmed(ctx, v.id) },
		"ConfirmAddress":   func(tx *store.Tx) (any, error) { return none(tx.ConfirmAddress(ctx, "x", v.id, v.id, now)) },
		"UseMailToken": func(tx *store.Tx) (any, error) {
			return tx.UseMailToken(ctx, control.MailVerifyEmail, sha256.Sum256([]byte(v.id)), now)
		},
		"MoveBoxes": func(tx *store.Tx) (any, error) { return none(tx.MoveBoxes(ctx, "x", v.id, v.subscription, v.ended)) },
		"PutReplaced": func(tx *store.Tx) (any, error) {
			return tx.PutReplaced(ctx, "x", sub.StripeSubscription, now.Add(time.Hour), v.ended)
		},
		"BoxDetail": func(tx *store.Tx) (any, error) { return tx.BoxDetail(ctx, v.box) },
		"BoxDetailForOperators": func(tx *store.Tx) (any, error) {
			_, text, err := tx.BoxDetailForOperators(ctx, v.box)
			return text, err
		},
		"BoxText": func(tx *store.Tx) (any, error) { return tx.BoxText(ctx, v.box) },
		"BoxOfBot": func(tx *store.Tx) (any, error) {
			bot := sha256.Sum256([]byte(v.id))
			return tx.BoxOfBot(ctx, bot[:])
		},
		"NoteBot": func(tx *store.Tx) (any, error) {
			return none(tx.NoteBot(ctx, v.box, []byte("sealed"), digest[:]))
		},
		"BoxDetails":          func(tx *store.Tx) (any, error) { return tx.BoxDetails(ctx, v.id) },
		"SealedTelegramToken": func(tx *store.Tx) (any, error) { return tx.SealedTelegramToken(ctx, v.box) },
		"ResealTelegramToken": func(tx *store.Tx) (any, error) {
			return tx.ResealTelegramToken(ctx, "x", control.Box{ID: v.box, CustomerID: v.id}, []byte("sealed"), []byte("stolen"))
		},
		"BoxOperatorLeads": func(tx *store.Tx) (any, error) { // whether another one leads
			err := tx.BoxOperatorLeads(ctx, 1)
			if errors.Is(err, control.ErrFenced) {
				return true, nil
			}
			return nil, err
		},
		"DecideBox": func(tx *store.Tx) (any, error) {
			return tx.DecideBox(ctx, "x", control.Box{ID: v.box, CustomerID: v.id}, store.BoxDecision{Action: "x", Wants: control.BoxDestroy})
		},
		"ReportBox": func(tx *store.Tx) (any, error) {
			before, after, err := tx.ReportBox(ctx, "x", control.BoxReport{
				BoxID: v.box, Generation: 1, State: control.BoxActive, Steps: []control.BoxStep{{Name: "x", StartedAt: now}},
			})
			return []control.Box{before, after}, err
		},
		"TokenByDigest":         func(tx *store.Tx) (any, error) { return tx.TokenByDigest(ctx, sha256.Sum256([]byte(v.id))) },
		"EndToken":              func(tx *store.Tx) (any, error) { return tx.EndToken(ctx, v.token, now) },
		"TokensOfBox":           func(tx *store.Tx) (any, error) { return tx.TokensOfBox(ctx, v.id, v.box) },
		"UnpublishedChanges":    func(tx *store.Tx) (any, error) { return tx.UnpublishedChanges(ctx, v.id, sha256.Sum256([]byte(v.id))) },
		"ReplacedSubscriptions": func(tx *store.Tx) (any, error) { return tx.ReplacedSubscriptions(ctx, v.id) },

		// What is sold is nobody's: no customer has any business with it.
		"AddTierTable":       func(tx *store.Tx) (any, error) { return tx.AddTierTable(ctx, "x", "stolen", nil) },
		"LockTierTables":     func(tx *store.Tx) (any, error) { err := tx.LockTierTables(ctx); return err == nil, err },
		"RolledOutTierTable": func(tx *store.Tx) (any, error) { return tx.RolledOutTierTable(ctx) },
		"TierTable":          func(tx *store.Tx) (any, error) { return tx.TierTable(ctx, 0) },
		"TierTableRolledOut": func(tx *store.Tx) (any, error) { return none(tx.TierTableRolledOut(ctx, v.tiers)) },
		"TiersInUse": func(tx *store.Tx) (any, error) { // the attacker's own is no secret
			list, err := tx.TiersInUse(ctx)
			return slices.Contains(list, "of-"+v.id), err
		},
	}
}

// prepared is what has to be so for an attack to have any effect if nothing kept it off.
func (v victim) prepared(method string) []string {
	its := ` WHERE customer_id = '` + v.id + `'`
	switch method {
	case "EraseCustomer":
		return []string{
			`UPDATE subscriptions SET status = 'canceled'` + its,
			`UPDATE proxy_tokens SET status = 'revoked', revoked_at = now()` + its,
			`UPDATE boxes SET wants = 'destroy', telegram_token = NULL` + its,
		}
	case "AddPassword":
		return []string{`DELETE FROM identities` + its}
	case "BoxOperatorLeads":
		return []string{`SELECT nextval('box_operators') + nextval('box_operators')`}
	case "UnpublishedChanges":
		return []string{`UPDATE config_changes SET kind = 'grant', digest = sha256('` + v.id + `')` + its}
	case "ConfirmAddress":
		return []string{`UPDATE identities SET verified_at = NULL` + its}
	case "ReplacedSubscriptions":
		return []string{`UPDATE subscriptions SET replaced_by = '` + v.ended + `' WHERE id = '` + v.subscription + `'`}
	case "TiersInUse":
		return []string{`UPDATE customers SET tier = 'of-` + v.id + `' WHERE id = '` + v.id + `'`}
	}
	return nil
}

// everything is a query for a digest of all rows of all tables.
func everything(pg *testenv.PostgresServer) string {
	tables := strings.Fields(pg.Query(`SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE n.nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition`))
	for i, name := range tables {
		tables[i] = `SELECT '` + name + ` ' || x::text AS v FROM ` + name + ` x`
	}
	return `SELECT md5(string_agg(v, '' ORDER BY v)) FROM (` + strings.Join(tables, " UNION ALL ") + `) AS all_rows`
}

// nothing reports whether a result says nothing: zero, or empty.
func nothing(v any) bool {
	r := reflect.ValueOf(v)
	if !r.IsValid() || r.IsZero() {
		return true
	}
	return r.Kind() == reflect.Slice && r.Len() == 0
}

// In a customer's transaction no method of Tx shows or changes anything of another customer,
// whatever ids it is called with, while it does for the owner. Every method is called: one
// that has no attack here fails.
func TestNoMethodReachesAnotherCustomer(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	attacker, v := fill(t, st, pg), newVictim(t, st, pg)
	ctx := t.Context()
	attacks := v.attacks(t)
	methods := reflect.TypeFor[*store.Tx]()
	for i := range methods.NumMethod() {
		if _, ok := attacks[methods.Method(i).Name]; !ok {
			t.Errorf("Tx.%s: there is no attack by it", methods.Method(i).Name)
		}
	}
	state := everything(pg)
	back := errors.New("roll back")
	// try runs an attack in a transaction that scope has begun, and undoes it.
	try := func(name string, scope func(func(*store.Tx) error) error, inside, outside string) (seen any, changed bool, failed error) {
		err := scope(func(tx *store.Tx) error {
			must := func(_ int64, err error) {
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			read := func() string {
				s, err := store.Text(ctx, tx, state)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				return s
			}
			must(store.Exec(ctx, tx, outside))
			for _, statement := range v.prepared(name) {
				must(store.Exec(ctx, tx, statement))
			}
			before := read()
			must(store.Exec(ctx, tx, inside))
			if seen, failed = attacks[name](tx); failed != nil {
				return back // whatever it did is undone
			}
			must(store.Exec(ctx, tx, outside))
			changed = read() != before
			return back
		})
		if !errors.Is(err, back) {
			t.Fatalf("%s: %v", name, err)
		}
		return seen, changed, failed
	}
	for _, name := range slices.Sorted(maps.Keys(attacks)) {
		seen, changed, err := try(name, func(do func(*store.Tx) error) error { return st.ForCustomer(ctx, attacker.ID, do) },
			`SET LOCAL ROLE openclaw_customer`, `SET LOCAL ROLE NONE`)
		if err == nil && (changed || !nothing(seen) && !allNothing(seen)) {
			t.Errorf("Tx.%s shows %+v of another customer, and changes something: %t", name, seen, changed)
		}
		// The same call has an effect where nothing keeps customers apart.
		seen, changed, err = try(name, func(do func(*store.Tx) error) error { return st.InTx(ctx, do) }, `SELECT 1`, `SELECT 1`)
		if err != nil || !changed && nothing(seen) {
			t.Errorf("Tx.%s: as the owner it shows %+v, changes something: %t, %v: so nothing was shown", name, seen, changed, err)
		}
	}
}

// allNothing is nothing for each of a slice.
func allNothing(v any) bool {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Slice {
		return false
	}
	for i := range r.Len() {
		if !nothing(r.Index(i).Interface()) {
			return false
		}
	}
	return true
}
