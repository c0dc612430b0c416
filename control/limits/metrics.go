package limits

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the Keeper's. All but leader and begun are 0 where another process leads.
type metrics struct {
	leader, epoch, open, registered, undeclared, silent, repairs prometheus.Gauge
	begun                                                        prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		leader:     gauge("control_quota_leader", "1 if this process keeps the limits in Redis."),
		epoch:      gauge("control_quota_epoch", "Number of the quota's epoch."),
		open:       gauge("control_quota_epoch_open", "1 if leases may grow."),
		registered: gauge("control_quota_registered_replicas", "Replicas on the register, and lost ones whose leases are not free yet."),
		undeclared: gauge("control_quota_undeclared_replicas", "Replicas that the opening of the epoch waits for; no lease can grow meanwhile."),
		silent:     gauge("control_quota_silent_replicas", "Registered replicas that were not heard for 30 s; what they lease stays held."),
		repairs:    gauge("control_quota_repair_waiting", "1 if the records have to be made anew and that waits for replicas."),
		begun: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "control_quota_epochs_total", Help: "Epochs that this process began.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.leader, m.epoch, m.open, m.registered, m.undeclared, m.silent, m.repairs, m.begun} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// reset is for who leads no more.
func (m *metrics) reset() {
	for _, g := range []prometheus.Gauge{m.epoch, m.open, m.registered, m.undeclared, m.silent, m.repairs} {
		g.Set(0)
	}
}
