package stripe

import (
	"context"
	"errors"
	"fmt"
	"slices"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const (
	// portalMark is the metadata by which our configuration of the portal is found again.
	portalMark      = "openclaw"
	portalMarkValue = "portal"
)

// portalUpdates are what customers may change of themselves at Stripe: what their invoices
// need. Name and address of e-mail are changed here.
var portalUpdates = []string{
	string(api.BillingPortalConfigurationFeaturesCustomerUpdateAllowedUpdateAddress),
	string(api.BillingPortalConfigurationFeaturesCustomerUpdateAllowedUpdateTaxID),
}

// PortalURL returns Stripe's page on which a customer changes its card, sees its invoices
// and cancels. One that never began a checkout is control.ErrInvalid.
func (c *Checkout) PortalURL(ctx context.Context, customerID string) (string, error) {
	op := "portal of customer " + customerID
	account, err := c.store.Account(ctx, customerID)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if account.StripeID == "" {
		return "", fmt.Errorf("%s: %w: it has bought nothing yet", op, control.ErrInvalid)
	}
	// Named each time: without a name Stripe takes the one that was saved in its dashboard,
	// which a new account does not have, and which may let customers cancel at once.
	configuration, err := c.o.Account.portal(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	params := &api.BillingPortalSessionParams{
		Customer: &account.StripeID, Configuration: &configuration.ID, ReturnURL: &c.o.ReturnURL, Locale: api.String(locale(account.Language)),
	}
	params.Context = ctx
	page, err := c.o.Account.portals().New(params)
	if err != nil {
		return "", failure(op, err)
	}
	return page.URL, nil
}

// portal finds our configuration of the portal, control.ErrNotFound without one.
func (a *Account) portal(ctx context.Context) (*api.BillingPortalConfiguration, error) {
	params := &api.BillingPortalConfigurationListParams{Active: api.Bool(true)}
	params.Context = ctx
	params.Limit = api.Int64(100)
	list := a.portalConfigurations().List(params)
	for list.Next() {
		if c := list.BillingPortalConfiguration(); c.Metadata[portalMark] == portalMarkValue {
			return c, nil
		}
	}
	if err := list.Err(); err != nil {
		return nil, failure("list configurations of the portal", err)
	}
	return nil, fmt.Errorf("configuration of the portal: %w: run \"openclawctl billing bootstrap\"", control.ErrNotFound)
}

// portal sees to our configuration of the portal. What a customer does there must leave
// nothing unpaid: it cancels with the period only, and changes its tier with us.
func (b *bootstrap) portal() error {
	have, err := b.a.portal(b.ctx)
	if err == nil && portalFits(have.Features) {
		return nil
	}
	if err != nil && !errors.Is(err, control.ErrNotFound) {
		return err
	}
	params := &api.BillingPortalConfigurationParams{
		BusinessProfile: &api.BillingPortalConfigurationBusinessProfileParams{Headline: api.String("OpenClaw")},
		Features: &api.BillingPortalConfigurationFeaturesParams{
			CustomerUpdate: &api.BillingPortalConfigurationFeaturesCustomerUpdateParams{
				Enabled: api.Bool(true), AllowedUpdates: api.StringSlice(portalUpdates),
			},
			InvoiceHistory:      &api.BillingPortalConfigurationFeaturesInvoiceHistoryParams{Enabled: api.Bool(true)},
			PaymentMethodUpdate: &api.BillingPortalConfigurationFeaturesPaymentMethodUpdateParams{Enabled: api.Bool(true)},
			SubscriptionCancel: &api.BillingPortalConfigurationFeaturesSubscriptionCancelParams{
				Enabled:           api.Bool(true),
				Mode:              api.String(string(api.BillingPortalConfigurationFeaturesSubscriptionCancelModeAtPeriodEnd)),
				ProrationBehavior: api.String(string(api.BillingPortalConfigurationFeaturesSubscriptionCancelProrationBehaviorNone)),
			},
		},
		Metadata: map[string]string{portalMark: portalMarkValue},
	}
	params.Context = b.ctx
	if have == nil {
		// What is not named here, Stripe leaves off.
		made, err := b.a.portalConfigurations().New(params)
		if err != nil {
			return failure("make the configuration of the portal", err)
		}
		b.changed("portal_configuration", portalMark, made.ID, "create")
		return nil
	}
	// Someone may have turned them on.
	params.Features.SubscriptionUpdate = &api.BillingPortalConfigurationFeaturesSubscriptionUpdateParams{Enabled: api.Bool(false)}
	params.Features.SubscriptionPause = &api.BillingPortalConfigurationFeaturesSubscriptionPauseParams{Enabled: api.Bool(false)}
	if _, err := b.a.portalConfigurations().Update(have.ID, params); err != nil {
		return failure("set the configuration "+have.ID+" of the portal", err)
	}
	b.changed("portal_configuration", portalMark, have.ID, "update")
	return nil
}

func portalFits(f *api.BillingPortalConfigurationFeatures) bool {
	if f == nil || f.CustomerUpdate == nil || f.InvoiceHistory == nil || f.PaymentMethodUpdate == nil || f.SubscriptionCancel == nil {
		return false
	}
	var updates []string
	for _, u := range f.CustomerUpdate.AllowedUpdates {
		updates = append(updates, string(u))
	}
	slices.Sort(updates)
	return f.CustomerUpdate.Enabled && slices.Equal(updates, portalUpdates) && f.InvoiceHistory.Enabled && f.PaymentMethodUpdate.Enabled &&
		f.SubscriptionCancel.Enabled && f.SubscriptionCancel.Mode == api.BillingPortalConfigurationFeaturesSubscriptionCancelModeAtPeriodEnd &&
		f.SubscriptionCancel.ProrationBehavior == api.BillingPortalConfigurationFeaturesSubscriptionCancelProrationBehaviorNone &&
		(f.SubscriptionUpdate == nil || !f.SubscriptionUpdate.Enabled) && (f.SubscriptionPause == nil || !f.SubscriptionPause.Enabled)
}
