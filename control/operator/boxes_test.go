package operator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// TestBoxes is what one operator does for several boxes at once, under its own rights.
func TestBoxes(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.Overlap, opts.HealthEvery = 2*time.Second, 2*time.Second
	books := &stubborn{Books: e.boxes}
	opts.Books = books
	e.run(opts)
	for name, do := range map[string]func(*testing.T, *env, operator.Options){
		"Life": life, "Drift": drift, "NamespaceDeleted": namespaceDeleted, "TwoOfOneCustomer": twoOfOneCustomer,
		"NotOurs": notOurs, "Watchers": watchers, "Unhealthy": unhealthy,
		"RevokedFirst": books.revokedFirst, "Unusable": unusable,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, e.with(t), opts)
		})
	}
}

// unwritable is a prompt of which no configuration can be made.
const unwritable = "a prompt that cannot be rendered"

// Of a box of which no configuration can be made it is said at once; it can still be suspended,
// and works once that is mended.
func unusable(t *testing.T, e *env, opts operator.Options) {
	b := e.customer("pro")
	e.becomes(b.ID, control.BoxActive, soon)
	ref := customers.BoxRef{ID: b.ID}
	say := func(prompt string) {
		t.Helper()
		if _, err := e.service.UpdateBoxSettings(t.Context(), "test", ref, customers.BoxSettingsChange{SystemPrompt: &prompt}); err != nil {
			t.Fatal(err)
		}
	}
	say(unwritable)
	if now := e.becomes(b.ID, control.BoxUnhealthy, 20*time.Second); !strings.Contains(e.detail(b.ID), unwritable) || !strings.Contains(now.Message, "its settings") {
		t.Errorf("it says %q, to operators %q", now.Message, e.detail(b.ID))
	}
	if _, err := e.service.SuspendBox(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
	if pod := e.podUID(b.Namespace); pod != "" {
		t.Errorf("a suspended box has the pod %s", pod)
	}
	say("Be brief.")
	if _, err := e.service.ResumeBox(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxActive, soon)
	e.asDesired(opts, b.ID)
}

// stubborn are books that refuse to revoke the tokens of a box.
type stubborn struct {
	operator.Books
	box atomic.Value // its ID
}

func (s *stubborn) RevokeTokens(ctx context.Context, boxID, but string, overlap time.Duration) error {
	if s.box.Load() == boxID {
		return errors.New("not yet")
	}
	return s.Books.RevokeTokens(ctx, boxID, but, overlap)
}

// Nothing of a box is deleted before its tokens are revoked.
func (s *stubborn) revokedFirst(t *testing.T, e *env, _ operator.Options) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	s.box.Store(b.ID)
	// Not by DestroyBox, which revokes them itself.
	e.pg.Query("UPDATE boxes SET wants = 'destroy', generation = generation + 1 WHERE id = '" + b.ID + "'")
	e.until(soon, func() string {
		for _, step := range e.steps(b.ID) {
			if step.Name == operator.StepRevoke && step.Error != "" {
				return ""
			}
		}
		return "nothing says that the tokens could not be revoked"
	})
	time.Sleep(time.Second)
	if at := e.field("", "namespace/"+b.Namespace, ".metadata.deletionTimestamp"); at != "" {
		t.Errorf("the namespace was deleted at %s, with a token that is good", at)
	}
	s.box.Store("")
	e.becomes(b.ID, control.BoxDestroyed, 2*soon)
}

