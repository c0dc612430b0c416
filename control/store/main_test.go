package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// open returns a store on a fresh database, without a schema.
func open(t *testing.T) (*store.Store, *testenv.PostgresServer) {
	t.Helper()
	pg := testenv.Postgres(t)
	return openOn(t, pg), pg
}

func openOn(t *testing.T, pg *testenv.PostgresServer) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return st
}

// migrated returns a store with the newest schema.
func migrated(t *testing.T) (*store.Store, *testenv.PostgresServer) {
	t.Helper()
	pg := storetest.Postgres(t)
	return openOn(t, pg), pg
}

// addCustomer makes a customer with one box and the present period.
func addCustomer(t *testing.T, st *store.Store) (control.Customer, control.Box, control.UsagePeriod) {
	t.Helper()
	id, now := control.NewID(control.CustomerID), time.Now().UTC().Truncate(time.Microsecond)
	c := control.Customer{ID: id, Name: "Test", Tier: "starter", Status: control.CustomerActive, CreatedAt: now}
	b := control.Box{ID: control.NewID(control.BoxID), CustomerID: id, Namespace: "customer-" + id, State: control.BoxPending, CreatedAt: now}
	p := control.FirstPeriod(id, now, 1_000_000)
	err := st.InTx(t.Context(), func(tx *store.Tx) error {
		if err := tx.InsertCustomer(t.Context(), c); err != nil {
			return err
		}
		if err := tx.InsertBox(t.Context(), b); err != nil {
			return err
		}
		_, err := tx.OpenPeriod(t.Context(), p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, b, p
}

// delivery returns the delivery of a valid event: 100 prompt (10 cached) and 50
// completion (5 reasoning) tokens, settled 150.
func delivery(customer, period, replica string, seq int64) control.Delivery {
	e := contract.Event{
		Replica: replica, Seq: seq, AdmittedAt: time.Now().UTC().Truncate(time.Microsecond), PeriodID: period,
		RequestID: fmt.Sprintf("req-%s-%d", replica, seq), UpstreamRequestID: "up-1", CustomerID: customer, BoxID: "b1", TokenID: "t1",
		Tier: "starter", ModelAsked: "k2", ModelServed: "kimi-k2", Face: contract.FaceOpenAI, Upstream: "sim",
		Prompt: 100, Cached: 10, Completion: 50, Reasoning: 5, Settled: 150, Unbilled: 1, Reserved: 200,
		Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200, TTFBMicros: 1000, DurationMicros: 2000,
	}
	return control.Delivery{StreamID: "1-1", Index: int(seq), Payload: fmt.Appendf(nil, "%s/%d", replica, seq), Event: e}
}

func record(t *testing.T, st *store.Store, list ...control.Delivery) control.Recorded {
	t.Helper()
	r, err := st.RecordUsage(context.Background(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
