package stripe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	api "github.com/stripe/stripe-go/v76"
	"github.com/stripe/stripe-go/v76/billing/meter"
	"github.com/stripe/stripe-go/v76/billing/meterevent"
	"github.com/stripe/stripe-go/v76/billing/metereventsummary"
	"github.com/stripe/stripe-go/v76/billingportal/configuration"
	portal "github.com/stripe/stripe-go/v76/billingportal/session"
	checkout "github.com/stripe/stripe-go/v76/checkout/session"
	"github.com/stripe/stripe-go/v76/customer"
	"github.com/stripe/stripe-go/v76/invoice"
	"github.com/stripe/stripe-go/v76/price"
	"github.com/stripe/stripe-go/v76/product"
	"github.com/stripe/stripe-go/v76/subscription"
	"github.com/stripe/stripe-go/v76/webhookendpoint"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// APIVersion is the version of Stripe's API that is spoken here: events have to be of it.
const APIVersion = api.APIVersion

// requestTimeout bounds one exchange with Stripe.
const requestTimeout = 20 * time.Second

// Account speaks to one account of Stripe. It is safe for concurrent use.
type Account struct {
	backend api.Backend
	once    api.Backend // sends nothing a second time
	key     string
}

// NewAccount returns the account that the secret key opens. url is "" but in tests.
func NewAccount(key, url string) (*Account, error) {
	if key == "" {
		return nil, errors.New("stripe: a secret key is required")
	}
	cfg := &api.BackendConfig{
		HTTPClient:        &http.Client{Timeout: requestTimeout},
		LeveledLogger:     &api.LeveledLogger{Level: api.LevelNull}, // errors are returned
		MaxNetworkRetries: api.Int64(1),
		EnableTelemetry:   api.Bool(false),
	}
	if url != "" {
		cfg.URL = &url
	}
	single := *cfg
	single.MaxNetworkRetries = api.Int64(0)
	return &Account{backend: api.GetBackendWithConfig(api.APIBackend, cfg), once: api.GetBackendWithConfig(api.APIBackend, &single), key: key}, nil
}

func (a *Account) customers() customer.Client { return customer.Client{B: a.backend, Key: a.key} }
func (a *Account) sessions() checkout.Client  { return checkout.Client{B: a.backend, Key: a.key} }
func (a *Account) portals() portal.Client     { return portal.Client{B: a.backend, Key: a.key} }
func (a *Account) portalConfigurations() configuration.Client {
	return configuration.Client{B: a.backend, Key: a.key}
}
func (a *Account) subscriptions() subscription.Client {
	return subscription.Client{B: a.backend, Key: a.key}
}
func (a *Account) invoices() invoice.Client { return invoice.Client{B: a.backend, Key: a.key} }
func (a *Account) prices() price.Client     { return price.Client{B: a.backend, Key: a.key} }
func (a *Account) products() product.Client { return product.Client{B: a.backend, Key: a.key} }
func (a *Account) endpoints() webhookendpoint.Client {
	return webhookendpoint.Client{B: a.backend, Key: a.key}
}
func (a *Account) meters() meter.Client { return meter.Client{B: a.backend, Key: a.key} }

// meterEvents sends each once, so that what is answered is all that became of it.
func (a *Account) meterEvents() meterevent.Client { return meterevent.Client{B: a.once, Key: a.key} }
func (a *Account) meterSums() metereventsummary.Client {
	return metereventsummary.Client{B: a.backend, Key: a.key}
}

// failure makes an error of this package: what Stripe does not have is control.ErrNotFound,
// and what may go well a little later control.ErrUnavailable. Of Stripe's own error only what
// helps is kept.
func failure(op string, err error) error {
	if err == nil {
		return nil
	}
	var e *api.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", op, err)
		}
		return fmt.Errorf("%s: Stripe %w: %w", op, control.ErrUnavailable, err)
	}
	text := fmt.Sprintf("Stripe answers %d: %s", e.HTTPStatusCode, e.Msg)
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	if e.Code == api.ErrorCodeResourceMissing {
		return fmt.Errorf("%s: %w: %s", op, control.ErrNotFound, text)
	}
	if e.HTTPStatusCode >= http.StatusInternalServerError || e.HTTPStatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("%s: Stripe %w: %s", op, control.ErrUnavailable, text)
	}
	return fmt.Errorf("%s: %s", op, text)
}

const (
	lookupPrefix  = "openclaw_"
	monthlySuffix = "_monthly"
	// overageProduct is what tokens above the limit are sold as, in all tiers.
	overageProduct = "openclaw_overage"
)

// LookupKey returns the lookup key of the monthly price of a tier.
func LookupKey(tier string) string { return lookupPrefix + tier + monthlySuffix }

// OverageKey is the lookup key of the price of what is used above the limit, in all tiers. It is
// a price of money, a millionth of a cent for each that is metered, because the price of an item
// must never change: Stripe would forget what was metered before.
const OverageKey = "openclaw_overage"

// productID returns the id of the product that is a tier.
func productID(tier string) string { return lookupPrefix + tier }

// tierOf returns the tier that an item is the price of, "" if it is none's. A price that
// has lost its lookup key to a newer one is still its product's.
func tierOf(p *api.Price) string {
	if p == nil || p.Recurring != nil && p.Recurring.UsageType == api.PriceRecurringUsageTypeMetered {
		return ""
	}
	if p.LookupKey != "" {
		name, ok := strings.CutSuffix(p.LookupKey, monthlySuffix)
		name, has := strings.CutPrefix(name, lookupPrefix)
		if ok && has {
			return name
		}
		return ""
	}
	if p.Product == nil {
		return ""
	}
	name, _ := strings.CutPrefix(p.Product.ID, lookupPrefix)
	if productID(name) != p.Product.ID {
		return ""
	}
	return name
}

// ours reports whether something is sold here for which a subscription is: on the same account of
// Stripe there may be others.
func ours(items *api.SubscriptionItemList) bool {
	return items != nil && slices.ContainsFunc(items.Data, func(item *api.SubscriptionItem) bool {
		p := item.Price
		return p != nil && (strings.HasPrefix(p.LookupKey, lookupPrefix) || p.Product != nil && strings.HasPrefix(p.Product.ID, lookupPrefix))
	})
}

// errForeign: what an event is about is not sold here.
var errForeign = fmt.Errorf("%w: it is not sold here", control.ErrInvalid)

// reading is what Stripe said of a subscription.
type reading struct {
	control.StripeSubscription        // CustomerID is ours, and set by whoever knows it
	customer                   string // Stripe's
	created                    time.Time
	readAt                     time.Time // when Stripe was asked, by Postgres' clock; Processor.read knows it
	invoice                    string    // the one that waits to be paid, or the newest
	payURL                     string    // where it can be paid
	items                      []*api.SubscriptionItem
	held                       string // the tier that the customer has in our books; only Checkout.live says it
	stale                      bool   // our books do not have what Stripe has; as held
	trialEnd                   time.Time
}

// priceID is the price of the tier.
func (r *reading) priceID() string {
	for _, item := range r.items {
		if tierOf(item.Price) != "" {
			return item.Price.ID
		}
	}
	return ""
}

// subscription asks Stripe for a subscription, and for what is not paid of it. One of something
// else than we sell is errForeign.
func (a *Account) subscription(ctx context.Context, id string) (reading, error) {
	op := "read subscription " + id
	params := &api.SubscriptionParams{Params: api.Params{Context: ctx}}
	params.AddExpand("latest_invoice")
	s, err := a.subscriptions().Get(id, params)
	if err != nil {
		return reading{}, failure(op, err)
	}
	r := reading{
		StripeSubscription: control.StripeSubscription{
			ID: s.ID, Status: control.SubscriptionStatus(s.Status), CancelAtPeriodEnd: s.CancelAtPeriodEnd || s.CancelAt > 0,
			PeriodStart: time.Unix(s.CurrentPeriodStart, 0).UTC(), PeriodEnd: time.Unix(s.CurrentPeriodEnd, 0).UTC(),
		},
	}
	r.created = time.Unix(s.Created, 0).UTC()
	if s.TrialEnd > 0 {
		r.trialEnd = time.Unix(s.TrialEnd, 0).UTC()
	}
	if s.Customer == nil || s.Items == nil {
		return r, fmt.Errorf("%s: %w: it has no customer or no items", op, control.ErrInvalid)
	}
	r.customer, r.items = s.Customer.ID, s.Items.Data
	for _, item := range s.Items.Data {
		tier := tierOf(item.Price)
		if tier == "" {
			continue
		}
		if r.Tier != "" || item.Quantity != 1 {
			return r, fmt.Errorf("%s: %w: it is for more than one tier, or for a tier more than once", op, control.ErrInvalid)
		}
		r.Tier = tier
	}
	if !ours(s.Items) {
		return r, fmt.Errorf("%s: %w", op, errForeign)
	}
	if r.Tier == "" {
		return r, fmt.Errorf("%s: %w: none of its prices is a tier's", op, control.ErrInvalid)
	}
	if s.LatestInvoice != nil {
		r.invoice, r.payURL = s.LatestInvoice.ID, s.LatestInvoice.HostedInvoiceURL
		if at := time.Unix(s.LatestInvoice.Created, 0).UTC(); s.LatestInvoice.BillingReason == api.InvoiceBillingReasonSubscriptionUpdate && at.After(r.PeriodStart) {
			r.UpgradedAt = at
		}
	}
	if !r.Status.Live() && r.Status != control.SubscriptionIncomplete {
		return r, nil
	}
	return r, a.unpaid(ctx, &r)
}

// unpaid finds the open invoice with the most attempts. Whatever the status: it follows the
// latest invoice only, and a renewal that was never paid may lie behind an upgrade that was.
// While the latest one is paid, only a renewal counts: what a change waits for that comes to
// nothing without its payment, is open for a while, too.
func (a *Account) unpaid(ctx context.Context, r *reading) error {
	paid := r.Status == control.SubscriptionActive || r.Status == control.SubscriptionTrialing
	params := &api.InvoiceListParams{Subscription: &r.ID, Status: api.String(string(api.InvoiceStatusOpen))}
	params.Context = ctx
	list := a.invoices().List(params)
	for list.Next() {
		in := list.Invoice()
		if paid && in.BillingReason != api.InvoiceBillingReasonSubscriptionCycle {
			continue
		}
		if n := int(in.AttemptCount); n > r.FailedPayments {
			r.FailedPayments, r.invoice, r.payURL = n, in.ID, in.HostedInvoiceURL
		}
	}
	return failure("list open invoices of subscription "+r.ID, list.Err())
}
