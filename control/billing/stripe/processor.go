package stripe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	api "github.com/stripe/stripe-go/v76"
	"golang.org/x/sync/errgroup"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	// eventLease is the default of ProcessorOptions.Lease.
	eventLease = 2 * time.Minute
	// eventPage is how many events are claimed at once, few enough for the lease when Stripe
	// is slow, and eventsAtOnce how many of them are worked side by side.
	eventPage    = 8
	eventsAtOnce = 4
	// retryMax is the longest pause between two attempts at an event.
	retryMax = time.Hour
	// actor is who the audit log names.
	actor = "stripe"
)

// Mailer puts mails into the outbox; see jobs.Jobs.
type Mailer interface {
	AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (fresh bool, err error)
}

// ProcessorOptions are what a Processor needs.
type ProcessorOptions struct {
	Account   *Account
	Customers *customers.Service // with its Store
	Mails     Mailer
	// Lease is how long an event may be in hand before whoever has it is taken for dead, and
	// another one works it. Longer than Stripe may take to answer. Default 2 min.
	Lease time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// Processor works the inbox. Any number may run; each is safe for concurrent use.
type Processor struct {
	o       ProcessorOptions
	store   *store.Store
	events  *prometheus.CounterVec
	waiting prometheus.Gauge
	failing prometheus.Gauge
	oldest  prometheus.Gauge
	second  prometheus.Counter

	reports, reportsFailing, reportsOldest prometheus.Gauge

	mu    sync.Mutex
	again map[string]pause // by subscription: see SyncOverdue
}

type pause struct {
	until time.Time
	last  time.Duration
}

// NewProcessor checks o.
func NewProcessor(o ProcessorOptions) (*Processor, error) {
	if o.Account == nil || o.Customers == nil || o.Customers.Store == nil || o.Mails == nil {
		return nil, errors.New("stripe processor: an account, customers with their store, and mails are required")
	}
	if o.Lease <= 0 {
		o.Lease = eventLease
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	p := &Processor{
		o: o, store: o.Customers.Store, again: make(map[string]pause),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "billing_stripe_events_total", Help: "Events by what became of them: applied, ignored (they are about no subscription of ours) or failed (they are tried again).",
		}, []string{"result"}),
		waiting: gauge("billing_stripe_inbox_events", "Events of the inbox that are not processed."),
		failing: gauge("billing_stripe_inbox_failing", "Events of the inbox that were tried in vain; they are tried again, and someone should look why."),
		second: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "billing_stripe_second_subscriptions_total",
			Help: "Subscriptions that were cancelled because their customer had bought another one, or is cancelled itself; someone should see whether money has to go back.",
		}),
		oldest: gauge("billing_stripe_inbox_oldest_seconds", "Age of the oldest event that is not processed; 0 without any."),

		reports: gauge("billing_stripe_reports_waiting", "Reports of what was used above limits that Stripe is not known to have."),
		reportsFailing: gauge("billing_stripe_reports_failing",
			"Reports of what was used above limits that were sent in vain; they are tried again, and someone should look why."),
		reportsOldest: gauge("billing_stripe_reports_oldest_seconds", "Age of the oldest report that Stripe is not known to have; 0 without any."),
	}
	for _, result := range []string{"applied", "ignored", "failed"} {
		p.events.WithLabelValues(result)
	}
	if o.Registerer == nil {
		return p, nil
	}
	for _, c := range []prometheus.Collector{p.events, p.waiting, p.failing, p.oldest, p.second, p.reports, p.reportsFailing, p.reportsOldest} {
		if err := o.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("stripe processor: register metrics: %w", err)
		}
	}
	return p, nil
}

// ProcessDue works all events that are due, and returns how many it has done with. An event
// that fails is tried again later, and holds up no other one.
func (p *Processor) ProcessDue(ctx context.Context) (int, error) {
	done := 0
	for {
		list, err := p.store.ClaimStripeEvents(ctx, p.o.Lease, eventPage)
		if err != nil || len(list) == 0 {
			return done, err
		}
		var work errgroup.Group
		work.SetLimit(eventsAtOnce)
		var mu sync.Mutex
		var errs []error
		for _, e := range list {
			work.Go(func() error {
				err := p.work(ctx, e)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					done++
				} else if len(errs) < 5 {
					errs = append(errs, err)
				}
				return nil
			})
		}
		_ = work.Wait() // the errors are in errs
		if err := errors.Join(errs...); err != nil || ctx.Err() != nil {
			return done, err
		}
	}
}