// Whatever is changed or deleted by hand is put right within 10 s.
func drift(t *testing.T, e *env, opts operator.Options) {
	b := e.customer("pro")
	e.becomes(b.ID, control.BoxActive, soon)
	ns := b.Namespace
	first := e.token(ns)
	fake, err := contract.NewToken(nil)
	if err != nil {
		t.Fatal(err)
	}
	patch := func(what, text string) []string { return []string{"patch", "-n", ns, what, "--type=json", "-p", text} }
	late := 0
	for name, by := range map[string][]string{
		"namespace's profile":  {"label", "namespace", ns, "pod-security.kubernetes.io/enforce=privileged", "--overwrite"},
		"namespace's owner":    {"label", "namespace", ns, operator.LabelBox + "-"},
		"rights":               patch("rolebinding/openclaw-operator", `[{"op":"replace","path":"/subjects/0/name","value":"mallory"}]`),
		"account":              patch("serviceaccount/openclaw-gateway", `[{"op":"replace","path":"/automountServiceAccountToken","value":true}]`),
		"configuration":        patch("secret/openclaw-config", `[{"op":"replace","path":"/data/openclaw.json","value":"e30="}]`),
		"limits":               patch("limitrange/tier-limits", `[{"op":"replace","path":"/spec/limits/0/max/memory","value":"64Gi"}]`),
		"quota":                patch("resourcequota/tier-limits", `[{"op":"replace","path":"/spec/hard/pods","value":"50"}]`),
		"network":              patch("networkpolicy/customer-isolation", `[{"op":"add","path":"/spec/egress/-","value":{}}]`),
		"image":                patch("deployment/openclaw-gateway", `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"evil.test/x@sha256:`+strings.Repeat("00", 32)+`"}]`),
		"replicas":             patch("deployment/openclaw-gateway", `[{"op":"replace","path":"/spec/replicas","value":0}]`),
		"no rights":            {"delete", "-n", ns, "rolebinding/openclaw-operator"},
		"no account":           {"delete", "-n", ns, "serviceaccount/openclaw-gateway"},
		"no limits":            {"delete", "-n", ns, "limitrange/tier-limits"},
		"no quota":             {"delete", "-n", ns, "resourcequota/tier-limits"},
		"no network":           {"delete", "-n", ns, "networkpolicy/customer-isolation"},
		"no deployment":        {"delete", "-n", ns, "deployment/openclaw-gateway"},
		"no pod":               {"delete", "-n", ns, "pods", "--all", "--wait=false"},
		"no secret":            {"delete", "-n", ns, "secret/openclaw-config"},
		"somebody's own token": patch("secret/openclaw-config", fmt.Sprintf(`[{"op":"replace","path":"/data/%s","value":%q}]`, operator.EnvProxyToken, encoded(fake.Reveal()))),
	} {
		e.kube.Kubectl(by...)
		edited := time.Now()
		e.asDesired(opts, b.ID)
		if time.Since(edited) > 10*time.Second {
			late++ // for once it may be the machine
		}
		e.until(soon, func() string {
			if e.field(ns, "deployment/openclaw-gateway", ".status.availableReplicas") != "1" {
				return name + ": the gateway is not there again"
			}
			return ""
		})
	}
	if late > 3 {
		t.Errorf("%d edits were put right only after more than 10 s", late)
	}
	e.becomes(b.ID, control.BoxActive, soon)
	last := e.token(ns)
	if last == fake.Reveal() || e.grant(fake.Reveal()) != "" {
		t.Error("a token that somebody put into the Secret was taken over")
	}
	if last == first || e.grant(last) != contract.StatusActive {
		t.Errorf("the token of the deleted Secret is in use: %v; the new one is %q", last == first, e.grant(last))
	}
	e.until(soon, func() string {
		if g := e.grant(first); g != contract.StatusRevoked {
			return fmt.Sprintf("the token of the Secret that was deleted is %q", g)
		}
		return ""
	})
}

// A namespace that somebody deletes comes back, with a token of its own.
func namespaceDeleted(t *testing.T, e *env, opts operator.Options) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	first, uid := e.token(b.Namespace), e.field("", "namespace/"+b.Namespace, ".metadata.uid")
	e.kube.Kubectl("delete", "namespace", b.Namespace)
	e.until(soon, func() string {
		if now := e.field("", "namespace/"+b.Namespace, ".metadata.uid"); now == "" || now == uid {
			return "the namespace is not there again"
		}
		return ""
	})
	e.until(soon, func() string {
		now := e.box(b.ID)
		if now.State != control.BoxActive || e.field(b.Namespace, "deployment/openclaw-gateway", ".status.availableReplicas") != "1" {
			return fmt.Sprintf("the box is %s: %q", now.State, now.Message)
		}
		return ""
	})
	e.asDesired(opts, b.ID)
	if e.token(b.Namespace) == first {
		t.Error("it came back with the old token")
	}
	e.until(soon, func() string {
		if g := e.grant(first); g != contract.StatusRevoked {
			return fmt.Sprintf("the old token is %q", g)
		}
		return ""
	})
}

