package store_test

import (
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Of two dead letters of one number one is dropped: the event in that is not billed when it
// comes again, though the other letter waits; the one in the other is.
func TestTheDroppedLetterIsNotBilled(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx := t.Context()
	a, b := delivery("c1", "p1", "r1", 1), delivery("c1", "p1", "r1", 1) // whom nobody knows yet
	b.Payload, b.Event.RequestID, b.Event.AdmittedAt = []byte("another"), "another", b.Event.AdmittedAt.Add(1e9)
	for _, d := range []control.Delivery{a, b} {
		if r, err := st.RecordUsage(ctx, []control.Delivery{d}, nil); err != nil || len(r.Parked) != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	list, err := st.WaitingDeadLetters(ctx, 10)
	if err != nil || len(list) != 2 || string(list[1].Payload) != string(a.Payload) {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := st.DropDeadLetter(ctx, "ada", list[1].ID, "x"); err != nil {
		t.Fatal(err)
	}
	pg.Query("INSERT INTO customers (id, name, tier) VALUES ('c1', 'x', 'starter')")
	if r, err := st.RecordUsage(ctx, []control.Delivery{a}, nil); err != nil || r.Inserted != 0 || r.Duplicates != 1 || len(r.Parked) != 0 {
		t.Errorf("the dropped one: %+v, %v", r, err)
	}
	if r, err := st.RecordUsage(ctx, []control.Delivery{b}, nil); err != nil || r.Inserted != 1 {
		t.Errorf("the other one: %+v, %v", r, err)
	}
}
