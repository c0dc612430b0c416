package operator

import (
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
)

// No gateway is failed while the kubelet may still have it come up, also if none of its probes is
// answered at all.
func TestTheKubeletGivesUpFirst(t *testing.T) {
	t.Parallel()
	p := startupProbe()
	longest := time.Duration(p.FailureThreshold) * time.Duration(max(p.PeriodSeconds, p.TimeoutSeconds)) * time.Second
	if longest != openclaw.StartupLimit {
		t.Errorf("a start has %s, and not %s", longest, openclaw.StartupLimit)
	}
	var o Options
	_ = o.complete() // it misses what is not looked at here
	if o.ReadyWithin <= longest {
		t.Errorf("it is failed after %s, and given up after %s", o.ReadyWithin, longest)
	}
	if err := CheckReadyWithin(o.ReadyWithin); err != nil {
		t.Error(err)
	}
	if CheckReadyWithin(longest) == nil {
		t.Error("it may be failed in the moment in which it is given up")
	}
}
