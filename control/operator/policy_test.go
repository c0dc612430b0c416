package operator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// Without the policy that limits its rights the operator does not begin, and is not ready; if it
// goes later, the boxes are looked after all the same.
func TestPolicy(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	registry := prometheus.NewRegistry()
	opts.Registerer, opts.SweepEvery = registry, 500*time.Millisecond
	none, away, inForce := fmt.Errorf("there is no policy: %w", operator.ErrNoPolicy), errors.New("the API server is away"), error(nil)
	var answer atomic.Pointer[error]
	answer.Store(&none)
	opts.PolicyInForce = func(_ context.Context, client kubernetes.Interface) error {
		if client == nil {
			t.Error("without a client")
		}
		return *answer.Load()
	}
	b := e.customer("starter")
	op := e.run(opts)
	ready := func(want string) {
		t.Helper()
		e.until(soon, func() string {
			text := ""
			if err := op.Ready(); err != nil {
				text = err.Error()
			}
			if want == "" && text == "" || want != "" && strings.Contains(text, want) {
				return ""
			}
			return "it says " + text + ", and not " + want
		})
	}
	gauge := func(name string) float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == name {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatalf("there is no metric %s", name)
		return 0
	}
	ready("there is no policy")
	e.until(soon, func() string {
		if gauge("operator_last_sweep_timestamp_seconds") == 0 {
			return "how long ago a sweep was is not counted from when it began to lead, though it makes none"
		}
		return ""
	})
	time.Sleep(3 * time.Second)
	if state := e.box(b.ID).State; state != control.BoxPending || gauge("operator_policy_in_force") != 0 {
		t.Errorf("without the policy the box is %s", state)
	}
	answer.Store(&inForce)
	e.becomes(b.ID, control.BoxActive, soon)
	ready("")
	if gauge("operator_policy_in_force") != 1 {
		t.Error("the metrics do not say that it works within the policy")
	}
	swept := gauge("operator_last_sweep_timestamp_seconds")
	e.until(soon, func() string {
		if gauge("operator_last_sweep_timestamp_seconds") <= swept {
			return "the metrics show no further sweep"
		}
		return ""
	})
	answer.Store(&away)
	ready("the API server is away")
	if gauge("operator_policy_in_force") != 1 {
		t.Error("an API server that does not answer counts as a policy that is not there")
	}
	answer.Store(&none)
	ready("there is no policy")
	e.until(soon, func() string {
		if gauge("operator_policy_in_force") != 0 {
			return "the metrics do not say that there is no policy any more"
		}
		return ""
	})
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
}
