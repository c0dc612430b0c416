package stripe

import (
	"context"
	"strings"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// soldAbove returns of which tier an item is the price of tokens above the limit. A price that
// has lost its lookup key to a newer one is still sold, and its tier is "". ok is false for
// other items.
func soldAbove(item *api.SubscriptionItem) (tier string, ok bool) {
	p := item.Price
	if p == nil || p.Recurring == nil || p.Recurring.UsageType != api.PriceRecurringUsageTypeMetered {
		return "", false
	}
	if p.LookupKey == "" {
		return "", p.Product != nil && p.Product.ID == overageProduct
	}
	name, has := strings.CutPrefix(p.LookupKey, lookupPrefix)
	tier, ok = strings.CutSuffix(name, overageSuffix)
	return tier, ok && has
}

// overage is what is sold above the limit, by the items of a subscription.
type overage struct {
	keep  *api.SubscriptionItem   // nil: nothing is sold
	fits  bool                    // keep has the tier's price
	extra []*api.SubscriptionItem // beside keep; the meter's tokens would be billed twice
}

// overageOf finds what is sold above the limit to a customer of a tier.
func overageOf(items []*api.SubscriptionItem, tier control.Tier) (o overage) {
	for _, item := range items {
		sold, ok := soldAbove(item)
		if !ok {
			continue
		}
		// Of an old price nobody knows the tier. It is taken to fit, unless the tier's own is
		// there too.
		switch fits := sold == tier.Name; {
		case o.keep == nil:
			o.keep, o.fits = item, fits || sold == ""
		case fits && !ownPrice(o.keep, tier):
			o.extra = append(o.extra, o.keep)
			o.keep, o.fits = item, true
		default:
			o.extra = append(o.extra, item)
		}
	}
	// Without a price of its own a tier sells nothing above its limit: what there is stays
	// for what was used before.
	o.fits = o.fits || tier.OverageCentsPerMillion == 0
	return o
}

func ownPrice(item *api.SubscriptionItem, tier control.Tier) bool {
	sold, ok := soldAbove(item)
	return ok && sold == tier.Name
}

// overageAmiss reports whether what is sold above the limit is not at the price of the
// customer's tier, or twice.
func overageAmiss(r reading, tier control.Tier) bool {
	o := overageOf(r.items, tier)
	return o.keep != nil && (!o.fits || len(o.extra) > 0)
}

// priceOverage has Stripe sell what is used above the limit at the price of the customer's
// tier, if it sells it, or if it shall from now on. All that is used in a period costs what the
// price is at its end: the customer's cap is kept by what the tier of the day costs.
func (a *Account) priceOverage(ctx context.Context, r reading, tier control.Tier, sell bool) error {
	o := overageOf(r.items, tier)
	params := &api.SubscriptionParams{ProrationBehavior: api.String("none")}
	params.Context = ctx
	if o.keep == nil && sell || o.keep != nil && !o.fits {
		priceID, err := a.priceID(ctx, OverageKey(tier.Name))
		if err != nil {
			return err
		}
		item := &api.SubscriptionItemsParams{Price: &priceID}
		if o.keep != nil {
			item.ID = &o.keep.ID
		} else {
			// Whoever does it at the same time sends the same key, and it is added once.
			params.SetIdempotencyKey("overage-" + r.ID + "-" + priceID)
		}
		params.Items = append(params.Items, item)
	}
	for _, item := range o.extra {
		params.Items = append(params.Items, &api.SubscriptionItemsParams{ID: &item.ID, Deleted: api.Bool(true)})
	}
	if len(params.Items) == 0 {
		return nil
	}
	_, err := a.subscriptions().Update(r.ID, params)
	return failure("price what is used above the limit of subscription "+r.ID, err)
}
