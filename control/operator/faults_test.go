package operator_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// TestFaults takes away from an operator, one after the other, what it needs.
func TestFaults(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.DedicatedPostgres(t))
	opts := e.options()
	opts.PlacedWithin, opts.RetryMin, opts.Overlap = 20*time.Second, time.Hour, time.Second
	opts.LeaseFor = time.Minute // for the API server takes seconds to start
	first := e.run(opts)

	// No node takes the pod: it fails in time, says why, and nothing of it is left running.
	for n := range 2 {
		e.kube.Kubectl("cordon", fmt.Sprintf("node-%d", n))
	}
	b := e.customer("starter")
	failed := e.becomes(b.ID, control.BoxFailed, soon)
	if detail := e.detail(b.ID); !strings.Contains(detail, "no node takes its pod: ") || !strings.Contains(failed.Message, "no room") {
		t.Errorf("it failed with %q, to operators %q", failed.Message, detail)
	}
	token := e.token(b.Namespace)
	e.until(soon, func() string {
		if g := e.grant(token); g != contract.StatusRevoked {
			return fmt.Sprintf("the token of a failed box is %q", g)
		}
		if pod := e.podUID(b.Namespace); pod != "" {
			return "a failed box still has a pod"
		}
		return ""
	})
	for n := range 2 {
		e.kube.Kubectl("uncordon", fmt.Sprintf("node-%d", n))
	}
	ref := customers.BoxRef{ID: b.ID}
	if _, err := e.service.RestartBox(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxActive, soon)
	e.asDesired(opts, b.ID)
	if e.token(b.Namespace) == token {
		t.Error("it came back with the token that was revoked")
	}

	// Postgres away: boxes stay, and drift is put right once it is back.
	e.pg.Stop()
	e.kube.Kubectl("delete", "-n", b.Namespace, "networkpolicy/customer-isolation")
	time.Sleep(2 * time.Second)
	if uid := e.podUID(b.Namespace); uid == "" {
		t.Error("without Postgres the gateway is gone")
	}
	e.pg.Start()
	e.until(soon, func() string {
		if e.field(b.Namespace, "networkpolicy/customer-isolation", ".metadata.uid") == "" {
			return "after Postgres came back the policy is still missing"
		}
		return ""
	})
	e.asDesired(opts, b.ID)

	// The API server dies while a box is being changed.
	prompt := control.Portuguese
	e.kube.StopAPIServer()
	if _, err := e.service.UpdateBoxSettings(t.Context(), "test", ref, customers.BoxSettingsChange{Language: &prompt}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	e.kube.StartAPIServer()
	e.becomes(b.ID, control.BoxActive, soon)
	e.asDesired(opts, b.ID)

	// The next operator goes on once the first one has ended.
	opts.LeaseFor = 10 * time.Second
	next := e.run(e.another(opts))
	if err := first.stop(); err != nil {
		t.Errorf("the first operator ended with %v", err)
	}
	if _, err := e.service.RotateBoxToken(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxActive, soon)
	e.asDesired(opts, b.ID)
	if note := next.Note(); note != "this process leads" {
		t.Errorf("the next operator: %s", note)
	}

	// Who cannot show that it leads does not go on, and the next one does.
	e.kube.PauseAPIServer()
	if err := next.wait(soon); !errors.Is(err, operator.ErrLost) {
		t.Errorf("an operator that could not renew its lease ended with %v", err)
	}
	e.kube.ResumeAPIServer()
	e.run(e.another(opts))
	if _, err := e.service.RestartBox(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxActive, soon)
	e.asDesired(opts, b.ID)
}
