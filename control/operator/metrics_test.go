package operator

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// That boxes begin to fail can be told only of a counter that was there before.
func TestFailuresAreCountedFromTheStart(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "operator_api_requests_total"}, []string{"verb", "code"})
	if _, err := newMetrics(registry, &Cluster{requests: requests}, func() float64 { return 0 }); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	causes := make(map[string]bool)
	for _, f := range families {
		if f.GetName() != "operator_box_failures_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			causes[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() == 0
		}
	}
	for _, cause := range troubles() {
		if !causes[cause] {
			t.Errorf("no failure was counted of cause %s, which cannot be seen", cause)
		}
	}
	if len(causes) != len(troubles()) || len(causes) == 0 {
		t.Errorf("causes %v, want %v", causes, troubles())
	}
}
