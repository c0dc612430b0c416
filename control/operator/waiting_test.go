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
	opts.Mute = false
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
	if replicas := e.field(b.Namespace, "deployment/"+operator.GatewayName, ".spec.replicas"); replicas != "0" {
		t.Errorf("%s replicas run", replicas)
	}
	users(8)
	e.becomes(b.ID, control.BoxActive, soon)
}

// giveBot sets the token of a box's Telegram bot.
func (e *env) giveBot(id string) {
	e.t.Helper()
	if _, err := e.service.SetTelegramToken(e.t.Context(), "test", customers.BoxRef{ID: id}, "123456:fake-token-of-a-test-bot-0123456789"); err != nil {
		e.t.Fatal(err)
	}
}

// While the token of a box's bot cannot be read the box keeps the one that it has, and all else is
// done as ever. A box that has none yet waits.
func TestBotThatCannotBeRead(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.Mute = false
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
