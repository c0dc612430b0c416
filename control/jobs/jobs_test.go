package jobs_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// prepared returns a store with the newest schema and one customer with an address.
func prepared(t *testing.T) (*store.Store, *testenv.PostgresServer) {
	t.Helper()
	pg := storetest.Postgres(t)
	st, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	pg.Query("INSERT INTO customers (id, name, email, tier) VALUES ('c1', 'x', 'a@example.com', 'pro')")
	return st, pg
}

func TestMigrateByFourAtOnce(t *testing.T) {
	t.Parallel()
	st, _ := prepared(t)
	if _, err := jobs.New(t.Context(), st, discard(), nil); !errors.Is(err, control.ErrSchema) {
		t.Errorf("without its tables: %v", err)
	}
	var wg sync.WaitGroup
	applied, errs := make([]int, 4), make([]error, 4)
	for i := range applied {
		wg.Go(func() { applied[i], errs[i] = jobs.Migrate(t.Context(), st, discard()) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	one := 0
	for _, n := range applied {
		if n > 0 {
			one++
		}
	}
	if one != 1 {
		t.Errorf("applied %v, want all by one", applied)
	}
	j, err := jobs.New(t.Context(), st, discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
}

// A job is there if the change that wants it was committed, and is worked once that is.
func TestJobsComeWithTheirChange(t *testing.T) {
	t.Parallel()
	st, pg := prepared(t)
	ctx := t.Context()
	if _, err := jobs.Migrate(ctx, st, discard()); err != nil {
		t.Fatal(err)
	}
	sent := make(chan control.Mail, 10)
	var once sync.Once
	j, err := jobs.New(ctx, st, discard(), &jobs.Handlers{SendMails: func(ctx context.Context) error {
		failed := false
		once.Do(func() { failed = true })
		if failed {
			return errors.New("the first attempt fails")
		}
		list, err := st.ClaimMails(ctx, 10)
		for _, m := range list {
			if err := st.MailSent(ctx, m.ID); err != nil {
				return err
			}
			sent <- m
		}
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)

	gone := errors.New("rolled back")
	add := func(cause string, result error) (fresh bool) {
		t.Helper()
		err := st.InTx(ctx, func(tx *store.Tx) (err error) {
			if fresh, err = j.AddMail(ctx, tx, control.Mail{CustomerID: "c1", Kind: "welcome", Cause: cause}); err != nil {
				return err
			}
			return result
		})
		if !errors.Is(err, result) {
			t.Fatal(err)
		}
		return fresh
	}
	count := func() string {
		return strings.TrimSpace(pg.Query("SELECT count(*) FROM river_job WHERE kind = 'mail'"))
	}
	if add("1", gone); count() != "0" {
		t.Error("a job without its change")
	}
	if !add("1", nil) || count() != "1" || add("1", nil) || count() != "1" {
		t.Errorf("not one job for one mail: %s", count())
	}

	if err := j.Start(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-sent:
		if m.To != "a@example.com" || m.Cause != "1" {
			t.Errorf("%+v", m)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the mail was not sent, although its job was tried again")
	}
	if err := j.Stop(ctx); err != nil {
		t.Error(err)
	}
}
