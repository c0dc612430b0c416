package store_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// column names the column of a table that says whose a row is.
func column(table string) string {
	if table == "customers" {
		return "id"
	}
	return "customer_id"
}

// tablesWithCustomer lists the tables whose rows belong to a customer; partitions belong
// to their table.
func tablesWithCustomer(pg *testenv.PostgresServer) []string {
	return strings.Fields(pg.Query(`
		SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE n.nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition AND (relname = 'customers' OR EXISTS (
			SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'customer_id' AND NOT a.attisdropped))
		ORDER BY relname`))
}

// fill adds a row of a customer to every table that has rows of customers.
func fill(t *testing.T, st *store.Store, pg *testenv.PostgresServer) control.Customer {
	t.Helper()
	c, b, p := addCustomer(t, st)
	record(t, st, delivery(c.ID, p.ID, "r-"+c.ID, 1))
	digest := fmt.Sprintf("sha256('%s')", c.ID)
	for _, statement := range []string{
		`INSERT INTO identities (id, customer_id, provider, subject) VALUES ('i-%[1]s', '%[1]s', 'google', '%[1]s')`,
		`INSERT INTO sessions (id, customer_id, expires_at) VALUES ('s-%[1]s', '%[1]s', now() + '1 day')`,
		`INSERT INTO api_keys (id, customer_id, digest, hint, name) VALUES ('k-%[1]s', '%[1]s', %[2]s, 'abcd', 'x')`,
		`INSERT INTO idempotency_keys (customer_id, key, request_digest, leased_until, expires_at) VALUES ('%[1]s', 'x', %[2]s, now(), now())`,
		`INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at)
			VALUES ('sub-%[1]s', '%[1]s', 'active', 'pro', now(), now() + '1 month', now())`,
		`INSERT INTO proxy_tokens (id, customer_id, box_id, digest, hint) VALUES ('t-%[1]s', '%[1]s', '%[3]s', %[2]s, 'abcd')`,
		`INSERT INTO box_steps (box_id, customer_id, generation, name, started_at) VALUES ('%[3]s', '%[1]s', 1, 'x', now())`,
		`INSERT INTO config_changes (kind, customer_id, payload) VALUES ('limit', '%[1]s', '{}')`,
		`INSERT INTO audit_log (actor, action, customer_id, target) VALUES ('x', 'x', '%[1]s', 'x')`,
		`INSERT INTO mails (customer_id, kind, cause, language) VALUES ('%[1]s', 'welcome', 'x', 'en')`,
		`INSERT INTO mail_tokens (customer_id, kind, digest, address, expires_at) VALUES ('%[1]s', 'verify_email', %[2]s, 'x', now() + '1 day')`,
		`INSERT INTO meter_reports (id, customer_id, subscription_id, period_id, tokens_from, tokens_to, cents_per_million, event_at)
			VALUES ('m-%[1]s', '%[1]s', 'sub-%[1]s', '%[4]s', 0, 5, 300, now())`,
		`INSERT INTO onboarding_sessions (id, customer_id, state, expires_at) VALUES ('n-%[1]s', '%[1]s', 'provisioning', now() + '1 day')`,
		`INSERT INTO quota_records (customer_id, period_id, epoch, made) VALUES ('%[1]s', '%[4]s', 1, true)`,
		`INSERT INTO quota_releases (replica, customer_id, period_id, settled_tokens, freed_tokens) VALUES ('r', '%[1]s', '%[4]s', 0, 0)`,
	} {
		pg.Query(fmt.Sprintf(strings.ReplaceAll(statement, "\n", " ")+"/* %[1]s %[2]s %[3]s %[4]s */", c.ID, digest, b.ID, p.ID))
	}
	return c
}

