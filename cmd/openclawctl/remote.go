package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/control/client"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// remote is the backend by the api.
type remote struct {
	c      *client.Client
	key    string // of the command line; "" makes one per request
	stderr io.Writer
}

// get asks for something.
func get[T any](ctx context.Context, c *client.Client, what, path string, query url.Values) (out T, err error) {
	_, err = c.Do(ctx, client.Request{Method: http.MethodGet, Path: path, Query: query, What: what}, &out)
	return out, err
}

// change sends what changes something, and says if an earlier attempt did it.
func (r *remote) change(ctx context.Context, req client.Request, out any) error {
	if req.Key == "" && req.Method == http.MethodPost {
		req.Key = r.key
	}
	answer, err := r.c.Do(ctx, req, out)
	if err != nil {
		return err
	}
	switch {
	case answer.Pending && answer.Replayed:
		// The answer was noted with the change, before anybody could be told.
		return fmt.Errorf("%s: %w", or(req.What, req.Path), errEarlier)
	case answer.Pending:
		return fmt.Errorf("%s: %w", or(req.What, req.Path), customers.ErrUnpublished)
	case answer.Replayed && r.key != "":
		fmt.Fprintln(r.stderr, "openclawctl: an earlier attempt did it; nothing was done again")
	}
	return nil
}

// errEarlier says that a change holds, and that what became of telling the proxies was in an
// answer that is lost.
var errEarlier = errors.New("an earlier attempt did it, and nothing was done again; the proxies may not know yet")

// holds reports whether a change is saved although err is not nil.
func holds(err error) bool {
	return errors.Is(err, customers.ErrUnpublished) || errors.Is(err, errEarlier)
}

// or is s, or if that is empty, otherwise.
func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (r *remote) createCustomer(ctx context.Context, n customers.NewCustomer) (out customers.Created, err error) {
	err = r.change(ctx, client.Request{
		Method: http.MethodPost, Path: "/v1/customers", Body: api.NewCustomer{Name: n.Name, Email: n.Email, Tier: n.Tier},
	}, &out)
	return out, err
}

func (r *remote) customers(ctx context.Context, of control.CustomersFilter, most int) ([]control.ListedCustomer, error) {
	q := url.Values{}
	if of.Status != "" {
		q.Set("status", string(of.Status))
	}
	if of.Prefix != "" {
		q.Set("search", of.Prefix)
	}
	if of.UsedFrom != nil {
		q.Set("used_from", strconv.Itoa(*of.UsedFrom))
	}
	return client.Every[control.ListedCustomer](ctx, r.c, "/v1/customers", q, most)
}

func (r *remote) setStatus(ctx context.Context, id, action, reason string) (out control.Customer, err error) {
	err = r.change(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("v1", "customers", id, action), Body: api.Reason{Reason: reason}, What: "customer " + id,
	}, &out)
	return out, err
}

// needReason asks for what the api wants, in the words of the command line.
func needReason(reason string) error {
	if reason == "" {
		return usageError{errors.New("--reason is required: the audit log says why")}
	}
	return nil
}

func (r *remote) suspend(ctx context.Context, id, reason string) (control.Customer, error) {
	if err := needReason(reason); err != nil {
		return control.Customer{}, err
	}
	return r.setStatus(ctx, id, "suspend", reason)
}

func (r *remote) resume(ctx context.Context, id, reason string) (control.Customer, error) {
	if err := needReason(reason); err != nil {
		return control.Customer{}, err
	}
	return r.setStatus(ctx, id, "resume", reason)
}

func (r *remote) createToken(ctx context.Context, customer, box string) (out api.CreatedToken, err error) {
	err = r.change(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("v1", "customers", customer, "tokens"), Body: api.NewToken{Box: box}, What: "customer " + customer,
	}, &out)
	return out, err
}

func (r *remote) rotateToken(ctx context.Context, id string, overlap time.Duration) (out api.Rotated, err error) {
	err = r.change(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("v1", "tokens", id, "rotate"), Body: api.Rotation{Overlap: int64(overlap / time.Second)}, What: "token " + id,
	}, &out)
	return out, err
}

func (r *remote) tokens(ctx context.Context, customer string) ([]control.ProxyToken, error) {
	if _, err := get[api.CustomerDetails](ctx, r.c, "customer "+customer, client.Path("v1", "customers", customer), nil); err != nil {
		return nil, err
	}
	return client.Every[control.ProxyToken](ctx, r.c, "/v1/tokens", url.Values{"customer": {customer}}, 0)
}

