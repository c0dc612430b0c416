package main

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	outboxEvery = 5 * time.Second // how often its metrics are updated
	pruneEvery  = time.Hour
	pruneBatch  = 5000 // rows of one statement
)

// outboxMetrics say what waits to be published. They are as of the last time that
// Postgres answered.
type outboxMetrics struct{ pending, oldest, failed prometheus.Gauge }

func newOutboxMetrics(reg prometheus.Registerer) (*outboxMetrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &outboxMetrics{
		pending: gauge("control_outbox_pending_changes", "Changes of grants and limits that are saved and not yet published."),
		oldest:  gauge("control_outbox_oldest_seconds", "Age of the oldest change that is not yet published; 0 without any."),
		failed:  gauge("control_outbox_failed_changes", "Changes that were set aside because they cannot be read; each needs someone to look at it."),
	}
	for _, g := range []prometheus.Gauge{m.pending, m.oldest, m.failed} {
		if err := reg.Register(g); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *outboxMetrics) update(ctx context.Context, st *store.Store) error {
	o, err := st.OutboxState(ctx)
	if err != nil {
		return err
	}
	m.pending.Set(float64(o.Pending))
	m.oldest.Set(o.Oldest.Seconds())
	m.failed.Set(float64(o.Failed))
	return nil
}

// prune removes changes that were published longer than keep ago.
func prune(ctx context.Context, st *store.Store, keep time.Duration) (int, error) {
	total := 0
	for {
		n, err := st.PruneChanges(ctx, time.Now().Add(-keep), pruneBatch)
		total += int(n)
		if err != nil || n < pruneBatch {
			return total, err
		}
	}
}
