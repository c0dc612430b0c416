package main_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

func TestBillingBootstrap(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	sim := stripesim.New(time.Now())
	t.Cleanup(sim.Close)
	args := []string{"billing", "bootstrap", "--webhook-url", "https://api.example.com/stripe"}
	if r := e.run(args...); r.code != 2 || !strings.Contains(r.stderr, "STRIPE_SECRET_KEY") {
		t.Errorf("without a key: %+v", r)
	}
	e.vars["STRIPE_SECRET_KEY"], e.vars["STRIPE_URL"] = stripesim.Key, sim.URL()
	var done stripe.Bootstrapped
	e.ok(&done, args...)
	if len(done.Changes) != 11 || done.WebhookSecret == "" {
		t.Errorf("%+v", done)
	}
	r := e.run(args...)
	if r.code != 0 || !strings.HasSuffix(strings.TrimSpace(r.stdout), "\nKIND  NAME  ID  ACTION") {
		t.Errorf("a second time: %+v", r)
	}
	r = e.run("billing", "bootstrap", "--webhook-url", "https://other.example.com/stripe")
	if r.code != 0 || !strings.Contains(r.stdout, "webhook_endpoint") || !strings.Contains(r.stdout, sim.EndpointSecret()) {
		t.Errorf("another endpoint: %+v", r)
	}
	if r := e.run("billing", "bootstrap"); r.code != 2 {
		t.Errorf("without the URL: %+v", r)
	}
	// What is sold is what is in effect, and not what this build comes with.
	table, err := os.ReadFile("../../control/tiers/tiers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sold, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	dearer := strings.Replace(string(table), "price_cents: 1900", "price_cents: 2100", 1)
	service := &customers.Service{Store: e.store, Tiers: sold}
	if changed, err := service.SetTiers(t.Context(), "test", []byte(dearer)); err != nil || !changed {
		t.Fatalf("changed: %t, %v", changed, err)
	}
	done = stripe.Bootstrapped{}
	e.ok(&done, args...)
	if len(done.Changes) == 0 || !strings.Contains(fmt.Sprint(done.Changes), "price") {
		t.Errorf("a tier that costs more now: %+v", done)
	}
	// A database that is named has to answer: prices of a table that does not hold would be sold.
	database := e.vars["DATABASE_URL"]
	e.vars["DATABASE_URL"] = "postgres://nobody@127.0.0.1:1/none"
	if r := e.run(args...); r.code != 1 || strings.Contains(r.stdout, "price") {
		t.Errorf("without its database: %+v", r)
	}
	// Without any it is the table of this build, which costs less again; it says so.
	delete(e.vars, "DATABASE_URL")
	if r := e.run(args...); r.code != 0 || !strings.Contains(r.stdout, "this build comes with, as there is no DATABASE_URL") ||
		!strings.Contains(r.stdout, stripe.LookupKey("starter")) {
		t.Errorf("without a database: %+v", r)
	}
	e.vars["DATABASE_URL"] = database
	if r := e.run(args...); r.code != 0 || !strings.Contains(r.stdout, "in effect, by the database") {
		t.Errorf("with its database again: %+v", r)
	}
	// Nothing was reported, and so nothing differs.
	if r := e.run("ledger", "verify"); r.code != 0 {
		t.Errorf("verify: %+v", r)
	}
}
