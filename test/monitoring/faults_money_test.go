//go:build linux

package monitoring

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// money is what billing speaks to.
type money struct {
	stripe  *stripesim.Server
	mailer  int         // port of the mail server
	refuses atomic.Bool // the mail server refuses all receivers

	// once makes a customer who pays; see payer.
	once                   sync.Once
	customer, subscription string
}

const webhookSecret = "whsec_fake"

// newMoney starts a Stripe that sells the tiers, and a mail server.
func newMoney(w *world) *money {
	w.t.Helper()
	m := &money{stripe: stripesim.New(time.Now())}
	w.root.Cleanup(m.stripe.Close)
	account, err := stripe.NewAccount(stripesim.Key, m.stripe.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	table, err := tiers.Default()
	if err == nil {
		_, err = stripe.Bootstrap(w.t.Context(), account, table, "https://api.example.invalid/")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	m.mailer = testenv.Serve(w.root, smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return mailSession{m}, nil })))
	return m
}

// The files are those of the Stripe that the stack brings, which tests cannot have fail.
func (m *money) billingArguments() []string {
	return []string{
		"--stripe-secret-key-file=", "--stripe-secret-key", stripesim.Key, "--stripe-url", m.stripe.URL(), "--smtp-host", "127.0.0.1", "--smtp-port", strconv.Itoa(m.mailer),
		"--report-overage-every", "2s", "--smtp-tls", "none", "--mail-from", "billing@example.net", "--dashboard-url", "https://app.example.invalid/",
	}
}

func (m *money) apiArguments() []string {
	return []string{
		"--stripe-secret-key-file=", "--stripe-secret-key", stripesim.Key, "--stripe-url", m.stripe.URL(),
		"--stripe-webhook-secrets-file=", "--stripe-webhook-secrets", webhookSecret,
	}
}

// mailSession is one connection to the mail server, which forgets what it gets.
type mailSession struct{ m *money }

func (s mailSession) Reset()                               {}
func (s mailSession) Logout() error                        { return nil }
func (s mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (s mailSession) Rcpt(string, *smtp.RcptOptions) error {
	if s.m.refuses.Load() {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "we take no mails of yours"}
	}
	return nil
}

func (s mailSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// post sends something to the api's side for customers.
func (w *world) post(path string, header http.Header, body []byte) (*http.Response, []byte) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, "http://"+w.address("API")+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-OpenClaw-CSRF", "1")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res, answer
}

