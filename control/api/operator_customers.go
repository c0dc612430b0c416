package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// NewCustomer is a customer that an operator makes: it is active at once, without paying.
type NewCustomer struct {
	Name  string `json:"name"`
	Email string `json:"email,omitempty"`
	Tier  string `json:"tier"`
}

// CustomerDetails is what operators see of one customer.
type CustomerDetails struct {
	control.Account
	Period        *PeriodUsage           `json:"period,omitempty"`
	Boxes         []control.Box          `json:"boxes"`
	Tokens        []control.ProxyToken   `json:"tokens"`
	Subscriptions []control.Subscription `json:"subscriptions"`
}

// Reason is why something is done, for the audit log.
type Reason struct {
	Reason string `json:"reason" doc:"1 to 500 characters."`
}

func (r *Reason) check() (err error) {
	r.Reason, err = text("reason", r.Reason, 500)
	return err
}

// reason reads a body that is a Reason and nothing else.
func (c *call) reason() (string, error) {
	var in Reason
	if err := c.decode(&in); err != nil {
		return "", err
	}
	err := in.check()
	return in.Reason, err
}

// noting returns the service for one call: it notes the answer, made of what the method
// returns, in the transaction of the change.
func (c *call) noting(answer func(result any) any) *customers.Service {
	if c.key == nil {
		return c.a.o.Customers
	}
	return c.a.o.Customers.WithNote(func(ctx context.Context, tx *store.Tx, result any) error { return c.note(ctx, tx, answer(result)) })
}

// same is for noting: what the method returns is the answer.
func same(result any) any { return result }

// saved separates a change that is saved and not yet published from one that failed.
func (c *call) saved(err error) error {
	if errors.Is(err, customers.ErrUnpublished) {
		c.published(err)
		return nil
	}
	return err
}

// MaxUsedFrom is the largest part of a limit, in percent, that a list can be asked for.
const MaxUsedFrom = 1000

func (a *API) serveCustomers(c *call) (any, error) {
	p, err := c.readPage()
	if err != nil {
		return nil, err
	}
	status := control.CustomerStatus(c.r.URL.Query().Get("status"))
	switch status {
	case "", control.CustomerPending, control.CustomerActive, control.CustomerSuspended, control.CustomerCancelled:
	default:
		return nil, invalid("status", "there are pending, active, suspended and cancelled")
	}
	search := c.r.URL.Query().Get("search")
	if search != "" {
		if search, err = text("search", search, 200); err != nil {
			return nil, err
		}
	}
	of := control.CustomersFilter{Prefix: search, Status: status}
	if s := c.r.URL.Query().Get("used_from"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > MaxUsedFrom {
			return nil, invalid("used_from", fmt.Sprintf("it must be a whole number of percent in 0…%d", MaxUsedFrom))
		}
		of.UsedFrom = &n
	}
	list, err := a.o.Store.CustomersPage(c.ctx(), of, a.now(), p.after, p.limit+1)
	return listed(list, p, func(v control.ListedCustomer) string { return cursorOf(v.CreatedAt, v.ID) }), err
}

func (a *API) serveNewCustomer(c *call) (any, error) {
	var in NewCustomer
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	name, err := text("name", in.Name, 200)
	if err != nil {
		return nil, err
	}
	if in.Email != "" {
		if in.Email, err = email(in.Email); err != nil {
			return nil, err
		}
	}
	if _, err := a.o.Customers.Tiers.Get(in.Tier); err != nil {
		return nil, invalid("tier", "there is no such tier")
	}
	return c.noting(same).CreateCustomer(c.ctx(), c.actor(), customers.NewCustomer{Name: name, Email: in.Email, Tier: in.Tier})
}

func (a *API) serveCustomer(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var d CustomerDetails
	err = a.o.Store.ForCustomer(c.ctx(), id, func(tx *store.Tx) (err error) {
		if d.Account, err = tx.Account(c.ctx(), id); err != nil {
			return err
		}
		if d.Boxes, err = tx.Boxes(c.ctx(), id); err != nil {
			return err
		}
		if d.Tokens, err = tx.Tokens(c.ctx(), id); err != nil {
			return err
		}
		if d.Subscriptions, err = tx.Subscriptions(c.ctx(), id); err != nil {
			return err
		}
		d.Period, err = present(c.ctx(), tx, id, a.now())
		return err
	})
	if err != nil {
		return nil, err
	}
	a.addLive(c.ctx(), d.Period)
	d.Boxes, d.Tokens, d.Subscriptions = some(d.Boxes), some(d.Tokens), some(d.Subscriptions)
	return d, nil
}

