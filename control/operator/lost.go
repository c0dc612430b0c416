package operator

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// terminal reports whether a pod has ended and only its record is left, such as of one that the
// kubelet has evicted. Nothing in Kubernetes deletes it while its ReplicaSet is there.
func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// alive are the pods that have not ended.
func alive(pods []*corev1.Pod) (out []*corev1.Pod) {
	for _, pod := range pods {
		if !terminal(pod) {
			out = append(out, pod)
		}
	}
	return out
}

// clear deletes what is left of pods that have ended.
func (p *pass) clear(ctx context.Context, pods []*corev1.Pod) error {
	for _, pod := range pods {
		if !terminal(pod) || pod.DeletionTimestamp != nil {
			continue
		}
		if err := p.deletePod(ctx, pod, nil); err != nil {
			return err
		}
	}
	return nil
}

// endsBy is when a pod that is being deleted was told to, and until when it has time.
func endsBy(pod *corev1.Pod) (told, until time.Time) {
	until = pod.DeletionTimestamp.Time
	if g := pod.DeletionGracePeriodSeconds; g != nil {
		return until.Add(-time.Duration(*g) * time.Second), until
	}
	return until, until
}

// hurry shortens the time that pods get to end: nobody is to be served by what comes after them.
// A pod that ends for a newer one keeps its time, in which it finishes what it does. With stray those
// are told to end too that nobody has told.
func (p *pass) hurry(ctx context.Context, pods []*corev1.Pod, stray bool) error {
	grace := int64(p.o.opts.EndWithin / time.Second)
	for _, pod := range pods {
		switch g := pod.DeletionGracePeriodSeconds; {
		case terminal(pod) || pod.DeletionTimestamp == nil && !stray:
			continue
		case pod.DeletionTimestamp != nil && (g == nil || *g <= grace):
			continue
		}
		if err := p.deletePod(ctx, pod, &grace); err != nil {
			return err
		}
	}
	return nil
}

// forceLost removes pods that cannot end because their node is lost: one of them takes the
// place of the next in the quota, and a deployment that replaces its pod waits for it.
//
// A node that is silent may still run the gateway, and the next one would have the same bot. That
// is so too if Kubernetes is left alone, which after some minutes does not count such a pod any more.
// So a node is given up at once only if it is known to be gone, after a while if it is silent,
// and never while its kubelet speaks.
func (p *pass) forceLost(ctx context.Context, pods []*corev1.Pod) error {
	for _, pod := range pods {
		if pod.DeletionTimestamp == nil {
			continue
		}
		told, _ := endsBy(pod)
		if wait := told.Add(p.o.opts.EndWithin + p.o.opts.ForceAfter).Sub(p.now); wait > 0 {
			p.lookAfter(wait)
			continue
		}
		gone, silent, err := p.lost(ctx, pod.Spec.NodeName)
		if err != nil {
			return err
		}
		if !gone {
			if silent.IsZero() {
				p.lookAfter(p.o.opts.ForceAfter)
				continue
			}
			if wait := silent.Add(p.o.opts.LostAfter).Sub(p.now); wait > 0 {
				p.lookAfter(wait)
				continue
			}
		}
		p.o.log.Error("a pod cannot end on a node that is lost, and is removed by force; if the node still runs it, two gateways have one bot until the node is switched off",
			"box", p.d.ID, "pod", pod.Name, "node", pod.Spec.NodeName, "known_to_be_gone", gone, "alert", !gone)
		if err := p.deletePod(ctx, pod, new(int64)); err != nil {
			return err
		}
		p.o.metrics.forced.Inc()
	}
	return nil
}

// lost reports whether a node is known to be gone, or since when it is silent; zero if it is not.
func (p *pass) lost(ctx context.Context, name string) (gone bool, silent time.Time, err error) {
	if name == "" {
		return true, silent, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	node, err := p.o.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, silent, nil
	}
	if err != nil {
		return false, silent, fmt.Errorf("look at node %s: %w", name, err)
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeOutOfService { // by someone who has looked
			return true, silent, nil
		}
	}
	for _, c := range node.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionUnknown {
			return false, c.LastTransitionTime.Time, nil
		}
		return false, silent, nil
	}
	return false, node.CreationTimestamp.Time, nil
}

func (p *pass) deletePod(ctx context.Context, pod *corev1.Pod, grace *int64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := p.o.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: grace, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, or is another one already
	}
	if err != nil {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	p.o.metrics.restarted.Inc()
	return nil
}
