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

// lose has nobody work node-1 any more, as if its power were gone.
func (e *env) lose() { e.kube.Kubectl("annotate", "node", "node-1", "kwok.x-k8s.io/node-") }

// boxOn makes a box whose pod is on node-1.
func (e *env) boxOn() control.Box {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	if node := e.field(b.Namespace, "pods", ".items[0].spec.nodeName"); node != "node-1" {
		e.t.Fatalf("the pod is on %q", node)
	}
	return b
}

// Pods of a node that is lost are removed by force, so that boxes are destroyed, suspended and
// started anew; but not before it is known.
func TestLostNode(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.EndWithin, opts.ForceAfter, opts.LostAfter = 2*time.Second, time.Second, 15*time.Second
	e.kube.Kubectl("cordon", "node-0")
	e.run(opts)
	destroyed, suspended, moved := e.boxOn(), e.boxOn(), e.boxOn()
	e.lose()
	e.kube.Kubectl("uncordon", "node-0")
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
	time.Sleep(6 * time.Second)
	for _, b := range []control.Box{destroyed, suspended, moved} {
		if uid := e.podUID(b.Namespace); uid == "" || strings.Contains(uid, " ") {
			t.Fatalf("while the node is not known to be lost the pods of %s are %q", b.Namespace, uid)
		}
	}
	e.until(2*soon, func() string {
		for _, c := range []struct{ status string }{{e.field("", "node/node-1", `.status.conditions[?(@.type=="Ready")].status`)}} {
			if c.status != "Unknown" {
				return "the node is " + c.status
			}
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

// The next pod comes as soon as the one before has ended, however long that took: with room for
// one pod, its ReplicaSet has been refused by then, and waits longer each time.
func TestPodThatEndsLate(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	e.kube.Kubectl("cordon", "node-0")
	e.run(e.options())
	boxes := []control.Box{e.boxOn(), e.boxOn(), e.boxOn()}
	e.lose()
	e.kube.Kubectl("uncordon", "node-0")
	old := make(map[string]string)
	for _, b := range boxes {
		old[b.ID] = e.podUID(b.Namespace)
		e.kube.Kubectl("delete", "pod", "-n", b.Namespace, "--all", "--wait=false")
	}
	time.Sleep(25 * time.Second)
	for _, b := range boxes {
		e.kube.Kubectl("delete", "pod", "-n", b.Namespace, "--all", "--force", "--grace-period=0", "--wait=false")
	}
	for _, b := range boxes {
		e.until(8*time.Second, func() string {
			if now := e.podUID(b.Namespace); now == "" || now == old[b.ID] {
				return fmt.Sprintf("the pod was %s and is %q", old[b.ID], now)
			}
			return ""
		})
	}
}
