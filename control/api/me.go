package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

const (
	// freshFor is how long after signing in what cannot be undone may be done.
	freshFor = 15 * time.Minute
	// longestUsage is how much time usage may be asked for at once.
	longestUsage = 366 * 24 * time.Hour
	// liveWithin is how long Redis is waited for, for figures that Postgres has too.
	liveWithin = 300 * time.Millisecond
)

// Profile is what a customer sees of itself.
type Profile struct {
	control.Customer
	Language     control.Language `json:"language"`
	Confirmed    bool             `json:"email_confirmed" doc:"The address was shown to be yours."`
	Subscription *MySubscription  `json:"subscription,omitempty" doc:"Without it, nothing is paid."`
}

// MySubscription is what a customer sees of its subscription.
type MySubscription struct {
	Status            string    `json:"status" doc:"In Stripe's words."`
	Tier              string    `json:"tier"`
	PeriodEnd         time.Time `json:"period_end"`
	CancelAtPeriodEnd bool      `json:"cancel_at_period_end"`
	PendingTier       string    `json:"pending_tier,omitempty" doc:"The tier of the next period, if it is another one."`
	OverageCapCents   int64     `json:"overage_cap_cents,omitempty" doc:"How much a period may cost above its price, in US cents."`
}

// ProfileChange is what a customer changes of itself. What is left out stays.
type ProfileChange struct {
	Name     *string           `json:"name,omitempty"`
	Language *control.Language `json:"language,omitempty"`
}

// PasswordChange is a new password.
type PasswordChange struct {
	Current string `json:"current_password"`
	New     string `json:"new_password"`
	// RevokeKeys is for who changes it because somebody else knew it.
	RevokeKeys bool `json:"revoke_api_keys,omitempty" doc:"Revoke all API keys, too. They go on otherwise."`
}

// Usage is what a customer used.
type Usage struct {
	Period *PeriodUsage         `json:"period,omitempty" doc:"The present one; left out before the first."`
	From   time.Time            `json:"from"`
	To     time.Time            `json:"to"`
	Days   []control.UsageShare `json:"days" doc:"By day (UTC) and model."`
}

// PeriodUsage is a period with what is used and left of its limit, in weighted tokens.
type PeriodUsage struct {
	control.UsagePeriod
	Used int64 `json:"used_tokens"`
	Left int64 `json:"left_tokens"`
	// Live says that Used is what the proxies have settled, and not only what was written.
	Live bool `json:"live" doc:"Up to date; otherwise up to a few seconds old."`
}

// mine runs do in a transaction that sees only what is the caller's.
func (c *call) mine(do func(*store.Tx) error) error {
	return c.a.o.Store.ForCustomer(c.ctx(), c.customerID(), do)
}

func profile(ctx context.Context, tx *store.Tx, id string) (Profile, error) {
	a, err := tx.Account(ctx, id)
	if err != nil {
		return Profile{}, err
	}
	p := Profile{Customer: a.Customer, Language: a.Language}
	if p.Confirmed, err = tx.AddressConfirmed(ctx, id); err != nil {
		return Profile{}, err
	}
	list, err := tx.Subscriptions(ctx, id)
	if err != nil {
		return Profile{}, err
	}
	for _, v := range list {
		if v.Status.Live() {
			p.Subscription = &MySubscription{
				Status: string(v.Status), Tier: v.Tier, PeriodEnd: v.PeriodEnd, CancelAtPeriodEnd: v.CancelAtPeriodEnd,
				PendingTier: v.PendingTier, OverageCapCents: v.OverageCapCents,
			}
		}
	}
	return p, nil
}

func (a *API) serveMe(c *call) (any, error) {
	var p Profile
	err := c.mine(func(tx *store.Tx) (err error) { p, err = profile(c.ctx(), tx, c.customerID()); return err })
	return p, err
}

func (a *API) serveChangeMe(c *call) (any, error) {
	var in ProfileChange
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Name != nil {
		name, err := text("name", *in.Name, 200)
		if err != nil {
			return nil, err
		}
		in.Name = &name
	}
	if l := in.Language; l != nil && *l != control.English && *l != control.Portuguese {
		return nil, invalid("language", "there are en and pt-BR")
	}
	var p Profile
	another := false
	err := c.mine(func(tx *store.Tx) error {
		before, err := tx.Account(c.ctx(), c.customerID())
		if err != nil {
			return err
		}
		name, language := before.Name, before.Language
		if in.Name != nil {
			name = *in.Name
		}
		if in.Language != nil {
			language = *in.Language
		}
		if err := tx.SetProfile(c.ctx(), c.actor(), c.customerID(), name, language, a.now()); err != nil {
			return err
		}
		another = language != before.Language
		p, err = profile(c.ctx(), tx, c.customerID())
		return err
	})
	if err != nil || !another {
		return p, err
	}
	if err := a.o.Customers.FollowLanguage(c.ctx(), c.actor(), c.customerID()); err != nil {
		// It is saved; the operator of the boxes looks at all of them now and then.
		a.o.Logger.Warn("boxes do not speak another language yet", "request_id", c.id, "error", err)
	}
	return p, nil
}

