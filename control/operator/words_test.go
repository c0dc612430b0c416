package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Customers read what kind of trouble their box has, and nothing of the cluster; operators read all.
func TestCustomersReadNothingOfTheCluster(t *testing.T) {
	t.Parallel()
	const inside = "node-7 203.0.113.9 registry.internal/gateway"
	waiting := func(reason string) trouble {
		return diagnosePod(&corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Image: inside, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: inside}},
		}}}})
	}
	ending := &corev1.Pod{Spec: corev1.PodSpec{NodeName: inside}}
	ending.DeletionTimestamp = new(metav1.Now())
	texts := make(map[string]string)
	for name, found := range map[string]trouble{
		"image": waiting("ErrImagePull"), "configuration": waiting("CreateContainerConfigError"),
		"schedule": diagnosePod(&corev1.Pod{Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: inside}}}}),
		"crash":    diagnosePod(&corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed, Message: inside}}),
		"quota": diagnose(&appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{
			{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: inside},
		}}}, nil),
		"slow": diagnose(nil, []*corev1.Pod{ending}),
	} {
		about := found.said()
		if !strings.Contains(about.detail, inside) {
			t.Errorf("%s: operators read %q", name, about.detail)
		}
		texts[about.text] = name
		if about.text == "" || strings.Contains(about.text, inside) {
			t.Errorf("%s: customers read %q", name, about.text)
		}
		var s steps
		s.begin(StepReady, 1, time.Now())
		s.end(StepReady, time.Now(), found)
		if got := s.list[0]; got.Error != about.text || got.Detail != about.detail {
			t.Errorf("%s: its step says %q and %q", name, got.Error, got.Detail)
		}
	}
	if len(texts) != 6 {
		t.Errorf("different troubles read alike: %v", texts)
	}
	for name, c := range map[string]struct {
		err  error
		text string
	}{
		"waits":         {errWait{"it waits", inside}, "it waits"},
		"waits and not": {errors.Join(errWait{what: "it waits"}, errors.New(inside)), forCustomers(troubleCluster)},
		"anything":      {fmt.Errorf("apply: %s", inside), forCustomers(troubleCluster)},
	} {
		if got := say(c.err); got.text != c.text || !strings.Contains(got.detail, inside) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := (trouble{kind: troubleSlow}).said(); got != (said{}) {
		t.Errorf("of nothing wrong it is said: %+v", got)
	}
}

// reports are books that keep what is reported to them.
type reports struct {
	Books
	all []control.BoxReport
}

func (r *reports) Report(_ context.Context, report control.BoxReport) error {
	r.all = append(r.all, report)
	return nil
}

// Of a box that has been unhealthy for long, what is told is of the words of this release and of the
// trouble of now, and is told once.
func TestUnhealthyIsToldAnew(t *testing.T) {
	t.Parallel()
	books := &reports{}
	p := &pass{o: &Operator{opts: Options{Books: books}}, m: &memo{strikes: strikesOut}}
	p.d.State, p.d.Message, p.d.Detail = control.BoxUnhealthy, "the words of another release", "the gateway is not ready"
	for range 2 {
		if err := p.down(t.Context(), &appsv1.Deployment{}, nil); err != nil {
			t.Fatal(err)
		}
		p.m.strikes += strikesOut
	}
	want := said{forCustomers(troubleProbe), "the gateway is not ready"}
	if len(books.all) != 1 || books.all[0].State != control.BoxUnhealthy || (said{books.all[0].Message, books.all[0].Detail}) != want {
		t.Errorf("it is told %+v, want once %+v", books.all, want)
	}
}
