package stripe

import (
	"context"
	"errors"
	"fmt"
	"time"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// invoicesMax is how many invoices are listed at most.
const invoicesMax = 100

// CheckoutOptions are what a Checkout needs.
type CheckoutOptions struct {
	Account   *Account
	Customers *customers.Service // with its Store and Tiers
	// SuccessURL and CancelURL are where Stripe's page leads to, and ReturnURL where the
	// portal does.
	SuccessURL, CancelURL, ReturnURL string
	// TrialDays is how long the first subscription of a customer costs nothing.
	TrialDays int64
}

// Checkout makes the pages on which customers pay. It is safe for concurrent use.
type Checkout struct {
	o     CheckoutOptions
	store *store.Store
}

// NewCheckout checks o.
func NewCheckout(o CheckoutOptions) (*Checkout, error) {
	if o.Account == nil || o.Customers == nil || o.Customers.Store == nil {
		return nil, errors.New("checkout: an account, and customers with their store, are required")
	}
	if o.SuccessURL == "" || o.CancelURL == "" || o.ReturnURL == "" {
		return nil, errors.New("checkout: the URLs to return to are required")
	}
	if o.TrialDays < 0 {
		return nil, errors.New("checkout: the days of trial are negative")
	}
	return &Checkout{o: o, store: o.Customers.Store}, nil
}

// CheckoutURL returns the page on which a customer pays for a tier. Asked again it is the
// same page, while that is open; pages for other tiers are closed: there is never more than one
// that can be paid. A customer with a live subscription is control.ErrExists: it changes that
// one. One that is deleted, or that an operator suspended, is control.ErrInvalid, and one that
// owes an invoice a *control.UnpaidError. While the customer's billing is being changed by
// somebody else it is control.ErrConflict.
func (c *Checkout) CheckoutURL(ctx context.Context, customerID, tierName string) (url string, err error) {
	op := "checkout of customer " + customerID
	tier, err := c.o.Customers.Tiers.Get(tierName)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if _, _, err := c.buyer(ctx, customerID); err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	ran, err := c.store.WithLock(ctx, lockName(customerID), func(ctx context.Context) (err error) {
		url, err = c.page(ctx, customerID, tier)
		return err
	})
	if err == nil && !ran {
		err = fmt.Errorf("%w: another change is under way", control.ErrConflict)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	return url, nil
}

// lockName is the lock of whoever changes what a customer pays for.
func lockName(customerID string) string { return "billing " + customerID }

// page finds or makes the page of CheckoutURL. The caller has the customer's lock: of two that
// list the pages before either has made one, neither closes the other's.
func (c *Checkout) page(ctx context.Context, customerID string, tier control.Tier) (string, error) {
	account, first, err := c.buyer(ctx, customerID)
	if err != nil {
		return "", err
	}
	if account.StripeID, err = c.stripeCustomer(ctx, account); err != nil {
		return "", err
	}
	priceID, err := c.o.Account.priceID(ctx, LookupKey(tier.Name))
	if err != nil {
		return "", err
	}
	newest, open, err := c.openSessions(ctx, account.StripeID, tier.Name)
	if err != nil {
		return "", err
	}
	// After the pages were closed: what was paid on one until then is seen.
	if err := c.mayBuy(ctx, account.StripeID); err != nil || open != "" {
		return open, err
	}
	params := &api.CheckoutSessionParams{
		Mode: api.String(string(api.CheckoutSessionModeSubscription)), Customer: &account.StripeID, ClientReferenceID: &customerID,
		SuccessURL: &c.o.SuccessURL, CancelURL: &c.o.CancelURL, Locale: api.String(locale(account.Language)),
		LineItems: []*api.CheckoutSessionLineItemParams{{Price: &priceID, Quantity: api.Int64(1)}},
		// Only so that a page that is open is found again: what is paid says the price.
		Metadata: map[string]string{"tier": tier.Name},
	}
	if first && c.o.TrialDays > 0 {
		params.SubscriptionData = &api.CheckoutSessionSubscriptionDataParams{TrialPeriodDays: &c.o.TrialDays}
	}
	params.Context = ctx
	// Whoever has lost the lock meanwhile has seen the same newest page, and gets this one.
	params.SetIdempotencyKey(idempotencyKey(fmt.Sprintf("checkout-%s-%s-%s", customerID, priceID, newest), c.o.Customers.Clock()))
	page, err := c.o.Account.sessions().New(params)
	if err != nil {
		return "", failure("make a page", err)
	}
	return page.URL, nil
}

// mayBuy asks Stripe whether a customer has a live subscription, also one of which no event has
// told yet, or owes something. What it has begun and not paid for, it does not owe.
func (c *Checkout) mayBuy(ctx context.Context, stripeID string) error {
	begun := make(map[string]bool)
	params := &api.SubscriptionListParams{Customer: &stripeID}
	params.Context = ctx
	list := c.o.Account.subscriptions().List(params)
	for list.Next() {
		s := list.Subscription()
		status := control.SubscriptionStatus(s.Status)
		if status.Live() && ours(s.Items) {
			return fmt.Errorf("a live subscription at Stripe: %w", control.ErrExists)
		}
		begun[s.ID] = status == control.SubscriptionIncomplete
	}
	if err := list.Err(); err != nil {
		return failure("list subscriptions", err)
	}
	open := &api.InvoiceListParams{Customer: &stripeID, Status: api.String(string(api.InvoiceStatusOpen))}
	open.Context = ctx
	invoices := c.o.Account.invoices().List(open)
	for invoices.Next() {
		if in := invoices.Invoice(); in.Subscription != nil && !begun[in.Subscription.ID] {
			return &control.UnpaidError{URL: in.HostedInvoiceURL}
		}
	}
	return failure("list open invoices", invoices.Err())
}

// buyer reads a customer that may buy a subscription, and whether it would be its first.
func (c *Checkout) buyer(ctx context.Context, id string) (account control.Account, first bool, err error) {
	err = c.store.InTx(ctx, func(tx *store.Tx) error {
		if account, err = tx.Account(ctx, id); err != nil {
			return err
		}
		if !account.DeletedAt.IsZero() {
			return fmt.Errorf("%w: the customer is deleted", control.ErrInvalid)
		}
		list, err := tx.Subscriptions(ctx, id)
		first = true
		for _, v := range list {
			if v.Status.Live() && v.ReplacedBy == "" {
				return fmt.Errorf("a live subscription: %w", control.ErrExists)
			}
			first = first && v.Status != control.SubscriptionCanceled
		}
		if err == nil && account.Status == control.CustomerSuspended {
			err = fmt.Errorf("%w: the customer is suspended, and would pay for nothing", control.ErrInvalid)
		}
		return err
	})
	return account, first, err
}

// stripeCustomer returns the id by which Stripe knows a customer, and makes it known there
// first. Whoever does it at the same time, or again soon after a crash, sends the same key, and
// so Stripe makes one; later it may make one that is never used.
func (c *Checkout) stripeCustomer(ctx context.Context, a control.Account) (string, error) {
	if a.StripeID != "" {
		return a.StripeID, nil
	}
	// Nothing that the customer may change meanwhile: with the key belongs what was sent.
	params := &api.CustomerParams{Metadata: map[string]string{"customer_id": a.ID}}
	params.Context = ctx
	params.SetIdempotencyKey(idempotencyKey("customer-"+a.ID, c.o.Customers.Clock()))
	made, err := c.o.Account.customers().New(params)
	if err != nil {
		return "", failure("make customer", err)
	}
	update := &api.CustomerParams{Name: &a.Name, PreferredLocales: []*string{api.String(locale(a.Language))}}
	if a.Email != "" {
		update.Email = &a.Email
	}
	update.Context = ctx
	if _, err := c.o.Account.customers().Update(made.ID, update); err != nil {
		return "", failure("name customer "+made.ID, err)
	}
	err = c.store.InTx(ctx, func(tx *store.Tx) error { return tx.SetStripeID(ctx, "customer:"+a.ID, a.ID, made.ID) })
	if errors.Is(err, control.ErrExists) {
		if now, rerr := c.store.Account(ctx, a.ID); rerr == nil && now.StripeID != "" {
			return now.StripeID, nil
		}
	}
	return made.ID, err
}

func locale(l control.Language) string {
	if l == control.Portuguese {
		return "pt-BR"
	}
	return "en"
}

// openSessions closes the open pages of a customer but the newest one for a tier, whose URL
// it returns, and the id of its newest page of all, "0" without any.
func (c *Checkout) openSessions(ctx context.Context, stripeID, tier string) (newest, open string, err error) {
	params := &api.CheckoutSessionListParams{Customer: &stripeID}
	params.Context = ctx
	params.Single = true // the newest ones are enough: a page closes by itself within a day
	params.Limit = api.Int64(100)
	list := c.o.Account.sessions().List(params)
	newest = "0"
	for list.Next() {
		page := list.CheckoutSession()
		if newest == "0" {
			newest = page.ID
		}
		if page.Status != api.CheckoutSessionStatusOpen {
			continue
		}
		if open == "" && page.Metadata["tier"] == tier {
			open = page.URL
			continue
		}
		expire := &api.CheckoutSessionExpireParams{}
		expire.Context = ctx
		if _, err := c.o.Account.sessions().Expire(page.ID, expire); err != nil {
			return newest, "", failure("close page "+page.ID, err)
		}
	}
	return newest, open, failure("list pages", list.Err())
}

// priceID finds a price by its lookup key.
func (a *Account) priceID(ctx context.Context, key string) (string, error) {
	params := &api.PriceListParams{LookupKeys: []*string{&key}, Active: api.Bool(true)}
	params.Context = ctx
	list := a.prices().List(params)
	for list.Next() {
		return list.Price().ID, nil
	}
	if err := list.Err(); err != nil {
		return "", failure("find price "+key, err)
	}
	return "", fmt.Errorf("find price %s: %w: run \"openclawctl billing bootstrap\"", key, control.ErrNotFound)
}

// Invoices lists the newest invoices of a customer, newest first, at most limit, and at
// most 100. A customer that has bought nothing has none.
func (c *Checkout) Invoices(ctx context.Context, customerID string, limit int) ([]control.Invoice, error) {
	op := "invoices of customer " + customerID
	account, err := c.store.Account(ctx, customerID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	out := []control.Invoice{}
	if account.StripeID == "" {
		return out, nil
	}
	params := &api.InvoiceListParams{Customer: &account.StripeID}
	params.Context = ctx
	params.Single = true
	params.Limit = api.Int64(int64(min(max(limit, 1), invoicesMax)))
	list := c.o.Account.invoices().List(params)
	for list.Next() {
		in := list.Invoice()
		out = append(out, control.Invoice{
			ID: in.ID, Number: in.Number, Status: string(in.Status), AmountCents: in.Total, Currency: string(in.Currency),
			CreatedAt: time.Unix(in.Created, 0).UTC(), URL: in.HostedInvoiceURL, PDF: in.InvoicePDF,
		})
	}
	return out, failure(op, list.Err())
}

// ChangeTier has Stripe bill another tier: one with more tokens at once, and for the rest of
// the period, once that is paid; one with less from the next period on. The customer becomes
// what Stripe then says of the subscription with Processor.Sync or by the event, whichever
// is first. It returns the subscription's id. Where our books do not have what Stripe has, or it
// is about to renew, it is control.ErrConflict and nothing is changed: what is owed depends on
// what is held.
func (c *Checkout) ChangeTier(ctx context.Context, customerID, tierName string) (string, error) {
	op := "change the tier of customer " + customerID
	to, err := c.o.Customers.Tiers.Get(tierName)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	r, err := c.live(ctx, customerID)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if r.stale {
		return "", fmt.Errorf("%s: %w: our books do not have yet what Stripe has", op, control.ErrConflict)
	}
	if r.Tier == to.Name {
		return r.ID, nil
	}
	held, _ := c.o.Customers.Tiers.Get(r.held) // one that is not sold any more has no tokens
	raises := to.MonthlyTokens > held.MonthlyTokens
	pending := r.Tier != held.Name && held.Name != "" // a lower tier was to follow
	if pending && !c.o.Customers.Clock().Add(renewalMargin).Before(r.PeriodEnd) {
		// What is not billed now is meant for what is left of the period.
		return "", fmt.Errorf("%s: %w: the subscription is about to renew", op, control.ErrConflict)
	}
	if raises && (r.Status != control.SubscriptionActive && r.Status != control.SubscriptionTrialing || r.FailedPayments > 0) {
		// Paying for it would not pay for what is owed.
		return "", fmt.Errorf("%s: %w: an invoice is not paid; the subscription is %s", op, control.ErrInvalid, r.Status)
	}
	// What was begun comes to its end, also if the customer does not wait for it.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), renewalMargin)
	defer stop()
	if raises && pending {
		err = c.raisePending(ctx, r, held.Name, to.Name)
	} else {
		_, err = c.setTier(ctx, r, to.Name, raises)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	return r.ID, nil
}

// renewalMargin is for how long before a renewal nothing is changed that is not billed, and
// longer than a change takes.
const renewalMargin = 2 * time.Minute

// raisePending is setTier of a higher tier at once, where a lower one than is held was to follow.
// What is owed is the difference to the one that is held, so that has to be what Stripe bills
// first. If the payment fails, the lower one still follows.
func (c *Checkout) raisePending(ctx context.Context, r reading, held, to string) error {
	_, err := c.setTier(ctx, r, held, false)
	billed := ""
	if err == nil {
		billed, err = c.setTier(ctx, r, to, true)
	}
	if billed == to {
		return nil
	}
	// Without an answer it may have gone through all the same.
	now, rerr := c.o.Account.subscription(ctx, r.ID)
	if rerr == nil && now.Tier == to {
		return nil
	}
	if rerr == nil && now.Tier != r.Tier {
		_, rerr = c.setPrice(ctx, r, r.priceID(), false)
	}
	return errors.Join(err, rerr)
}

// setTier has Stripe bill another tier from the next period on, or, with now, at once, and
// returns which one it bills then: while a payment is missing it is not the other one. If Stripe
// has renewed the subscription since r was read, what is not billed now would hold for a period
// that was not paid for: then nothing has changed, and it is control.ErrConflict.
func (c *Checkout) setTier(ctx context.Context, r reading, tier string, now bool) (billed string, err error) {
	priceID, err := c.o.Account.priceID(ctx, LookupKey(tier))
	if err != nil {
		return "", err
	}
	s, err := c.setPrice(ctx, r, priceID, now)
	if err != nil {
		return "", err
	}
	if !now && s.CurrentPeriodStart != r.PeriodStart.Unix() {
		if _, err := c.setPrice(ctx, r, r.priceID(), false); err != nil {
			return "", err
		}
		return "", fmt.Errorf("bill tier %s: %w: Stripe has renewed the subscription meanwhile", tier, control.ErrConflict)
	}
	if s.Items != nil {
		for _, item := range s.Items.Data {
			if tier := tierOf(item.Price); tier != "" {
				billed = tier
			}
		}
	}
	return billed, nil
}

// setPrice has Stripe bill another price for the tier.
func (c *Checkout) setPrice(ctx context.Context, r reading, priceID string, now bool) (*api.Subscription, error) {
	params := &api.SubscriptionParams{ProrationBehavior: api.String("none")}
	if now {
		params.ProrationBehavior = api.String("always_invoice")
		params.PaymentBehavior = api.String("pending_if_incomplete")
	}
	for _, item := range r.items {
		if tierOf(item.Price) != "" {
			params.Items = append(params.Items, &api.SubscriptionItemsParams{ID: &item.ID, Price: &priceID})
		}
	}
	params.Context = ctx
	s, err := c.o.Account.subscriptions().Update(r.ID, params)
	return s, failure("bill price "+priceID, err)
}

// Cancel has Stripe end a customer's subscription: with its period, or now, of which nothing
// is paid back, and what was used above the limit is billed. What follows for the customer
// comes with Processor.Sync or by the event. It returns the subscription's id; without a live
// one it is control.ErrInvalid.
func (c *Checkout) Cancel(ctx context.Context, customerID string, now bool) (string, error) {
	op := "cancel the subscription of customer " + customerID
	r, err := c.live(ctx, customerID)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	if now {
		err = c.end(ctx, customerID, r.ID)
	} else {
		params := &api.SubscriptionParams{CancelAtPeriodEnd: api.Bool(true)}
		params.Context = ctx
		_, err = c.o.Account.subscriptions().Update(r.ID, params)
	}
	return r.ID, failure(op, err)
}

// Resume takes back that a subscription ends with its period. It returns the subscription's
// id; without a live one it is control.ErrInvalid.
func (c *Checkout) Resume(ctx context.Context, customerID string) (string, error) {
	op := "resume the subscription of customer " + customerID
	r, err := c.live(ctx, customerID)
	if err != nil {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	params := &api.SubscriptionParams{CancelAtPeriodEnd: api.Bool(false)}
	params.Context = ctx
	_, err = c.o.Account.subscriptions().Update(r.ID, params)
	return r.ID, failure(op, err)
}

// live asks Stripe for the live subscription of a customer. Without one it is
// control.ErrInvalid. The reading knows also which tier the customer holds here.
func (c *Checkout) live(ctx context.Context, customerID string) (r reading, err error) {
	var v control.Subscription
	err = c.store.InTx(ctx, func(tx *store.Tx) error {
		v, err = tx.LiveSubscription(ctx, customerID)
		return err
	})
	if errors.Is(err, control.ErrNotFound) {
		return r, fmt.Errorf("%w: it has no subscription", control.ErrInvalid)
	}
	if err != nil {
		return r, err
	}
	r, err = c.o.Account.subscription(ctx, v.ID)
	r.held = v.Tier
	paid := r.Status == control.SubscriptionActive || r.Status == control.SubscriptionTrialing
	r.stale = !r.PeriodStart.Equal(v.PeriodStart) || r.Status != v.Status || paid && r.Tier != v.Tier && r.Tier != v.PendingTier
	return r, err
}

// SetOverage lets a customer use more than its limit, for at most capCents a period, or,
// with 0, no more than that: see customers.Service.SetOverage.
func (c *Checkout) SetOverage(ctx context.Context, actor, customerID string, capCents int64) (control.Subscription, error) {
	op := "overage of customer " + customerID
	if capCents > 0 {
		// Before the first token: what is used has a price. Without use it costs nothing.
		if err := c.sellOverage(ctx, customerID); err != nil {
			return control.Subscription{}, fmt.Errorf("%s: %w", op, err)
		}
	}
	return c.o.Customers.SetOverage(ctx, actor, customerID, capCents)
}

// sellOverage sees to it that the subscription has the price of tokens above the limit.
func (c *Checkout) sellOverage(ctx context.Context, customerID string) error {
	r, err := c.live(ctx, customerID)
	if err != nil {
		return err
	}
	account, err := c.store.Account(ctx, customerID)
	if err != nil {
		return err
	}
	tier, err := c.o.Customers.Tiers.Get(account.Tier)
	if err != nil {
		return err
	}
	if tier.OverageCentsPerMillion == 0 {
		return fmt.Errorf("%w: tier %s has no price above its limit", control.ErrInvalid, tier.Name)
	}
	return c.o.Account.priceOverage(ctx, r, true, c.o.Customers.Clock())
}
