package main_test

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// letterBox is an SMTP server that keeps what it gets.
type letterBox struct {
	mu      sync.Mutex
	letters []string
}

type visit struct{ box *letterBox }

func (v visit) Reset()                               {}
func (v visit) Logout() error                        { return nil }
func (v visit) Mail(string, *smtp.MailOptions) error { return nil }
func (v visit) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (v visit) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	v.box.mu.Lock()
	defer v.box.mu.Unlock()
	v.box.letters = append(v.box.letters, string(b))
	return err
}

func (l *letterBox) got() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.letters, "\n")
}

func newLetterBox(t *testing.T) (box *letterBox, port int) {
	t.Helper()
	box = &letterBox{}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return visit{box}, nil }))
	return box, testenv.Serve(t, server)
}

// newStripe is Stripe with an account that sells the usual tiers.
func newStripe(t *testing.T) (*stripesim.Server, *stripe.Account, control.Tiers) {
	t.Helper()
	sim := stripesim.New(time.Now())
	t.Cleanup(sim.Close)
	account, err := stripe.NewAccount(stripesim.Key, sim.URL())
	if err != nil {
		t.Fatal(err)
	}
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stripe.Bootstrap(t.Context(), account, table, "https://api.example.invalid/v1/webhooks/stripe"); err != nil {
		t.Fatal(err)
	}
	return sim, account, table
}

// From a webhook to an active customer and its mail, through the program.
func TestWorkerBillsByStripe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	box, port := newLetterBox(t)
	sim, account, table := newStripe(t)
	id, now := control.NewID(control.CustomerID), time.Now().UTC()
	err := w.store.SignUp(t.Context(), control.Account{
		Customer: control.Customer{ID: id, Name: "Ada", Email: "ada@example.com", Tier: "pro", Status: control.CustomerPending, CreatedAt: now},
		Language: control.English,
	}, control.Identity{ID: control.NewID(control.IdentityID), CustomerID: id, Provider: control.ProviderPassword, Subject: "ada@example.com", SecretHash: "fake", CreatedAt: now})
	if err != nil {
		t.Fatal(err)
	}
	checkout, err := stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: &customers.Service{Store: w.store, Tiers: table}, SuccessURL: "https://a.invalid", CancelURL: "https://b.invalid", ReturnURL: "https://c.invalid",
	})
	if err != nil {
		t.Fatal(err)
	}
	url, err := checkout.CheckoutURL(t.Context(), id, "pro")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Complete(url); err != nil {
		t.Fatal(err)
	}
	inbox, err := stripe.NewInbox(stripe.InboxOptions{Store: w.store, Secrets: []string{"whsec_fake"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range sim.Events() {
		if err := inbox.Receive(t.Context(), ev.Body, stripesim.Sign(ev.Body, "whsec_fake", time.Now())); err != nil {
			t.Fatal(err)
		}
	}

	w.env["STRIPE_SECRET_KEY"], w.env["STRIPE_URL"] = stripesim.Key, sim.URL()
	w.env["SMTP_HOST"], w.env["SMTP_PORT"], w.env["SMTP_TLS"] = "127.0.0.1", fmt.Sprint(port), "none"
	w.env["MAIL_FROM"], w.env["DASHBOARD_URL"] = "billing@example.net", "https://app.example.invalid/"
	worker := startWorker(t, w.env)
	await(t, "the customer to be active, and told so", func() bool {
		c, err := w.store.Customer(t.Context(), id)
		return err == nil && c.Status == control.CustomerActive && strings.Contains(box.got(), "Welcome to OpenClaw Pro")
	}, worker.said)
	await(t, "the metrics", func() bool {
		_, metrics := worker.get("/metrics")
		return strings.Contains(metrics, `billing_stripe_events_total{result="applied"} 4`) && strings.Contains(metrics, `billing_mails_total{result="sent"} 1`)
	}, worker.said)
	if strings.Contains(worker.said(), stripesim.Key) {
		t.Error("the log holds the key")
	}
	if code := worker.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, worker.said())
	}
}

func TestWorkerStripeSettings(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"DATABASE_URL": "postgres://a@127.0.0.1/b", "REDIS_URL": "redis://127.0.0.1:1/0", "SMTP_HOST": "mx.example.com", "SMTP_TLS": "maybe", "STRIPE_EVENTS_EVERY": "0s",
	}
	code, out := run(t, env, "billing-worker", "--check-config")
	for _, want := range []string{"--mail-from", "--dashboard-url", "--smtp-tls", "--stripe-events-every"} {
		if code != 2 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, want a word about %s in\n%s", code, want, out)
		}
	}
}