func (r *remote) revokeToken(ctx context.Context, id string) (out control.ProxyToken, err error) {
	err = r.change(ctx, client.Request{Method: http.MethodDelete, Path: client.Path("v1", "tokens", id), What: "token " + id}, &out)
	return out, err
}

func (r *remote) changeQuota(ctx context.Context, customer string, change customers.LimitChange) (quotaView, error) {
	if err := needReason(change.Reason); err != nil {
		return quotaView{}, err
	}
	body := api.QuotaChange{Action: api.QuotaAdd, Tokens: change.Add, Reason: api.Reason{Reason: change.Reason}}
	switch {
	case change.To != nil:
		body.Action, body.Tokens = api.QuotaSet, *change.To
	case change.Reset:
		body.Action = api.QuotaReset
	}
	var out api.QuotaChanged
	err := r.change(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("v1", "customers", customer, "quota"), Body: body, What: "customer " + customer,
	}, &out)
	if err != nil && !holds(err) {
		return quotaView{}, err
	}
	v := quotaView{
		periodView: periodView{UsagePeriod: out.UsagePeriod, Used: out.Totals.Settled, Left: max(out.LimitTokens-out.Totals.Settled, 0)},
		Before:     out.Before, Replicas: out.Replicas,
	}
	// What is used of it is told better by who asks for it. Without that it is as above.
	if p, perr := r.quota(ctx, customer); perr == nil && p.ID == v.ID {
		v.Used, v.Left, v.Live = p.Used, max(v.LimitTokens-p.Used, 0), p.Live
	}
	return v, err
}

func (r *remote) quota(ctx context.Context, customer string) (periodView, error) {
	p, err := get[api.PeriodUsage](ctx, r.c, "customer "+customer, client.Path("v1", "customers", customer, "quota"), nil)
	return viewOf(p), err
}

func viewOf(p api.PeriodUsage) periodView {
	return periodView{UsagePeriod: p.UsagePeriod, Used: p.Used, Left: p.Left, Live: p.Live}
}

func (r *remote) usage(ctx context.Context, q usageQuery) (usageView, error) {
	if q.own {
		return usageView{}, usageError{errors.New("--periods and --events are read from Postgres: give --direct too, with DATABASE_URL and REDIS_URL")}
	}
	query := url.Values{}
	if !q.from.IsZero() {
		query.Set("from", q.from.Format(time.RFC3339))
		query.Set("to", q.to.Format(time.RFC3339))
	}
	u, err := get[api.Usage](ctx, r.c, "customer "+q.customer, client.Path("v1", "customers", q.customer, "usage"), query)
	v := usageView{Periods: []periodView{}, Days: nonNil(u.Days)}
	if u.Period != nil {
		v.Periods = append(v.Periods, viewOf(*u.Period))
	}
	return v, err
}

func (r *remote) platformUsage(ctx context.Context) (api.PlatformUsage, error) {
	return get[api.PlatformUsage](ctx, r.c, "", "/v1/usage", nil)
}

func (r *remote) deadLetters(ctx context.Context, all bool, most int) ([]control.DeadLetter, error) {
	return client.Every[control.DeadLetter](ctx, r.c, "/v1/dead-letters", url.Values{"all": {strconv.FormatBool(all)}}, most)
}

func letter(id int64, action ...string) (what, path string) {
	return "dead letter " + number(id), client.Path(append([]string{"v1", "dead-letters", number(id)}, action...)...)
}

func (r *remote) deadLetter(ctx context.Context, id int64) (control.DeadLetter, error) {
	what, path := letter(id)
	return get[control.DeadLetter](ctx, r.c, what, path, nil)
}

// keyFor is the key of one of several requests of a command.
func (r *remote) keyFor(id int64) string {
	if r.key == "" {
		return ""
	}
	return r.key + "-" + number(id)
}

func (r *remote) replay(ctx context.Context, id int64) (out api.Replayed, err error) {
	what, path := letter(id, "replay")
	err = r.change(ctx, client.Request{Method: http.MethodPost, Path: path, What: what, Key: r.keyFor(id)}, &out)
	return out, err
}

func (r *remote) drop(ctx context.Context, id int64, reason string) error {
	what, path := letter(id, "drop")
	return r.change(ctx, client.Request{Method: http.MethodPost, Path: path, What: what, Key: r.keyFor(id), Body: api.Reason{Reason: reason}}, nil)
}

func (r *remote) replicas(ctx context.Context, most int) ([]control.Replica, error) {
	l, err := get[api.List[control.Replica]](ctx, r.c, "", "/v1/replicas", nil)
	return l.Items[:min(most, len(l.Items))], err
}
