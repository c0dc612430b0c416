package stripe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const (
	// meterEvent names what is metered, in the account, for good.
	meterEventName = "openclaw_overage_microcents"
	meterTitle     = "OpenClaw tokens above the limit"
	currency       = "usd"
	// lookupsAtOnce is how many lookup keys Stripe takes in one question.
	lookupsAtOnce = 10
	// overageCents is what one of what is metered costs.
	overageCents = 1e-6
)

// EventTypes lists the events that the webhook endpoint is sent.
func EventTypes() []string {
	return []string{
		string(api.EventTypeCheckoutSessionCompleted),
		string(api.EventTypeCustomerSubscriptionCreated),
		string(api.EventTypeCustomerSubscriptionDeleted),
		string(api.EventTypeCustomerSubscriptionTrialWillEnd),
		string(api.EventTypeCustomerSubscriptionUpdated),
		string(api.EventTypeInvoicePaymentActionRequired),
		string(api.EventTypeInvoicePaymentFailed),
		string(api.EventTypeInvoicePaymentSucceeded),
	}
}

// BootstrapChange is something in the account that was made or changed.
type BootstrapChange struct {
	Kind   string `json:"kind"`   // meter, product, price, portal_configuration or webhook_endpoint
	Name   string `json:"name"`   // by which it is found again
	ID     string `json:"id"`     // Stripe's
	Action string `json:"action"` // create, update or disable
}

// Bootstrapped is what Bootstrap did.
type Bootstrapped struct {
	Changes []BootstrapChange `json:"changes"`
	// WebhookSecret is that of an endpoint that was made. Stripe tells it only now.
	WebhookSecret string `json:"webhook_secret,omitempty"`
}

// Bootstrap makes an account sell the tiers: a product and a monthly price for each, found
// by its lookup key, the price of tokens above the limit, their meter, and the webhook
// endpoint at webhookURL with this API version. What is there already, as it should be,
// stays; so a second time changes nothing. A price that differs is followed by a new one,
// which takes over its lookup key; subscriptions keep the old one. It removes nothing.
func Bootstrap(ctx context.Context, a *Account, tiers control.Tiers, webhookURL string) (Bootstrapped, error) {
	if u, err := url.Parse(webhookURL); err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !onThisMachine(u.Hostname())) {
		return Bootstrapped{}, fmt.Errorf("bootstrap: %w: the URL of the webhook must begin with https://", control.ErrInvalid)
	}
	b := &bootstrap{a: a, ctx: ctx}
	meterID, err := b.meter()
	if err != nil {
		return b.done, fmt.Errorf("bootstrap: %w", err)
	}
	wanted, err := b.products(tiers, meterID)
	if err == nil {
		err = b.prices(wanted)
	}
	if err == nil {
		err = b.portal()
	}
	if err == nil {
		err = b.endpoint(webhookURL) // last: its secret is told once
	}
	if err != nil {
		return b.done, fmt.Errorf("bootstrap: %w", err)
	}
	return b.done, nil
}