// Observe sets the metrics of what waits, in the inbox and for Stripe.
func (p *Processor) Observe(ctx context.Context) error {
	in, err := p.store.StripeInbox(ctx)
	if err != nil {
		return err
	}
	p.waiting.Set(float64(in.Waiting))
	p.failing.Set(float64(in.Failing))
	p.oldest.Set(in.Oldest.Seconds())
	reports, err := p.store.MeterQueue(ctx)
	if err != nil {
		return err
	}
	p.reports.Set(float64(reports.Waiting))
	p.reportsFailing.Set(float64(reports.Failing))
	p.reportsOldest.Set(reports.Oldest.Seconds())
	return nil
}

// work does with one event, and notes it if that fails.
func (p *Processor) work(ctx context.Context, e control.StripeEvent) error {
	result, err := p.process(ctx, e)
	if err == nil || errors.Is(err, control.ErrConflict) {
		p.events.WithLabelValues(result).Inc()
		return nil
	}
	p.events.WithLabelValues("failed").Inc()
	err = fmt.Errorf("process Stripe event %s (%s): %w", e.ID, e.Type, err)
	// Also while the worker is being stopped: otherwise the event waits for its lease.
	note, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if ctx.Err() != nil {
		return errors.Join(err, p.store.FailStripeEvent(note, e, "the worker was stopped", time.Second))
	}
	return errors.Join(err, p.store.FailStripeEvent(note, e, err.Error(), retryAfter(e.Attempts)))
}

// retryAfter is 1 s after the first attempt, and twice as long after each further one.
func retryAfter(attempts int) time.Duration {
	return min(time.Second<<min(max(attempts-1, 0), 20), retryMax)
}

// process does what an event asks for: it looks at the subscription that it is about.
func (p *Processor) process(ctx context.Context, e control.StripeEvent) (result string, err error) {
	id, err := p.about(ctx, e)
	if err != nil {
		return "failed", err
	}
	if id == "" {
		return "ignored", p.store.NoteStripeEvent(ctx, e)
	}
	finished := false
	err = p.sync(ctx, id, func(ctx context.Context, tx *store.Tx, r reading, b customers.Billed, amiss bool) error {
		if api.EventType(e.Type) == api.EventTypeCustomerSubscriptionTrialWillEnd {
			if err := p.trialEnding(ctx, tx, r, b); err != nil {
				return err
			}
		}
		if finished = !amiss; amiss {
			return nil
		}
		return tx.FinishStripeEvent(ctx, e)
	})
	if errors.Is(err, errForeign) {
		return "ignored", p.store.NoteStripeEvent(ctx, e)
	}
	if err == nil && !finished {
		// It is done with only now that Stripe was put right: until then it comes again.
		err = p.store.NoteStripeEvent(ctx, e)
	}
	return "applied", err
}

// about returns the subscription that an event is about, "" if none. Objects of another
// version of the API are asked for anew.
func (p *Processor) about(ctx context.Context, e control.StripeEvent) (string, error) {
	kind := api.EventType(e.Type)
	switch kind {
	case api.EventTypeCheckoutSessionCompleted,
		api.EventTypeInvoicePaymentSucceeded, api.EventTypeInvoicePaymentFailed, api.EventTypeInvoicePaymentActionRequired,
		api.EventTypeCustomerSubscriptionCreated, api.EventTypeCustomerSubscriptionUpdated,
		api.EventTypeCustomerSubscriptionDeleted, api.EventTypeCustomerSubscriptionTrialWillEnd:
	default:
		return "", nil
	}
	var body payload
	var ref reference
	if err := json.Unmarshal(e.Payload, &body); err != nil {
		return "", err
	}
	err := json.Unmarshal(body.Data.Object, &ref)
	known := e.APIVersion == APIVersion
	switch {
	case known && err != nil:
		return "", err
	case strings.HasPrefix(e.Type, "customer.subscription."):
		return ref.ID, nil
	case known:
		return string(ref.Subscription), nil
	case kind == api.EventTypeCheckoutSessionCompleted:
		cs, err := p.o.Account.sessions().Get(ref.ID, &api.CheckoutSessionParams{Params: api.Params{Context: ctx}})
		if err != nil || cs.Subscription == nil {
			return "", failure("read checkout session "+ref.ID, err)
		}
		return cs.Subscription.ID, nil
	}
	in, err := p.o.Account.invoices().Get(ref.ID, &api.InvoiceParams{Params: api.Params{Context: ctx}})
	if err != nil || in.Subscription == nil {
		return "", failure("read invoice "+ref.ID, err)
	}
	return in.Subscription.ID, nil
}

