package proxy

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Traffic says what passes through the server now, and what has since it was made. It reads
// what is counted for the metrics: requests do nothing for it.
func (s *Server) Traffic() contract.Traffic {
	t := contract.Traffic{
		Started: s.began.UnixMilli(), Uptime: time.Since(s.began).Milliseconds(),
		InFlight: int64(s.calls.len()),
	}
	s.metrics.addTraffic(&t)
	return t
}

// addTraffic adds what the metrics count.
func (m *Metrics) addTraffic(t *contract.Traffic) {
	t.Streams = int64(read(m.streams).GetGauge().GetValue())
	t.Answered = sum(m.outcomes, nil)
	// The cached ones are part of the prompt.
	t.Tokens = sum(m.tokens, func(labels map[string]string) bool { return labels["kind"] != "cached" })
	t.Refused = map[contract.RefusalClass]int64{}
	for r := refuseNone + 1; r < refusalCount; r++ {
		t.Refused[r.class()] += int64(read(m.blockedTotal[r]).GetCounter().GetValue())
	}
	maps.DeleteFunc(t.Refused, func(_ contract.RefusalClass, n int64) bool { return n == 0 })
}

// read returns what a metric has; nothing if it cannot be read, which does not happen to ours.
func read(m prometheus.Metric) *dto.Metric {
	var out dto.Metric
	if m.Write(&out) != nil {
		return &dto.Metric{}
	}
	return &out
}

// sum adds up the counters of a vector that pick picks by their labels, or all of them.
func sum(v *prometheus.CounterVec, pick func(labels map[string]string) bool) (n int64) {
	metrics := make(chan prometheus.Metric)
	go func() {
		defer close(metrics)
		v.Collect(metrics)
	}()
	for m := range metrics {
		d, labels := read(m), map[string]string{}
		for _, l := range d.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if pick == nil || pick(labels) {
			n += int64(d.GetCounter().GetValue())
		}
	}
	return n
}

// class says in few words why a request is refused; "" for what is no refusal.
func (r refusal) class() contract.RefusalClass {
	switch r {
	case refuseNoCredential, refuseTwoCredentials, refuseBadToken, refuseAuthFlood, refuseSuspended, refuseRevoked:
		return contract.RefusedAuth
	case refuseConcurrency, refuseRate:
		return contract.RefusedRate
	case refuseHeld, refuseMonthly:
		return contract.RefusedQuota
	case refuseQuotaUnavailable, refuseOverloaded, refuseDraining, refuseInternal:
		return contract.RefusedOverload
	case refuseUpstreamKey, refuseUpstreamFunds, refuseUpstreamDown, refuseUpstreamCut, refuseUpstreamTimeout, refusePassed:
		return contract.RefusedUpstream
	case refuseModel, refuseBadRequest, refuseBadJSON, refuseUnbounded, refuseTooLarge, refuseHeadTooLarge,
		refuseMethod, refusePath, refuseSlow, refuseExpect:
		return contract.RefusedRequest
	}
	return ""
}