// onThisMachine reports whether a host is loopback: there a simulator of Stripe may send events
// without TLS, which nobody could read on their way.
func onThisMachine(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

type bootstrap struct {
	a    *Account
	ctx  context.Context // of the one call that this lives for
	done Bootstrapped
}

func (b *bootstrap) changed(kind, name, id, action string) {
	b.done.Changes = append(b.done.Changes, BootstrapChange{kind, name, id, action})
}

// meterID finds the meter, control.ErrNotFound without one.
func (a *Account) meterID(ctx context.Context) (string, error) {
	params := &api.BillingMeterListParams{Status: api.String(string(api.BillingMeterStatusActive))}
	params.Context = ctx
	params.Limit = api.Int64(100)
	list := a.meters().List(params)
	for list.Next() {
		if m := list.BillingMeter(); m.EventName == meterEventName {
			return m.ID, nil
		}
	}
	if err := list.Err(); err != nil {
		return "", failure("list meters", err)
	}
	return "", fmt.Errorf("meter %s: %w", meterEventName, control.ErrNotFound)
}

func (b *bootstrap) meter() (string, error) {
	id, err := b.a.meterID(b.ctx)
	if err == nil || !errors.Is(err, control.ErrNotFound) {
		return id, err
	}
	params := &api.BillingMeterParams{
		DisplayName: api.String(meterTitle), EventName: api.String(meterEventName),
		DefaultAggregation: &api.BillingMeterDefaultAggregationParams{Formula: api.String(string(api.BillingMeterDefaultAggregationFormulaSum))},
		CustomerMapping: &api.BillingMeterCustomerMappingParams{
			EventPayloadKey: api.String(payloadCustomer), Type: api.String(string(api.BillingMeterCustomerMappingTypeByID)),
		},
		ValueSettings: &api.BillingMeterValueSettingsParams{EventPayloadKey: api.String(payloadValue)},
	}
	params.Context = b.ctx
	m, err := b.a.meters().New(params)
	if err != nil {
		return "", failure("make the meter", err)
	}
	b.changed("meter", meterEventName, m.ID, "create")
	return m.ID, nil
}

// wantedPrice is a price as it should be.
type wantedPrice struct {
	key, product string
	cents        int64   // of a licensed one
	decimal      float64 // cents, of a metered one
	meter        string
}

func (w *wantedPrice) fits(p *api.Price) bool {
	if p.Product == nil || p.Product.ID != w.product || p.Currency != currency || p.Recurring == nil ||
		p.Recurring.Interval != api.PriceRecurringIntervalMonth || p.Recurring.IntervalCount != 1 || p.Recurring.Meter != w.meter {
		return false
	}
	if w.meter == "" {
		return p.UnitAmount == w.cents && p.Recurring.UsageType == api.PriceRecurringUsageTypeLicensed
	}
	return p.UnitAmountDecimal == w.decimal && p.Recurring.UsageType == api.PriceRecurringUsageTypeMetered
}

// products makes the products, and returns the prices that they should have.
func (b *bootstrap) products(tiers control.Tiers, meterID string) ([]wantedPrice, error) {
	var out []wantedPrice
	overage := false
	for _, tier := range tiers.All() {
		if err := b.product(productID(tier.Name), "OpenClaw "+tier.Title); err != nil {
			return nil, err
		}
		out = append(out, wantedPrice{key: LookupKey(tier.Name), product: productID(tier.Name), cents: tier.PriceCents})
		if tier.OverageCentsPerMillion > 0 {
			overage = true
		}
	}
	if overage {
		out = append(out, wantedPrice{key: OverageKey, product: overageProduct, decimal: overageCents, meter: meterID})
		return out, b.product(overageProduct, meterTitle)
	}
	return out, nil
}

func (b *bootstrap) product(id, name string) error {
	params := &api.ProductParams{}
	params.Context = b.ctx
	have, err := b.a.products().Get(id, params)
	err = failure("read product "+id, err)
	switch {
	case err == nil && have.Name == name:
		return nil
	case err == nil:
		_, err = b.a.products().Update(id, &api.ProductParams{Params: api.Params{Context: b.ctx}, Name: &name})
		if err == nil {
			b.changed("product", id, id, "update")
		}
	case errors.Is(err, control.ErrNotFound):
		_, err = b.a.products().New(&api.ProductParams{Params: api.Params{Context: b.ctx}, ID: &id, Name: &name})
		if err == nil {
			b.changed("product", id, id, "create")
		}
	}
	return failure("product "+id, err)
}

func (b *bootstrap) prices(wanted []wantedPrice) error {
	have := make(map[string]*api.Price)
	for keys := range slices.Chunk(wanted, lookupsAtOnce) {
		params := &api.PriceListParams{Active: api.Bool(true)}
		params.Context = b.ctx
		params.Limit = api.Int64(100)
		for _, w := range keys {
			params.LookupKeys = append(params.LookupKeys, &w.key)
		}
		list := b.a.prices().List(params)
		for list.Next() {
			have[list.Price().LookupKey] = list.Price()
		}
		if err := list.Err(); err != nil {
			return failure("list prices", err)
		}
	}
	for _, w := range wanted {
		if p := have[w.key]; p != nil && w.fits(p) {
			continue
		}
		if err := b.price(w); err != nil {
			return err
		}
	}
	return nil
}

func (b *bootstrap) price(w wantedPrice) error {
	params := &api.PriceParams{
		Product: &w.product, LookupKey: &w.key, TransferLookupKey: api.Bool(true), Currency: api.String(currency),
		Recurring: &api.PriceRecurringParams{Interval: api.String(string(api.PriceRecurringIntervalMonth))},
	}
	if w.meter == "" {
		params.UnitAmount = &w.cents
	} else {
		params.UnitAmountDecimal = &w.decimal
		params.Recurring.Meter, params.Recurring.UsageType = &w.meter, api.String(string(api.PriceRecurringUsageTypeMetered))
	}
	params.Context = b.ctx
	p, err := b.a.prices().New(params)
	if err != nil {
		return failure("make price "+w.key, err)
	}
	b.changed("price", w.key, p.ID, "create")
	return nil
}

// endpoint sees to one enabled endpoint at that URL with this version: a version cannot be
// changed, only another endpoint be made.
func (b *bootstrap) endpoint(webhookURL string) error {
	params := &api.WebhookEndpointListParams{}
	params.Context = b.ctx
	params.Limit = api.Int64(100)
	list := b.a.endpoints().List(params)
	var outdated []string
	found := false
	for list.Next() {
		e := list.WebhookEndpoint()
		switch {
		case e.URL != webhookURL || e.Status != "enabled":
		case e.APIVersion != APIVersion || found:
			outdated = append(outdated, e.ID)
		default:
			found = true
			if err := b.events(e); err != nil {
				return err
			}
		}
	}
	if err := list.Err(); err != nil {
		return failure("list webhook endpoints", err)
	}
	if !found {
		e, err := b.a.endpoints().New(&api.WebhookEndpointParams{
			Params: api.Params{Context: b.ctx}, URL: &webhookURL, APIVersion: api.String(APIVersion), EnabledEvents: api.StringSlice(EventTypes()),
			Description: api.String("openclaw-cloud billing"),
		})
		if err != nil {
			return failure("make the webhook endpoint", err)
		}
		b.changed("webhook_endpoint", webhookURL, e.ID, "create")
		b.done.WebhookSecret = e.Secret
	}
	for _, id := range outdated {
		_, err := b.a.endpoints().Update(id, &api.WebhookEndpointParams{Params: api.Params{Context: b.ctx}, Disabled: api.Bool(true)})
		if err != nil {
			return failure("disable webhook endpoint "+id, err)
		}
		b.changed("webhook_endpoint", webhookURL, id, "disable")
	}
	return nil
}

func (b *bootstrap) events(e *api.WebhookEndpoint) error {
	have := slices.Clone(e.EnabledEvents)
	slices.Sort(have)
	if slices.Equal(have, EventTypes()) {
		return nil
	}
	_, err := b.a.endpoints().Update(e.ID, &api.WebhookEndpointParams{
		Params: api.Params{Context: b.ctx}, EnabledEvents: api.StringSlice(EventTypes()),
	})
	if err != nil {
		return failure("set the events of webhook endpoint "+e.ID, err)
	}
	b.changed("webhook_endpoint", e.URL, e.ID, "update")
	return nil
}
