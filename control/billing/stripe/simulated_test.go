package stripe_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// What developers have instead of Stripe delivers events that the inbox takes, and somebody who pays
// on its page becomes a customer.
func TestSimulatedPaymentArrives(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(nil)
	sim, err := stripesim.Open(stripesim.Options{
		URL: "http://" + server.Listener.Addr().String(), State: filepath.Join(t.TempDir(), "journal"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = sim.Handler()
	server.Start()
	t.Cleanup(sim.Close) // after the server
	t.Cleanup(server.Close)
	e := newShared(t).envOf(t, sim, sim.URL())

	var inbox *stripe.Inbox
	taken := make(chan string, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = inbox.Receive(r.Context(), body, r.Header.Get("Stripe-Signature"))
		}
		if err != nil {
			t.Errorf("an event is not taken: %v", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		for _, kind := range stripe.EventTypes() {
			if bytes.Contains(body, []byte(`"type":"`+kind+`"`)) {
				taken <- kind
			}
		}
	}))
	t.Cleanup(receiver.Close)
	done, err := stripe.Bootstrap(t.Context(), e.account, e.tiers, receiver.URL+"/v1/webhooks/stripe")
	if err != nil {
		t.Fatal(err)
	}
	if inbox, err = stripe.NewInbox(stripe.InboxOptions{Store: e.store, Secrets: []string{done.WebhookSecret}, Logger: quiet()}); err != nil {
		t.Fatal(err)
	}

	customer := e.signUp(t).ID // who reads Portuguese
	page, err := e.checkout.CheckoutURL(t.Context(), customer, "pro")
	if err != nil || !strings.HasPrefix(page, sim.URL()+"/pay/cs_") {
		t.Fatalf("page %q, %v", page, err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: 30 * time.Second}
	shown, err := client.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	defer shown.Body.Close()
	if text, err := io.ReadAll(shown.Body); err != nil || !strings.Contains(string(text), "Simulação") || !strings.Contains(string(text), "OpenClaw Pro") {
		t.Errorf("the page is %s, %v", text, err)
	}
	paid, err := client.PostForm(page, url.Values{"do": {"pay"}})
	if err != nil {
		t.Fatal(err)
	}
	defer paid.Body.Close()
	if to := paid.Header.Get("Location"); paid.StatusCode != http.StatusSeeOther || to != "https://app.example.invalid/paid" {
		t.Errorf("paid, it leads with %d to %q", paid.StatusCode, to)
	}
	for kind := ""; kind != "checkout.session.completed"; { // the last of them
		select {
		case kind = <-taken:
		case <-time.After(30 * time.Second):
			t.Fatalf("after %q nothing comes", kind)
		}
	}
	e.work(t)
	e.want(t, customer, "active pro active")
	portal, err := e.checkout.PortalURL(t.Context(), customer)
	if err != nil || !strings.HasPrefix(portal, sim.URL()+"/portal/bps_") {
		t.Errorf("portal %q, %v", portal, err)
	}
}
