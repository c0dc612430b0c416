package operator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// bare makes a node whose kubelet the test is, and lets pods on no other. It counts as silent some 50
// seconds later.
func (e *env) bare() {
	e.t.Helper()
	for n := range 2 {
		e.kube.Kubectl("cordon", fmt.Sprintf("node-%d", n))
	}
	if err := e.kube.Apply(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"bare","labels":{"kubernetes.io/hostname":"bare"}}}`); err != nil {
		e.t.Fatal(err)
	}
	e.beat()
}

// beat says that the bare node is there: it is lost some 50 s after it was said last.
func (e *env) beat() {
	e.t.Helper()
	now := time.Now().UTC().Format(time.RFC3339)
	e.kube.Kubectl("patch", "node", "bare", "--subresource=status", "--type=merge", "-p", fmt.Sprintf(
		`{"status":{"capacity":{"cpu":"100","memory":"1Ti","pods":"100","ephemeral-storage":"1Ti"},"allocatable":{"cpu":"100","memory":"1Ti","pods":"100","ephemeral-storage":"1Ti"},
		"conditions":[{"type":"Ready","status":"True","reason":"Test","message":"","lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, now, now))
}

// boxesOnBare makes boxes whose pods are on the bare node.
func (e *env) boxesOnBare(n int) (boxes []control.Box) {
	e.t.Helper()
	for range n {
		boxes = append(boxes, e.customer("starter"))
	}
	for _, b := range boxes {
		e.beat()
		e.until(soon, func() string {
			if node := e.field(b.Namespace, "pods", ".items[0].spec.nodeName"); node != "bare" {
				return fmt.Sprintf("the pod is on %q", node)
			}
			return ""
		})
		e.kube.Kubectl("patch", "pod", "-n", b.Namespace, e.field(b.Namespace, "pods", ".items[0].metadata.name"), "--subresource=status", "--type=merge", "-p",
			`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"},{"type":"ContainersReady","status":"True"},{"type":"PodScheduled","status":"True"}]}}`)
	}
	for _, b := range boxes {
		e.becomes(b.ID, control.BoxActive, soon)
	}
	for n := range 2 {
		e.kube.Kubectl("uncordon", fmt.Sprintf("node-%d", n))
	}
	e.kube.Kubectl("cordon", "bare")
	return boxes
}

// Pods of a node that is lost are removed by force, so that boxes are destroyed, suspended and
// started anew; but not before it is known.
func TestLostNode(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.EndWithin, opts.ForceAfter, opts.LostAfter = 2*time.Second, time.Second, 15*time.Second
	e.bare()
	e.run(opts)
	boxes := e.boxesOnBare(3)
	destroyed, suspended, moved := boxes[0], boxes[1], boxes[2]
	if _, err := e.service.DestroyBox(t.Context(), "test", customers.BoxRef{ID: destroyed.ID}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: suspended.ID}, ""); err != nil {
		t.Fatal(err)
	}
	old := e.podUID(moved.Namespace)
	e.kube.Kubectl("delete", "pod", "-n", moved.Namespace, "--all", "--wait=false")
	e.until(soon, func() string {
		// What nobody waits for is told to end sooner; what another one follows has its time.
		for _, b := range []control.Box{destroyed, suspended} {
			if grace := e.field(b.Namespace, "pods", ".items[0].metadata.deletionGracePeriodSeconds"); grace != "2" {
				return fmt.Sprintf("the pod of %s has %q seconds to end", b.Namespace, grace)
			}
		}
		return ""
	})
	e.beat()
	time.Sleep(6 * time.Second)
	for _, b := range []control.Box{destroyed, suspended, moved} {
		if uid := e.podUID(b.Namespace); uid == "" || strings.Contains(uid, " ") {
			t.Fatalf("while the node is not known to be lost the pods of %s are %q", b.Namespace, uid)
		}
	}
	e.until(2*soon, func() string {
		if ready := e.field("", "node/bare", `.status.conditions[?(@.type=="Ready")].status`); ready != "Unknown" {
			return "the node is " + ready
		}
		return ""
	})
	e.becomes(destroyed.ID, control.BoxDestroyed, 2*soon)
	e.becomes(suspended.ID, control.BoxSuspended, soon)
	e.until(2*soon, func() string {
		if now := e.podUID(moved.Namespace); now == "" || strings.Contains(now, old) {
			return "the pod is still " + now
		}
		if e.field(moved.Namespace, "deployment/openclaw-gateway", ".status.availableReplicas") != "1" {
			return "the gateway is not there again"
		}
		return ""
	})
}