// Sync asks Stripe for a subscription, and makes its customer what follows from it, as an
// event would have it done.
func (p *Processor) Sync(ctx context.Context, subscription string) error {
	return p.sync(ctx, subscription, nil)
}

// applied is called in the transaction in which an answer of Stripe was applied. amiss says
// that Stripe is to be put right afterwards.
type applied func(ctx context.Context, tx *store.Tx, r reading, b customers.Billed, amiss bool) error

// sync tries again when another subscription of the customer was heard of meanwhile.
func (p *Processor) sync(ctx context.Context, id string, also applied) error {
	const tries = 3
	for try := 1; ; try++ {
		if err := p.syncOnce(ctx, id, also); try == tries || !errors.Is(err, control.ErrExists) {
			return err
		}
	}
}

func (p *Processor) syncOnce(ctx context.Context, id string, also applied) error {
	r, err := p.read(ctx, id)
	if err != nil {
		return err
	}
	// Of two that are live only one counts.
	counts, other, err := p.rivals(ctx, r)
	if err != nil {
		return err
	}
	amiss := false
	within := func(ctx context.Context, tx *store.Tx, b customers.Billed) error {
		if err := p.tell(ctx, tx, counts, b); err != nil {
			return err
		}
		if amiss, err = p.amiss(ctx, tx, counts, b); err != nil || also == nil {
			return err
		}
		return also(ctx, tx, counts, b, amiss)
	}
	var b customers.Billed
	if other == nil {
		b, err = p.o.Customers.ApplySubscription(ctx, actor, counts.StripeSubscription, counts.readAt, within)
	} else {
		b, err = p.o.Customers.ReplaceSubscription(ctx, actor, counts.StripeSubscription, counts.readAt,
			customers.Replaced{StripeSubscription: other.StripeSubscription, ReadAt: other.readAt}, within)
	}
	if errors.Is(err, customers.ErrUnpublished) {
		// It is committed. Whoever publishes what waits does it as soon as Redis answers.
		p.o.Logger.WarnContext(ctx, "a change of a subscription is not published yet", "customer", r.CustomerID, "error", err)
		err = nil
	}
	if err != nil {
		return err
	}
	if !amiss {
		return nil
	}
	return p.putRight(ctx, counts, b)
}

// read asks Stripe for a subscription, and whose it is. One that is nothing of ours is errForeign:
// it is not for what is sold here, or of a customer of Stripe that was not made here.
func (p *Processor) read(ctx context.Context, id string) (reading, error) {
	// Taken before Stripe is asked: of two answers the one that was asked for later is
	// at least as new.
	readAt, err := p.store.Clock(ctx)
	if err != nil {
		return reading{}, err
	}
	r, err := p.o.Account.subscription(ctx, id)
	if errors.Is(err, errForeign) {
		return r, p.foreign(ctx, id, err)
	}
	if err != nil {
		return r, err
	}
	account, err := p.store.AccountByStripeID(ctx, r.customer)
	if errors.Is(err, control.ErrNotFound) {
		return r, p.stranger(ctx, r, err)
	}
	r.CustomerID, r.readAt = account.ID, readAt
	return r, err
}

// foreign returns err for a subscription that is for nothing that is sold here, unless it once
// was: that its prices were taken away, someone has to look at.
func (p *Processor) foreign(ctx context.Context, id string, err error) error {
	known := p.store.InTx(ctx, func(tx *store.Tx) error {
		_, err := tx.Subscription(ctx, id)
		return err
	})
	if errors.Is(known, control.ErrNotFound) {
		return err
	}
	if known != nil {
		return known
	}
	return fmt.Errorf("read subscription %s: %w: none of its prices is a tier's", id, control.ErrInvalid)
}

// stranger returns err for a subscription of somebody that is not known here, but was made known
// to Stripe here, and errForeign for one of anybody else: nobody can be served for that.
func (p *Processor) stranger(ctx context.Context, r reading, err error) error {
	params := &api.CustomerParams{}
	params.Context = ctx
	c, gerr := p.o.Account.customers().Get(r.customer, params)
	if gerr != nil {
		return failure("read customer "+r.customer, gerr)
	}
	if c.Metadata["customer_id"] != "" {
		return err
	}
	p.o.Logger.ErrorContext(ctx, "somebody who never signed up has a subscription; nobody is served for it", "stripe_customer", r.customer, "subscription", r.ID)
	return fmt.Errorf("read subscription %s: %w", r.ID, errForeign)
}

