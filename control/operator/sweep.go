package operator

import (
	"context"
	"errors"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// sweep looks for boxes that nobody told of, until ctx ends: at once, which is how the
// operator takes over after a start, and then from time to time.
func (o *Operator) sweep(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string], v *view) {
	tick := time.NewTicker(o.opts.SweepEvery)
	defer tick.Stop()
	var lastAll time.Time
	for {
		all := time.Since(lastAll) >= o.opts.SweepAll
		boxes, err := o.opts.Books.Unfinished(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			o.log.Warn("cannot read which boxes there are, so they stay as they are", "error", err)
		default:
			if all {
				lastAll = time.Now()
			}
			o.metrics.boxes(boxes)
			for _, b := range boxes {
				if all || !settled(b) && !waits(b) {
					queue.Add(b.ID)
				}
			}
			o.nextToRoll()
			if err := o.readAddresses(ctx); err != nil && ctx.Err() == nil {
				o.log.Warn("cannot read the cluster's own addresses again; what was read last counts", "error", err)
			}
			o.lookForOrphans(ctx, v, boxes)
		}
		pause := tick.C
		if err != nil {
			// A start while Postgres is away shall not wait for the next tick.
			pause = time.After(min(o.opts.SweepEvery, 5*time.Second))
		}
		select {
		case <-ctx.Done():
			return
		case <-pause:
		}
	}
}

// waits reports whether a box waits for something that its customer has to give, which wakes it.
func waits(b control.Box) bool {
	return b.State == control.BoxPending && b.Observed == b.Generation && b.Wants == control.BoxRun
}

// settled reports whether nothing is to be done about a box as far as the books know.
func settled(b control.Box) bool {
	if b.Generation != b.Observed {
		return false
	}
	switch b.State {
	case control.BoxActive, control.BoxUnhealthy:
		return b.Wants == control.BoxRun
	case control.BoxSuspended:
		return b.Wants == control.BoxSuspend
	case control.BoxDestroyed:
		return true
	}
	return false
}

// lookForOrphans finds namespaces of boxes that the books do not list. Those of boxes that
// were destroyed are woken, and deleted. Those of boxes that the books do not know are only told
// of: the books may have been lost, or put back to an earlier day, and the namespaces
// are then all that is left.
func (o *Operator) lookForOrphans(ctx context.Context, v *view, boxes []control.Box) {
	known := make(map[string]bool, len(boxes))
	for _, b := range boxes {
		known[b.ID] = true
	}
	orphans := make(map[string]bool)
	for _, ns := range v.namespaces() {
		id := ns.GetLabels()[LabelBox]
		if known[id] {
			continue
		}
		_, err := o.opts.Books.Desired(ctx, id)
		switch {
		case err == nil:
			o.Wake(id) // it is destroyed, or was made since the books were read
		case errors.Is(err, control.ErrNotFound):
			orphans[ns.GetName()] = true
			if !o.orphans[ns.GetName()] {
				o.log.Error("a namespace is of a box that the books do not know; it is left alone", "namespace", ns.GetName(), "box", id, "alert", true)
			}
		default:
			o.log.Warn("cannot find out whose a namespace is", "namespace", ns.GetName(), "error", err)
			return
		}
	}
	o.orphans = orphans // only the sweep uses it
	o.metrics.orphans.Set(float64(len(orphans)))
}

// checkHealth looks from time to time at the gateways that should be ready, until ctx ends.
// It reads the caches only.
func (o *Operator) checkHealth(ctx context.Context, v *view) {
	tick := time.NewTicker(o.opts.HealthEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		o.memos.each(func(id string, m *memo) {
			m.mu.Lock()
			state, namespace := m.state, m.namespace
			m.mu.Unlock()
			if state != control.BoxActive && state != control.BoxUnhealthy {
				return
			}
			ready := rolledOut(v.gateway(namespace))
			if n := m.strike(ready); !ready {
				o.log.Warn("a gateway is not ready", "box", id, "checks", n)
				if n%strikesOut == 0 {
					o.Wake(id)
				}
			} else if state == control.BoxUnhealthy {
				o.Wake(id)
			}
		})
	}
}
