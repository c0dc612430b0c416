package billing

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// The sides that can fail.
const (
	stepRedis    = "redis"
	stepPostgres = "postgres"
)

// metrics are the ledger's metrics and what readiness is told from.
type metrics struct {
	events  *prometheus.CounterVec
	retries *prometheus.CounterVec
	seconds prometheus.Histogram
	size    prometheus.Histogram
	delay   prometheus.Histogram
	backlog prometheus.Gauge

	mu      sync.Mutex
	failing map[string]error // by side; nil once it answered
	pending time.Time        // when the oldest entry of the batch in hand came
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "billing_ledger_events_total", Help: "Usage events by what became of them: inserted, duplicate or parked.",
		}, []string{"result"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "billing_ledger_retries_total", Help: "Failed attempts by the side that failed: redis or postgres.",
		}, []string{"side"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "billing_ledger_batch_seconds", Help: "Time to write one transaction.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		size: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "billing_ledger_batch_events", Help: "Events in one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "billing_ledger_delay_seconds", Help: "From an entry's arrival in Redis to its commit in Postgres.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 16),
		}),
		backlog: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "billing_ledger_stream_entries", Help: "Entries of the usage stream that are not yet in Postgres.",
		}),
		failing: map[string]error{stepRedis: errors.New("not asked yet")},
	}
	lag := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "billing_ledger_lag_seconds", Help: "Age of the oldest entry of the batch in hand; 0 between batches.",
	}, m.lag)
	for _, r := range []string{"inserted", "duplicate", "parked"} {
		m.events.WithLabelValues(r)
	}
	for _, s := range []string{stepRedis, stepPostgres} {
		m.retries.WithLabelValues(s)
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.events, m.retries, m.seconds, m.size, m.delay, m.backlog, lag} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) committed(r control.Recorded, oldest, begin time.Time) {
	m.events.WithLabelValues("inserted").Add(float64(r.Inserted))
	m.events.WithLabelValues("duplicate").Add(float64(r.Duplicates))
	m.events.WithLabelValues("parked").Add(float64(len(r.Parked)))
	m.seconds.Observe(time.Since(begin).Seconds())
	m.size.Observe(float64(r.Inserted + r.Duplicates + len(r.Parked)))
	if !oldest.IsZero() {
		m.delay.Observe(max(time.Since(oldest).Seconds(), 0))
	}
	m.answered(stepPostgres)
}

func (m *metrics) retry(side string, err error) {
	m.retries.WithLabelValues(side).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing[side] = err
}

func (m *metrics) answered(side string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.failing, side)
}

func (m *metrics) ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for side, err := range m.failing {
		errs = append(errs, fmt.Errorf("%s: %w", side, err))
	}
	return errors.Join(errs...)
}

func (m *metrics) inHand(oldest time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending = oldest
}

func (m *metrics) lag() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pending.IsZero() {
		return 0
	}
	return max(time.Since(m.pending).Seconds(), 0)
}
