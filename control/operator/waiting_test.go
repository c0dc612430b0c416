package operator_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// A box to which nobody can write waits for what is missing, and is no failure. When it is given the
// box runs; when it is taken away again the box stops.
func TestWaitsForABot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.Mute, opts.Objects.Render = false, demanding
	b := e.customer("starter")
	e.run(opts)
	waits := func(text string) {
		t.Helper()
		e.until(soon, func() string {
			if d := e.box(b.ID); d.State != control.BoxPending || d.Observed != d.Generation || !strings.Contains(d.Message, text) {
				return fmt.Sprintf("%s of generation %d of %d: %q", d.State, d.Observed, d.Generation, d.Message)
			}
			return ""
		})
	}
	users := func(list ...int64) {
		t.Helper()
		if _, err := e.service.UpdateBoxSettings(t.Context(), "test", customers.BoxRef{ID: b.ID}, customers.BoxSettingsChange{TelegramUsers: &list}); err != nil {
			t.Fatal(err)
		}
	}
	waits("telegram-token")
	if spaces, err := e.kube.TryKubectl("get", "namespace", b.Namespace, "--ignore-not-found", "-o", "name"); err != nil || spaces != "" {
		t.Errorf("it has a namespace meanwhile: %q, %v", spaces, err)
	}
	e.giveBot(b.ID)
	waits("Telegram users")
	users(7)
	e.becomes(b.ID, control.BoxActive, soon)
	users()
	waits("Telegram users")
	if bot := e.field(b.Namespace, "secret/"+operator.ConfigName, ".data."+operator.EnvTelegramToken); bot == "" {
		t.Error("the bot is forgotten that was not taken away")
	}
	if replicas := e.field(b.Namespace, "deployment/"+operator.GatewayName, ".spec.replicas"); replicas != "0" {
		t.Errorf("%s replicas run", replicas)
	}
	users(8)
	e.becomes(b.ID, control.BoxActive, soon)
}

// demanding is render for gateways that run with a bot only, as that of the program.
func demanding(o operator.ObjectOptions, d control.DesiredBox) ([]byte, error) {
	if d.TelegramToken == "" && d.Wants != control.BoxSuspend {
		return nil, fmt.Errorf("%w: no bot", control.ErrInvalid)
	}
	return render(o, d)
}

// A suspended box is at rest without a bot too, and when its bot's token cannot be read.
func TestSuspendedWithoutABot(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.Mute, opts.Objects.Render, opts.SweepEvery, opts.SweepAll = false, demanding, 500*time.Millisecond, time.Second
	b := e.customer("starter")
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.run(opts)
	e.becomes(b.ID, control.BoxSuspended, soon)
	books := func() string {
		return e.pg.Query("SELECT count(*), max(at) FROM audit_log") + e.pg.Query("SELECT max(updated_at), max(message) FROM boxes")
	}
	time.Sleep(2 * time.Second)
	before := books()
	time.Sleep(4 * time.Second)
	if after := books(); after != before {
		t.Errorf("the books went from %q to %q", before, after)
	}
}

// giveBot sets the token of a box's Telegram bot.
func (e *env) giveBot(id string) {
	e.t.Helper()
	if _, err := e.service.SetTelegramToken(e.t.Context(), "test", customers.BoxRef{ID: id}, secret.Text("123456:fake-token-of-a-test-bot-0123456789-"+id)); err != nil {
		e.t.Fatal(err)
	}
}

// While the token of a box's bot cannot be read the box keeps the one that it has, and all else is
// done as ever. A box that has none yet waits.
func TestBotThatCannotBeRead(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.Mute, opts.Objects.Render = false, demanding
	ready := func() control.Box {
		b := e.customer("starter")
		e.giveBot(b.ID)
		if _, err := e.service.UpdateBoxSettings(t.Context(), "test", customers.BoxRef{ID: b.ID}, customers.BoxSettingsChange{TelegramUsers: &[]int64{7}}); err != nil {
			t.Fatal(err)
		}
		return b
	}
	runs := ready()
	first := e.run(opts)
	e.becomes(runs.ID, control.BoxActive, soon)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	bot := func() string {
		text, _ := base64.StdEncoding.DecodeString(e.field(runs.Namespace, "secret/"+operator.ConfigName, ".data."+operator.EnvTelegramToken))
		return string(text)
	}
	was := bot()
	later := ready()
	other, err := secret.ParseKeys(strings.Repeat("0123456789abcdef", 4))
	if err != nil {
		t.Fatal(err)
	}
	blind := *e.service
	blind.Seals = other
	opts = e.another(opts)
	opts.Books = &customers.Boxes{Service: &blind}
	if _, err := e.service.RestartBox(t.Context(), "test", customers.BoxRef{ID: runs.ID}, ""); err != nil {
		t.Fatal(err)
	}
	pod := e.podUID(runs.Namespace)
	e.run(opts)
	e.becomes(runs.ID, control.BoxActive, soon)
	if now := e.podUID(runs.Namespace); now == pod || bot() != was || was == "" {
		t.Errorf("the pod is %s (was %s), the bot's token is the same: %v", now, pod, bot() == was)
	}
	e.until(soon, func() string {
		if d := e.box(later.ID); d.State != control.BoxPending || !strings.Contains(d.Message, "can be read") {
			return fmt.Sprintf("%s: %q", d.State, d.Message)
		}
		return ""
	})
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: runs.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(runs.ID, control.BoxSuspended, soon)
}

