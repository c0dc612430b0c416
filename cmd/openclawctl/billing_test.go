package main_test

import (
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
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
	if len(done.Changes) != 12 || done.WebhookSecret == "" {
		t.Errorf("%+v", done)
	}
	r := e.run(args...)
	if r.code != 0 || strings.TrimSpace(r.stdout) != "KIND  NAME  ID  ACTION" {
		t.Errorf("a second time: %+v", r)
	}
	r = e.run("billing", "bootstrap", "--webhook-url", "https://other.example.com/stripe")
	if r.code != 0 || !strings.Contains(r.stdout, "webhook_endpoint") || !strings.Contains(r.stdout, sim.EndpointSecret()) {
		t.Errorf("another endpoint: %+v", r)
	}
	if r := e.run("billing", "bootstrap"); r.code != 2 {
		t.Errorf("without the URL: %+v", r)
	}
	// Nothing was reported, and so nothing differs.
	if r := e.run("ledger", "verify"); r.code != 0 {
		t.Errorf("verify: %+v", r)
	}
}
