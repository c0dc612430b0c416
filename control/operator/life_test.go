package operator_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const soon = 60 * time.Second

// matches compares each object of a box that the program made with what it shall be, but for
// what the program alone knows: the configuration's text.
func (e *env) matches(opts operator.Options, id string) {
	e.t.Helper()
	opts.Objects.Render = func(operator.ObjectOptions, control.DesiredBox) ([]byte, error) {
		d, err := e.boxes.Desired(e.t.Context(), id)
		if err != nil {
			return nil, err
		}
		return base64.StdEncoding.DecodeString(e.field(d.Namespace, "secret/openclaw-config", ".data.openclaw\\.json"))
	}
	opts.Objects.Model = ""
	e.asDesired(opts, id)
}

// asDesired compares each object of a box with what it shall be.
func (e *env) asDesired(opts operator.Options, id string) {
	e.t.Helper()
	d, err := e.boxes.Desired(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	e.until(soon, func() string {
		problem, err := operator.Compare(e.t.Context(), opts, d)
		if err != nil {
			return err.Error()
		}
		return problem
	})
}

// token reads the proxy token out of a box's Secret.
func (e *env) token(namespace string) string {
	e.t.Helper()
	raw, err := base64.StdEncoding.DecodeString(e.field(namespace, "secret/openclaw-config", ".data."+operator.EnvProxyToken))
	if err != nil {
		e.t.Fatal(err)
	}
	return string(raw)
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// grant says what the proxies know of a token.
func (e *env) grant(token string) contract.Status {
	e.t.Helper()
	b, err := e.client.Get(e.t.Context(), contract.GrantKey(e.hasher.Digest([]byte(token)))).Bytes()
	if err != nil {
		return ""
	}
	g, err := contract.DecodeGrant(b)
	if err != nil {
		e.t.Fatal(err)
	}
	return g.Status
}

// A box is provisioned, changed, suspended, resumed, restarted, given another token, and
// destroyed; after each all objects are as they shall be.
func life(t *testing.T, e *env, opts operator.Options) {
	ctx := t.Context()

	b := e.customer("pro")
	e.becomes(b.ID, control.BoxActive, soon)
	e.asDesired(opts, b.ID)
	steps := e.steps(b.ID)
	for _, s := range steps {
		if s.FinishedAt.IsZero() || s.Error != "" {
			t.Errorf("step %s has not ended well: %+v", s.Name, s)
		}
		t.Logf("provision: %-10s %7.1f ms", s.Name, float64(s.FinishedAt.Sub(s.StartedAt).Microseconds())/1000)
	}
	if len(steps) < 9 {
		t.Errorf("only %d steps: %+v", len(steps), steps)
	}
	ref, ns := customers.BoxRef{ID: b.ID}, b.Namespace
	first := e.token(ns)
	if g := e.grant(first); g != contract.StatusActive {
		t.Errorf("the proxies take the token of the box for %q", g)
	}

	rolls := func(what string, do func() error) {
		t.Helper()
		before := e.podUID(ns)
		if before == "" || strings.Contains(before, " ") {
			t.Fatalf("not one pod before: %q", before)
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		e.becomes(b.ID, control.BoxActive, soon)
		e.asDesired(opts, b.ID)
		if after := e.podUID(ns); after == before || after == "" || strings.Contains(after, " ") {
			t.Errorf("%s: the pod was %s and is %q", what, before, after)
		}
	}
	hash := func() string {
		return e.field(ns, "pods", ".items[0].metadata.annotations.openclaw\\.cloud/config-hash")
	}
	hashed := hash()
	rolls("settings", func() error {
		prompt := "Be brief."
		_, err := e.service.UpdateBoxSettings(ctx, "test", ref, customers.BoxSettingsChange{SystemPrompt: &prompt})
		return err
	})
	if hash() == hashed {
		t.Error("the pod has the configuration of before")
	}
	rolls("bot", func() error {
		_, err := e.service.SetTelegramToken(ctx, "test", ref, "123456:telegram_token_of_a_test_that_is_fake")
		return err
	})
	rolls("size", func() error { _, err := e.service.ResizeBox(ctx, "test", ref, "team", ""); return err })
	rolls("restart", func() error { _, err := e.service.RestartBox(ctx, "test", ref, ""); return err })
	if e.token(ns) != first {
		t.Error("the token was changed by something else than a rotation")
	}
	rolls("rotation", func() error { _, err := e.service.RotateBoxToken(ctx, "test", ref, ""); return err })
	second := e.token(ns)
	if second == first || e.grant(second) != contract.StatusActive {
		t.Errorf("after the rotation the token is the same: %v; the proxies take it for %q", second == first, e.grant(second))
	}
	e.until(soon, func() string {
		if g := e.grant(first); g != contract.StatusRevoked {
			return fmt.Sprintf("the token of before the rotation is %q", g)
		}
		return ""
	})

	if _, err := e.service.SuspendBox(ctx, "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
	e.asDesired(opts, b.ID)
	if pod := e.podUID(ns); pod != "" {
		t.Errorf("a suspended box has the pod %s", pod)
	}
	language := control.Portuguese
	if _, err := e.service.UpdateBoxSettings(ctx, "test", ref, customers.BoxSettingsChange{Language: &language}); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
	e.asDesired(opts, b.ID)
	if _, err := e.service.ResumeBox(ctx, "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxActive, soon)
	e.asDesired(opts, b.ID)
	if e.token(ns) != second {
		t.Error("the token was changed by being suspended")
	}

	if _, err := e.service.DestroyBox(ctx, "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(second); g != contract.StatusRevoked {
		t.Errorf("a box that was told to go still has a token that is %q", g)
	}
	e.becomes(b.ID, control.BoxDestroyed, 2*soon)
	if left := e.field("", "namespace/"+ns, ".metadata.name"); left != "" {
		t.Errorf("namespace %s is left", left)
	}
	operations := e.pg.Query("SELECT string_agg(action, ' ' ORDER BY at) FROM audit_log WHERE detail ? 'took_us' AND target = '" + b.ID + "'")
	if want := "box.provision box.update box.update box.update box.restart box.rotate box.suspend box.update box.resume box.destroy"; strings.TrimSpace(operations) != want {
		t.Errorf("operations in the audit log: %q, want %q", operations, want)
	}
}