// Every table with rows of customers has a policy, and the role of customers' queries has
// no business with any other table.
func TestEveryTableIsScoped(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	if err := st.EnsurePartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(tablesWithCustomer(pg)); n < 16 {
		t.Fatalf("only %d tables with rows of customers were found", n)
	}
	rows := pg.Query(`
		SELECT relname, relispartition, relname = 'customers' OR EXISTS (
				SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'customer_id' AND NOT a.attisdropped),
			relrowsecurity AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd = '*'
				AND p.polroles = ARRAY[(SELECT oid FROM pg_roles WHERE rolname = 'openclaw_customer')]),
			has_any_column_privilege('openclaw_customer', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
				OR has_table_privilege('openclaw_customer', c.oid, 'DELETE, TRUNCATE, TRIGGER')
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname = 'public' AND relkind IN ('r', 'p', 'v', 'm', 'f')`)
	seen := 0
	for _, row := range strings.Fields(rows) {
		f := strings.Split(row, "|")
		name, partition, customers, policy, privileges := f[0], f[1] == "t", f[2] == "t", f[3] == "t", f[4] == "t"
		seen++
		switch {
		case partition && privileges:
			t.Errorf("%s: the policy of its table does not hold where the partition is named: it must be out of reach", name)
		case !partition && customers && !policy:
			t.Errorf("%s has rows of customers and no policy", name)
		case !customers && privileges:
			t.Errorf("%s has no column of the customer, so customers' queries must not reach it", name)
		}
	}
	if seen < 25 {
		t.Errorf("only %d tables were looked at:\n%s", seen, rows)
	}
}

// Even if the role might do anything, it would neither read nor write rows of others.
func TestPoliciesKeepCustomersApart(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	a, b := fill(t, st, pg), fill(t, st, pg)
	pg.Query(`GRANT ALL ON ALL TABLES IN SCHEMA public TO openclaw_customer`)
	ctx := t.Context()
	inA := func(statement string, args ...any) (n int64, err error) {
		rollback := errors.New("rollback")
		if txErr := st.ForCustomer(ctx, a.ID, func(tx *store.Tx) error {
			n, err = store.Exec(ctx, tx, statement, args...)
			return rollback
		}); !errors.Is(txErr, rollback) {
			t.Fatal(txErr)
		}
		return n, err
	}
	for _, table := range tablesWithCustomer(pg) {
		col := column(table)
		own, err := inA(`SELECT 1 FROM ` + table)
		if err != nil || own == 0 {
			t.Errorf("%s: it reads %d rows of its own, %v", table, own, err)
		}
		all := strings.TrimSpace(pg.Query(`SELECT count(*) FROM ` + table + ` WHERE ` + col + ` = '` + b.ID + `'`))
		if all == "0" {
			t.Errorf("%s: there is no row of the other one to be kept apart", table)
		}
		for what, statement := range map[string]string{
			"reads":   `SELECT 1 FROM ` + table + ` WHERE ` + col + ` = $1`,
			"locks":   `SELECT 1 FROM ` + table + ` WHERE ` + col + ` = $1 FOR UPDATE`,
			"updates": `UPDATE ` + table + ` SET ` + col + ` = ` + col + ` WHERE ` + col + ` = $1`,
			"deletes": `DELETE FROM ` + table + ` WHERE ` + col + ` = $1`,
		} {
			if n, err := inA(statement, b.ID); err != nil || n != 0 {
				t.Errorf("%s: it %s %d rows of the other one, %v", table, what, n, err)
			}
		}
		if _, err := inA(`UPDATE `+table+` SET `+col+` = $1 WHERE `+col+` = $2`, b.ID, a.ID); err == nil || !strings.Contains(err.Error(), "row-level security") {
			t.Errorf("%s: it gives a row to the other one: %v", table, err)
		}
		// The same question finds them where nothing keeps them apart.
		pg.Query(`ALTER TABLE ` + table + ` DISABLE ROW LEVEL SECURITY`)
		if n, err := inA(`SELECT 1 FROM `+table+` WHERE `+col+` = $1`, b.ID); err != nil || n == 0 {
			t.Errorf("%s: without row-level security it reads %d rows, %v: nothing was shown", table, n, err)
		}
		pg.Query(`ALTER TABLE ` + table + ` ENABLE ROW LEVEL SECURITY`)
	}
}