func (a *API) serveDeleteMe(c *call) (any, error) {
	if a.now().Sub(c.who.session.CreatedAt) > freshFor {
		return nil, fail(kindStale(), "This cannot be undone: sign in, and do it within 15 minutes.")
	}
	err := a.deleteCustomer(c, c.customerID())
	switch {
	case errors.Is(err, control.ErrInvalid):
		return nil, &failure{kind: kindConflict(), detail: "Cancel the subscription first.", cause: err}
	case err != nil && !errors.Is(err, customers.ErrUnpublished):
		return nil, err
	}
	c.published(err)
	a.customers.realm.clearCookies(c.w)
	return nil, nil
}

// deleteCustomer ends what a customer pays for, and then deletes it. Whoever is interrupted in
// between deletes it again.
func (a *API) deleteCustomer(c *call, id string) error {
	if a.o.Billing != nil {
		if err := a.o.Billing.End(c.ctx(), id); err != nil {
			return err
		}
	}
	return a.o.Customers.DeleteCustomer(c.ctx(), c.actor(), id)
}

// published has the answer say that a change is saved and not yet known to all proxies, if
// err is customers.ErrUnpublished.
func (c *call) published(err error) {
	if errors.Is(err, customers.ErrUnpublished) {
		c.status = http.StatusAccepted
		c.a.o.Logger.Warn("a change waits to be published", "request_id", c.id, "error", err)
	}
}

func (a *API) serveChangePassword(c *call) (any, error) {
	var in PasswordChange
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	account, err := a.o.Store.Account(c.ctx(), c.customerID())
	if err != nil {
		return nil, err
	}
	if err := CheckPassword(in.New, account.Email); err != nil {
		return nil, newPassword(err)
	}
	if _, err := a.prove(c, a.customers, SignIn{Email: account.Email, Password: in.Current}, func(ctx context.Context, address string) (control.Subject, string, error) {
		i, err := a.o.Store.Identity(ctx, control.ProviderPassword, address)
		if err == nil && i.CustomerID != c.customerID() {
			err = control.ErrNotFound
		}
		return c.who.subject, i.SecretHash, err
	}); err != nil {
		if f := (*failure)(nil); errors.As(err, &f) && f.kind == kindUnauthenticated() {
			return nil, invalid("current_password", "it is wrong")
		}
		return nil, err
	}
	hash, err := a.passwords.hash(c.ctx(), in.New)
	if err != nil {
		return nil, err
	}
	err = a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
		if err := tx.SetPassword(c.ctx(), c.actor(), c.customerID(), hash, a.now()); err != nil {
			return err
		}
		if in.RevokeKeys {
			if _, err := tx.RevokeAPIKeys(c.ctx(), c.actor(), c.customerID(), "password changed", a.now()); err != nil {
				return err
			}
		}
		if err := a.passwordChanged(c.ctx(), tx, c.customerID()); err != nil {
			return err
		}
		return c.note(c.ctx(), tx, nil)
	})
	if err != nil {
		return nil, err
	}
	// All sessions have ended, this one too: whoever else knew the password is out.
	s, err := a.openSession(c.ctx(), a.customers.realm, c.customerID())
	if err != nil {
		return nil, gone(err)
	}
	a.customers.realm.setCookies(c.w, s)
	return nil, nil
}

// some makes an empty list [] in JSON.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (a *API) serveMyUsage(c *call) (any, error) {
	from, to, err := c.interval(longestUsage)
	if err != nil {
		return nil, err
	}
	var u Usage
	err = c.mine(func(tx *store.Tx) (err error) { u, err = a.usage(c.ctx(), tx, c.customerID(), from, to); return err })
	if err != nil {
		return nil, err
	}
	a.addLive(c.ctx(), u.Period)
	return u, nil
}

// usage reads what a customer used from one time to another, or in its present period, or, if
// it has none, in the last 30 days.
func (a *API) usage(ctx context.Context, tx *store.Tx, id string, from, to time.Time) (Usage, error) {
	now := a.now()
	u := Usage{From: from, To: to}
	var err error
	if u.Period, err = present(ctx, tx, id, now); err != nil {
		return u, err
	}
	if from.IsZero() {
		u.From, u.To = now.Add(-30*24*time.Hour), now
		if u.Period != nil {
			u.From, u.To = u.Period.Start, u.Period.End
		}
	}
	days, err := tx.UsageByDay(ctx, id, u.From, u.To)
	u.Days = some(days)
	return u, err
}

// present reads the present period of a customer; nil without one.
func present(ctx context.Context, tx *store.Tx, id string, now time.Time) (*PeriodUsage, error) {
	p, err := tx.PeriodAt(ctx, id, now)
	if errors.Is(err, control.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &PeriodUsage{UsagePeriod: p, Used: p.Totals.Settled, Left: max(p.LimitTokens-p.Totals.Settled, 0)}, nil
}

// addLive has a period say what Redis knows. Without an answer it stays as it is.
func (a *API) addLive(ctx context.Context, p *PeriodUsage) {
	if p == nil || a.o.Live == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, liveWithin)
	defer cancel()
	u, err := a.o.Live.Usage(ctx, quota.Account{
		Customer: p.CustomerID, Period: p.Period(), Limit: p.LimitTokens, LimitVersion: p.LimitVersion,
	})
	if err != nil {
		a.o.Logger.Debug("usage without Redis", "error", err)
		return
	}
	// After Redis was lost its record may lag behind until it is made anew.
	p.Used, p.Live = max(u.Settled, p.Totals.Settled), true
	p.Left = max(p.LimitTokens-p.Used, 0)
}
