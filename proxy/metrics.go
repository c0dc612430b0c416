package proxy

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
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
	unparsed       prometheus.Counter
	retries        *prometheus.CounterVec
	cooldowns      *prometheus.CounterVec
	breakerOpened  *prometheus.CounterVec
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
			Name: "token_proxy_tokens_total", Help: "Tokens metered, by kind: prompt, cached, completion. The cached tokens are part of prompt: leave them out of sums."},
			[]string{"tier", "model", "kind"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "token_proxy_request_duration_seconds", Help: "From a request's arrival to the end of its answer.",
			Buckets: []float64{.001, .005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}}, []string{"upstream"}),
		upstreamErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "token_proxy_upstream_errors_total", Help: "Upstream answers that were errors, by status; also connection, timeout and cut."},
			[]string{"status_code"}),
		ttfb: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "token_proxy_upstream_ttfb_seconds", Help: "From admission to the head of the upstream's answer, which comes with the end of one that is no stream.",
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 2, 4, 8, 15, 30, 60, 120}}, []string{"upstream", "stream"}),
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
		unparsed:    counter("token_proxy_blocked_unparsed_total", "Requests that were refused for want of processors before they were parsed; they are in token_proxy_blocked_total too."),
		panics:      counter("token_proxy_panics_total", "Panics that were caught. Each one is a bug."),
	}
	byUpstream := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"upstream"}, labels...))
		reg.MustRegister(c)
		return c
	}
	m.retries = byUpstream("token_proxy_upstream_retries_total", "Requests sent once more because nothing of them had been read; done is false where the budget did not allow it.", "done")
	m.cooldowns = byUpstream("token_proxy_upstream_cooldowns_total", "Keys set aside; refused says that the upstream does not accept them.", "refused")
	m.breakerOpened = byUpstream("token_proxy_upstream_breaker_opened_total", "How often a breaker opened.")
	reg.MustRegister(m.tokens, m.duration, m.upstreamErrors, m.ttfb, m.added, m.outcomes, m.streams)
	blocked := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "token_proxy_blocked_total", Help: "Requests that were refused, by reason."}, []string{"reason"})
	reg.MustRegister(blocked)
	for r := refuseNone + 1; r < refusalCount; r++ {
		m.blockedTotal[r] = blocked.WithLabelValues(refusals[r].reason)
	}
	return m
}

// Observe returns hooks for the options of the upstream pool.
func (m *Metrics) Observe() upstream.Observe {
	return upstream.Observe{
		Retry: func(name string, done bool) { m.retries.WithLabelValues(name, strconv.FormatBool(done)).Inc() },
		Cooling: func(name, _ string, _ time.Duration, refused bool) {
			m.cooldowns.WithLabelValues(name, strconv.FormatBool(refused)).Inc()
		},
		Breaker: func(name string, open bool) {
			if open {
				m.breakerOpened.WithLabelValues(name).Inc()
			}
		},
	}
}

func (m *Metrics) blocked(r refusal) { m.blockedTotal[r].Inc() }

func (m *Metrics) countTokens(tier, model string, c kimi.Counts) {
	m.tokens.WithLabelValues(tier, model, "prompt").Add(float64(c.Prompt))
	m.tokens.WithLabelValues(tier, model, "cached").Add(float64(c.Cached))
	m.tokens.WithLabelValues(tier, model, "completion").Add(float64(c.Completion))
}

// sendFailed counts an attempt that got no answer.
func (m *Metrics) sendFailed(err *upstream.Error) {
	cause := "connection"
	if err.Timeout {
		cause = "timeout"
	}
	m.upstreamErrors.WithLabelValues(cause).Inc()
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
		m.ttfb.WithLabelValues(c.upstreamName, strconv.FormatBool(c.streamed)).Observe(c.ttfb.Seconds())
	}
}
