package stripe

import (
	"context"
	"fmt"
	"time"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// soldAbove reports whether an item is for what is used above the limit. A price that has lost
// its lookup key to a newer one still is.
func soldAbove(item *api.SubscriptionItem) bool {
	p := item.Price
	if p == nil || p.Recurring == nil || p.Recurring.UsageType != api.PriceRecurringUsageTypeMetered {
		return false
	}
	return p.LookupKey == OverageKey || p.Product != nil && p.Product.ID == overageProduct
}

// overageOf finds what is sold above the limit: the item to keep, nil if nothing is sold, and
// those beside it, by which what is metered would be billed twice. The first one is kept: it
// may bill what the others came too late for.
func overageOf(items []*api.SubscriptionItem) (keep *api.SubscriptionItem, extra []*api.SubscriptionItem) {
	for _, item := range items {
		switch {
		case !soldAbove(item):
		case keep == nil:
			keep = item
		default:
			extra = append(extra, item)
		}
	}
	return keep, extra
}

// overageAmiss reports whether what is used above the limit is sold twice.
func overageAmiss(r reading) bool {
	_, extra := overageOf(r.items)
	return len(extra) > 0
}

// priceOverage has Stripe sell what is used above the limit, and sell it once. Whatever
// becomes of the tier, the item stays as it is: of one that got another price Stripe forgets
// what was metered before.
func (a *Account) priceOverage(ctx context.Context, r reading, sell bool, at time.Time) error {
	op := "price what is used above the limit of subscription " + r.ID
	keep, extra := overageOf(r.items)
	params := &api.SubscriptionParams{ProrationBehavior: api.String("none")}
	params.Context = ctx
	sell = sell && keep == nil
	if sell {
		priceID, err := a.priceID(ctx, OverageKey)
		if err != nil {
			return err
		}
		params.Items = append(params.Items, &api.SubscriptionItemsParams{Price: &priceID})
		// Whoever does it at the same time sends the same key, and it is added once.
		params.SetIdempotencyKey(idempotencyKey("overage-"+r.ID+"-"+priceID, at))
	}
	for _, item := range extra {
		params.Items = append(params.Items, &api.SubscriptionItemsParams{ID: &item.ID, Deleted: api.Bool(true)})
	}
	if len(params.Items) == 0 {
		return nil
	}
	s, err := a.subscriptions().Update(r.ID, params)
	if err != nil || !sell {
		return failure(op, err)
	}
	if s.Items != nil {
		if keep, _ := overageOf(s.Items.Data); keep != nil {
			return nil
		}
	}
	return fmt.Errorf("%s: Stripe %w: it did not add the price", op, control.ErrUnavailable)
}
