package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/callers"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Rate is how many requests are let through: PerSecond on average, Burst at once.
type Rate = callers.Rate

// Billing is what customers do about money. Without it the routes answer 503. What does not
// fit the customer's state, such as a second subscription or a change without one, is
// control.ErrExists or control.ErrInvalid; with customers.ErrUnpublished a change is made, and
// shows a little later. See stripe.Billing.
type Billing interface {
	// CheckoutURL returns where the customer pays for a tier. Asked again it is the same
	// checkout, or one that cannot be paid beside it. With an open invoice it is a
	// *control.UnpaidError.
	CheckoutURL(ctx context.Context, customerID, tier string) (string, error)
	// PortalURL returns where the customer manages its subscription.
	PortalURL(ctx context.Context, customerID string) (string, error)
	// Invoices lists the customer's invoices, newest first, at most limit.
	Invoices(ctx context.Context, customerID string, limit int) ([]control.Invoice, error)
	// ChangeTier has a tier with more tokens hold at once, if its payment goes through, and
	// one with fewer from the next period on.
	ChangeTier(ctx context.Context, customerID, tier string) error
	// Cancel has the subscription end with its period, and Resume takes that back.
	Cancel(ctx context.Context, customerID string) error
	Resume(ctx context.Context, customerID string) error
	// SetOverage lets a period cost so much more than its price; 0: nothing.
	SetOverage(ctx context.Context, actor, customerID string, capCents int64) error
	// End ends all subscriptions now. It may be called again.
	End(ctx context.Context, customerID string) error
}

// Mails puts mails into the outbox, once per kind and cause; see jobs.Jobs.
type Mails interface {
	AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (fresh bool, err error)
}

// Webhook takes what Stripe sends. It returns nil once the event is safe;
// control.ErrInvalid if it is not Stripe's, or not to be read: it will not get better by
// being sent again.
type Webhook interface {
	Receive(ctx context.Context, payload []byte, signature string) error
}

// Books is what operators do to dead letters; see billing.Books.
type Books interface {
	Replay(ctx context.Context, actor string, id int64) (control.Recorded, error)
	Drop(ctx context.Context, actor string, id int64, reason string) error
}

// LiveUsage says what Redis knows ahead of Postgres; see limits.Records.
type LiveUsage interface {
	Usage(ctx context.Context, acct quota.Account) (quota.Usage, error)
	// Traffic returns what replicas announce of what passes through them.
	Traffic(ctx context.Context, replicas []string) (map[string]contract.Traffic, error)
}

// Jobs is what operators see of and do to jobs; see jobs.Jobs.
type Jobs interface {
	// List lists jobs of a state, or with "" of all, newest first, before an id (0: from the
	// newest on).
	List(ctx context.Context, state string, before int64, limit int) ([]control.Job, error)
	// Retry has a job worked again now. One that is not there is control.ErrNotFound.
	Retry(ctx context.Context, id int64) error
	// Cancel has a job not worked any more.
	Cancel(ctx context.Context, id int64) error
}

// Feed says how far proxies have applied what was published; see feed.Publisher.
type Feed interface {
	State(ctx context.Context) (feed.State, error)
	Applied(ctx context.Context, replicas []string) (map[string]int64, error)
}

