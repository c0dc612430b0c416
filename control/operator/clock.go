package operator

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// activity is what is being done to a box, and what of its time is used. The time counts from when
// this process began: an operator that was away must not fail the boxes that waited for it.
type activity struct {
	name       string // "" for none
	generation int64
	started    time.Time
	state      control.BoxState // while it goes on

	since   time.Time // when what has to come next, within PlacedWithin, was begun
	applied bool      // all objects have been what they shall be once
	placed  time.Time // when the new pod was first seen to run; it has ReadyWithin then
	told    bool      // that it takes too long
}

// pause has the time begin anew: what stood in the way says nothing about the box.
func (a *activity) pause(now time.Time) {
	if a.name == "" {
		return
	}
	a.since = now
	if !a.placed.IsZero() {
		a.placed = now
	}
}

// watch notes how far a gateway has come whose objects are all there. How long it waited to be worked
// on, and how long the pod before it takes to end, is no time of its own.
func (a *activity) watch(now time.Time, live *appsv1.Deployment, pods []*corev1.Pod) {
	if !a.applied {
		a.applied, a.since = true, now
	}
	if !a.placed.IsZero() {
		return
	}
	current := live != nil && live.Status.ObservedGeneration >= live.Generation && live.Status.UpdatedReplicas > 0
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			if _, until := endsBy(pod); now.Before(until.Add(5 * time.Second)) {
				a.since = now
			}
			continue
		}
		for _, c := range pod.Status.ContainerStatuses {
			if current && (c.State.Running != nil || c.RestartCount > 0) {
				a.placed = now
			}
		}
	}
}

// untilOverdue is how long the box still has until something must have become of it.
func (p *pass) untilOverdue() time.Duration {
	if a := p.m.op; !a.placed.IsZero() {
		return time.Until(a.placed.Add(p.o.opts.ReadyWithin))
	}
	return time.Until(p.m.op.since.Add(p.o.opts.PlacedWithin))
}

func (p *pass) overdue() bool { return p.m.op.name != "" && p.untilOverdue() <= 0 }

// slow says of a gateway that is overdue what it has not become.
func (p *pass) slow() string {
	if p.m.op.placed.IsZero() {
		return fmt.Sprintf("the gateway has no pod that runs after %s", p.o.opts.PlacedWithin)
	}
	return fmt.Sprintf("the gateway is not ready after %s", p.o.opts.ReadyWithin)
}

// late tells once of something that takes too long, and goes on.
func (p *pass) late(why string) {
	if p.m.op.name == "" || p.m.op.told {
		return
	}
	p.m.op.told = true
	p.o.metrics.failed.WithLabelValues(troubleStuck).Inc()
	p.o.log.Error("a box is not where it shall be for too long; it is tried on", "box", p.d.ID, "operation", p.m.op.name, "message", why, "alert", true)
}
