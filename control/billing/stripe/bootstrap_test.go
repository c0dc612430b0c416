package stripe_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
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
	if want := (map[string]int{"meter create": 1, "product create": 4, "price create": 4, "webhook_endpoint create": 1}); fmt.Sprint(kinds) != fmt.Sprint(want) {
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
	for _, bad := range []string{"", "http://api.example.invalid", "nonsense"} {
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

// mock runs stripe-mock, which checks requests against Stripe's own description of its API.
func mock(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	log := filepath.Join(t.TempDir(), "stripe-mock.log")
	p := testenv.Start(t, os.Environ(), log, testenv.BuildBinary(t, "github.com/stripe/stripe-mock"), "-http-addr", addr)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + addr)
		if err == nil {
			response.Body.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) || p.Ended() {
			b, _ := os.ReadFile(log)
			t.Fatalf("stripe-mock does not answer: %v\n%s", err, b)
		}
	}
}

// Stripe's own description of its API takes the requests: the simulator cannot tell.
func TestRequestShapes(t *testing.T) {
	t.Parallel()
	e := newTest(t)
	account, err := stripe.NewAccount("sk_test_123", mock(t))
	if err != nil {
		t.Fatal(err)
	}
	checkout, err := stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: e.service, SuccessURL: "https://a.example.invalid", CancelURL: "https://b.example.invalid",
		ReturnURL: "https://c.example.invalid", TrialDays: 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	// It remembers nothing, and answers with examples: only what it refuses counts.
	refused := func(what string, err error) {
		t.Helper()
		if err != nil && (strings.Contains(err.Error(), "Stripe answers 4") || strings.Contains(err.Error(), "Stripe answers 5")) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = stripe.Bootstrap(t.Context(), account, e.tiers, hook)
	refused("bootstrap", err)
	customer := e.signUp(t).ID
	_, err = checkout.CheckoutURL(t.Context(), customer, "pro")
	refused("checkout", err)
	_, err = checkout.PortalURL(t.Context(), customer)
	refused("portal", err)
	_, err = checkout.Invoices(t.Context(), customer, 10)
	refused("invoices", err)
}
