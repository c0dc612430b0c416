package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// maxOverageCents is the highest cap of what a period may cost above its price: a mistyped
// one is refused before it costs anything.
const maxOverageCents = 1_000_000

// Overage is how much more than its price a period may cost.
type Overage struct {
	CapCents int64 `json:"cap_cents" doc:"In US cents, 1,000,000 at most; 0: no more than the limit may be used."`
}

// change has a subscription changed, and answers with what the customer then has.
func (a *API) change(c *call, do func(context.Context, Billing) error) (any, error) {
	if a.o.Billing == nil {
		return nil, noBilling()
	}
	// Whoever has none costs no lock, nor a word with Stripe.
	err := c.mine(func(tx *store.Tx) error { _, err := tx.LiveSubscription(c.ctx(), c.customerID()); return err })
	if errors.Is(err, control.ErrNotFound) {
		return nil, notSubscribed(err)
	}
	if err == nil {
		err = c.saved(do(c.ctx(), a.o.Billing))
	}
	switch {
	case errors.Is(err, control.ErrNotFound): // what is missing is ours: a price at Stripe
		return nil, &failure{kind: kindUnavailable(), detail: "Payments are not set up completely.", cause: err}
	case errors.Is(err, control.ErrInvalid):
		return nil, notSubscribed(err)
	case err != nil:
		return nil, err
	}
	var p Profile
	err = c.mine(func(tx *store.Tx) (err error) { p, err = profile(c.ctx(), tx, c.customerID()); return err })
	return p, err
}

func notSubscribed(cause error) error {
	return &failure{kind: kindConflict(), detail: "There is no subscription of which this can be changed now.", cause: cause}
}

func (a *API) serveChangeTier(c *call) (any, error) {
	var in Purchase
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if _, err := a.o.Customers.Tiers.Get(in.Tier); err != nil {
		return nil, invalid("tier", "there is no such tier")
	}
	out, err := a.change(c, func(ctx context.Context, b Billing) error { return b.ChangeTier(ctx, c.customerID(), in.Tier) })
	if p, ok := out.(Profile); ok && err == nil && c.status == 0 {
		if s := p.Subscription; s == nil || s.Tier != in.Tier && s.PendingTier != in.Tier {
			return nil, fail(kindUnpaid(), "The payment did not go through, and nothing has changed. Pay the open invoice, or change the card in the portal.")
		}
	}
	return out, err
}

func (a *API) serveCancel(c *call) (any, error) {
	return a.change(c, func(ctx context.Context, b Billing) error { return b.Cancel(ctx, c.customerID()) })
}

func (a *API) serveResume(c *call) (any, error) {
	return a.change(c, func(ctx context.Context, b Billing) error { return b.Resume(ctx, c.customerID()) })
}

func (a *API) serveOverage(c *call) (any, error) {
	var in Overage
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.CapCents < 0 || in.CapCents > maxOverageCents {
		return nil, invalid("cap_cents", fmt.Sprintf("it must be in 0…%d", maxOverageCents))
	}
	return a.change(c, func(ctx context.Context, b Billing) error {
		return b.SetOverage(ctx, c.actor(), c.customerID(), in.CapCents)
	})
}

func (a *API) subscriptionRoutes() []route {
	const path = "/v1/me/subscription"
	return []route{
		{method: http.MethodPost, path: path + "/tier", who: customerSession(), serve: a.serveChangeTier, publishes: true,
			op: operation{id: "changeTier", tag: "billing", summary: "Change to another tier", body: Purchase{}, status: http.StatusOK, answer: Profile{},
				about: "One with more tokens holds at once, and the rest of the period is paid at once: if that fails nothing changes, and the answer is 402. One with fewer tokens follows with the next period; until then, changing back costs nothing."}},
		{method: http.MethodPost, path: path + "/cancel", who: customerSession(), serve: a.serveCancel, publishes: true,
			op: operation{id: "cancelSubscription", tag: "billing", summary: "Cancel at the end of the period", status: http.StatusOK, answer: Profile{},
				about: "Until then everything goes on, and it can be taken back."}},
		{method: http.MethodPost, path: path + "/resume", who: customerSession(), serve: a.serveResume, publishes: true,
			op: operation{id: "resumeSubscription", tag: "billing", summary: "Take a cancellation back", status: http.StatusOK, answer: Profile{}}},
		{method: http.MethodPut, path: path + "/overage", who: customerSession(), serve: a.serveOverage, publishes: true,
			op: operation{id: "setOverage", tag: "billing", summary: "Allow more than the limit, up to an amount", body: Overage{}, status: http.StatusOK, answer: Profile{},
				about: "Tokens above the limit are billed one by one, at the price of the tier, up to the cap. It holds at once, and for all periods to come; while an invoice is not paid, nothing may be used above the limit, and the cap cannot be raised."}},
	}
}
