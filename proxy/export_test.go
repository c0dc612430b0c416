package proxy

// BreakUpstreamErrors makes the proxy panic where it counts an error of the upstream.
func (m *Metrics) BreakUpstreamErrors() { m.upstreamErrors = nil }

// BreakTTFB makes it panic at the end of a forwarded call, when that is settled.
func (m *Metrics) BreakTTFB() { m.ttfb = nil }
