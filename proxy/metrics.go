package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// Metrics are the proxy's Prometheus metrics. Labels are bounded: tiers, configured
// models and upstreams, and the reasons of the refusal table; never a customer.
type Metrics struct {
	tokens         *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	blockedTotal   [refusalCount]prometheus.Counter
	upstreamErrors *prometheus.CounterVec
	ttfb           *prometheus.HistogramVec
	added          prometheus.Histogram
	outcomes       *prometheus.CounterVec
	streams        prometheus.Gauge
	unbilled       prometheus.Counter
	implausible    prometheus.Counter
	keyRefused     prometheus.Counter
	quotaErrors    prometheus.Counter
	authErrors     prometheus.Counter
	panics         prometheus.Counter
}

// NewMetrics registers the proxy's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := &Metrics{
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "token_proxy_tokens_total", Help: "Tokens metered, by kind: prompt (cached included), cached, completion."},
			[]string{"tier", "model", "kind"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "token_proxy_request_duration_seconds", Help: "From a request's arrival to the end of its answer.",
			Buckets: []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}}, []string{"upstream"}),
		upstreamErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "token_proxy_upstream_errors_total", Help: "Upstream answers that were errors, by status; also connection, timeout and cut."},
			[]string{"status_code"}),
		ttfb: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "token_proxy_upstream_ttfb_seconds", Help: "From admission to the head of the upstream's answer.",
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 2, 4, 8, 15, 30, 60, 120}}, []string{"upstream"}),
		added: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "token_proxy_admission_seconds", Help: "Latency added before the upstream is contacted: authentication, limits and reservation.",
			Buckets: []float64{.00005, .0001, .0002, .0005, .001, .002, .005, .01, .05, .25, 1, 2}}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "token_proxy_outcomes_total", Help: "Forwarded requests by how they ended and where their counts come from."},
			[]string{"outcome", "basis"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "token_proxy_streams", Help: "Streams in flight."}),

		unbilled:    counter("token_proxy_unbilled_tokens_total", "Tokens that an upstream counted above the reservation. Alert on any."),
		implausible: counter("token_proxy_implausible_usage_total", "Answers whose usage was negative or absurd. Alert on any."),
		keyRefused:  counter("token_proxy_upstream_key_refused_total", "Answers in which the upstream refused our key or account. Alert on any."),
		quotaErrors: counter("token_proxy_quota_errors_total", "Reservations that the ledger could not answer."),
		authErrors:  counter("token_proxy_auth_errors_total", "Tokens that could not be looked up."),
		panics:      counter("token_proxy_panics_total", "Panics that were caught. Each one is a bug."),
	}
	reg.MustRegister(m.tokens, m.duration, m.upstreamErrors, m.ttfb, m.added, m.outcomes, m.streams)
	blocked := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "token_proxy_blocked_total", Help: "Requests that were refused, by reason."}, []string{"reason"})
	reg.MustRegister(blocked)
	for r := refuseNone + 1; r < refusalCount; r++ {
		m.blockedTotal[r] = blocked.WithLabelValues(refusals[r].reason)
	}
	return m
}

func (m *Metrics) blocked(r refusal) { m.blockedTotal[r].Inc() }

func (m *Metrics) countTokens(tier, model string, c kimi.Counts) {
	m.tokens.WithLabelValues(tier, model, "prompt").Add(float64(c.Prompt))
	m.tokens.WithLabelValues(tier, model, "cached").Add(float64(c.Cached))
	m.tokens.WithLabelValues(tier, model, "completion").Add(float64(c.Completion))
}

// observe counts a call at its end.
func (m *Metrics) observe(c *call, took time.Duration) {
	if !c.admitted.IsZero() {
		m.added.Observe(c.admitted.Sub(c.start).Seconds())
	}
	if !c.forwarded {
		return
	}
	m.duration.WithLabelValues(c.upstreamName).Observe(took.Seconds())
	m.outcomes.WithLabelValues(string(c.outcome), string(c.basis)).Inc()
	if c.ttfb > 0 {
		m.ttfb.WithLabelValues(c.upstreamName).Observe(c.ttfb.Seconds())
	}
}

// registerState exports what only a running server knows.
func (s *Server) registerState(reg prometheus.Registerer) {
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	gauge("token_proxy_requests_in_flight", "Requests between authentication and the end of their answer.", func() float64 { return float64(s.calls.len()) })
	gauge("token_proxy_request_bytes", "Bytes of request bodies in memory.", func() float64 { return float64(s.bodyBytes.Load()) })
	gauge("token_proxy_usage_events_queued", "Usage events that are not in Redis yet.", func() float64 { return float64(s.meter.Queued()) })
	gauge("token_proxy_usage_events_unacknowledged", "Usage events that are not in Postgres yet: what would be lost with the journal, beside requests in flight.", func() float64 { return float64(s.meter.Unacknowledged()) })
	gauge("token_proxy_journal_open", "Requests that are open in the journal.", func() float64 { return float64(s.journal.Stats().Open) })
	gauge("token_proxy_journal_used_bytes", "Room that events take in the journal.", func() float64 { return float64(s.journal.Stats().LogUsed) })
	reg.MustRegister(&limitMetrics{s.ledger, descLimit()})
	gauge("token_proxy_connections_refused", "Connections closed because their address had too many.", func() float64 {
		if s.ln == nil {
			return 0
		}
		return float64(s.ln.refused.Load())
	})
}
