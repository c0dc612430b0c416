package control_test

import (
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestGrantFor(t *testing.T) {
	t.Parallel()
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	pro, err := table.Get("pro")
	if err != nil {
		t.Fatal(err)
	}
	customer := control.Customer{ID: "c1", Tier: "pro", Status: control.CustomerActive}
	token := control.ProxyToken{ID: "t1", CustomerID: "c1", BoxID: "b1", Version: 7, Status: contract.StatusActive}
	period := control.FirstPeriod("c1", time.Now(), 123)

	g, err := control.GrantFor(customer, token, period, pro)
	if err != nil {
		t.Fatal(err)
	}
	if g.Version != 7 || g.MonthlyLimit != 123 || g.Concurrent != 8 || g.RequestsPerSecond != 10 || g.Burst != 20 ||
		g.Weights != (contract.Weights{Prompt: 1, Cached: 1, Completion: 1}) || g.Status != contract.StatusActive {
		t.Errorf("grant %+v", g)
	}

	for _, c := range []struct {
		customer control.CustomerStatus
		token    contract.Status
		want     contract.Status
	}{
		{control.CustomerActive, contract.StatusSuspended, contract.StatusSuspended},
		{control.CustomerSuspended, contract.StatusActive, contract.StatusSuspended},
		{control.CustomerCancelled, contract.StatusActive, contract.StatusSuspended},
		{control.CustomerSuspended, contract.StatusRevoked, contract.StatusRevoked},
		{control.CustomerActive, contract.StatusRevoked, contract.StatusRevoked},
	} {
		customer.Status, token.Status = c.customer, c.token
		if g, err := control.GrantFor(customer, token, period, pro); err != nil || g.Status != c.want {
			t.Errorf("customer %s, token %s: grant %s, %v; want %s", c.customer, c.token, g.Status, err, c.want)
		}
	}

	token.CustomerID = "c2"
	if _, err := control.GrantFor(customer, token, period, pro); err == nil {
		t.Error("a token of another customer was accepted")
	}
}
