package operator_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// full returns whole at full length, and short otherwise.
func full[T any](short, whole T) T {
	if *long {
		return whole
	}
	return short
}

// sweepEvery is how often the program of these tests looks at all boxes.
const sweepEvery = 2 * time.Second

// program is "control operator" as a process.
type program struct {
	*testenv.Program
	e       *env
	address string
}

// program starts the operator as a process, always with the same identity, so that it takes its
// lease back at once.
func (e *env) program(args ...string) *program {
	e.t.Helper()
	p := &program{e: e, address: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(e.t))}
	environment := []string{
		"DATABASE_URL=" + e.pg.URL, "REDIS_URL=redis://" + e.client.Options().Addr + "/0", "ALLOW_UNSAFE_REDIS=true",
		"OPENCLAW_TOKEN_PEPPER=" + pepper, "BOX_SECRETS_KEY=" + sealingKey, "GATEWAY_IMAGE=" + image, "KUBECONFIG=" + e.config,
		"LISTEN=" + p.address, "IDENTITY=operator-0", "SWEEP_EVERY=" + sweepEvery.String(), "TOKEN_OVERLAP=1s",
	}
	log := filepath.Join(e.t.TempDir(), "log")
	e.t.Cleanup(func() {
		if text, err := os.ReadFile(log); err == nil && e.t.Failed() {
			e.t.Logf("the operator at %s:\n%s", p.address, text[max(0, len(text)-4000):])
		}
	})
	p.Program = testenv.Start(e.t, environment, log, testenv.BuildBinary(e.t, "./cmd/control"), append([]string{"operator"}, args...)...)
	return p
}

// metric sums the samples of a metric whose labels contain some text.
func (p *program) metric(name, labels string) float64 {
	resp, err := http.Get("http://" + p.address + "/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return -1
	}
	sum := 0.0
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{.*\})? (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		if v, err := strconv.ParseFloat(m[2], 64); err == nil && strings.Contains(m[1], labels) {
			sum += v
		}
	}
	return sum
}

func (p *program) leads() {
	p.e.t.Helper()
	p.e.until(soon, func() string {
		if p.metric("operator_leader", "") != 1 {
			return "the operator does not lead"
		}
		return ""
	})
}

// revoker does what the api does beside: it revokes tokens whose time has come.
func (e *env) revoker() {
	e.t.Helper()
	work, err := jobs.New(e.t.Context(), e.st, slog.New(slog.DiscardHandler), &jobs.Handlers{
		RevokeToken: func(ctx context.Context, id string) error {
			_, err := e.service.RevokeToken(ctx, "test", id)
			return err
		},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	if err := work.Start(context.Background()); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := work.Stop(context.Background()); err != nil {
			e.t.Error(err)
		}
		work.Close()
	})
}

// complete makes a customer's box that has all that a real configuration needs.
func (e *env) complete(n int) control.Box {
	e.t.Helper()
	b := e.customer("pro")
	ref := customers.BoxRef{ID: b.ID}
	users := []int64{int64(1000 + n)}
	if _, err := e.service.UpdateBoxSettings(e.t.Context(), "test", ref, customers.BoxSettingsChange{TelegramUsers: &users}); err != nil {
		e.t.Fatal(err)
	}
	if _, err := e.service.SetTelegramToken(e.t.Context(), "test", ref, secret.Text(fmt.Sprintf("%d:telegram_token_of_a_test_that_is_fake", 100_000+n))); err != nil {
		e.t.Fatal(err)
	}
	return b
}

// Many boxes that wait for the operator's start are all provisioned at once; then nothing is written.
func TestManyBoxes(t *testing.T) {
	t.Parallel()
	n, quiet := full(20, 500), full(5*time.Second, 3*time.Minute)
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	var boxes []control.Box
	for i := range n {
		boxes = append(boxes, e.complete(i))
	}
	testenv.BuildBinary(t, "./cmd/control")
	began := time.Now()
	p := e.program("--workers", "16")
	var totals []time.Duration
	for _, b := range boxes {
		b = e.becomes(b.ID, control.BoxActive, full(soon, 10*time.Minute))
		totals = append(totals, b.ChangedAt.Sub(began))
	}
	steps := make(map[string][]time.Duration)
	for _, b := range boxes {
		for _, s := range e.steps(b.ID) {
			steps[s.Name] = append(steps[s.Name], s.FinishedAt.Sub(s.StartedAt))
		}
	}
	quantile := func(list []time.Duration, q float64) time.Duration {
		slices.Sort(list)
		return list[int(q*float64(len(list)-1))]
	}
	for name, list := range steps {
		t.Logf("%d boxes: %-10s p50 %9s p99 %9s", n, name, quantile(list, 0.5).Round(time.Microsecond), quantile(list, 0.99).Round(time.Microsecond))
	}
	t.Logf("%d boxes: from the operator's start until ready: p50 %s, p99 %s", n, quantile(totals, 0.5).Round(time.Millisecond), quantile(totals, 0.99).Round(time.Millisecond))
	// A namespace is asked for once, each of 8 objects is written once, and again every
	// 100 ms while a right or a quota is not in force yet. Whatever boxes there are, a watch begins with a
	// list, and a sweep lists the nodes and gets the addresses of the API server.
	sweeps := float64(time.Since(began)/sweepEvery + 1)
	for verb, most := range map[string]float64{"list": (15 + sweeps) / float64(n), "get": 2 + sweeps/float64(n), "patch": 60, "create": 0.5, "delete": 0.5} {
		per := p.metric("operator_api_requests_total", `verb="`+verb+`"`) / float64(n)
		t.Logf("%d boxes: %.2f requests %s for each", n, per, verb)
		if per > most {
			t.Errorf("%.2f requests %s for each box, want at most %.2f", per, verb, most)
		}
	}
	t.Logf("%d boxes: the operator takes %.0f MiB", n, p.metric("process_resident_memory_bytes", "")/(1<<20))

	written := func() float64 {
		sum := 0.0
		for _, verb := range []string{"patch", "create", "delete", "update"} { // the last is the Lease's
			sum += p.metric("operator_api_requests_total", `verb="`+verb+`"`)
		}
		return sum
	}
	reports := func() string {
		return e.pg.Query("SELECT sum(n_tup_upd + n_tup_ins + n_tup_del) FROM pg_stat_xact_user_tables") +
			e.pg.Query("SELECT max(updated_at), count(*) FROM boxes") + e.pg.Query("SELECT count(*), max(at) FROM audit_log")
	}
	before, books := written(), reports()
	time.Sleep(quiet)
	// The Lease is renewed every 100 s, and nothing else is written: at full length twice in three
	// minutes, and in a short time once at most.
	after := written()
	t.Logf("%d boxes: %.0f writes to the cluster in %s without any change", n, after-before, quiet)
	if writes := after - before; after <= 0 || writes > 1 && writes >= quiet.Minutes() {
		t.Errorf("in %s without any change %v requests wrote to the cluster", quiet, writes)
	}
	if now := reports(); now != books {
		t.Errorf("without any change the books went from %q to %q", books, now)
	}
}

