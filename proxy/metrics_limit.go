package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// limitMetrics exports the state of the ledger, read once per scrape.
type limitMetrics struct {
	ledger Ledger
	desc   limitDesc
}

type limitDesc struct {
	tokens, accounts, settlements, epoch, heard, ready *prometheus.Desc
}

func descLimit() limitDesc {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return limitDesc{
		tokens: desc("token_proxy_lease_tokens",
			"Tokens of the monthly limits that this replica has leased, and of them: held by requests in flight; unsettled, used by requests that ended and not known to be in Redis.", "state"),
		accounts:    desc("token_proxy_lease_accounts", "Customers (times periods) whose leases are known here."),
		settlements: desc("token_proxy_settlements_pending", "Usage events whose tokens are not known to be settled in Redis."),
		epoch:       desc("token_proxy_quota_epoch", "The quota's epoch. It grows when Redis was restarted or lost its data; 0 before the first."),
		heard:       desc("token_proxy_quota_heard_seconds", "Time since this replica was last known to be registered; -1 for never. Beyond the grace nothing is served."),
		ready:       desc("token_proxy_quota_ready", "1 if tokens can be reserved; 0 while this replica is not registered, out of reach of Redis for longer than the grace, or declared lost. /readyz and the log say which."),
	}
}

// Describe implements prometheus.Collector.
func (m *limitMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.desc.tokens, m.desc.accounts, m.desc.settlements, m.desc.epoch, m.desc.heard, m.desc.ready} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *limitMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := m.ledger.Stats()
	gauge(m.desc.tokens, float64(s.Leased), "leased")
	gauge(m.desc.tokens, float64(s.Held), "held")
	gauge(m.desc.tokens, float64(s.Unsettled), "unsettled")
	gauge(m.desc.accounts, float64(s.Accounts))
	gauge(m.desc.settlements, float64(s.Pending))
	gauge(m.desc.epoch, float64(s.Epoch))
	heard := -1.0
	if s.Heard >= 0 {
		heard = s.Heard.Seconds()
	}
	gauge(m.desc.heard, heard)
	ready := 0.0
	if m.ledger.Ready() == nil {
		ready = 1
	}
	gauge(m.desc.ready, ready)
}