// oddBooks refuse some of what they are told.
type oddBooks struct {
	operator.Books
	mu     sync.Mutex
	tokens map[string]bool // that were refused
	refuse int             // so many tokens
	fenced bool
	slow   chan error // gets the error of the context in which a report was made that takes a second
	asked  int        // calls of Desired
}

func (b *oddBooks) Desired(ctx context.Context, id string) (control.DesiredBox, error) {
	b.mu.Lock()
	b.asked++
	b.mu.Unlock()
	return b.Books.Desired(ctx, id)
}

func (b *oddBooks) RegisterToken(ctx context.Context, id string, token contract.Token) (control.ProxyToken, error) {
	b.mu.Lock()
	refuse := len(b.tokens) < b.refuse || b.tokens[token.Reveal()]
	if refuse {
		b.tokens[token.Reveal()] = true
	}
	b.mu.Unlock()
	if refuse {
		return control.ProxyToken{}, fmt.Errorf("it was revoked: %w", control.ErrConflict)
	}
	return b.Books.RegisterToken(ctx, id, token)
}

func (b *oddBooks) Report(ctx context.Context, r control.BoxReport) error {
	b.mu.Lock()
	slow := b.slow
	b.slow = nil
	b.mu.Unlock()
	if slow != nil {
		slow <- nil
		time.Sleep(time.Second)
		slow <- ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fenced {
		return fmt.Errorf("term 1, and not 2: %w", control.ErrFenced)
	}
	return b.Books.Report(ctx, r)
}

// A token that the books refuse for good is not tried again; and whoever hears that another
// operator leads ends.
func TestRefusedByTheBooks(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	books := &oddBooks{Books: e.boxes, tokens: map[string]bool{}, refuse: 2}
	opts.Books = books
	b := e.customer("starter")
	op := e.run(opts)
	e.becomes(b.ID, control.BoxActive, soon)
	books.mu.Lock()
	if len(books.tokens) != 2 {
		t.Errorf("%d tokens were refused, want 2", len(books.tokens))
	}
	books.fenced = true
	books.mu.Unlock()
	if _, err := e.service.RestartBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	if err := op.wait(20 * time.Second); !errors.Is(err, operator.ErrLost) || !errors.Is(err, control.ErrFenced) {
		t.Errorf("it ended with %v", err)
	}
}

// Who is told to end finishes the passes in hand.
func TestPassesAreFinished(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	slow := make(chan error, 2)
	opts.Books = &oddBooks{Books: e.boxes, tokens: map[string]bool{}, slow: slow}
	e.customer("starter")
	op := e.run(opts)
	<-slow // it reports
	if err := op.stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; err != nil {
		t.Errorf("a pass in hand was cut off: %v", err)
	}
}

// A gateway that the admission policy would not allow today is stopped all the same.
func TestDestroyWhatThePolicyRefuses(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	rights, err := operator.AccessFor(operator.ObjectOptions{Image: image})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.kube.Apply(rights); err != nil {
		t.Fatal(err)
	}
	opts := e.options()
	b := e.customer("starter")
	first := e.run(opts)
	e.becomes(b.ID, control.BoxActive, soon)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	other := "other.test/openclaw-gateway@sha256:" + strings.Repeat("1f", 32)
	if out, err := e.kube.TryKubectl("set", "image", "-n", b.Namespace, "deployment/"+operator.GatewayName, "*="+other); err != nil {
		t.Fatal(out, err)
	}
	if _, err := e.service.DestroyBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.run(e.another(opts))
	e.becomes(b.ID, control.BoxDestroyed, soon)
}

// A volume that its class does not let grow stays as it is, and holds up nothing: neither what
// else is to be done about the box nor, by being tried again and again, other boxes.
func TestVolumeThatCannotGrow(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.Objects.StorageClass, opts.Objects.StateMiB = "fixed", 1024
	b := e.customer("starter")
	if err := e.kube.Apply(`apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fixed}
provisioner: kubernetes.io/no-provisioner
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: fixed}
spec:
  storageClassName: fixed
  capacity: {storage: 4Gi}
  accessModes: [ReadWriteOnce]
  hostPath: {path: /fixed}
`); err != nil {
		t.Fatal(err)
	}
	first := e.run(opts)
	e.becomes(b.ID, control.BoxActive, soon)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	opts = e.another(opts)
	opts.Objects.StateMiB = 2048
	books := &oddBooks{Books: e.boxes, tokens: map[string]bool{}}
	opts.Books = books
	e.run(opts)
	e.until(soon, func() string {
		books.mu.Lock()
		defer books.mu.Unlock()
		if books.asked == 0 {
			return "it does not look at the box"
		}
		return ""
	})
	time.Sleep(5 * time.Second)
	books.mu.Lock()
	if books.asked > 10 {
		t.Errorf("it was looked at %d times in 5 s", books.asked)
	}
	books.mu.Unlock()
	if d := e.box(b.ID); d.State != control.BoxActive {
		t.Errorf("it is %s: %s", d.State, d.Message)
	}
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
}
