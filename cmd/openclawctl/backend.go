package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// backend does what both ways can: by the api (remote), or on the databases themselves
// (session). Changes that are saved and may not be known to all proxies come with their result
// and an error that holds.
type backend interface {
	createCustomer(ctx context.Context, n customers.NewCustomer) (customers.Created, error)
	// customers lists customers; most is how many, 0 for all.
	customers(ctx context.Context, of control.CustomersFilter, most int) ([]control.ListedCustomer, error)
	suspend(ctx context.Context, id, reason string) (control.Customer, error)
	resume(ctx context.Context, id, reason string) (control.Customer, error)

	// createToken returns no token, only what is known of it, if an earlier attempt made it.
	createToken(ctx context.Context, customer, box string) (api.CreatedToken, error)
	tokens(ctx context.Context, customer string) ([]control.ProxyToken, error)
	revokeToken(ctx context.Context, id string) (control.ProxyToken, error)

	changeQuota(ctx context.Context, customer string, change customers.LimitChange) (quotaView, error)
	quota(ctx context.Context, customer string) (periodView, error)
	usage(ctx context.Context, q usageQuery) (usageView, error)
	platformUsage(ctx context.Context) (api.PlatformUsage, error)

	deadLetters(ctx context.Context, all bool, most int) ([]control.DeadLetter, error)
	deadLetter(ctx context.Context, id int64) (control.DeadLetter, error)
	replay(ctx context.Context, id int64) (api.Replayed, error)
	drop(ctx context.Context, id int64, reason string) error
	replicas(ctx context.Context, most int) ([]control.Replica, error)
}

// on runs what both ways can do.
func (a *app) on(cmd *cobra.Command, do func(context.Context, backend) error) error {
	w, err := a.chosen()
	if err != nil {
		return err
	}
	if w == byDatabase {
		return a.with(cmd, func(ctx context.Context, s *session) error { return do(ctx, s) })
	}
	return a.api(cmd, func(ctx context.Context, c *client.Client) error {
		return do(ctx, &remote{c: c, key: a.key, stderr: cmd.ErrOrStderr()})
	})
}

// periodView is a period with what is used and left of its limit, in weighted tokens.
type periodView struct {
	control.UsagePeriod
	Used int64 `json:"used_tokens"`
	Left int64 `json:"left_tokens"`
	// Live says that Used is what the proxies have settled, and not only what Postgres has,
	// which follows by less than a second.
	Live bool `json:"live"`
	// Redis is what the proxies go by; nil without an answer of Redis, and by the api.
	Redis *liveUsage `json:"redis,omitempty"`
}

type liveUsage struct {
	Limit   int64 `json:"limit_tokens"`
	Settled int64 `json:"settled_tokens"`
	Held    int64 `json:"held_tokens"` // leased by proxies: in flight, not yet settled, or spare
}

// live are the columns of what the proxies know.
func (p *periodView) live() (settled, held string) {
	switch {
	case p.Redis != nil:
		return number(p.Redis.Settled), number(p.Redis.Held)
	case p.Live:
		return number(p.Used), "-"
	}
	return "?", "?"
}

// quotaView is a limit that was changed.
type quotaView struct {
	periodView
	Before int64 `json:"limit_tokens_before"`
	// Replicas says which proxies apply it; nil if that is not known.
	Replicas *api.Replicas `json:"replicas,omitempty"`
}

// usageQuery is what of a customer's use is asked for.
type usageQuery struct {
	customer        string
	from, to        time.Time // of the days; zero for the present period
	periods, events int       // how many; without the api only
	own             bool      // periods or events are asked for in so many words
}

// usageView is what a customer used.
type usageView struct {
	Periods []periodView         `json:"periods"`
	Days    []control.UsageShare `json:"days"`
	Events  []contract.Event     `json:"events,omitempty"` // by the api never
}