// Options are what an API is made of. Store, Customers, Hasher, Secret, Issuer and Logger are
// required.
type Options struct {
	Store *store.Store
	// Customers changes what the proxies must know.
	Customers *customers.Service
	// Hasher makes digests of refresh tokens and API keys. Who changes its pepper ends all
	// sessions and API keys.
	Hasher *contract.Hasher
	// Secret signs access tokens: at least MinSecret bytes.
	Secret []byte
	// Issuer is what access tokens say who made them: the public URL of the api.
	Issuer string
	Logger *slog.Logger
	// Revision is what this build was made from, which the OpenAPI documents tell; "": unknown.
	Revision string

	// Origins are the origins of our pages, such as https://app.example.com; others may not
	// change anything in the name of who is signed in. Without any, no browser can that says where
	// it comes from, which all do when they change something.
	Origins []string
	// OperatorOrigins are the same for the operators' handler.
	OperatorOrigins []string
	// TrustedProxies are those whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix

	Billing Billing // nil: 503
	// Payments is what paying by Billing means. Default PaymentsLive.
	Payments PaymentMode
	// TelegramBot is the page of the bot that new customers talk to, such as https://t.me/name_bot; "" if there is none.
	TelegramBot string
	Webhook     Webhook   // nil: 503
	Mails       Mails     // nil: 503 for what needs one, and nobody is asked to confirm an address
	Books       Books     // nil: 503
	Live        LiveUsage // nil: usage is what Postgres has, and nobody sees the traffic
	Jobs        Jobs      // nil: 503
	Feed        Feed      // nil: nobody is waited for
	// BoxOperator is asked for the logs and events of boxes; nil: 503.
	BoxOperator *BoxOperator

	// PerAddress is the limit of a stranger's address. Default 50/s, at once 100.
	PerAddress Rate
	// Webhooks is the limit of an address on the routes that are signed, which strangers' requests
	// do not use up, and which use up nothing else: Stripe sends from few addresses, and behind a
	// proxy that is not trusted from the same as everyone. Default 500/s, at once 1,000.
	Webhooks Rate
	// PerAccount is the limit of who is signed in. Default 20/s, at once 60.
	PerAccount Rate
	// SignIns bound guessing. See Guesses.
	SignIns Guesses
	// LimitedKeys is how many addresses, and accounts, limits are kept for. Default 50,000.
	LimitedKeys int
	// Passwords is how many passwords are hashed at once. Default GOMAXPROCS.
	Passwords int

	// StreamEvery is how often an event stream looks for something new. Default 2 s.
	StreamEvery time.Duration
	// Heartbeat is after how long a silent event stream shows that it is there. Default 15 s.
	Heartbeat time.Duration
	// Streams is how many event streams there may be. Default 1,000; 4 per customer.
	Streams int
	// AwaitApplied is how long a change of a limit waits for the proxies. Default 2 s.
	AwaitApplied time.Duration

	Registerer prometheus.Registerer // nil: no metrics
	// Now is time.Now outside of tests.
	Now func() time.Time
}

// Guesses are the limits of attempts to sign in.
type Guesses struct {
	PerAddress Rate // Default 1 per 2 s, at once 30.
	PerAccount Rate // from all addresses: 1 per 10 s, at once 50
	PerPair    Rate // of account and address: 1 per 30 s, at once 5
	SignUps    Rate // per address: 1 per minute, at once 5
	Mails      Rate // that someone asks for to one e-mail address: 1 per 10 minutes, at once 3
	MailsFrom  Rate // the same, from one network address: 1 per minute, at once 5
	Audited    Rate // of refusals of each sort that go to the audit log: 5/s, at once 50
}

// auditedSorts is more than there are sorts of refusals that go to the audit log.
const auditedSorts = 64

// side is one handler: its routes, and who its sessions are.
type side struct {
	name    string
	realm   realm
	origins []string
	table   table
	frank   bool   // errors say what our own rules say
	spec    []byte // OpenAPI
}

// API answers requests. It is safe for concurrent use.
type API struct {
	o         Options
	signer    *signer
	passwords *passwords
	customers *side
	operators *side
	metrics   *metrics

	perAddress, perAccount, webhooks              *callers.Limiter
	guessAddress, guessAccount, guessPair, signUp *callers.Limiter
	mailsTo, mailsFrom                            *callers.Limiter
	audited                                       *callers.Limiter
	exports                                       *callers.Limiter

	streams   *streams      // of customers
	follows   *streams      // of operators, whom customers' streams leave room
	exporting chan struct{} // one message for each export
	draining  chan struct{} // closed by Drain
	drain     sync.Once
	forwarded sync.Once // has warned of proxies that are not trusted
}

