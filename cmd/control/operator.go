package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// operatorSettings are the knobs of the operator of the boxes.
type operatorSettings struct {
	database    secretFlag
	redis       secretFlag
	pepper      secretFlag
	seals       secretFlag
	key         secretFlag
	listen      string
	unsafeRedis bool
	noBot       bool
	drainWithin time.Duration
	cluster     operator.ClusterOptions
	objects     operator.ObjectOptions
	exclude     []string
	model       openclaw.Model
	reasoning   string
	work        operator.Options

	keys *secret.Keys // seals, as validate has read them; nil without any
}

func operatorCommand(getenv func(string) string) *cobra.Command {
	var s operatorSettings
	cmd := &cobra.Command{
		Use:   "operator",
		Short: "Make the boxes in Kubernetes what Postgres says that they shall be",
		Long: `operator makes and keeps each customer's box in Kubernetes: a namespace of its own with an
OpenClaw gateway in it, its configuration, its limits, its network policy, and a proxy token
of its own. It hears of changes by jobs, sees what others change in the cluster and puts it
right, and looks at everything from time to time.

Any number may run; one of them leads. Who cannot show in time that it still leads exits with
1. SIGTERM finishes what is in hand and exits with 0. What it may do in the cluster is printed
by "control operator access".`,
		Example: `  DATABASE_URL=postgres://openclaw@127.0.0.1:5432/openclaw REDIS_URL=redis://127.0.0.1:6379/0 \
  OPENCLAW_TOKEN_PEPPER_FILE=token-pepper BOX_SECRETS_KEY_FILE=box-secrets-key \
  GATEWAY_IMAGE=ghcr.io/andreabadesso/openclaw-cloud/openclaw-gateway@sha256:… control operator --kubeconfig operator.kubeconfig`,
	}
	f := cmd.Flags()
	s.database.flags(f, databaseFlag, databaseUsage)
	s.redis.flags(f, "redis-url", "Redis 6.2 or newer, which must run with noeviction and an append-only file: "+redisclient.Forms)
	s.pepper.flags(f, "openclaw-token-pepper", "pepper of the tokens' digests, as token-proxy has it")
	s.seals.flags(f, sealsFlag, sealsUsage+"; without it a box with a Telegram token cannot be made")
	s.key.flags(f, "operator-key", "what the api is known by; without it nobody sees logs and events of boxes")
	f.StringVar(&s.listen, "listen", ":8081", "address of /healthz, /readyz and /metrics, and of the logs and events of boxes")
	f.BoolVar(&s.unsafeRedis, "allow-unsafe-redis", false, "run although Redis may lose data (for development)")
	f.BoolVar(&s.noBot, "allow-no-bot", false, "also make boxes that have no Telegram bot yet, to which nobody can write (for development)")
	f.DurationVar(&s.drainWithin, "drain-within", 10*time.Second, "how long the jobs in hand may take after SIGTERM")
	f.StringVar(&s.cluster.Kubeconfig, "kubeconfig", "", "kubeconfig of the cluster; without one the service account of the pod is used")
	f.Float64Var(&s.cluster.RequestsPerSecond, "kube-requests-per-second", 100, "how much the cluster may be asked for")
	f.IntVar(&s.cluster.Burst, "kube-burst", 200, "how much of it at once")
	s.accessFlags(f)
	f.StringVar(&s.objects.ProxyURL, "token-proxy-url", "http://token-proxy.platform.svc.cluster.local:8080/v1", "where gateways find token-proxy")
	f.StringSliceVar(&s.exclude, "exclude-networks", nil, "public networks that gateways must not reach, separated by commas, beside the addresses of nodes and of the API server, which the cluster tells: load balancers in front of it, such as 203.0.113.7/32")
	f.StringVar(&s.objects.StorageClass, "storage-class", "", "storage class of the volumes that keep gateways' state; without one it ends with the pod")
	f.Int64Var(&s.objects.StateMiB, "state-mib", 2048, "how large the state of a gateway may get, in MiB")
	f.StringVar(&s.model.ID, "model", "kimi-k2.5", "model of the agents, as token-proxy knows it")
	f.IntVar(&s.model.Context, "model-context", 262_144, "tokens that prompt and answer of the model may have together")
	f.IntVar(&s.model.MaxOutput, "model-max-output", 32_768, "tokens that an answer of the model may have")
	f.IntVar(&s.model.Budget, "model-budget", 0, "tokens of conversation that an agent keeps, and sends each time; 0 is what the model can take")
	f.StringVar(&s.reasoning, "model-reasoning", string(openclaw.ReasoningSwitch), "how the model is told how much to think: switch, effort, always, or nothing")
	f.StringVar(&s.work.Identity, "identity", "", "name of this process among the operators, no two of which may have the same; who has the name of one that was killed leads at once. By default the host's name, which in a cluster is the pod's, and outside of one, where others may run on the host, a random part")
	f.DurationVar(&s.work.LeaseFor, "lease", 5*time.Minute, "after how long a leader that says nothing is replaced by one of another name; it is renewed three times in that")
	f.IntVar(&s.work.Workers, "workers", 8, "boxes that are worked on at once")
	f.DurationVar(&s.work.SweepEvery, "sweep-every", time.Minute, "how often to look for boxes that nobody told of")
	f.DurationVar(&s.work.SweepAll, "sweep-all-every", 10*time.Minute, "how often to look at every box")
	f.DurationVar(&s.work.PlacedWithin, "placed-within", 5*time.Minute, "how long a box may take until its pod has a node and its image, and runs")
	f.DurationVar(&s.work.ReadyWithin, "ready-within", openclaw.GivenUpAfter, "how long a gateway that runs may take until it is ready; not less than its probes give it, for until then it may still come up")
	f.DurationVar(&s.work.EndWithin, "end-within", 30*time.Second, "how long a gateway gets to end that is suspended, destroyed or does not answer; one that is replaced gets its whole time")
	f.DurationVar(&s.work.HealthEvery, "health-every", 5*time.Minute, "how often to check that gateways are ready; the third time in a row that one is not, it is unhealthy and its pod restarted")
	f.DurationVar(&s.work.Overlap, "token-overlap", time.Minute, "how long an old proxy token is good once the gateway runs with the new one")
	f.DurationVar(&s.work.RetryMin, "retry-min", 5*time.Minute, "after how long a box is tried again that could not be provisioned; each further time it is twice as long")
	f.DurationVar(&s.work.RetryMax, "retry-max", time.Hour, "longest of these pauses")
	f.DurationVar(&s.work.BackoffMax, "backoff-max", 30*time.Second, "longest pause between attempts after errors")
	f.DurationVar(&s.work.ForceAfter, "force-after", time.Minute, "how long a pod may take too long to end on a node that is lost, until it is removed by force")
	f.DurationVar(&s.work.LostAfter, "lost-after", 5*time.Minute, "how long a node must be silent to be lost; one that is gone or has the taint out-of-service is at once")
	f.IntVar(&s.work.Rolling, "rolling", 10, "gateways that are replaced at once because the image or the operator is another one; those that do not become ready keep their places, so a bad image stops there")
	run := command(cmd, getenv, s.validate, func(cmd *cobra.Command, log *slog.Logger) error {
		return runOperator(cmd.Context(), s, log)
	})
	access := &cobra.Command{
		Use:   "access",
		Short: "Print what the operator may do in the cluster, as manifests",
		Long: `access prints the operator's ServiceAccount, its roles, and the admission policy that limits
them to namespaces of boxes and to what belongs in them. An administrator applies them, and again
after an update or when one of these flags changes. With --gateway-image gateways can be of that
repository only.`,
		Example: "  control operator access --gateway-image ghcr.io/andreabadesso/openclaw-cloud/openclaw-gateway@sha256:… | kubectl apply --server-side -f -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), getenv); err != nil {
				return usageError{err}
			}
			text, err := operator.AccessFor(s.objects)
			if err != nil {
				return usageError{err}
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	s.accessFlags(access.Flags())
	describeEnvironment(access.Flags())
	run.AddCommand(access)
	return run
}

// accessFlags are those that the operator's rights depend on.
func (s *operatorSettings) accessFlags(f *pflag.FlagSet) {
	f.StringVar(&s.objects.Image, "gateway-image", "", "image of the gateway, by digest: NAME@sha256:…")
	f.StringVar(&s.objects.ProxyNamespace, "token-proxy-namespace", operator.OperatorSpace, "namespace of token-proxy's pods, which gateways may reach")
	f.StringToStringVar(&s.objects.ProxyLabels, "token-proxy-labels", map[string]string{"app.kubernetes.io/name": "token-proxy"}, "labels of token-proxy's pods")
	f.Int32Var(&s.objects.ProxyPort, "token-proxy-port", 8080, "port of token-proxy's pods")
	f.StringVar(&s.objects.DNSNamespace, "dns-namespace", "kube-system", "namespace of the pods of the cluster's DNS, which gateways may reach")
	f.StringToStringVar(&s.objects.DNSLabels, "dns-labels", map[string]string{"k8s-app": "kube-dns"}, "labels of the pods of the cluster's DNS")
}

func (s *operatorSettings) validate() error {
	_, redisErr := redisTarget(&s.redis)
	errs := []error{checkDatabaseURL(&s.database), redisErr, checkPepper(&s.pepper), s.key.read(), checkListen("listen", s.listen, ":8081")}
	var err error
	s.keys, err = sealsOf(&s.seals)
	errs = append(errs, err)
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"drain-within", s.drainWithin}, {"sweep-every", s.work.SweepEvery}, {"sweep-all-every", s.work.SweepAll},
		{"placed-within", s.work.PlacedWithin}, {"end-within", s.work.EndWithin}, {"lost-after", s.work.LostAfter}, {"health-every", s.work.HealthEvery}, {"token-overlap", s.work.Overlap}, {"retry-min", s.work.RetryMin},
		{"retry-max", s.work.RetryMax}, {"backoff-max", s.work.BackoffMax}, {"force-after", s.work.ForceAfter},
	} {
		errs = append(errs, positive(d.name, d.value))
	}
	if err := operator.CheckReadyWithin(s.work.ReadyWithin); err != nil {
		errs = append(errs, fmt.Errorf("--ready-within: %w", err))
	}
	if s.work.EndWithin < time.Second {
		errs = append(errs, errors.New("--end-within must be at least 1s"))
	}
	if s.work.LeaseFor < 10*time.Second {
		errs = append(errs, errors.New("--lease must be at least 10s, or every short silence of the cluster ends the operator"))
	}
	if s.work.RetryMax < s.work.RetryMin {
		errs = append(errs, errors.New("--retry-max must not be shorter than --retry-min"))
	}
	if s.work.Workers <= 0 || s.work.Rolling <= 0 || s.cluster.RequestsPerSecond <= 0 || s.cluster.Burst <= 0 {
		errs = append(errs, errors.New("--workers, --rolling, --kube-requests-per-second and --kube-burst must be positive"))
	}
	s.objects.Exclude, err = readNetworks("exclude-networks", s.exclude, "203.0.113.0/24")
	errs = append(errs, err)
	s.model.Reasoning = openclaw.Reasoning(s.reasoning)
	s.objects.Model, s.objects.Render = s.model.ID, s.render
	if s.objects.Image == "" {
		errs = append(errs, errors.New("--gateway-image (GATEWAY_IMAGE) is required: the gateway's image by digest, NAME@sha256:…"))
	} else if err := s.objects.Check(); err != nil {
		errs = append(errs, err)
	}
	// With what every box has, whatever else it has.
	if _, err := s.render(s.objects, control.DesiredBox{
		TelegramToken: "1:fake", Settings: control.BoxSettings{Language: control.English, TimeZone: "UTC", Thinking: "low", TelegramUsers: []int64{1}},
	}); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// render writes the openclaw.json of a box.
