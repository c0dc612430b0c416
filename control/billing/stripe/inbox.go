package stripe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stripe/stripe-go/v76/webhook"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// MaxBody is the longest body of a webhook that is read, in bytes.
const MaxBody = 1 << 20

// ErrForged: a webhook is not signed by Stripe, or was signed too long ago.
var ErrForged = errors.New("the webhook's signature does not hold")

// ErrTooLarge: a webhook's body is longer than MaxBody.
var ErrTooLarge = errors.New("the webhook's body is too long")

// InboxOptions are what an Inbox needs.
type InboxOptions struct {
	Store *store.Store
	// Secrets are those of the webhook endpoint; while they are rotated, the old one and
	// the new one. One at least.
	Secrets []string
	// Tolerance is how long ago a webhook may have been signed. Default 5 min.
	Tolerance time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// Inbox keeps webhooks for the Processor. It is safe for concurrent use.
type Inbox struct {
	o        InboxOptions
	received *prometheus.CounterVec
}

// NewInbox checks o.
func NewInbox(o InboxOptions) (*Inbox, error) {
	if o.Store == nil || len(o.Secrets) == 0 {
		return nil, errors.New("stripe inbox: a store and a webhook secret are required")
	}
	for _, secret := range o.Secrets {
		if secret == "" {
			return nil, errors.New("stripe inbox: a webhook secret is empty: anyone could sign with it")
		}
	}
	if o.Tolerance <= 0 {
		o.Tolerance = webhook.DefaultTolerance
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	i := &Inbox{o: o, received: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "billing_stripe_webhooks_total",
		Help: "Webhooks by what became of them: kept, repeated, other_version (kept as well, but the endpoint has to be set to our API version), forged, malformed or failed.",
	}, []string{"result"})}
	for _, result := range []string{"kept", "repeated", "other_version", "forged", "malformed", "failed"} {
		i.received.WithLabelValues(result)
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(i.received); err != nil {
			return nil, fmt.Errorf("stripe inbox: register metrics: %w", err)
		}
	}
	return i, nil
}

// Receive keeps a webhook: body as it came, byte for byte, and the Stripe-Signature
// header. With nil the event is kept, now or before, and Stripe may be told so.
// control.ErrInvalid, of which ErrForged and ErrTooLarge are two kinds, is the sender's doing;
// with any other error Stripe should send it again.
func (i *Inbox) Receive(ctx context.Context, body []byte, signature string) error {
	result, err := i.receive(ctx, body, signature)
	i.received.WithLabelValues(result).Inc()
	if err != nil {
		return fmt.Errorf("receive webhook: %w", err)
	}
	return nil
}

func (i *Inbox) receive(ctx context.Context, body []byte, signature string) (result string, err error) {
	if len(body) > MaxBody {
		return "malformed", fmt.Errorf("%w: %w", control.ErrInvalid, ErrTooLarge)
	}
	if err := i.verify(body, signature); err != nil {
		return "forged", fmt.Errorf("%w: %w: %w", control.ErrInvalid, ErrForged, err)
	}
	e, err := parseEvent(body)
	if err != nil {
		return "malformed", fmt.Errorf("%w: %w", control.ErrInvalid, err)
	}
	fresh, err := i.o.Store.InsertStripeEvent(ctx, e)
	switch {
	case err != nil:
		return "failed", err
	case !fresh:
		return "repeated", nil
	case e.APIVersion != APIVersion:
		i.o.Logger.WarnContext(ctx, "Stripe sent an event of another API version; run \"openclawctl billing bootstrap\"",
			"event", e.ID, "type", e.Type, "version", e.APIVersion, "wanted", APIVersion)
		return "other_version", nil
	}
	return "kept", nil
}

// verify wants a signature by any of the secrets. It says nothing of which one nearly held.
func (i *Inbox) verify(body []byte, signature string) error {
	var last error
	for _, secret := range i.o.Secrets {
		last = webhook.ValidatePayloadWithTolerance(body, signature, secret, i.o.Tolerance)
		if last == nil {
			return nil
		}
	}
	return last
}

// payload is what is read of an event.
type payload struct {
	ID         string `json:"id"`
	Object     string `json:"object"`
	Type       string `json:"type"`
	APIVersion string `json:"api_version"`
	Created    int64  `json:"created"`
	Data       struct {
		Object json.RawMessage `json:"object"`
	} `json:"data"`
}

func parseEvent(body []byte) (control.StripeEvent, error) {
	var p payload
	if !utf8.Valid(body) {
		return control.StripeEvent{}, errors.New("the body is no UTF-8")
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return control.StripeEvent{}, errors.New("the body is no event in JSON")
	}
	plain := func(s string) bool {
		return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' })
	}
	switch {
	case p.Object != "event" || !strings.HasPrefix(p.ID, "evt_") || !plain(p.ID) || !plain(p.Type):
		return control.StripeEvent{}, errors.New("the body is no event")
	case len(p.APIVersion) > 255 || strings.ContainsRune(p.APIVersion, 0):
		return control.StripeEvent{}, errors.New("its API version is none")
	case p.Created <= 0 || p.Created > 1<<40:
		return control.StripeEvent{}, errors.New("it has no time")
	case len(p.Data.Object) == 0 || p.Data.Object[0] != '{':
		return control.StripeEvent{}, errors.New("it is about no object")
	}
	return control.StripeEvent{
		ID: p.ID, Type: p.Type, APIVersion: p.APIVersion, CreatedAt: time.Unix(p.Created, 0).UTC(), Payload: body,
	}, nil
}

// reference is what is read of an event's object.
type reference struct {
	ID           string     `json:"id"`
	Subscription expandable `json:"subscription"`
}

// expandable is an id, alone or as that of a whole object.
type expandable string

// UnmarshalJSON takes both forms, and null.
func (e *expandable) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var o struct {
			ID string `json:"id"`
		}
		err := json.Unmarshal(b, &o)
		*e = expandable(o.ID)
		return err
	}
	var s *string
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return err
	}
	*e = expandable(*s)
	return nil
}
