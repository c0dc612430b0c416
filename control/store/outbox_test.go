package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func addLimits(t *testing.T, st *store.Store, customer string, n int) (ids []int64) {
	t.Helper()
	err := st.InTx(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			id, err := tx.AddChange(t.Context(), control.Change{
				Kind: control.ChangeLimit, CustomerID: customer, Limit: control.Limit{Tokens: int64(i), Version: int64(i + 1)},
			})
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func addUnreadable(pg *testenv.PostgresServer, customer string, n int) {
	for range n {
		pg.Query(fmt.Sprintf(`INSERT INTO config_changes (kind, customer_id, digest, payload)
			VALUES ('grant', '%s', '\x%064d', '{"format": 1}')`, customer, 0))
	}
}

// Changes that cannot be read, however many are first in line, keep nobody waiting;
// each is reported once and then stays aside.
func TestUnreadableChangesAreSetAside(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, _ := addCustomer(t, st)
	const bad = 7
	addUnreadable(pg, c.ID, bad)
	good := addLimits(t, st, c.ID, 2)
	var published []int64
	publish := func(_ context.Context, ch control.Change) (int64, error) {
		published = append(published, ch.ID)
		return 0, nil
	}
	n, err := st.PublishChanges(t.Context(), nil, 100, publish)
	if n != 2 || fmt.Sprint(published) != fmt.Sprint(good) {
		t.Errorf("published %d: %v, want %v", n, published, good)
	}
	if err == nil || strings.Count(err.Error(), "set aside") != bad {
		t.Errorf("reported %v, want %d changes", err, bad)
	}
	if n, err := st.PublishChanges(t.Context(), nil, 100, publish); n != 0 || err != nil {
		t.Errorf("once more: %d, %v", n, err)
	}
	if o, err := st.OutboxState(t.Context()); err != nil || o.Pending != 0 || o.Oldest != 0 || o.Failed != bad {
		t.Errorf("state %+v, %v", o, err)
	}
	if got := pg.Query("SELECT count(*) FROM config_changes WHERE failed_at IS NOT NULL AND error LIKE '%grant%'"); got[0] != '7' {
		t.Errorf("%s rows say what is wrong with them", got)
	}
}

// When publishing itself fails again and again, the rest is left for later.
func TestPublishingStopsWhenItKeepsFailing(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, _ := addCustomer(t, st)
	addLimits(t, st, c.ID, 2)
	addUnreadable(pg, c.ID, 1) // is no failure of publishing
	addLimits(t, st, c.ID, 10)
	tries, away := 0, errors.New("away")
	_, err := st.PublishChanges(t.Context(), nil, 100, func(context.Context, control.Change) (int64, error) {
		tries++
		return 0, away
	})
	if !errors.Is(err, away) || tries != 3 {
		t.Errorf("%d tries, %v; want 3", tries, err)
	}
	pg.Query("UPDATE config_changes SET created_at = now() - interval '1 hour' WHERE id = 1")
	if o, err := st.OutboxState(t.Context()); err != nil || o.Pending != 12 || o.Oldest < time.Hour || o.Oldest > time.Hour+time.Minute {
		t.Errorf("state %+v, %v", o, err)
	}
	// What is left pending on purpose is no failure either.
	tries = 0
	n, err := st.PublishChanges(t.Context(), nil, 100, func(context.Context, control.Change) (int64, error) {
		tries++
		return 0, store.ErrLeavePending
	})
	if n != 0 || err != nil || tries != 12 {
		t.Errorf("%d published, %d tries, %v", n, tries, err)
	}
}

// Only what was published long ago is removed, and never the newest number of the feed.
func TestPruneChanges(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, _ := addCustomer(t, st)
	addLimits(t, st, c.ID, 10)
	pg.Query(`UPDATE config_changes SET published_at = now() - interval '20 days', feed_seq = id WHERE id <= 6`)
	pg.Query(`UPDATE config_changes SET published_at = now() - interval '20 days' WHERE id = 7`)
	pg.Query(`UPDATE config_changes SET published_at = now() WHERE id = 8`)
	pg.Query(`UPDATE config_changes SET failed_at = now() - interval '20 days', error = 'x', created_at = now() - interval '20 days' WHERE id = 9`)
	then := time.Now().AddDate(0, 0, -14)
	for i, want := range []int64{4, 2, 0} {
		if n, err := st.PruneChanges(t.Context(), then, 4); n != want || err != nil {
			t.Errorf("call %d: %d, %v; want %d", i, n, err, want)
		}
	}
	if got := strings.TrimSpace(pg.Query(`SELECT string_agg(id::text, ' ' ORDER BY id) FROM config_changes`)); got != "6 8 9 10" {
		t.Errorf("left are %s", got)
	}
	if seq, err := st.NewestFeedSeq(t.Context()); seq != 6 || err != nil {
		t.Errorf("newest number %d, %v", seq, err)
	}
}