// New checks the options and both route tables.
func New(o Options) (*API, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	o.setDefaults()
	a := &API{
		o:            o,
		passwords:    newPasswords(o.Passwords),
		perAddress:   callers.NewLimiter(o.PerAddress, o.LimitedKeys),
		perAccount:   callers.NewLimiter(o.PerAccount, o.LimitedKeys),
		webhooks:     callers.NewLimiter(o.Webhooks, o.LimitedKeys),
		guessAddress: callers.NewLimiter(o.SignIns.PerAddress, o.LimitedKeys),
		guessAccount: callers.NewLimiter(o.SignIns.PerAccount, o.LimitedKeys),
		guessPair:    callers.NewLimiter(o.SignIns.PerPair, o.LimitedKeys),
		signUp:       callers.NewLimiter(o.SignIns.SignUps, o.LimitedKeys),
		mailsTo:      callers.NewLimiter(o.SignIns.Mails, o.LimitedKeys),
		mailsFrom:    callers.NewLimiter(o.SignIns.MailsFrom, o.LimitedKeys),
		audited:      callers.NewLimiter(o.SignIns.Audited, auditedSorts),
		exports:      callers.NewLimiter(Rate{PerSecond: 1.0 / 60, Burst: 3}, o.LimitedKeys),
		streams:      &streams{most: o.Streams, open: map[string]int{}},
		follows:      &streams{most: mostFollows, open: map[string]int{}},
		exporting:    make(chan struct{}, exportsAtOnce),
		draining:     make(chan struct{}),
	}
	a.signer = &signer{secret: append([]byte(nil), o.Secret...), issuer: o.Issuer, now: a.now}
	var err error
	if a.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	a.customers = &side{name: "customers", realm: customerRealm(), origins: o.Origins}
	a.operators = &side{name: "operators", realm: operatorRealm(), origins: o.OperatorOrigins, frank: true}
	if err := a.complete(a.customers, a.customerRoutes()); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if err := a.complete(a.operators, a.operatorRoutes()); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return a, nil
}

func (a *API) complete(s *side, rows []route) (err error) {
	if s.table, err = newTable(rows); err != nil {
		return err
	}
	s.spec, err = document(s, a.o.Issuer, a.o.Revision)
	return err
}

// Customers returns the public handler.
func (a *API) Customers() http.Handler { return a.handler(a.customers) }

// Operators returns the handler for operators. It must not be public.
func (a *API) Operators() http.Handler { return a.handler(a.operators) }

// Drain ends the event streams, which http.Server.Shutdown would wait for.
func (a *API) Drain() { a.drain.Do(func() { close(a.draining) }) }

func (a *API) now() time.Time { return a.o.Now().UTC().Truncate(time.Microsecond) }

func (o *Options) check() error {
	var errs []error
	if o.Store == nil || o.Customers == nil || o.Hasher == nil || o.Logger == nil {
		errs = append(errs, errors.New("a store, customers, a hasher and a logger are required"))
	}
	if len(o.Secret) < MinSecret {
		errs = append(errs, fmt.Errorf("the secret of access tokens has %d bytes, and needs %d", len(o.Secret), MinSecret))
	}
	if err := CheckOrigin(o.Issuer); err != nil {
		errs = append(errs, fmt.Errorf("the issuer of access tokens: %w", err))
	}
	for _, origin := range append(append([]string(nil), o.Origins...), o.OperatorOrigins...) {
		errs = append(errs, CheckOrigin(origin))
	}
	return errors.Join(errs...)
}

// CheckOrigin says what is wrong with an origin as browsers send it; nil if nothing is.
func CheckOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
		return fmt.Errorf("%q is no origin; write it like https://app.example.com, without a path or a slash at the end", origin)
	}
	return nil
}

func (o *Options) setDefaults() {
	def := func(r *Rate, perSecond float64, burst int) {
		if *r == (Rate{}) {
			*r = Rate{PerSecond: perSecond, Burst: burst}
		}
	}
	def(&o.PerAddress, 50, 100)
	def(&o.PerAccount, 20, 60)
	def(&o.Webhooks, 500, 1000)
	def(&o.SignIns.PerAddress, 0.5, 30)
	def(&o.SignIns.PerAccount, 0.1, 50)
	def(&o.SignIns.PerPair, 1.0/30, 5)
	def(&o.SignIns.SignUps, 1.0/60, 5)
	def(&o.SignIns.Mails, 1.0/600, 3)
	def(&o.SignIns.MailsFrom, 1.0/60, 5)
	def(&o.SignIns.Audited, 5, 50)
	if o.LimitedKeys <= 0 {
		o.LimitedKeys = 50_000
	}
	if o.Passwords <= 0 {
		o.Passwords = runtime.GOMAXPROCS(0)
	}
	if o.StreamEvery <= 0 {
		o.StreamEvery = 2 * time.Second
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.Streams <= 0 {
		o.Streams = 1000
	}
	if o.AwaitApplied <= 0 {
		o.AwaitApplied = 2 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}
