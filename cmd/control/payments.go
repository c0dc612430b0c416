package main

import (
	"errors"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// paymentSettings are the api's knobs of payments. Without a key it answers 503 to all that is
// about money.
type paymentSettings struct {
	key, webhookSecrets secretFlag
	url, dashboard      string
	trialDays           int64
}

func (s *paymentSettings) flags(f *pflag.FlagSet) {
	s.key.flags(f, "stripe-secret-key", "secret key of the Stripe account; without it nothing can be bought")
	s.webhookSecrets.flags(f, "stripe-webhook-secrets", "secret of the webhook endpoint, as \"openclawctl billing bootstrap\" prints it; while it is changed both, separated by a comma")
	f.StringVar(&s.url, "stripe-url", "", "where Stripe's API is, for tests")
	f.StringVar(&s.dashboard, "dashboard-url", "", "the customers' pages, to which Stripe's lead back; the public URL by default")
	f.Int64Var(&s.trialDays, "trial-days", 0, "how many days the first subscription of a customer costs nothing")
}

// validate also reads the files, and fills in what follows from publicURL.
func (s *paymentSettings) validate(publicURL string) error {
	errs := []error{
		s.key.stripeKey(), s.webhookSecrets.read(), checkURL("dashboard-url", s.dashboard, "https://app.example.com/account"), checkTrialDays(s.trialDays),
	}
	if s.dashboard == "" {
		s.dashboard = publicURL
	}
	switch {
	case s.key.Text == "" && s.webhookSecrets.Text == "":
		return errors.Join(errs...)
	case s.key.Text == "":
		errs = append(errs, errors.New("--stripe-secret-key-file (STRIPE_SECRET_KEY_FILE) or STRIPE_SECRET_KEY is required with webhook secrets"))
	}
	if s.webhookSecrets.Text == "" {
		errs = append(errs, errors.New("--stripe-webhook-secrets-file (STRIPE_WEBHOOK_SECRETS_FILE) or STRIPE_WEBHOOK_SECRETS is required with a key: no event could be believed"))
	}
	for _, one := range s.secrets() {
		if !strings.HasPrefix(one, "whsec_") {
			errs = append(errs, errors.New("--stripe-webhook-secrets: one does not begin with whsec_: it is no secret of a webhook endpoint"))
		}
	}
	return errors.Join(errs...)
}

func (s *paymentSettings) secrets() []string {
	return strings.FieldsFunc(s.webhookSecrets.Reveal(), func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' })
}

// mode says what it means to pay here.
func (s *paymentSettings) mode() api.PaymentMode {
	switch key := s.key.Reveal(); {
	case key == "":
		return api.PaymentsNone
	case s.url != "":
		return api.PaymentsSimulated
	case strings.Contains(key, "_test_"):
		return api.PaymentsTest
	}
	return api.PaymentsLive
}

// open returns what the api needs for payments: nothing without a key.
func (s *paymentSettings) open(service *customers.Service, mails stripe.Mailer, registry prometheus.Registerer, log *slog.Logger) (api.Billing, api.Webhook, error) {
	if s.key.Text == "" {
		log.Warn("there is no key of Stripe: nothing can be bought")
		return nil, nil, nil
	}
	account, checkout, err := openCheckout(s.key.Reveal(), s.url, leadingBack(s.dashboard), s.trialDays, service)
	if err != nil {
		return nil, nil, err
	}
	// Its metrics are the billing-worker's, which works the inbox.
	processor, err := stripe.NewProcessor(stripe.ProcessorOptions{Account: account, Customers: service, Mails: mails, Logger: log})
	if err != nil {
		return nil, nil, err
	}
	money, err := stripe.NewBilling(checkout, processor)
	if err != nil {
		return nil, nil, err
	}
	inbox, err := stripe.NewInbox(stripe.InboxOptions{Store: service.Store, Secrets: s.secrets(), Logger: log, Registerer: registry})
	return money, inbox, err
}

// returnTo is where Stripe's pages lead: to pay on, once that is done or not, and the portal.
type returnTo struct{ paid, cancelled, portal string }

// leadingBack is a page of ours that is told what became of it.
func leadingBack(page string) returnTo {
	return returnTo{page + "?checkout=paid", page + "?checkout=cancelled", page}
}

// openCheckout returns an account of Stripe and its pages to pay on, which lead back.
func openCheckout(key, url string, back returnTo, trialDays int64, service *customers.Service) (*stripe.Account, *stripe.Checkout, error) {
	account, err := stripe.NewAccount(key, url)
	if err != nil {
		return nil, nil, err
	}
	checkout, err := stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: service, TrialDays: trialDays,
		SuccessURL: back.paid, CancelURL: back.cancelled, ReturnURL: back.portal,
	})
	return account, checkout, err
}
