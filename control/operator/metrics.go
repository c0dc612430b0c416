package operator

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// metrics are the Operator's. All but leader are 0 where another process leads.
type metrics struct {
	leader, orphans prometheus.Gauge
	states          *prometheus.GaugeVec
	duration        prometheus.Histogram
	errors          prometheus.Counter
	steps           *prometheus.HistogramVec
	operations      *prometheus.CounterVec
	failed          *prometheus.CounterVec
	unhealthy       prometheus.Counter
	repaired        *prometheus.CounterVec
	restarted       prometheus.Counter
	forced          prometheus.Counter
	policy, rolling prometheus.Gauge
	rolled          prometheus.Counter
	swept, oldest   prometheus.Gauge
}

// states are all that a box can be in; those without a box show as 0.
func states() []control.BoxState {
	return []control.BoxState{
		control.BoxPending, control.BoxProvisioning, control.BoxActive, control.BoxUpdating, control.BoxSuspended,
		control.BoxUnhealthy, control.BoxFailed, control.BoxDestroying,
	}
}

func newMetrics(reg prometheus.Registerer, cluster *Cluster, depth func() float64) (*metrics, error) {
	m := &metrics{
		leader:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "operator_leader", Help: "1 if this process makes boxes what they shall be."}),
		orphans: prometheus.NewGauge(prometheus.GaugeOpts{Name: "operator_orphan_namespaces", Help: "Namespaces of boxes that Postgres does not know; they are left alone, and someone has to look at them."}),
		states:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "operator_boxes", Help: "Boxes that are not destroyed, by state."}, []string{"state"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "operator_reconcile_seconds", Help: "Duration of one pass over a box.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{Name: "operator_reconcile_errors_total", Help: "Passes over a box that failed and were tried again."}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "operator_step_seconds", Help: "Duration of the steps of what was done to boxes.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 15),
		}, []string{"step"}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "operator_operations_total", Help: "Operations that ended."}, []string{"operation", "result"}),
		failed:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "operator_box_failures_total", Help: "Boxes that could not be provisioned, or not be updated, by cause."}, []string{"cause"}),
		unhealthy:  prometheus.NewCounter(prometheus.CounterOpts{Name: "operator_box_unhealthy_total", Help: "Boxes that were found unhealthy."}),
		repaired:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "operator_repaired_objects_total", Help: "Objects of settled boxes that were not as they shall be, and were put right."}, []string{"kind"}),
		restarted:  prometheus.NewCounter(prometheus.CounterOpts{Name: "operator_restarted_pods_total", Help: "Pods that were restarted or removed because they were not ready."}),
		forced:     prometheus.NewCounter(prometheus.CounterOpts{Name: "operator_forced_pods_total", Help: "Pods that were removed by force because their node was lost."}),
		policy:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "operator_policy_in_force", Help: "1 if the admission policy was seen that limits the operator's rights to boxes."}),
		rolling:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "operator_rolling_gateways", Help: "Gateways that are being replaced for no decision about their boxes. If it stays above 0 and operator_rolled_gateways_total does not grow, a roll-out stands still."}),
		rolled:     prometheus.NewCounter(prometheus.CounterOpts{Name: "operator_rolled_gateways_total", Help: "Gateways whose being replaced came to its end."}),
		swept:      prometheus.NewGauge(prometheus.GaugeOpts{Name: "operator_last_sweep_timestamp_seconds", Help: "When the leader last read all boxes, or began to lead, in Unix time; 0 of who does not."}),
		oldest:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "operator_oldest_unsettled_seconds", Help: "How long a box has been on its way in its present state, of those that shall become something else, the longest. Failed ones count not."}),
	}
	// Of one that began with its first failure it could not be told how much it has grown.
	for _, cause := range troubles() {
		m.failed.WithLabelValues(cause)
	}
	if reg == nil {
		return m, nil
	}
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "operator_queue_boxes", Help: "Boxes that wait for a worker."}, depth)
	for _, c := range []prometheus.Collector{
		m.leader, m.orphans, m.states, m.duration, m.errors, m.steps, m.operations, m.failed, m.unhealthy, m.repaired, m.restarted,
		m.forced, m.policy, m.rolling, m.rolled, m.swept, m.oldest,
		waiting, cluster.requests,
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) reconciled(took time.Duration, err error) {
	m.duration.Observe(took.Seconds())
	if err != nil {
		m.errors.Inc()
	}
}

// boxes shows how many boxes are in which state.
func (m *metrics) boxes(list []control.Box) {
	n := make(map[control.BoxState]int)
	oldest := time.Duration(0)
	for _, b := range list {
		n[b.State]++
		if !settled(b) && !waits(b) && b.State != control.BoxFailed {
			oldest = max(oldest, time.Since(b.ChangedAt))
		}
	}
	m.swept.SetToCurrentTime()
	m.oldest.Set(oldest.Seconds())
	for _, s := range states() {
		m.states.WithLabelValues(string(s)).Set(float64(n[s]))
	}
}
