package operator

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a gateway has to wait for is no time of its own; once it runs, no restart gives it more.
func TestTimeOfAGateway(t *testing.T) {
	t.Parallel()
	o := &Operator{opts: Options{PlacedWithin: 5 * time.Minute, ReadyWithin: 4 * time.Minute}}
	begin := time.Now().Add(-time.Hour)
	p := &pass{o: o, m: &memo{op: activity{name: opUpdate, started: begin, since: begin}}}
	live := &appsv1.Deployment{Status: appsv1.DeploymentStatus{UpdatedReplicas: 0}}
	left := func(what string, want time.Duration) {
		t.Helper()
		if got := p.untilOverdue(); got > want || got < want-5*time.Second {
			t.Errorf("%s: %s are left, want %s", what, got, want)
		}
	}
	if !p.overdue() {
		t.Error("what is not applied after an hour is not overdue")
	}
	p.m.op.watch(time.Now(), live, nil)
	left("just applied", 5*time.Minute)
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }

	p.m.op.since = ago(4 * time.Minute)
	ending := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: time.Now().Add(time.Minute)}, DeletionGracePeriodSeconds: new(int64(325))}}
	p.m.op.watch(time.Now(), live, []*corev1.Pod{ending})
	left("while the old pod ends", 5*time.Minute)
	p.m.op.since = ago(4 * time.Minute)
	ending.DeletionTimestamp.Time = ago(time.Minute)
	p.m.op.watch(time.Now(), live, []*corev1.Pod{ending})
	left("with a pod that should have ended", time.Minute)

	running := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}}
	p.m.op.watch(time.Now(), live, []*corev1.Pod{running})
	left("with a pod of before that runs", time.Minute)
	live.Status.UpdatedReplicas = 1
	p.m.op.watch(time.Now(), live, []*corev1.Pod{{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{}}}}})
	left("with a pod whose image is pulled", time.Minute)
	p.m.op.watch(ago(3*time.Minute), live, []*corev1.Pod{running})
	left("with a pod that runs", time.Minute)
	p.m.op.watch(time.Now(), live, []*corev1.Pod{running, ending})
	left("after its restart", time.Minute)
	p.m.op.pause(time.Now())
	left("after an outage", 4*time.Minute)
}

// Only a gateway whose newest version was never ready keeps a place of a roll-out over a restart.
func TestNeverReady(t *testing.T) {
	t.Parallel()
	d := func(reason string, available int32) *appsv1.Deployment {
		return &appsv1.Deployment{
			Spec: appsv1.DeploymentSpec{Replicas: new(int32(1)), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{}}}}},
			Status: appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: available, Conditions: []appsv1.DeploymentCondition{
				{Type: appsv1.DeploymentProgressing, Reason: reason},
			}},
		}
	}
	for name, c := range map[string]struct {
		d    *appsv1.Deployment
		want bool
	}{
		"none":                    {nil, false},
		"ready":                   {d("ReplicaSetUpdated", 1), false},
		"coming":                  {d("ReplicaSetUpdated", 0), true},
		"too late":                {d("ProgressDeadlineExceeded", 0), true},
		"was ready, and is down":  {d("NewReplicaSetAvailable", 0), false},
		"nothing was said of yet": {&appsv1.Deployment{Spec: d("", 0).Spec}, true},
	} {
		if got := neverReady(c.d); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A gateway that is down is dealt with at every third check, and soon after if that pass did not
// come to its end.
func TestStrikes(t *testing.T) {
	t.Parallel()
	var m memo
	for _, c := range []struct {
		strikes int
		due     bool
	}{{1, false}, {2, false}, {3, true}, {3, false}, {5, false}, {7, true}, {8, false}, {9, true}, {1, false}, {4, true}, {5, false}, {6, true}} {
		due := m.due(c.strikes)
		if due != c.due {
			t.Errorf("%d strikes after %d that were dealt with: %v", c.strikes, m.dealt, due)
		}
		if due {
			m.dealt = c.strikes
		}
	}
}