func (a *API) serveCustomerUsage(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	from, to, err := c.interval(longestUsage)
	if err != nil {
		return nil, err
	}
	var u Usage
	err = a.o.Store.ForCustomer(c.ctx(), id, func(tx *store.Tx) (err error) {
		if _, err := tx.Account(c.ctx(), id); err != nil {
			return err
		}
		u, err = a.usage(c.ctx(), tx, id, from, to)
		return err
	})
	if err != nil {
		return nil, err
	}
	a.addLive(c.ctx(), u.Period)
	return u, nil
}

// serveStatus suspends or resumes.
func (a *API) serveStatus(change func(*customers.Service, context.Context, string, string, string) (control.Customer, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		id, err := c.pathID("id")
		if err != nil {
			return nil, err
		}
		reason, err := c.reason()
		if err != nil {
			return nil, err
		}
		customer, err := change(c.noting(same), c.ctx(), c.actor(), id, reason)
		return customer, c.saved(err)
	}
}

func (a *API) serveDeleteCustomer(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	return nil, c.saved(a.deleteCustomer(c, id))
}

// NewToken is a token to be made.
type NewToken struct {
	Box string `json:"box_id,omitempty" doc:"May be left out if the customer has one box."`
}

// CreatedToken is a new token.
type CreatedToken struct {
	control.ProxyToken
	Token string `json:"token,omitempty" doc:"The token itself. It is shown this once: not in lists, and not to who repeats the request."`
}

// Rotation is how a token is replaced.
type Rotation struct {
	Overlap int64 `json:"overlap_seconds,omitempty" doc:"For how long the old token is good beside the new one: at most a week; 0 revokes it at once."`
}

// maxOverlap is how long an old token may be good beside a new one.
const maxOverlap = 7 * 24 * time.Hour

// Rotated is a token that was replaced.
type Rotated struct {
	CreatedToken
	Replaced     string    `json:"replaced" doc:"The id of the old token."`
	RevokedAfter time.Time `json:"revoked_after" doc:"When the old token is revoked."`
}

func (a *API) serveTokens(c *call) (any, error) {
	p, err := c.readPage()
	if err != nil {
		return nil, err
	}
	customer, err := c.ofCustomer()
	if err != nil {
		return nil, err
	}
	list, err := a.o.Store.TokensPage(c.ctx(), customer, p.after, p.limit+1)
	return listed(list, p, func(v control.ProxyToken) string { return cursorOf(v.CreatedAt, v.ID) }), err
}

func (a *API) serveNewToken(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var in NewToken
	if len(c.body) > 0 {
		if err := c.decode(&in); err != nil {
			return nil, err
		}
	}
	if in.Box != "" && !plausibleID(in.Box) {
		return nil, invalid("box_id", "it is not an id")
	}
	service := c.noting(func(result any) any { return CreatedToken{ProxyToken: result.(control.ProxyToken)} })
	raw, token, err := service.CreateToken(c.ctx(), c.actor(), id, in.Box)
	if err = c.saved(err); err != nil {
		return nil, err
	}
	return CreatedToken{token, raw.Reveal()}, nil
}

func (a *API) serveRotateToken(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var in Rotation
	if len(c.body) > 0 {
		if err := c.decode(&in); err != nil {
			return nil, err
		}
	}
	overlap := time.Duration(in.Overlap) * time.Second
	if in.Overlap < 0 || in.Overlap > int64(maxOverlap/time.Second) {
		return nil, invalid("overlap_seconds", "it must be in 0…604800, a week")
	}
	shown := func(r customers.Rotated) Rotated {
		return Rotated{CreatedToken: CreatedToken{ProxyToken: r.Token}, Replaced: id, RevokedAfter: r.RevokedAfter}
	}
	service := c.noting(func(result any) any { return shown(result.(customers.Rotated)) })
	raw, r, err := service.RotateToken(c.ctx(), c.actor(), id, overlap)
	if err = c.saved(err); err != nil {
		return nil, err
	}
	out := shown(r)
	out.CreatedToken.Token = raw.Reveal()
	return out, nil
}

func (a *API) serveRevokeToken(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	token, err := a.o.Customers.RevokeToken(c.ctx(), c.actor(), id)
	return token, c.saved(err)
}