// What the role may do in fact: sign-ins' secrets and the programs' tables are out of reach.
func TestCustomersQueriesReachLittle(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	a, b := fill(t, st, pg), fill(t, st, pg)
	ctx := t.Context()
	for _, statement := range []string{
		`SELECT secret_hash FROM identities`, `SELECT * FROM operators`, `SELECT * FROM refresh_tokens`, `SELECT * FROM mail_tokens`, `SELECT * FROM stripe_events`, `SELECT * FROM onboarding_sessions`,
		`SELECT telegram_token FROM boxes`, `SELECT detail FROM boxes`, `SELECT detail FROM box_steps`, `SELECT * FROM boxes`, `UPDATE boxes SET wants = 'run'`, `DELETE FROM box_steps`,
		`SELECT * FROM dead_letters`, `UPDATE customers SET tier = 'team'`, `UPDATE customers SET status = 'active'`,
		`UPDATE subscriptions SET status = 'active'`, `UPDATE usage_periods SET limit_tokens = 1`, `DELETE FROM audit_log`,
		`INSERT INTO mails (customer_id, kind, cause, language) VALUES ('` + a.ID + `', 'a', 'a', 'en')`,
	} {
		err := st.ForCustomer(ctx, a.ID, func(tx *store.Tx) error {
			_, err := store.Exec(ctx, tx, statement)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	insert := func(customer string) error {
		return st.ForCustomer(ctx, a.ID, func(tx *store.Tx) error {
			return tx.InsertAPIKey(ctx, "x", control.APIKey{ID: control.NewID(control.APIKeyID), CustomerID: customer, Digest: [32]byte{1}, Hint: "abcd", Name: "x", CreatedAt: a.CreatedAt})
		})
	}
	if err := insert(b.ID); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("an API key for the other one: %v", err)
	}
	if err := insert(a.ID); err != nil {
		t.Error(err)
	}
}

// The connection that a customer's transaction used is the owner's again, and a
// transaction without a customer sees nothing.
func TestScopeEndsWithItsTransaction(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	a, b := fill(t, st, pg), fill(t, st, pg)
	ctx := t.Context()
	for range 20 { // whatever connection of the pool it gets
		if err := st.ForCustomer(ctx, a.ID, func(tx *store.Tx) error {
			if _, err := tx.Account(ctx, b.ID); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("the other one's account: %v", err)
			}
			acc, err := tx.Account(ctx, a.ID)
			if acc.ID != a.ID || acc.Language != control.English {
				t.Errorf("own account %+v", acc)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		list, err := st.Customers(ctx, "", 10)
		if err != nil || !slices.ContainsFunc(list, func(c control.Customer) bool { return c.ID == b.ID }) {
			t.Fatalf("the owner sees %+v, %v", list, err)
		}
		if err := st.InTx(ctx, func(tx *store.Tx) error {
			if _, err := store.Exec(ctx, tx, `SET LOCAL ROLE openclaw_customer`); err != nil {
				return err
			}
			n, err := store.Exec(ctx, tx, `SELECT 1 FROM customers`)
			if n != 0 {
				t.Errorf("without a customer %d rows", n)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.ForCustomer(ctx, "", func(*store.Tx) error { return nil }); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("no customer: %v", err)
	}
}

// A program need not connect as a superuser: the owner of an empty database that may make
// roles gets the same schema, and is kept within a customer's rows by it.
func TestScopeHoldsForAnOwnerWhoIsNoSuperuser(t *testing.T) {
	t.Parallel()
	pg := testenv.DedicatedPostgres(t)
	pg.Query(`CREATE ROLE plain LOGIN CREATEROLE PASSWORD 'only-for-this-test'`)
	pg.Query(`ALTER SCHEMA public OWNER TO plain`)
	u, err := url.Parse(pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("plain", "only-for-this-test")
	st, err := store.Open(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	if _, err := st.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, b := signUp(t, st, "a@example.com"), signUp(t, st, "b@example.com")
	if err := st.ForCustomer(t.Context(), a.ID, func(tx *store.Tx) error {
		if _, err := tx.Account(t.Context(), b.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the other one's account: %v", err)
		}
		_, err := tx.Account(t.Context(), a.ID)
		return err
	}); err != nil {
		t.Error(err)
	}
	if err := st.MigrateDownTo(t.Context(), 0); err != nil {
		t.Error(err)
	}
}