// tell puts the mails into the outbox that follow from an answer of Stripe. What was told
// for the same cause is not told again.
func (p *Processor) tell(ctx context.Context, tx *store.Tx, r reading, b customers.Billed) error {
	add := func(kind, cause string) error {
		_, err := p.o.Mails.AddMail(ctx, tx, control.Mail{
			CustomerID: b.Customer.ID, Kind: kind, Cause: cause, Params: p.params(r, b),
		})
		return err
	}
	if b.After.ReplacedBy != "" {
		return nil
	}
	switch b.Turn {
	case customers.TurnActivated:
		if b.Returned {
			return add(control.MailWelcome, b.After.ID)
		}
		return add(control.MailWelcome, b.Customer.ID)
	case customers.TurnSuspended:
		return add(control.MailSuspended, b.After.ID+"/"+r.invoice)
	case customers.TurnResumed:
		return add(control.MailBack, b.After.ID+"/"+r.invoice)
	case customers.TurnCancelled:
		return add(control.MailCancelled, b.After.ID)
	}
	// An answer that a newer one has overtaken names another invoice, perhaps.
	n := b.After.FailedPayments
	if b.After.Status == control.SubscriptionPastDue && n == r.FailedPayments && 0 < n && n < customers.MaxFailedPayments {
		return add(control.MailPaymentFailed, fmt.Sprintf("%s/%d", r.invoice, n))
	}
	return nil
}

func (p *Processor) trialEnding(ctx context.Context, tx *store.Tx, r reading, b customers.Billed) error {
	if b.After.Status != control.SubscriptionTrialing || r.trialEnd.IsZero() || b.After.ReplacedBy != "" {
		return nil
	}
	_, err := p.o.Mails.AddMail(ctx, tx, control.Mail{
		CustomerID: b.Customer.ID, Kind: control.MailTrialEnding, Cause: fmt.Sprintf("%s/%d", b.After.ID, r.trialEnd.Unix()),
		Params: p.params(r, b),
	})
	return err
}

// params are what mails say; all kinds get the same.
func (p *Processor) params(r reading, b customers.Billed) map[string]any {
	out := map[string]any{
		"name": b.Customer.Name, "tier": b.After.Tier, "period_end": b.After.PeriodEnd.Format(time.DateOnly),
		"attempt": b.After.FailedPayments, "attempts_left": max(customers.MaxFailedPayments-b.After.FailedPayments, 0),
	}
	if tier, err := p.o.Customers.Tiers.Get(b.After.Tier); err == nil {
		out["tier"], out["tokens"] = tier.Title, tier.MonthlyTokens
	}
	if r.payURL != "" {
		out["pay_url"] = r.payURL
	}
	if !r.trialEnd.IsZero() {
		out["trial_end"] = r.trialEnd.Format(time.DateOnly)
	}
	return out
}

const (
	overduePage     = 200
	overdueFirst    = 5 * time.Second
	overduePauseMax = 5 * time.Minute
)

// SyncOverdue asks Stripe for live subscriptions whose period should be over, and whose
// renewal no event has told of, and returns how many it asked for. One that Stripe has not
// renewed either is asked for again after growing pauses.
func (p *Processor) SyncOverdue(ctx context.Context) (int, error) {
	now := p.o.Customers.Clock()
	list, err := p.store.OverdueSubscriptions(ctx, now, overduePage)
	if err != nil {
		return 0, err
	}
	asked := 0
	var errs []error
	due := make(map[string]pause, len(list))
	for _, v := range list {
		p.mu.Lock()
		wait := p.again[v.ID]
		p.mu.Unlock()
		if time.Now().After(wait.until) && ctx.Err() == nil {
			asked++
			wait.last = min(max(2*wait.last, overdueFirst), overduePauseMax)
			wait.until = time.Now().Add(wait.last)
			if err := p.Sync(ctx, v.ID); err != nil {
				errs = append(errs, fmt.Errorf("renew subscription %s: %w", v.ID, err))
			}
		}
		due[v.ID] = wait
	}
	p.mu.Lock()
	p.again = due
	p.mu.Unlock()
	return asked, errors.Join(errs...)
}
