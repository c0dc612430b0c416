package web

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what is counted of one site.
type metrics struct {
	requests *prometheus.CounterVec
	streams  prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer, site string) (*metrics, error) {
	labels := prometheus.Labels{"site": site}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "web_requests_total", Help: "Requests, by what they asked for and the first digit of the answer's status.", ConstLabels: labels,
		}, []string{"kind", "class"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "web_streams_open", Help: "Event streams and followed logs that are passed on.", ConstLabels: labels,
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.streams} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// count counts a request; a status of 0 is of one whose client did not wait.
func (m *metrics) count(kind string, status int) {
	class := "gone"
	if status > 0 {
		class = strconv.Itoa(status/100) + "xx"
	}
	m.requests.WithLabelValues(kind, class).Inc()
}

func retrySeconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
