package stripe_test

import (
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// What was reported is compared with what the events come to above the limit: what was left out
// is found, and what was invented, although Stripe has all that it was told.
func TestVerifyOverageReports(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, sub := e.buy(t, "starter")
	e.deliver(t)
	other, _ := e.buy(t, "starter") // uses nothing
	e.deliver(t)
	for _, id := range []string{customer, other} {
		if _, err := e.checkout.SetOverage(t.Context(), "customer", id, 3000); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(s *customers.Service, settle time.Duration) []control.OverageCheck {
		t.Helper()
		list, looked, err := s.VerifyOverage(t.Context(), "", e.sim.Now().AddDate(0, -2, 0), settle)
		if err != nil || looked != 2 {
			t.Errorf("looked at %d, %v", looked, err)
		}
		return list
	}
	agrees := func(what string) {
		t.Helper()
		if list := verify(e.service, 0); len(list) != 0 {
			t.Errorf("%s: %+v", what, list)
		}
	}
	differs := func(what string, due, most, reported int64) {
		t.Helper()
		list := verify(e.service, 0)
		if len(list) != 1 || list[0].CustomerID != customer || list[0].Due != due || list[0].Most != most || list[0].Reported != reported {
			t.Errorf("%s: %+v", what, list)
		}
	}
	report := func() {
		t.Helper()
		if n, err := e.meter.ReportDue(t.Context()); n != 1 || err != nil {
			t.Errorf("reported %d, %v", n, err)
		}
	}
	agrees("without use")
	e.use(t, customer, 1_500_000)
	differs("before the report", 500_000, 500_000, 0)
	if list := verify(e.service, time.Hour); len(list) != 0 {
		t.Errorf("what is too young is missed: %+v", list)
	}
	report()
	agrees("reported")
	if list := verify(e.service, time.Hour); len(list) != 0 {
		t.Errorf("what is young and reported: %+v", list)
	}

	for _, seeded := range []int64{499_999, 500_001} {
		e.query("UPDATE meter_reports SET tokens_to = %d", seeded)
		differs("a report of other tokens", 500_000, 500_000, seeded)
		if list := verify(e.service, 0); len(list) == 1 && (len(list[0].Subscriptions) != 1 || list[0].Subscriptions[0] != sub) {
			t.Errorf("billed to %v", list[0].Subscriptions)
		}
	}
	e.query("UPDATE meter_reports SET tokens_to = 500000")
	e.use(t, customer, 100_000)
	report()
	agrees("reported twice")
	e.query("DELETE FROM meter_reports WHERE tokens_from = 0")
	differs("a report that is gone", 600_000, 600_000, 100_000)
	e.query("UPDATE meter_reports SET tokens_from = 0")
	agrees("as it was")

	// A limit that was raised includes more: what was reported before stays, but never more than
	// was used.
	if _, err := e.service.ChangeLimit(t.Context(), "test", customer, customers.LimitChange{Add: 400_000}); err != nil {
		t.Fatal(err)
	}
	agrees("with a higher limit")
	e.query("UPDATE meter_reports SET tokens_to = 1600001")
	differs("more than was used", 200_000, 1_600_000, 1_600_001)
	e.query("DELETE FROM meter_reports")
	differs("nothing reported", 200_000, 200_000, 0)

	// Without a price nothing is due.
	list := e.tiers.All()
	for i := range list {
		list[i].OverageCentsPerMillion = 0
	}
	free, err := control.NewTiers(list)
	if err != nil {
		t.Fatal(err)
	}
	if list := verify(&customers.Service{Store: e.store, Tiers: free, Now: e.sim.Now}, 0); len(list) != 0 {
		t.Errorf("without a price: %+v", list)
	}

	// What is recorded days after the period's end is given away: the simulator's lies months back.
	_, end, _ := e.sim.Period(sub)
	e.sim.Advance(end)
	agrees("what came too late")
	e.query("UPDATE usage_events SET recorded_at = admitted_at")
	differs("what came in time", 200_000, 200_000, 0)
}
