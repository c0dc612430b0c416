package operator

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// places are those for gateways that are replaced for no decision of theirs. It is guarded by the
// operator's mu.
type places struct {
	taken   map[string]bool // boxes
	waiting []string        // boxes, the first first
}

// mayRoll takes one of the places, and reports whether there was one. Whoever gets none is woken when
// one is free.
func (o *Operator) mayRoll(boxID string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.places
	at := slices.Index(p.waiting, boxID)
	if !p.taken[boxID] && len(p.taken) >= o.opts.Rolling {
		if at < 0 {
			p.waiting = append(p.waiting, boxID)
		}
		return false
	}
	if at >= 0 {
		p.waiting = slices.Delete(p.waiting, at, at+1)
	}
	p.taken[boxID] = true
	o.metrics.rolling.Set(float64(len(p.taken)))
	return true
}

// rolled gives back the place of a box, if it has one.
func (o *Operator) rolled(boxID string) {
	o.mu.Lock()
	had := o.places.taken[boxID]
	delete(o.places.taken, boxID)
	o.metrics.rolling.Set(float64(len(o.places.taken)))
	o.mu.Unlock()
	if had {
		o.metrics.rolled.Inc()
		o.nextToRoll()
	}
}

// nextToRoll wakes as many boxes that wait as there are places. Who needs none any more leaves it to
// the next sweep.
func (o *Operator) nextToRoll() {
	o.mu.Lock()
	p := &o.places
	n := min(max(o.opts.Rolling-len(p.taken), 0), len(p.waiting))
	next := slices.Clone(p.waiting[:n])
	p.waiting = slices.Delete(p.waiting, 0, n)
	o.mu.Unlock()
	for _, id := range next {
		o.Wake(id)
	}
}

// takePlaces gives places to the gateways whose newest version has never been ready: an operator that
// was here before has replaced them. Without it each start would let as many more be replaced.
func (o *Operator) takePlaces(v *view) {
	taken := make(map[string]bool)
	for _, ns := range v.namespaces() {
		d := v.gateway(ns.GetName())
		if id := ns.GetLabels()[LabelBox]; id != "" && neverReady(d) && d.Spec.Template.Spec.Containers[0].Image == o.opts.Objects.Image {
			taken[id] = true
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.places = places{taken: taken}
	o.metrics.rolling.Set(float64(len(taken)))
}

// neverReady reports whether a gateway that shall run has not been ready since its template was changed.
func neverReady(d *appsv1.Deployment) bool {
	if d == nil || d.Spec.Replicas == nil || *d.Spec.Replicas == 0 || len(d.Spec.Template.Spec.Containers) == 0 || rolledOut(d) {
		return false
	}
	if d.Status.ObservedGeneration < d.Generation {
		return true
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			return c.Reason != "NewReplicaSetAvailable"
		}
	}
	return true
}