func (s *operatorSettings) render(o operator.ObjectOptions, d control.DesiredBox) ([]byte, error) {
	mute := s.noBot || d.Wants == control.BoxSuspend // no gateway reads it
	if mute && len(d.Settings.TelegramUsers) == 0 {
		d.Settings.TelegramUsers = []int64{1}
	}
	if d.TelegramToken == "" && !mute || len(d.Settings.TelegramUsers) == 0 {
		return nil, fmt.Errorf("%w: nobody can write to it before it has a Telegram bot, and people who may", control.ErrInvalid)
	}
	c := openclaw.Config{
		ProxyURL: o.ProxyURL, Models: []openclaw.Model{s.model}, Thinking: d.Settings.Thinking, Language: string(d.Settings.Language),
		TimeZone: d.Settings.TimeZone, SystemPrompt: d.Settings.SystemPrompt, TelegramUsers: d.Settings.TelegramUsers,
	}
	text, err := c.Render()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", control.ErrInvalid, err)
	}
	return text, nil
}

// identity names this process. In a pod the host has the pod's name, which no other one has, and which
// stays when its container is killed and starts anew: so it takes its own Lease back at once. Elsewhere
// there may be several on a host.
func identity(inPod bool) string {
	host, err := os.Hostname()
	if err == nil && host != "" && inPod {
		return host
	}
	return cmp.Or(host, "operator") + "-" + rand.Text()[:8]
}

