package operator

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A status is believed only if it is of what the deployment says now.
func TestRolledOut(t *testing.T) {
	t.Parallel()
	ready := func() *appsv1.Deployment {
		return &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Generation: 2},
			Spec:       appsv1.DeploymentSpec{Replicas: new(int32(1))},
			Status:     appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1},
		}
	}
	if !rolledOut(ready()) || rolledOut(nil) {
		t.Error("a deployment that is ready is not, or none is")
	}
	for name, change := range map[string]func(*appsv1.Deployment){
		"an old status":           func(d *appsv1.Deployment) { d.Generation = 3 },
		"an old pod beside":       func(d *appsv1.Deployment) { d.Status.Replicas = 2 },
		"only an old pod":         func(d *appsv1.Deployment) { d.Status.UpdatedReplicas = 0 },
		"a pod that is not ready": func(d *appsv1.Deployment) { d.Status.AvailableReplicas = 0 },
	} {
		d := ready()
		if change(d); rolledOut(d) {
			t.Errorf("with %s it counts as rolled out", name)
		}
	}
	d := ready()
	if d.Spec.Replicas = new(int32(0)); stopped(d, nil) {
		t.Error("it counts as stopped while the status has a pod")
	}
	if d.Status = (appsv1.DeploymentStatus{ObservedGeneration: 2}); !stopped(d, nil) || stopped(d, []*corev1.Pod{{}}) {
		t.Error("what is stopped is told by the status and by the pods")
	}
}

// What keeps a pod from being ready is said so that people understand it.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	waiting := func(reason, message string) *corev1.Pod {
		return &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Image: "registry.test/x", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}},
		}}}}
	}
	crash := waiting("CrashLoopBackOff", "back-off")
	crash.Status.ContainerStatuses[0].RestartCount = 4
	crash.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
	running := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}}}
	refused := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{
		Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota: tier-limits",
	}}}}
	for name, c := range map[string]struct {
		d          *appsv1.Deployment
		pods       []*corev1.Pod
		kind, text string
	}{
		"image":         {nil, []*corev1.Pod{waiting("ImagePullBackOff", "not found")}, troubleImage, "registry.test/x cannot be pulled: not found"},
		"crash":         {nil, []*corev1.Pod{crash}, troubleCrash, "code 137 (OOMKilled), 4 times"},
		"configuration": {nil, []*corev1.Pod{waiting("CreateContainerConfigError", "secret not found")}, troubleConfig, "secret not found"},
		"probe":         {nil, []*corev1.Pod{running}, troubleProbe, "does not answer that it is ready"},
		"quota":         {refused, nil, troubleQuota, "exceeded quota"},
		"still coming":  {nil, []*corev1.Pod{waiting("ContainerCreating", "")}, troubleSlow, ""},
		"nothing yet":   {&appsv1.Deployment{}, nil, troubleSlow, ""},
	} {
		got := diagnose(c.d, c.pods)
		if got.kind != c.kind || !strings.Contains(got.text, c.text) || c.text == "" && got.text != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
