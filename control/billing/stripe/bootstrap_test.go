package stripe_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

const hook = "https://api.example.invalid/stripe"

// newPrices has the tiers sold at other prices from now on.
func (e *env) newPrices(t *testing.T) {
	t.Helper()
	list := e.tiers.All()
	for i := range list {
		list[i].PriceCents += 100
	}
	dearer, err := control.NewTiers(list)
	if err != nil {
		t.Fatal(err)
	}
	done, err := stripe.Bootstrap(t.Context(), e.account, dearer, hook)
	if err != nil || len(done.Changes) != 3 {
		t.Fatalf("bootstrap with other prices: %+v, %v", done, err)
	}
}

func TestBootstrapTwice(t *testing.T) {
	t.Parallel()
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	sim := stripesim.New(time.Now())
	t.Cleanup(sim.Close)
	account, err := stripe.NewAccount(stripesim.Key, sim.URL())
	if err != nil {
		t.Fatal(err)
	}
	first, err := stripe.Bootstrap(t.Context(), account, table, hook)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, c := range first.Changes {
		kinds[c.Kind+" "+c.Action]++
	}
	if want := (map[string]int{"meter create": 1, "product create": 4, "price create": 4, "portal_configuration create": 1, "webhook_endpoint create": 1}); fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("made %v, want %v", kinds, want)
	}
	if first.WebhookSecret == "" || first.WebhookSecret != sim.EndpointSecret() {
		t.Error("the endpoint's secret is not told")
	}
	before := sim.Writes()
	again, err := stripe.Bootstrap(t.Context(), account, table, hook)
	if err != nil || len(again.Changes) != 0 || again.WebhookSecret != "" || sim.Writes() != before {
		t.Errorf("a second time: %+v, %v, %d writes", again, err, sim.Writes()-before)
	}
	// Another URL is another endpoint; the first one stays.
	if more, err := stripe.Bootstrap(t.Context(), account, table, hook+"/2"); err != nil || len(more.Changes) != 1 {
		t.Errorf("with another URL: %+v, %v", more, err)
	}
	// A simulator may send its events to this machine without TLS.
	if more, err := stripe.Bootstrap(t.Context(), account, table, "http://127.0.0.1:8000/v1/webhooks/stripe"); err != nil || more.WebhookSecret == "" {
		t.Errorf("on this machine: %+v, %v", more, err)
	}
	for _, bad := range []string{"", "http://api.example.invalid", "http://192.0.2.1/", "http://localhost.example.invalid/", "ftp://127.0.0.1/", "nonsense"} {
		if _, err := stripe.Bootstrap(t.Context(), account, table, bad); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("URL %q: %v", bad, err)
		}
	}
	if _, err := stripe.Bootstrap(t.Context(), wrongKey(t, sim.URL()), table, hook); err == nil || strings.Contains(err.Error(), "sk_test") {
		t.Errorf("with a wrong key: %v", err)
	}
}

func wrongKey(t *testing.T, url string) *stripe.Account {
	t.Helper()
	a, err := stripe.NewAccount("sk_test_wrong", url)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// On a fresh account, in whose dashboard nobody has saved anything, the portal opens; what was
// changed in the dashboard so that customers leave at once, or change tiers there, is put right.
func TestPortalOfAFreshAccount(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	customer, _ := e.buy(t, "pro")
	open := func() {
		t.Helper()
		if url, err := e.checkout.PortalURL(t.Context(), customer); err != nil || !strings.HasPrefix(url, "https://portal.example.invalid/") {
			t.Errorf("portal %q, %v", url, err)
		}
	}
	open()
	for setting, value := range map[string]string{
		"features[subscription_cancel][mode]":           "immediately",
		"features[subscription_cancel][enabled]":        "false",
		"features[subscription_update][enabled]":        "true",
		"features[subscription_pause][enabled]":         "true",
		"features[invoice_history][enabled]":            "false",
		"features[payment_method_update][enabled]":      "false",
		"features[customer_update][allowed_updates][0]": "email",
		"features[customer_update][enabled]":            "false",
	} {
		e.sim.PortalSetting(setting, value)
		done, err := stripe.Bootstrap(t.Context(), e.account, e.tiers, hook)
		if err != nil || len(done.Changes) != 1 || done.Changes[0].Kind != "portal_configuration" || done.Changes[0].Action != "update" {
			t.Errorf("after %s=%s: %+v, %v", setting, value, done, err)
		}
		if done, err = stripe.Bootstrap(t.Context(), e.account, e.tiers, hook); err != nil || len(done.Changes) != 0 {
			t.Errorf("%s is not put right: %+v, %v", setting, done, err)
		}
	}
	open()
	// One that is not ours is left alone, and not used.
	e.sim.PortalSetting("metadata[openclaw]", "another")
	if _, err := e.checkout.PortalURL(t.Context(), customer); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("without a configuration of ours: %v", err)
	}
	if done, err := stripe.Bootstrap(t.Context(), e.account, e.tiers, hook); err != nil || len(done.Changes) != 1 || done.Changes[0].Action != "create" {
		t.Errorf("beside another one: %+v, %v", done, err)
	}
	open()
}
