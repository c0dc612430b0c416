package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// stateMetric is one that only a running server knows: read when it is asked for.
type stateMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newStateMetric(kind prometheus.ValueType, name, help string, labels ...string) stateMetric {
	return stateMetric{prometheus.NewDesc("token_proxy_"+name, help, labels, nil), kind}
}

func (m stateMetric) send(ch chan<- prometheus.Metric, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

// stateCollector exports the state of a Server: one snapshot of each part per scrape.
type stateCollector struct {
	s *Server

	inFlight, requestBytes, connections, refused, goingOn, shed stateMetric

	lookups, reloads, feedAge, feedSeq stateMetric

	breaker, cooling, keys, upstreamInFlight, upstreamConns stateMetric

	queued, unacknowledged                                               stateMetric
	journalOpen, journalSlots, journalUsed, journalBytes, journalRefused stateMetric
}

// registerState exports what only a running server knows.
func (s *Server) registerState(reg prometheus.Registerer) {
	reg.MustRegister(&limitMetrics{s.ledger, descLimit()})
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	reg.MustRegister(&stateCollector{
		s:            s,
		inFlight:     newStateMetric(gauge, "requests_in_flight", "Requests between authentication and the end of their answer."),
		requestBytes: newStateMetric(gauge, "request_bytes", "Bytes of request bodies in memory, those included that are still arriving."),
		connections:  newStateMetric(gauge, "connections", "Open client connections."),
		refused:      newStateMetric(counter, "connections_refused_total", "Connections closed because there were too many, of their address or in all."),
		goingOn:      newStateMetric(gauge, "calls_without_client", "Calls that are read to their end although the client has left.", "upstream"),
		shed:         newStateMetric(gauge, "overload_share", "Share of the requests, 0 to 1, that is refused because there is more to do than the processors can."),

		lookups: newStateMetric(counter, "grant_lookups_total", "Look-ups of tokens in the cache, several per request: hit, negative (known not to exist), miss (Redis was asked).", "result"),
		reloads: newStateMetric(counter, "grant_reloads_total", "How often all cached grants were dropped because changes may have been missed."),
		feedAge: newStateMetric(gauge, "feed_age_seconds", "Time since the configuration feed was heard. Beyond the grace requests are refused."),
		feedSeq: newStateMetric(gauge, "feed_seq", "Number of the newest configuration change that was applied."),

		breaker:          newStateMetric(gauge, "upstream_breaker_open", "1 while the upstream's breaker keeps requests away or probes.", "upstream"),
		cooling:          newStateMetric(gauge, "upstream_keys_cooling", "Keys that are set aside just now.", "upstream"),
		keys:             newStateMetric(gauge, "upstream_keys", "Keys that are configured.", "upstream"),
		upstreamInFlight: newStateMetric(gauge, "upstream_requests_in_flight", "Requests that an upstream is serving.", "upstream"),
		upstreamConns:    newStateMetric(gauge, "upstream_connections", "Open connections to an upstream.", "upstream", "state"),

		queued:         newStateMetric(gauge, "usage_events_queued", "Usage events that are not in Redis yet."),
		unacknowledged: newStateMetric(gauge, "usage_events_unacknowledged", "Usage events that are not in Postgres yet: what would be lost with the journal, beside requests in flight."),
		journalOpen:    newStateMetric(gauge, "journal_open", "Requests that are open in the journal."),
		journalSlots:   newStateMetric(gauge, "journal_slots", "Requests that the journal can hold open."),
		journalUsed:    newStateMetric(gauge, "journal_used_bytes", "Room that events take in the journal."),
		journalBytes:   newStateMetric(gauge, "journal_bytes", "Room for events in the journal. When it is full requests are refused."),
		journalRefused: newStateMetric(counter, "journal_refused_total", "Requests for which the journal had no room."),
	})
}

// Describe implements prometheus.Collector: what is collected says itself what it is.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.s
	c.inFlight.send(ch, float64(s.calls.len()))
	c.shed.send(ch, s.overload.refused())
	c.requestBytes.send(ch, float64(s.uploads.held()))
	if s.ln != nil {
		c.connections.send(ch, float64(s.ln.count()))
		c.refused.send(ch, float64(s.ln.refused.Load()))
	}
	for name, d := range s.leaving {
		c.goingOn.send(ch, float64(d.running.Load()), name)
	}

	g := s.grants.Stats()
	c.lookups.send(ch, float64(g.Hits), "hit")
	c.lookups.send(ch, float64(g.Negatives), "negative")
	c.lookups.send(ch, float64(g.Misses), "miss")
	c.reloads.send(ch, float64(g.Reloads))
	c.feedAge.send(ch, g.FeedAge.Seconds())
	c.feedSeq.send(ch, float64(g.FeedSeq))

	for _, u := range s.pool.Stats() {
		open := 0.0
		if u.BreakerOpen {
			open = 1
		}
		c.breaker.send(ch, open, u.Upstream)
		c.cooling.send(ch, float64(u.KeysCooling), u.Upstream)
		c.keys.send(ch, float64(u.Keys), u.Upstream)
		c.upstreamInFlight.send(ch, float64(u.InFlight), u.Upstream)
		c.upstreamConns.send(ch, float64(u.Open-u.Idle), u.Upstream, "busy")
		c.upstreamConns.send(ch, float64(u.Idle), u.Upstream, "idle")
	}

	c.queued.send(ch, float64(s.meter.Queued()))
	c.unacknowledged.send(ch, float64(s.meter.Unacknowledged()))
	j := s.journal.Stats()
	c.journalOpen.send(ch, float64(j.Open))
	c.journalSlots.send(ch, float64(j.Slots))
	c.journalUsed.send(ch, float64(j.LogUsed))
	c.journalBytes.send(ch, float64(j.LogBytes))
	c.journalRefused.send(ch, float64(j.Refused+s.unwritten.Load()))
}
