package main

import (
	"errors"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
)

// An operator that lists what is unfinished leads: what one before still writes is refused. One that only
// waits to lead, and shows logs, keeps nobody from writing.
func TestOperatorLeadsByItsBooks(t *testing.T) {
	t.Parallel()
	pg := storetest.Postgres(t)
	ctx := t.Context()
	st, err := store.Open(ctx, pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	service := &customers.Service{Store: st, Tiers: table}
	made, err := service.CreateCustomer(ctx, "test", customers.NewCustomer{Name: "x", Tier: "pro"})
	if err != nil {
		t.Fatal(err)
	}
	var first, second, waiting laterBooks
	if _, err := first.Unfinished(ctx); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("before Postgres was reached: %v", err)
	}
	for _, b := range []*laterBooks{&first, &second, &waiting} {
		b.set(&customers.Boxes{Service: service})
	}
	report := func(b *laterBooks, state control.BoxState) error {
		return b.Report(ctx, control.BoxReport{BoxID: made.Box.ID, Generation: 1, State: state})
	}
	for range 2 { // as often as it looks for them
		if list, err := first.Unfinished(ctx); err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
	}
	if _, err := waiting.Desired(ctx, made.Box.ID); err != nil {
		t.Fatal(err)
	}
	if err := report(&first, control.BoxProvisioning); err != nil {
		t.Errorf("the one that leads: %v", err)
	}
	if _, err := second.Unfinished(ctx); err != nil {
		t.Fatal(err)
	}
	if err := report(&second, control.BoxActive); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if err := report(&first, control.BoxUnhealthy); !errors.Is(err, control.ErrFenced) {
		t.Errorf("the one before: %v", err)
	}
	if list, err := second.Unfinished(ctx); err != nil || list[0].State != control.BoxActive {
		t.Errorf("%+v, %v", list, err)
	}
}
