package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// goneEvery is how often to look whether a namespace is gone, should its end not be seen.
const goneEvery = 10 * time.Second

// destroy takes a box down for good: first its tokens, so that nothing can use them while the
// rest goes, then its namespace with all that is in it.
func (p *pass) destroy(ctx context.Context) error {
	p.o.rolled(p.d.ID)
	if p.m.op.name != opDestroy {
		p.m.op = activity{name: opDestroy, generation: p.d.Generation, started: p.now, since: time.Now(), state: control.BoxDestroying}
		p.m.steps = steps{}
	}
	over := p.d.State == control.BoxDestroyed // and its namespace has come back
	if !over && (p.d.State != control.BoxDestroying || p.d.Observed != p.d.Generation) {
		if err := p.report(ctx, control.BoxDestroying, said{}); err != nil {
			return err
		}
	}
	if len(p.d.Tokens) > 0 {
		if err := p.do(StepRevoke, func() error { return p.o.opts.Books.RevokeTokens(ctx, p.d.ID, "", 0) }); err != nil {
			return errors.Join(fmt.Errorf("revoke the tokens of box %s: %w", p.d.ID, err), p.progress(ctx, said{}))
		}
	}
	if !over {
		p.step(StepDelete)
	}
	waits, err := p.windDown(ctx)
	gone := false
	if waits == "" && err == nil {
		gone, err = p.delete(ctx)
	}
	if over {
		if !gone {
			p.lookAfter(goneEvery)
		}
		return err
	}
	if err != nil {
		p.finish(StepDelete, err)
		if away(err) {
			p.m.op.pause(time.Now())
		} else if p.overdue() {
			p.late(err.Error())
		}
		return errors.Join(err, p.progress(ctx, said{}))
	}
	if !gone {
		p.lookAfter(goneEvery)
		if !p.overdue() {
			return p.progress(ctx, said{})
		}
		if waits == "" {
			waits = p.remains()
		}
		p.late(waits)
		return p.progress(ctx, said{forCustomers(troubleStuck), waits})
	}
	p.finish(StepDelete, nil)
	r := p.reportOf(control.BoxDestroyed, said{})
	r.Operation, r.Took = opDestroy, max(time.Since(p.m.op.started), time.Microsecond)
	if err := p.send(ctx, r); err != nil {
		return err
	}
	p.o.metrics.operations.WithLabelValues(opDestroy, "done").Inc()
	p.o.log.Info("a box is destroyed", "box", p.d.ID, "took", r.Took)
	p.o.memos.forget(p.d.ID)
	return nil
}

// strayAfter is how long a Deployment that was told to have no pod may take to delete it. What is there
// then is a pod that it does not know.
const strayAfter = 5 * time.Second

// windDown ends the gateway of a box before its namespace is deleted, and says what it waits for, ""
// for nothing. With the namespace goes the RoleBinding: after that the operator may not shorten the
// time of a pod any more, nor remove one by force whose node is lost, and that one keeps the namespace for
// ever.
func (p *pass) windDown(ctx context.Context) (waits string, err error) {
	ns := p.v.get(kindNamespace, "", p.d.Namespace)
	if ns == nil || ns.GetDeletionTimestamp() != nil || p.mine(ns) != nil {
		return "", nil
	}
	err = p.halt(ctx)
	pods := alive(p.v.pods(p.d.Namespace))
	if err == nil && len(pods) > 0 {
		stray := time.Since(p.m.op.started) > strayAfter
		if !stray {
			p.lookAfter(strayAfter)
		}
		err = errors.Join(p.hurry(ctx, pods, stray), p.forceLost(ctx, pods))
	}
	if apierrors.IsForbidden(err) {
		return "", nil // its rights are gone; what can be done without them is
	}
	if err != nil || len(pods) == 0 {
		return "", err
	}
	return "the pod " + pods[0].Name + " has not ended on node " + pods[0].Spec.NodeName, nil
}

// remains says why a namespace is not gone.
func (p *pass) remains() string {
	text := "its namespace is not gone yet"
	live := p.v.get(kindNamespace, "", p.d.Namespace)
	if live == nil {
		return text
	}
	conditions, _, _ := unstructured.NestedSlice(live.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["status"] == "True" {
			text += fmt.Sprintf("; %v", c["message"])
		}
	}
	return text
}

// delete deletes the box's namespace, and reports whether it is gone. That is asked of the
// cluster: what is not in view may be there without our labels.
func (p *pass) delete(ctx context.Context) (gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	space, _ := resourceOf(followed()[0].kind)
	spaces := p.o.opts.Cluster.dynamic.Resource(space)
	live := p.v.get(kindNamespace, "", p.d.Namespace)
	if live == nil {
		live, err = spaces.Get(ctx, p.d.Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("look at namespace %s: %w", p.d.Namespace, err)
		}
	}
	if err := p.mine(live); err != nil {
		return false, err
	}
	if live.GetDeletionTimestamp() != nil {
		return false, nil
	}
	if live.GetLabels()[LabelManagedBy] != ManagedBy {
		// Without it the operator has no right to delete it.
		if err := p.relabel(ctx, live); err != nil {
			return false, err
		}
	}
	uid, foreground := live.GetUID(), metav1.DeletePropagationForeground
	err = spaces.Delete(ctx, live.GetName(), metav1.DeleteOptions{PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("delete namespace %s: %w", live.GetName(), err)
	}
	return false, nil // its end wakes the box
}

// relabel gives the box's namespace its labels back.
func (p *pass) relabel(ctx context.Context, live *unstructured.Unstructured) error {
	b := builder{o: p.o.opts.Objects.withDefaults(), box: p.d}
	want, err := b.finish(b.namespace())
	if err != nil {
		return err
	}
	return p.write(ctx, want, live)
}
