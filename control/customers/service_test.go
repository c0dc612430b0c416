package customers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// env is a service on real databases.
type env struct {
	*customers.Service
	t      *testing.T
	redis  *testenv.RedisServer
	client *redis.Client
	pg     *testenv.PostgresServer
	limits *limits.Records
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{t: t, redis: testenv.Redis(t), pg: storetest.Postgres(t)}
	st, err := store.Open(t.Context(), e.pg.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := contract.NewHasher([]byte("a pepper that is fake"))
	if err != nil {
		t.Fatal(err)
	}
	e.client = e.redis.Client()
	e.limits = limits.NewRecords(st, e.client, time.Second)
	e.Service = &customers.Service{
		Store: st, Tiers: table, Grants: feed.NewPublisher(e.client), Limits: e.limits, Hasher: hasher,
		PublishWithin: patience,
	}
	return e
}

// patience is how long a change may take to be published by a machine that has much to do;
// impatience is for where it cannot be.
const (
	patience   = 20 * time.Second
	impatience = 300 * time.Millisecond
)

// stopRedis stops it, and has nobody wait for it for long.
func (e *env) stopRedis() {
	e.redis.Stop()
	e.PublishWithin = impatience
}

// startRedis starts it again.
func (e *env) startRedis() {
	e.redis.Start()
	e.PublishWithin = patience
}

// openEpoch has an epoch of the quota begin, in which records can be made.
func (e *env) openEpoch() {
	e.t.Helper()
	k, err := limits.NewKeeper(e.Store, e.client, limits.Options{Every: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	keeper := quota.NewKeeper(e.client, time.Second)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		epoch, err := keeper.Epoch(context.Background())
		if err == nil && epoch.IsOpen() {
			break
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("epoch %+v, %v", epoch, err)
		}
	}
	// What comes later is made by who is tested, or not at all.
	cancel()
	if err := <-ended; err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) customer(tier string) customers.Created {
	e.t.Helper()
	c, err := e.CreateCustomer(e.t.Context(), "test", customers.NewCustomer{Name: "Ada", Tier: tier})
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

func (e *env) token(customer string) (contract.Token, control.ProxyToken) {
	e.t.Helper()
	raw, token, err := e.CreateToken(e.t.Context(), "test", customer, "")
	if err != nil {
		e.t.Fatal(err)
	}
	return raw, token
}

// grant reads what a proxy would find.
func (e *env) grant(d contract.Digest) *contract.Grant {
	e.t.Helper()
	b, err := e.client.Get(context.Background(), contract.GrantKey(d)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		e.t.Fatal(err)
	}
	g, err := contract.DecodeGrant(b)
	if err != nil {
		e.t.Fatal(err)
	}
	return g
}

func (e *env) pending() int64 {
	e.t.Helper()
	n, err := e.Store.PendingChanges(context.Background())
	if err != nil {
		e.t.Fatal(err)
	}
	return n
}

func TestCustomerTokenLimitAndRevocationReachTheProxies(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.openEpoch()
	c := e.customer("pro")
	if c.Box.Namespace != "customer-"+c.Customer.ID || c.Box.State != control.BoxPending || c.Period.LimitTokens != 5_000_000 {
		t.Errorf("created %+v", c)
	}
	raw, token := e.token(c.Customer.ID)
	if token.Digest != e.Hasher.Digest([]byte(raw.Reveal())) || token.Hint != raw.Hint() || token.BoxID != c.Box.ID {
		t.Errorf("token %+v", token)
	}
	g := e.grant(token.Digest)
	if g == nil || g.Status != contract.StatusActive || g.MonthlyLimit != 5_000_000 || g.Concurrent != 8 || g.Version != 1 ||
		g.CustomerID != c.Customer.ID || g.BoxID != c.Box.ID || g.Period.ID != c.Period.ID || !g.Period.End.Equal(c.Period.End) {
		t.Fatalf("grant %+v", g)
	}

	_, second := e.token(c.Customer.ID)
	p, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 77)
	if err != nil || p.LimitTokens != 77 || p.LimitVersion != 2 {
		t.Fatalf("limit %+v, %v", p, err)
	}
	for _, d := range []contract.Digest{token.Digest, second.Digest} {
		if g := e.grant(d); g.MonthlyLimit != 77 || g.LimitVersion != 2 || g.Version != 2 {
			t.Errorf("grant after the limit changed: %+v", g)
		}
	}
	u, err := e.limits.Usage(t.Context(), quota.Account{Customer: c.Customer.ID, Period: p.Period(), Limit: 1, LimitVersion: 1})
	if err != nil || u.Limit != 77 {
		t.Errorf("the quota ledger's limit: %+v, %v", u, err)
	}

	revoked, err := e.RevokeToken(t.Context(), "test", token.ID)
	if err != nil || revoked.Status != contract.StatusRevoked || revoked.RevokedAt.IsZero() {
		t.Fatalf("revoked %+v, %v", revoked, err)
	}
	if g := e.grant(token.Digest); g.Status != contract.StatusRevoked || g.Version != 3 {
		t.Errorf("grant after revocation: %+v", g)
	}
	// A later change of the limit leaves it revoked and the other one active.
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 88); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(token.Digest); g.Status != contract.StatusRevoked {
		t.Errorf("a revoked grant became %+v", g)
	}
	if g := e.grant(second.Digest); g.Status != contract.StatusActive || g.MonthlyLimit != 88 {
		t.Errorf("the other grant: %+v", g)
	}
	// Revoking again changes nothing that matters.
	if again, err := e.RevokeToken(t.Context(), "test", token.ID); err != nil || !again.RevokedAt.Equal(revoked.RevokedAt) {
		t.Errorf("revoked again: %+v, %v", again, err)
	}
	if n := e.pending(); n != 0 {
		t.Errorf("%d changes are pending", n)
	}
	const want = "customer.create,quota.set,quota.set,token.create,token.create,token.revoke,token.revoke"
	if got := strings.TrimSpace(e.pg.Query("SELECT string_agg(action, ',' ORDER BY action) FROM audit_log WHERE actor = 'test'")); got != want {
		t.Errorf("audit log %s, want %s", got, want)
	}
}

func TestInvalidInput(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c, other := e.customer("starter"), e.customer("starter")
	for _, tc := range []struct {
		name string
		do   func() error
		want error
	}{
		{"unknown tier", func() error {
			_, err := e.CreateCustomer(t.Context(), "test", customers.NewCustomer{Name: "x", Tier: "gold"})
			return err
		}, control.ErrNotFound},
		{"no name", func() error {
			_, err := e.CreateCustomer(t.Context(), "test", customers.NewCustomer{Tier: "pro"})
			return err
		}, control.ErrInvalid},
		{"token for nobody", func() error { _, _, err := e.CreateToken(t.Context(), "test", "nobody", ""); return err }, control.ErrNotFound},
		{"another customer's box", func() error {
			_, _, err := e.CreateToken(t.Context(), "test", c.Customer.ID, other.Box.ID)
			return err
		}, control.ErrNotFound},
		{"revoke nothing", func() error { _, err := e.RevokeToken(t.Context(), "test", "t1"); return err }, control.ErrNotFound},
		{"negative limit", func() error { _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, -1); return err }, control.ErrInvalid},
		{"limit of nobody", func() error { _, err := e.SetLimit(t.Context(), "test", "nobody", 1); return err }, control.ErrNotFound},
		{"email twice", func() error {
			var err error
			for _, email := range []string{"a@example.com", "A@example.com"} {
				_, err = e.CreateCustomer(t.Context(), "test", customers.NewCustomer{Name: "x", Tier: "pro", Email: email})
			}
			return err
		}, control.ErrExists},
	} {
		if err := tc.do(); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// With Redis away changes are committed, and published once it is back.
func TestRedisAwayWhileChanging(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	_, first := e.token(c.Customer.ID)
	e.stopRedis()
	raw, second, err := e.CreateToken(t.Context(), "test", c.Customer.ID, "")
	if !errors.Is(err, customers.ErrUnpublished) || raw.Reveal() == "" {
		t.Fatalf("token %+v, %v; want ErrUnpublished and a token", second, err)
	}
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 5); !errors.Is(err, customers.ErrUnpublished) {
		t.Fatalf("limit: %v", err)
	}
	if _, err := e.RevokeToken(t.Context(), "test", first.ID); !errors.Is(err, customers.ErrUnpublished) {
		t.Fatalf("revoke: %v", err)
	}
	if n := e.pending(); n != 5 { // token; limit and two grants; revocation
		t.Errorf("%d changes are pending, want 5", n)
	}
	e.startRedis()
	if n, err := e.PublishPending(t.Context()); n != 5 || err != nil {
		t.Errorf("published %d, %v; want 5", n, err)
	}
	if g := e.grant(first.Digest); g.Status != contract.StatusRevoked {
		t.Errorf("first grant %+v", g)
	}
	if g := e.grant(second.Digest); g.Status != contract.StatusActive || g.MonthlyLimit != 5 {
		t.Errorf("second grant %+v", g)
	}
	if n, err := e.PublishPending(t.Context()); n != 0 || err != nil {
		t.Errorf("published %d, %v once more", n, err)
	}
}

// dying publishes and then fails, as a process that is killed before it could mark
// the change as published.
type dying struct{ customers.GrantPublisher }

func (d dying) PutGrantAfter(ctx context.Context, digest contract.Digest, g contract.Grant, newest int64) (int64, error) {
	if _, err := d.GrantPublisher.PutGrantAfter(ctx, digest, g, newest); err != nil {
		return 0, err
	}
	return 0, errors.New("killed")
}

func TestPublishingTwiceIsHarmless(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	healthy := e.Grants
	e.Grants, e.PublishWithin = dying{healthy}, impatience
	_, token, err := e.CreateToken(t.Context(), "test", c.Customer.ID, "")
	if !errors.Is(err, customers.ErrUnpublished) {
		t.Fatal(err)
	}
	e.Grants, e.PublishWithin = healthy, patience
	if _, err := e.RevokeToken(t.Context(), "test", token.ID); err != nil {
		t.Fatal(err)
	}
	// The older change comes after the newer one, which it must not undo.
	if n, err := e.PublishPending(t.Context()); n != 1 || err != nil {
		t.Errorf("published %d, %v", n, err)
	}
	if g := e.grant(token.Digest); g.Status != contract.StatusRevoked {
		t.Errorf("grant %+v", g)
	}
}

// Changes that can never be published do not keep others from it.
func TestBadChangeDoesNotBlockTheOutbox(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	for range 5 {
		e.pg.Query(fmt.Sprintf(`INSERT INTO config_changes (kind, customer_id, digest, payload)
			VALUES ('grant', '%s', '\x%064d', '{"format": 1}')`, c.Customer.ID, 0))
	}
	e.stopRedis()
	_, token, err := e.CreateToken(t.Context(), "test", c.Customer.ID, "")
	if !errors.Is(err, customers.ErrUnpublished) {
		t.Fatal(err)
	}
	e.startRedis()
	if n, err := e.PublishPending(t.Context()); n != 1 || err == nil {
		t.Errorf("published %d, %v; want 1 and the errors of the bad ones", n, err)
	}
	if e.grant(token.Digest) == nil {
		t.Error("the good change was not published")
	}
}

func TestConcurrentChangesOfOneCustomer(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.PublishWithin = 10 * time.Second
	c := e.customer("starter")
	_, token := e.token(c.Customer.ID)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, int64(1000+i)); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := e.PublishPending(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	p, err := e.Store.PeriodAt(t.Context(), c.Customer.ID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if g := e.grant(token.Digest); g.Version != 9 || g.LimitVersion != 9 || g.MonthlyLimit != p.LimitTokens {
		t.Errorf("grant %+v, period %+v", g, p)
	}
	if n := e.pending(); n != 0 {
		t.Errorf("%d changes are pending", n)
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("starter")
	_, token := e.token(c.Customer.ID)
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 5); err != nil {
		t.Fatal(err)
	}
	if n, err := e.RenewDue(t.Context()); n != 0 || err != nil {
		t.Fatalf("renewed %d, %v before the end", n, err)
	}
	late := *e.Service
	late.Now = func() time.Time { return c.Period.End }
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := late.RenewDue(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	g := e.grant(token.Digest)
	if !g.Period.Start.Equal(c.Period.End) || g.Period.ID == c.Period.ID || g.MonthlyLimit != 1_000_000 || g.Version != 3 {
		t.Errorf("grant %+v after renewal", g)
	}
	// Nobody looked for half a year: the present period is opened, in the same chain.
	late.Now = func() time.Time { return control.MonthsAfter(c.Period.Start, 6).Add(time.Hour) }
	if n, err := late.RenewDue(t.Context()); n != 1 || err != nil {
		t.Fatalf("renewed %d, %v", n, err)
	}
	if g := e.grant(token.Digest); !g.Period.Start.Equal(control.MonthsAfter(c.Period.Start, 6)) || g.Version != 4 {
		t.Errorf("grant %+v after half a year", g)
	}
	if n, err := late.RenewDue(t.Context()); n != 0 || err != nil {
		t.Errorf("renewed %d, %v again", n, err)
	}
}