func runOperator(ctx context.Context, s operatorSettings, log *slog.Logger) error {
	redis.SetLogger(redisLog{log})
	operator.LogTo(log)
	table, err := tiers.Default()
	if err != nil {
		return err
	}
	hasher, err := contract.NewHasher([]byte(s.pepper.Reveal()))
	if err != nil {
		return err
	}
	cluster, err := operator.Connect(s.cluster)
	if err != nil {
		return usageError{err}
	}
	target, err := redisTarget(&s.redis)
	if err != nil {
		return err
	}
	client := target.Open(sendOnce)
	defer client.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	boxes, ready := &laterBooks{}, &readiness{}
	// Probes are answered while Redis and Postgres are waited for.
	admin, err := serveAdmin(s.listen, ready, registry, log, func(mux *http.ServeMux) {
		mux.Handle("/boxes/", operator.Handler(boxes, cluster, s.key.Text, log))
	})
	if err != nil {
		return err
	}
	defer admin.Close()
	// What does not need Redis goes on without it, so it is not waited for.
	if err := checkRedis(ctx, client, s.unsafeRedis, log); err != nil {
		return atStart(ctx, err)
	}
	st, err := reachStore(ctx, s.database.Reveal(), registry, log)
	if err != nil {
		return atStart(ctx, err)
	}
	defer st.Close()

	service := &customers.Service{
		Store: st, Tiers: table, Grants: feed.NewPublisher(client), Limits: limits.NewRecords(st, client, 0), Hasher: hasher, Seals: s.keys,
	}
	add, err := openJobs(ctx, st, log, nil)
	if err != nil {
		return atStart(ctx, err)
	}
	defer add.Close()
	service.Later, service.Wake = add, add
	boxes.set(&customers.Boxes{Service: service, Mails: add})

	opts := s.work
	opts.Books, opts.Cluster, opts.Hasher, opts.Objects = boxes, cluster, hasher, s.objects
	opts.Logger, opts.Registerer = log, registry
	opts.PolicyInForce, opts.Mute = operator.PolicyInForce, s.noBot
	if opts.Identity == "" {
		opts.Identity = identity(s.cluster.Kubeconfig == "")
	}
	var o *operator.Operator
	opts.WhileLeading = func(ctx context.Context) error { return workBoxes(ctx, s.drainWithin, st, o, log) }
	if o, err = operator.New(opts); err != nil {
		return err
	}
	ready.set(func(ctx context.Context) error { return errors.Join(st.Ping(ctx), o.Ready()) }, o.Note)
	return o.Run(ctx)
}

// workBoxes works the jobs by which the operator hears of changes, until ctx ends.
func workBoxes(ctx context.Context, within time.Duration, st *store.Store, o *operator.Operator, log *slog.Logger) error {
	var work *jobs.Jobs
	err := untilReached(ctx, log, "Postgres, for jobs", func() (err error) {
		if work, err = openJobs(ctx, st, log, &jobs.Handlers{WakeBox: func(_ context.Context, id string) error {
			o.Wake(id)
			return nil
		}}); err != nil {
			return err
		}
		if err = work.Start(context.WithoutCancel(ctx)); err != nil {
			work.Close()
		}
		return err
	})
	if err != nil {
		return atStart(ctx, err)
	}
	defer work.Close()
	<-ctx.Done()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	return work.Stop(limited)
}
