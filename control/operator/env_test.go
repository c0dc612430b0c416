package operator_test

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

var (
	long    = flag.Bool("long", false, "run at full length: 500 boxes, 100 kills; takes minutes")
	logging = flag.Bool("logging", false, "show what the operator logs")
)

const pepper = "a pepper that is fake"

// env is the control plane's books on real databases, and a real API server.
type env struct {
	t       testing.TB
	kube    *testenv.KubernetesServer
	pg      *testenv.PostgresServer
	redis   *testenv.RedisServer
	client  *redis.Client
	st      *store.Store
	service *customers.Service
	boxes   *customers.Boxes
	hasher  *contract.Hasher
	config  string // the operator's own kubeconfig
}

// newEnv prepares books for a control plane, in which the operator gets its rights and nothing
// else.
func newEnv(t testing.TB, kube *testenv.KubernetesServer, pg *testenv.PostgresServer) *env {
	t.Helper()
	e := &env{t: t, kube: kube, pg: pg, redis: testenv.Redis(t)}
	ctx := t.Context()
	var err error
	if e.st, err = store.Open(ctx, pg.URL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.st.Close)
	if _, err := e.st.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := jobs.Migrate(ctx, e.st, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	table, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	if e.hasher, err = contract.NewHasher([]byte(pepper)); err != nil {
		t.Fatal(err)
	}
	seals, err := secret.ParseKeys(sealingKey)
	if err != nil {
		t.Fatal(err)
	}
	e.client = e.redis.Client()
	e.service = &customers.Service{
		Store: e.st, Tiers: table, Grants: feed.NewPublisher(e.client), Limits: limits.NewRecords(e.st, e.client, time.Second),
		Hasher: e.hasher, Seals: seals,
	}
	work, err := jobs.New(ctx, e.st, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(work.Close)
	e.service.Later, e.service.Wake = work, work
	e.boxes = &customers.Boxes{Service: e.service}
	if _, err := kube.TryKubectl("create", "namespace", "platform"); err != nil && !strings.Contains(err.Error(), "already exists") {
		t.Fatal(err)
	}
	if err := kube.Apply(operator.Access()); err != nil {
		t.Fatal(err)
	}
	e.config = kube.ServiceAccountKubeconfig("platform", "operator")
	return e
}

// with returns the same env for a subtest.
func (e *env) with(t testing.TB) *env {
	copied := *e
	copied.t = t
	return &copied
}

// sealingKey seals bot tokens in tests.
const sealingKey = "0000000000000000000000000000000000000000000000000000000000000001"

// image is what gateways run, where nothing really runs.
const image = "registry.test/openclaw-gateway@sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"

// options are an operator's, quick enough for tests.
func (e *env) options() operator.Options {
	cluster, err := operator.Connect(operator.ClusterOptions{Kubeconfig: e.config})
	if err != nil {
		e.t.Fatal(err)
	}
	var out io.Writer = io.Discard
	if *logging {
		out = os.Stderr
	}
	return operator.Options{
		Books: e.boxes, Cluster: cluster, Hasher: e.hasher,
		Objects: operator.ObjectOptions{
			Image: image, ProxyURL: "http://token-proxy.platform.svc.cluster.local:8080/v1", Model: "k2p5", Render: render,
		},
		Logger: slog.New(slog.NewTextHandler(out, nil)), Registerer: prometheus.NewRegistry(),
		Identity: rand.Text(), SweepEvery: 2 * time.Second, LeaseFor: 15 * time.Second,
		Mute: true, // boxes of tests have no bots
	}
}

// another are options of a second operator beside the one with opts.
func (e *env) another(opts operator.Options) operator.Options {
	o := e.options()
	opts.Cluster, opts.Identity, opts.Registerer, opts.Logger = o.Cluster, o.Identity, o.Registerer, o.Logger
	return opts
}

// render stands in for what writes a real openclaw.json.
func render(o operator.ObjectOptions, box control.DesiredBox) ([]byte, error) {
	if box.Settings.SystemPrompt == unwritable {
		return nil, fmt.Errorf("%w: %s", control.ErrInvalid, unwritable)
	}
	return fmt.Appendf(nil, `{"model":%q,"language":%q,"prompt":%q}`, o.Model, box.Settings.Language, box.Settings.SystemPrompt), nil
}

// running is an operator that works.
type running struct {
	*operator.Operator
	stop  func() error // ends it and waits
	ended chan error
	lost  bool // it was waited for
	t     testing.TB
}

// wait waits until it has ended by itself.
func (r *running) wait(within time.Duration) error {
	r.t.Helper()
	r.lost = true
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(within):
		r.t.Fatal("the operator goes on")
		return nil
	}
}

// run starts an operator that hears of changes by jobs, as the program does.
func (e *env) run(opts operator.Options) *running {
	e.t.Helper()
	var op *operator.Operator
	opts.WhileLeading = func(ctx context.Context) error {
		work, err := jobs.New(ctx, e.st, slog.New(slog.DiscardHandler), &jobs.Handlers{
			WakeBox: func(_ context.Context, id string) error { op.Wake(id); return nil },
			RevokeToken: func(ctx context.Context, id string) error {
				_, err := e.service.RevokeToken(ctx, "test", id)
				return err
			},
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		defer work.Close()
		if err := work.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return work.Stop(limited)
	}
	op, err := operator.New(opts)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- op.Run(ctx) }()
	r := &running{Operator: op, ended: ended, t: e.t}
	r.stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	e.t.Cleanup(func() {
		if err := r.stop(); err != nil && !r.lost {
			e.t.Errorf("the operator ended with: %v", err)
		}
	})
	return r
}

// customer makes a customer, and returns its box.
func (e *env) customer(tier string) control.Box {
	e.t.Helper()
	c, err := e.service.CreateCustomer(e.t.Context(), "test", customers.NewCustomer{Name: "Ada", Tier: tier})
	if err != nil {
		e.t.Fatal(err)
	}
	return c.Box
}

func (e *env) box(id string) control.Box {
	e.t.Helper()
	b, err := e.st.Box(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

// detail is what operators read of a box.
func (e *env) detail(id string) (text string) {
	e.t.Helper()
	err := e.st.InTx(e.t.Context(), func(tx *store.Tx) (err error) { text, err = tx.BoxText(e.t.Context(), id); return err })
	if err != nil {
		e.t.Fatal(err)
	}
	return text
}

// steps are what was done to a box last.
func (e *env) steps(id string) []control.BoxStep {
	e.t.Helper()
	var d control.BoxDetail
	err := e.st.InTx(e.t.Context(), func(tx *store.Tx) (err error) { d, err = tx.BoxDetail(e.t.Context(), id); return err })
	if err != nil {
		e.t.Fatal(err)
	}
	return d.Steps
}

// becomes waits until a box is in a state, of its newest generation, and returns it.
func (e *env) becomes(id string, state control.BoxState, within time.Duration) control.Box {
	e.t.Helper()
	var b control.Box
	e.until(within, func() string {
		b = e.box(id)
		if b.State == state && b.Observed == b.Generation {
			return ""
		}
		return fmt.Sprintf("box %s is %s (%q), of generation %d of %d, and not %s; steps %+v", id, b.State, b.Message, b.Observed, b.Generation, state, e.steps(id))
	})
	return b
}

// until waits until what returns "".
func (e *env) until(within time.Duration, what func() string) {
	e.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		problem := what()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("after %s: %s", within, problem)
		}
	}
}

// field reads one field of an object by a JSON path; "" if there is none.
func (e *env) field(namespace, what, path string) string {
	out, err := e.kube.TryKubectl("get", "-n", namespace, what, "-o", "jsonpath={"+path+"}", "--ignore-not-found")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// podUID is the uid of the only pod of a box.
func (e *env) podUID(namespace string) string {
	return e.field(namespace, "pods", ".items[*].metadata.uid")
}