// The operator is killed at random moments while boxes are made, changed and destroyed. In the
// end each is what it shall be, and nothing else is left.
func TestKilledOperator(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	e.revoker()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var boxes []control.Box
	destroyed := make(map[string]bool)
	ctx := t.Context()
	change := func(ref customers.BoxRef) error {
		var err error
		switch random.IntN(6) {
		case 0:
			_, err = e.service.ResizeBox(ctx, "test", ref, []string{"starter", "team", ""}[random.IntN(3)], "")
		case 1, 2:
			_, err = e.service.RotateBoxToken(ctx, "test", ref, "")
		case 3:
			_, err = e.service.SuspendBox(ctx, "test", ref, "")
		case 4:
			_, err = e.service.ResumeBox(ctx, "test", ref, "")
		case 5:
			prompt := fmt.Sprint("Be brief ", random.IntN(1000))
			_, err = e.service.UpdateBoxSettings(ctx, "test", ref, customers.BoxSettingsChange{SystemPrompt: &prompt})
		}
		return err
	}
	kills := full(8, 100)
	for kill := range kills {
		p := e.program()
		if kill%2 == 0 {
			boxes = append(boxes, e.complete(kill))
		}
		p.leads()
		boxes = append(boxes, e.complete(1000+kill))
		for range 2 {
			b := boxes[random.IntN(len(boxes))]
			if destroyed[b.ID] {
				continue
			}
			if err := change(customers.BoxRef{ID: b.ID}); err != nil {
				t.Fatal(err)
			}
		}
		if b := boxes[random.IntN(len(boxes))]; kill%3 == 2 && !destroyed[b.ID] {
			if _, err := e.service.DestroyBox(ctx, "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
				t.Fatal(err)
			}
			destroyed[b.ID] = true
		}
		time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		p.Kill()
	}
	e.program()
	opts := e.options()
	var spaces []string
	for _, b := range boxes {
		switch d := e.box(b.ID); d.Wants {
		case control.BoxDestroy:
			e.becomes(b.ID, control.BoxDestroyed, 2*soon)
			continue
		case control.BoxSuspend:
			e.becomes(b.ID, control.BoxSuspended, soon)
		default:
			e.becomes(b.ID, control.BoxActive, soon)
		}
		spaces = append(spaces, b.Namespace)
		e.matches(opts, b.ID)
		e.until(soon, func() string {
			d, err := e.boxes.Desired(ctx, b.ID)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Tokens) != 1 || d.Tokens[0].Digest != e.hasher.Digest([]byte(e.token(b.Namespace))) || d.Tokens[0].Status != contract.StatusActive {
				return fmt.Sprintf("box %s has the tokens %+v", b.ID, d.Tokens)
			}
			return ""
		})
	}
	slices.Sort(spaces)
	for what, command := range map[string][]string{
		"namespaces": {"get", "namespaces", "-l", "app.kubernetes.io/managed-by=openclaw-operator", "-o", "jsonpath={.items[*].metadata.name}"},
		"Secrets":    {"get", "secrets", "-A", "--field-selector", "metadata.name=openclaw-config", "-o", "jsonpath={.items[*].metadata.namespace}"},
	} {
		got := strings.Fields(e.kube.Kubectl(command...))
		slices.Sort(got)
		if !slices.Equal(got, spaces) {
			t.Errorf("%s: %v, want those of %v", what, got, spaces)
		}
	}
	// One that was being worked when its process was killed is worked once more an hour later;
	// nothing waits for it.
	e.until(soon, func() string {
		left := e.pg.Query("SELECT kind, state, count(*) FROM river_job WHERE state NOT IN ('completed', 'cancelled') AND kind <> 'retention' GROUP BY kind, state")
		if rest := strings.Fields(left); len(rest) > 0 && !(len(rest) == 1 && strings.HasPrefix(rest[0], "box|running|")) {
			return "jobs are left: " + left
		}
		return ""
	})
	t.Logf("%d kills, %d boxes, %d of them destroyed", kills, len(boxes), len(destroyed))
}
