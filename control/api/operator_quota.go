package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// QuotaAction is how a limit is changed.
type QuotaAction string

// The actions.
const (
	QuotaSet   QuotaAction = "set"   // to Tokens
	QuotaAdd   QuotaAction = "add"   // Tokens, which may be negative
	QuotaReset QuotaAction = "reset" // to what the price includes, with what is paid for on top
)

// QuotaChange changes the limit of the present period.
type QuotaChange struct {
	Action QuotaAction `json:"action"`
	Tokens int64       `json:"tokens,omitempty" doc:"Weighted tokens; not with reset."`
	Reason
}

// QuotaChanged is a limit that was changed.
type QuotaChanged struct {
	control.UsagePeriod
	Before int64 `json:"limit_tokens_before"`
	// Replicas says which proxies apply the new limit. It is left out where nobody was asked.
	Replicas *Replicas `json:"replicas,omitempty" doc:"Left out if it is not known which proxies apply the new limit."`
}

// Replicas says which proxies have applied a change, and how long that took.
type Replicas struct {
	All     bool                      `json:"all_applied" doc:"All proxies that live apply it."`
	TookMS  float64                   `json:"took_ms" doc:"From when the change was asked for until the last of them did, or until they were not waited for any more."`
	Applied []control.Acknowledgement `json:"applied"`
}

func (a *API) serveQuota(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var p *PeriodUsage
	err = a.o.Store.ForCustomer(c.ctx(), id, func(tx *store.Tx) (err error) { p, err = present(c.ctx(), tx, id, a.now()); return err })
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, fail(kindNotFound(), "The customer has no present period.")
	}
	a.addLive(c.ctx(), p)
	return p, nil
}

func (a *API) serveChangeQuota(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var in QuotaChange
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	change := customers.LimitChange{Reason: in.Reason.Reason}
	switch in.Action {
	case QuotaSet:
		change.To = &in.Tokens
	case QuotaAdd:
		change.Add = in.Tokens
	case QuotaReset:
		change.Reset = true
	default:
		return nil, invalid("action", "there are set, add and reset")
	}
	switch {
	case in.Action == QuotaSet && in.Tokens < 0:
		return nil, invalid("tokens", "it must not be negative")
	case in.Action == QuotaAdd && in.Tokens == 0:
		return nil, invalid("tokens", "it must not be 0")
	case in.Action == QuotaReset && in.Tokens != 0:
		return nil, invalid("tokens", "leave it out: the tier says it")
	}
	service := c.noting(func(result any) any {
		r := result.(customers.LimitChanged)
		return QuotaChanged{UsagePeriod: r.Period, Before: r.Before}
	})
	began := time.Now()
	changed, err := service.ChangeLimit(c.ctx(), c.actor(), id, change)
	unpublished := errors.Is(err, customers.ErrUnpublished)
	if err = c.saved(err); err != nil {
		return nil, err
	}
	out := QuotaChanged{UsagePeriod: changed.Period, Before: changed.Before}
	if !unpublished && a.o.Feed != nil {
		out.Replicas = a.await(c, began)
	}
	return out, nil
}

const (
	// aliveFor is how long a proxy that was not heard of is waited for, and counts as one that
	// lives. Those that ended well leave the register at once.
	aliveFor = 15 * time.Second
	// askEvery is how often Redis is asked whether they apply a change.
	askEvery = 4 * time.Millisecond
)

// await waits until the proxies apply what was published up to now. nil if that cannot be
// told.
func (a *API) await(c *call, began time.Time) *Replicas {
	ctx, cancel := context.WithTimeout(c.ctx(), a.o.AwaitApplied)
	defer cancel()
	r, err := a.follow(ctx, began)
	if err != nil {
		a.o.Logger.Warn("cannot tell which proxies apply a change", "request_id", c.id, "error", err)
		return nil
	}
	return r
}

func (a *API) follow(ctx context.Context, began time.Time) (*Replicas, error) {
	state, err := a.o.Feed.State(ctx)
	if err != nil {
		return nil, err
	}
	known, err := a.o.Store.Replicas(ctx, maxPageLen)
	if err != nil {
		return nil, err
	}
	r := &Replicas{Applied: []control.Acknowledgement{}}
	var left []string
	for _, k := range known {
		if registered(k) && a.now().Sub(lastHeard(k)) < aliveFor {
			left = append(left, k.ID)
		}
	}
	for len(left) > 0 {
		applied, err := a.o.Feed.Applied(ctx, left)
		if err != nil && !over(ctx) {
			return nil, err
		}
		r.TookMS = millisecondsSince(began)
		left = slices.DeleteFunc(left, func(id string) bool {
			if applied[id] < state.Seq {
				return false
			}
			r.Applied = append(r.Applied, control.Acknowledgement{Replica: id, Applied: true, AfterMS: r.TookMS})
			return true
		})
		if len(left) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			for _, id := range left {
				r.Applied = append(r.Applied, control.Acknowledgement{Replica: id})
			}
			r.TookMS = millisecondsSince(began)
			return r, nil
		case <-time.After(askEvery):
		}
	}
	r.All = true
	return r, nil
}

// registered reports whether a proxy is on the register, and not lost.
func registered(r control.Replica) bool {
	return r.Status == control.ReplicaLive && !r.RegisteredAt.IsZero()
}

// lastHeard is when a registered proxy was heard of last. The first sign of life after its
// registration is noted seconds later.
func lastHeard(r control.Replica) time.Time {
	if r.RegisteredAt.After(r.LastBeat) {
		return r.RegisteredAt
	}
	return r.LastBeat
}

// over reports whether the time of ctx is up. Connections know of its deadline, and may fail by it
// before ctx itself says that it has passed.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

func millisecondsSince(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }
