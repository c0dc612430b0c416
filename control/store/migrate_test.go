package store_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

const tableNames = `SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
	WHERE n.nspname = 'public' AND relkind IN ('r', 'p') AND relname <> 'goose_db_version'`

func TestMigrateUpDownUp(t *testing.T) {
	t.Parallel()
	st, pg := open(t)
	if err := st.CheckSchema(t.Context()); !errors.Is(err, control.ErrSchema) {
		t.Fatalf("empty database: %v, want ErrSchema", err)
	}
	applied, err := st.Migrate(t.Context())
	if err != nil || applied == 0 {
		t.Fatalf("migrated %d, %v", applied, err)
	}
	if err := st.CheckSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	const want = "api_keys audit_log box_steps boxes config_changes customers dead_letters idempotency_keys identities mail_tokens mails meter_reports onboarding_sessions operators proxy_tokens quota_bases quota_epochs quota_records quota_releases quota_repairs refresh_tokens replica_beats replicas sessions stripe_events subscriptions tier_tables usage_days usage_events usage_periods\n"
	if got := pg.Query(tableNames); got+"\n" != want && got != want {
		t.Fatalf("tables after up: %q, want %q", got, want)
	}
	c, _, p := addCustomer(t, st)
	record(t, st, delivery(c.ID, p.ID, "r1", 1))

	if err := st.MigrateDownTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if got := pg.Query(tableNames); len(got) > 1 {
		t.Fatalf("tables after down: %q", got)
	}
	if err := st.CheckSchema(t.Context()); !errors.Is(err, control.ErrSchema) {
		t.Fatalf("after down: %v, want ErrSchema", err)
	}
	if again, err := st.Migrate(t.Context()); err != nil || again != applied {
		t.Fatalf("up again: %d, %v, want %d", again, err, applied)
	}
	c, _, p = addCustomer(t, st)
	if r := record(t, st, delivery(c.ID, p.ID, "r1", 1)); r.Inserted != 1 {
		t.Fatalf("after up again: %+v", r)
	}
}

func TestMigrateByFourAtOnce(t *testing.T) {
	t.Parallel()
	pg := testenv.Postgres(t)
	var wg sync.WaitGroup
	applied, errs := make([]int, 4), make([]error, 4)
	for i := range applied {
		wg.Go(func() {
			st, err := store.Open(t.Context(), pg.URL)
			if err != nil {
				errs[i] = err
				return
			}
			defer st.Close()
			applied[i], errs[i] = st.Migrate(t.Context())
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range applied {
		total += n
	}
	files, err := os.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.TrimSpace(pg.Query("SELECT count(*) FROM goose_db_version WHERE version_id > 0"))
	if total != len(files) || got != strconv.Itoa(total) {
		t.Fatalf("applied %v, rows %q; want each of %d once", applied, got, len(files))
	}
}
