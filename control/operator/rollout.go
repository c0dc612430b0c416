package operator

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// rolledOut reports whether what the deployment says now is what runs, all of it and nothing
// else. A status that is of an earlier generation says nothing.
func rolledOut(d *appsv1.Deployment) bool {
	if d == nil || d.Status.ObservedGeneration < d.Generation {
		return false
	}
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := d.Status
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
}

// stopped reports whether no pod of the gateway is left, also none that is ending. What is left of
// a pod that has ended by itself does not count.
func stopped(d *appsv1.Deployment, pods []*corev1.Pod) bool {
	if d != nil && (d.Status.ObservedGeneration < d.Generation || d.Status.Replicas != 0) {
		return false
	}
	return len(alive(pods)) == 0
}

// trouble is why a gateway is not ready. It is an error where one is needed.
type trouble struct {
	kind string // a word for metrics, which decides what customers read
	text string // for operators; "" while nothing is wrong
}

// The kinds of trouble.
const (
	troubleQuota    = string(control.BoxRefused)
	troubleSchedule = string(control.BoxUnschedulable)
	troubleImage    = string(control.BoxImage)
	troubleCrash    = string(control.BoxCrashes)
	troubleConfig   = string(control.BoxConfiguration)
	troubleProbe    = string(control.BoxSilent)
	troubleSlow     = string(control.BoxSlow)
	troubleCluster  = string(control.BoxCluster)
	troubleStuck    = string(control.BoxStuck)
)

// troubles are all kinds.
func troubles() []string {
	return []string{
		troubleQuota, troubleSchedule, troubleImage, troubleCrash, troubleConfig, troubleProbe, troubleSlow, troubleCluster, troubleStuck,
	}
}

// diagnose says why a gateway is not ready.
func diagnose(d *appsv1.Deployment, pods []*corev1.Pod) trouble {
	now := pods
	if living := alive(pods); len(living) > 0 {
		now = living // what became of those before them is over
	}
	for _, pod := range now {
		if pod.DeletionTimestamp != nil {
			continue
		}
		if t := diagnosePod(pod); t.text != "" {
			return t
		}
	}
	if d != nil {
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				return trouble{troubleQuota, "its pod is refused: " + c.Message}
			}
		}
	}
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			return trouble{troubleSlow, fmt.Sprintf("the pod %s has not ended on node %s", pod.Name, pod.Spec.NodeName)}
		}
	}
	return trouble{troubleSlow, ""}
}

func diagnosePod(pod *corev1.Pod) trouble {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return trouble{troubleSchedule, "no node takes its pod: " + c.Message}
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			switch w.Reason {
			case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
				return trouble{troubleImage, fmt.Sprintf("the image %s cannot be pulled: %s", c.Image, nonEmpty(w.Message, w.Reason))}
			case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
				return trouble{troubleConfig, "its container cannot be made: " + nonEmpty(w.Message, w.Reason)}
			}
		}
		if end := crashed(c); end != nil {
			return trouble{troubleCrash, fmt.Sprintf("it ends by itself with code %d (%s), %d times so far", end.ExitCode, nonEmpty(end.Reason, "no reason given"), c.RestartCount)}
		}
		if c.State.Running != nil && !c.Ready {
			return trouble{troubleProbe, "it runs, and does not answer that it is ready"}
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		return trouble{troubleCrash, "its pod has failed: " + nonEmpty(pod.Status.Message, pod.Status.Reason)}
	}
	return trouble{}
}

// crashed returns how a container ended that is not running again.
func crashed(c corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if c.State.Terminated != nil {
		return c.State.Terminated
	}
	if w := c.State.Waiting; w != nil && w.Reason == "CrashLoopBackOff" {
		if c.LastTerminationState.Terminated != nil {
			return c.LastTerminationState.Terminated
		}
		return &corev1.ContainerStateTerminated{Reason: w.Reason}
	}
	return nil
}

func nonEmpty(texts ...string) string {
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			return t
		}
	}
	return "no reason given"
}
