package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// A process that is stopped in a transaction keeps the rows that it locked for a while
// only: the ledger goes on without it, and what it had in hand is not committed.
func TestStoppedInATransaction(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	c, _, p := addCustomer(t, st)
	record(t, st, delivery(c.ID, p.ID, "r1", 1))
	stopped, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stopped.Close)
	locked, thaw, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- stopped.InTx(context.Background(), func(tx *store.Tx) error {
			_, err := tx.LockReplica(context.Background(), "r1")
			close(locked)
			<-thaw
			return err
		})
	}()
	<-locked
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second) // less than a statement's
	defer cancel()
	if _, err := st.RecordUsage(ctx, []control.Delivery{delivery(c.ID, p.ID, "r1", 2)}, nil); err != nil {
		t.Errorf("while another is stopped: %v", err)
	}
	close(thaw)
	if err := <-ended; err == nil {
		t.Error("the transaction of the one that was stopped was committed")
	}
}