// signUp has somebody make an account, and returns its cookies. A mail is sent for it.
func (w *world) signUp(email string) http.Header {
	w.t.Helper()
	body, err := json.Marshal(map[string]string{"name": "Ada", "email": email, "password": rand.Text()})
	if err != nil {
		w.t.Fatal(err)
	}
	res, answer := w.post("/v1/signup", nil, body)
	if res.StatusCode != http.StatusCreated {
		w.t.Fatalf("sign up: %s %s", res.Status, answer)
	}
	header := make(http.Header)
	for _, c := range res.Cookies() {
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	return header
}

// payer makes a customer who pays for a tier, once.
func (w *world) payer() (customer, subscription string) {
	w.t.Helper()
	m := w.money
	m.once.Do(func() {
		const email = "ada@example.com"
		res, answer := w.post("/v1/me/checkout", w.signUp(email), []byte(`{"tier":"starter"}`))
		var page struct{ URL string }
		if err := json.Unmarshal(answer, &page); err != nil || page.URL == "" {
			w.t.Fatalf("checkout: %s %s", res.Status, answer)
		}
		var err error
		if m.subscription, err = m.stripe.Complete(page.URL); err != nil {
			w.t.Fatal(err)
		}
		w.deliver()
		w.worked()
		m.customer = w.sql("SELECT stripe_customer_id FROM customers WHERE email = '" + email + "'")
	})
	if m.customer == "" {
		w.t.Fatal("there is no customer who pays")
	}
	return m.customer, m.subscription
}

// deliver sends what happened at Stripe to the api.
func (w *world) deliver() {
	w.t.Helper()
	for _, e := range w.money.stripe.Events() {
		if status := w.webhook(e.Body, webhookSecret); status != http.StatusOK {
			w.t.Fatalf("the webhook of %s: %d", e.Type, status)
		}
	}
}

func (w *world) webhook(body []byte, secret string) (status int) {
	w.t.Helper()
	res, _ := w.post("/v1/webhooks/stripe", http.Header{"Stripe-Signature": {stripesim.Sign(body, secret, time.Now())}}, body)
	return res.StatusCode
}

// worked waits until nothing of Stripe's is to be done.
func (w *world) worked() {
	w.t.Helper()
	w.eventually("Stripe's events are processed", 20*time.Second, func() string {
		if n := w.sql("SELECT count(*) FROM stripe_events WHERE processed_at IS NULL"); n != "0" {
			return n + " wait"
		}
		return ""
	})
}

// moneyFaults are those of payments and mails, and of what is sold.
func (w *world) moneyFaults() []fault {
	m := w.money
	return []fault{
		{"a customer buys twice", []string{"SecondSubscriptions"}, func() func() {
			customer, _ := w.payer()
			second, err := m.stripe.Subscribe(customer, "openclaw_pro_monthly")
			if err != nil {
				w.t.Fatal(err)
			}
			w.deliver()
			w.worked()
			w.deliver() // that the first one was cancelled
			w.worked()
			m.subscription = second
			return nothing
		}},
		{"Stripe fails", []string{"StripeEventsWait", "StripeEventsFail"}, func() func() {
			_, subscription := w.payer()
			const route = "GET /v1/subscriptions/{id}"
			m.stripe.FailRoute(route, 1_000_000)
			m.stripe.CancelAtPeriodEnd(subscription, true)
			w.deliver()
			w.sql("UPDATE stripe_events SET received_at = now() - interval '20 minutes' WHERE processed_at IS NULL")
			return func() {
				m.stripe.FailRoute(route, 0)
				// Or it would wait as long as it has failed.
				w.sql("UPDATE stripe_events SET next_attempt_at = now() WHERE processed_at IS NULL")
				w.worked()
			}
		}},
		{"Stripe takes no reports", []string{"StripeReportsWait", "StripeReportsFail"}, func() func() {
			customer, _ := w.payer()
			const route = "POST /v1/billing/meter_events"
			m.stripe.FailRoute(route, 1_000_000)
			id := w.sql(`INSERT INTO meter_reports (id, customer_id, subscription_id, period_id, tokens_from, tokens_to, cents_per_million, created_at)
				SELECT 'm-staged', c.id, s.id, p.period_id, 0, 1, 300, now() - interval '7 hours'
				FROM customers c JOIN subscriptions s ON s.customer_id = c.id JOIN usage_periods p ON p.customer_id = c.id AND p.ends_at > now()
				WHERE c.stripe_customer_id = '` + customer + `' LIMIT 1 RETURNING id`)
			if id != "m-staged" {
				w.t.Fatalf("the customer who pays has no period to report: %q", id)
			}
			return func() {
				m.stripe.FailRoute(route, 0)
				m.stripe.Advance(time.Now()) // or it would be told of what is to come
				w.sql("UPDATE meter_reports SET next_attempt_at = now() WHERE reported_at IS NULL")
				w.eventually("the report is taken", 20*time.Second, func() string {
					return w.sql("SELECT string_agg(coalesce(error, 'not sent yet'), '; ') FROM meter_reports WHERE reported_at IS NULL")
				})
			}
		}},
		{"somebody else sends webhooks", []string{"StripeWebhooksRefused"}, func() func() {
			body := fmt.Appendf(nil, `{"id":"evt_forged","object":"event","type":"invoice.payment_succeeded","api_version":%q,"created":%d}`, stripesim.APIVersion, time.Now().Unix())
			if status := w.webhook(body, "whsec_fake_guess"); status != http.StatusBadRequest {
				w.t.Errorf("a forged webhook: %d", status)
			}
			return nothing
		}},
		{"the mail server refuses mails", []string{"MailsFail"}, func() func() {
			m.refuses.Store(true)
			w.signUp("grace@example.com")
			return func() { m.refuses.Store(false) }
		}},
		{"the tier table cannot be read", []string{"TierFileRefused"}, func() func() {
			file := filepath.Join(w.dir, "tiers.yaml")
			if err := os.Rename(file, file+".away"); err != nil {
				w.t.Fatal(err)
			}
			return func() {
				if err := os.Rename(file+".away", file); err != nil {
					w.t.Error(err)
				}
			}
		}},
		{"a change cannot be read", []string{"ChangesSetAside"}, func() func() {
			w.sql("INSERT INTO config_changes (kind, customer_id, payload) VALUES ('limit', '" + w.customer + `', '"nonsense"')`)
			return func() { w.sql("DELETE FROM config_changes WHERE failed_at IS NOT NULL") }
		}},
	}
}
