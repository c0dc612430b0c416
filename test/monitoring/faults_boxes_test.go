//go:build linux

package monitoring

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// unlooked are what the operator finds and leaves alone: a namespace that Postgres does not know, and rights
// of its own that nothing limits.
func (w *world) unlooked() []fault {
	return []fault{
		{"Postgres does not know a box", []string{"OrphanNamespaces"}, func() func() {
			const space = "customer-nobody"
			w.ctl("kubectl", "create", "namespace", space)
			w.ctl("kubectl", "label", "namespace", space, "app.kubernetes.io/managed-by=openclaw-operator", "openclaw.cloud/customer=nobody", "openclaw.cloud/box=box_nobody")
			return func() { w.ctl("kubectl", "delete", "namespace", space, "--wait=false") }
		}},
		{"somebody deletes the operator's policy", []string{"OperatorPolicyMissing"}, func() func() {
			w.ctl("kubectl", "delete", "validatingadmissionpolicybinding", "openclaw-operator")
			return func() {
				access, err := w.tryRun(w.t.Context(), filepath.Join(filepath.Dir(*devstack), "control"), "operator", "access")
				if err != nil {
					w.t.Fatalf("control operator access: %v\n%s", err, access)
				}
				w.ctl("kubectl", "apply", "--server-side", "--field-manager=devstack", "-f", w.write("access.yaml", access))
			}
		}},
	}
}

// noRoom has no node take a pod any more: neither of boxes that are bought, nor of those whose image is
// replaced, which it is everywhere.
func (w *world) noRoom() []fault {
	const others = 5
	alerts := []string{"BoxesUnsettled", "BoxesFailed", "BoxesFailOften", "BoxesUnhealthy", "RollOutStands"}
	return []fault{{"no node takes pods", alerts, func() func() {
		w.ctl("kubectl", "cordon", "--selector=kubernetes.io/os=linux")
		w.again("box-operator", "--gateway-image=openclaw-gateway@sha256:"+strings.Repeat("1", 64))
		for n := range others {
			w.ctl("openclawctl", "customer", "create", "--name", fmt.Sprint("Another ", n), "--tier", "starter")
		}
		w.eventually("boxes are on their way", 30*time.Second, func() string {
			if n := w.sql("SELECT count(*) FROM boxes WHERE state = 'provisioning'"); n == "0" {
				return "none is"
			}
			return ""
		})
		w.sql("UPDATE boxes SET changed_at = now() - interval '30 minutes' WHERE state = 'provisioning'")
		return func() { w.ctl("kubectl", "uncordon", "--selector=kubernetes.io/os=linux") }
	}}}
}

// nodeLost has a node be gone, with a pod on it that is to end.
func (w *world) nodeLost() []fault {
	return []fault{{"a node is lost", []string{"PodsForced"}, func() func() {
		space := "--namespace=customer-" + w.customer
		where := strings.Fields(w.ctl("kubectl", "get", "pods", space, "--output=jsonpath={.items[0].metadata.name} {.items[0].spec.nodeName}"))
		if len(where) != 2 {
			w.t.Fatalf("the box of customer %s has no pod on a node: %v", w.customer, where)
		}
		resume := w.frozen("kwok") // what is a kubelet here
		w.ctl("kubectl", "delete", "pod", where[0], space, "--wait=false")
		w.ctl("kubectl", "delete", "node", where[1], "--wait=false")
		return resume
	}}}
}

// leaseTaken has somebody hold the operators' Lease who does nothing.
func (w *world) leaseTaken() []fault {
	return []fault{{"an operator that does nothing leads", []string{"BoxesKeptByNobody"}, func() func() {
		hold := func(holder string, seconds int) {
			w.ctl("kubectl", "patch", "lease", "openclaw-operator", "--namespace=platform", "--type=merge", "--patch", fmt.Sprintf(
				`{"spec":{"holderIdentity":%s,"leaseDurationSeconds":%d,"renewTime":%q}}`, holder, seconds, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")))
		}
		back := w.away("box-operator")
		hold(`"somebody"`, 3600)
		back()
		return func() { hold("null", 1) }
	}}}
}