// Two boxes of one customer have nothing in common, and one is destroyed without the other.
func twoOfOneCustomer(t *testing.T, e *env, opts operator.Options) {
	a := e.customer("starter")
	b := a
	b.ID = control.NewID(control.BoxID)
	b.Namespace = "customer-" + b.ID
	if err := e.st.InTx(t.Context(), func(tx *store.Tx) error { return tx.InsertBox(t.Context(), b) }); err != nil {
		t.Fatal(err)
	}
	for _, box := range []control.Box{a, b} {
		e.becomes(box.ID, control.BoxActive, soon)
		e.asDesired(opts, box.ID)
	}
	token := e.token(b.Namespace)
	if token == e.token(a.Namespace) {
		t.Error("both have the same token")
	}
	if _, err := e.service.DestroyBox(t.Context(), "test", customers.BoxRef{ID: a.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(a.ID, control.BoxDestroyed, 2*soon)
	e.asDesired(opts, b.ID)
	if g := e.grant(token); g != contract.StatusActive || e.box(b.ID).State != control.BoxActive {
		t.Errorf("the other box is %s, its token %q", e.box(b.ID).State, g)
	}
}

// A namespace that is somebody else's is neither taken over nor deleted, and the box says why.
func notOurs(t *testing.T, e *env, _ operator.Options) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
	e.kube.Kubectl("label", "namespace", b.Namespace, operator.LabelBox+"=another", "--overwrite")
	if _, err := e.service.DestroyBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.until(soon, func() string {
		why := e.pg.Query("SELECT detail FROM box_steps WHERE box_id = '" + b.ID + "' AND name = '" + operator.StepDelete + "'")
		if strings.Contains(why, "is of box another") {
			return ""
		}
		return fmt.Sprintf("no step says why it is not destroyed: %q, %+v", why, e.steps(b.ID))
	})
	if e.field("", "namespace/"+b.Namespace, ".metadata.deletionTimestamp") != "" {
		t.Error("a namespace with another box's label was deleted")
	}
	e.kube.Kubectl("label", "namespace", b.Namespace, operator.LabelBox+"="+b.ID, "--overwrite")
	e.becomes(b.ID, control.BoxDestroyed, 2*soon)
}

// A gateway that is down at three checks is unhealthy and has its pod restarted; once it is
// ready again it is active.
func unhealthy(t *testing.T, e *env, _ operator.Options) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	pod := e.field(b.Namespace, "pods", ".items[0].metadata.name")
	uid := e.podUID(b.Namespace)
	e.kube.Kubectl("patch", "pod", "-n", b.Namespace, pod, "--subresource=status", "--type=strategic", "-p",
		`{"status":{"conditions":[{"type":"Ready","status":"False"},{"type":"ContainersReady","status":"False"}],"containerStatuses":[{"name":"gateway","ready":false}]}}`)
	e.until(soon, func() string {
		if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE target = '" + b.ID + "' AND detail->>'state' = 'unhealthy'")); n != "1" {
			return "it was " + n + " times unhealthy"
		}
		return ""
	})
	e.becomes(b.ID, control.BoxActive, soon)
	if now := e.podUID(b.Namespace); now == uid {
		t.Error("its pod was not restarted")
	}
}

// The log and the events of a box are shown to who has the key.
func watchers(t *testing.T, e *env, opts operator.Options) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	log := slog.New(slog.DiscardHandler)
	server := httptest.NewServer(operator.Handler(e.boxes, opts.Cluster, "a key that is fake", log))
	defer server.Close()
	ask := func(path, key string) (int, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	const key = "a key that is fake"
	for _, wrong := range []string{"", "a key", key + " "} {
		if status, text := ask("/boxes/"+b.ID+"/events", strings.TrimRight(wrong, " ")+"x"); status != http.StatusUnauthorized {
			t.Errorf("with a wrong key: %d %s", status, text)
		}
	}
	status, text := ask("/boxes/"+b.ID+"/events", key)
	var events []operator.Event
	if err := json.Unmarshal([]byte(text), &events); status != http.StatusOK || err != nil || len(events) == 0 {
		t.Fatalf("events: %d %s (%v)", status, text, err)
	}
	for _, ev := range events {
		if ev.Time.IsZero() || ev.Reason == "" || ev.Object == "" || ev.Count < 1 {
			t.Errorf("an event says too little: %+v", ev)
		}
	}
	for path, want := range map[string]int{
		"/boxes/none/events": http.StatusNotFound, "/boxes/" + b.ID + "/logs?tail=x": http.StatusBadRequest,
		"/boxes/" + b.ID + "/logs?tail=-1": http.StatusBadRequest, "/boxes/" + b.ID + "/logs?follow=2": http.StatusBadRequest,
	} {
		if status, text := ask(path, key); status != want || len(strings.TrimSpace(text)) < 5 {
			t.Errorf("%s: %d %q", path, status, text)
		}
	}
	recorder := httptest.NewRecorder()
	operator.Handler(e.boxes, opts.Cluster, "", log).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/boxes/"+b.ID+"/events", nil))
	if recorder.Code != http.StatusServiceUnavailable {
		t.Errorf("without a key of its own: %d", recorder.Code)
	}
}
