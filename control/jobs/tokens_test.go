package jobs_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
)

// A token is revoked when it is time, once its change is committed, by a process that can;
// and such a process leaves other jobs alone.
func TestTokensAreRevokedLater(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pg := storetest.PostgresWithJobs(t)
	st, err := store.Open(ctx, pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	log := slog.New(slog.DiscardHandler)
	revoked, tries := make(chan string, 10), 0
	j, err := jobs.New(ctx, st, log, &jobs.Handlers{RevokeToken: func(_ context.Context, id string) error {
		if tries++; tries == 1 {
			return errors.New("Redis is away")
		}
		revoked <- id
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	at := time.Now().Add(2 * time.Second)
	gone := errors.New("rolled back")
	for token, result := range map[string]error{"t1": nil, "t2": gone} {
		err := st.InTx(ctx, func(tx *store.Tx) error {
			if err := j.RevokeTokenAt(ctx, tx, token, at); err != nil {
				return err
			}
			return result
		})
		if !errors.Is(err, result) {
			t.Fatal(err)
		}
	}
	if err := st.InTx(ctx, func(tx *store.Tx) error { return j.Retain(ctx, tx) }); err != nil {
		t.Fatal(err)
	}
	list, err := j.List(ctx, "", 0, 10)
	if err != nil || len(list) != 2 || list[0].Kind != "retention" || list[1].Kind != "token_revocation" || list[1].State != "scheduled" {
		t.Fatalf("%+v, %v", list, err)
	}
	if page, err := j.List(ctx, "", list[0].ID, 10); err != nil || len(page) != 1 || page[0].ID != list[1].ID {
		t.Errorf("%+v, %v", page, err)
	}
	if err := j.Cancel(ctx, list[1].ID); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a revocation was cancelled: %v", err)
	}
	if err := j.Start(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-revoked:
		if id != "t1" || time.Now().Before(at) {
			t.Errorf("%s, %v too early", id, time.Until(at))
		}
	case <-time.After(60 * time.Second):
		t.Fatal("not revoked, although it was tried again")
	}
	if err := j.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"available", "completed"} {
		list, err := j.List(ctx, state, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range list {
			if v.Kind == "retention" && v.State == "completed" || v.Kind == "token_revocation" && v.Error == "" {
				t.Errorf("%+v", v)
			}
		}
	}
	retention := list[0].ID
	if err := j.Cancel(ctx, retention); err != nil {
		t.Error(err)
	}
	if err := j.Retry(ctx, retention); err != nil {
		t.Error(err)
	}
	if err := j.Retry(ctx, 999_999); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
	if err := j.Cancel(ctx, 999_999); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
}
