package operator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// TestStuck is what would keep a box from where it shall be if nobody did something about it.
func TestStuck(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	for n := range 20 {
		if err := e.kube.Apply(fmt.Sprintf(`{"apiVersion":"v1","kind":"PersistentVolume","metadata":{"name":"volume-%d"},
			"spec":{"capacity":{"storage":"2Gi"},"accessModes":["ReadWriteOnce"],"storageClassName":"manual","hostPath":{"path":"/nowhere"}}}`, n)); err != nil {
			t.Fatal(err)
		}
	}
	opts := e.options()
	opts.Objects.StorageClass, opts.PlacedWithin, opts.ReadyWithin = "manual", 20*time.Second, 20*time.Second
	late := &lateBooks{Books: e.boxes}
	opts.Books = late
	e.run(opts)
	for name, do := range map[string]func(*testing.T, *env){
		"FailedPodIsLeft": failedPodIsLeft, "ClaimEnds": claimEnds,
		"PostgresAwayMeanwhile": late.away, "Orphans": orphans,
		"StrayPod": strayPod, "RefusedByQuota": refusedByQuota, "Refused": refused,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			do(t, e.with(t))
		})
	}
}

// A pod that the kubelet has evicted is kept by Kubernetes. It neither keeps a box from being
// suspended, nor stays.
func failedPodIsLeft(t *testing.T, e *env) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	pod := e.field(b.Namespace, "pods", ".items[0].metadata.name")
	e.kube.Kubectl("patch", "pod", "-n", b.Namespace, pod, "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Failed","reason":"Evicted"}}`)
	e.until(soon, func() string {
		if name := e.field(b.Namespace, "pods", ".items[*].metadata.name"); name == "" || strings.Contains(name, pod) {
			return "the pods are " + name
		}
		return ""
	})
	e.becomes(b.ID, control.BoxActive, soon)
	// And one that fails just then.
	pod = e.field(b.Namespace, "pods", ".items[0].metadata.name")
	e.kube.Kubectl("patch", "pod", "-n", b.Namespace, pod, "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Failed","reason":"Evicted"}}`)
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
}

// A claim that somebody deletes goes only with the pod that uses it. Neither a suspension nor a
// change waits for that, for they are what the pod goes by.
func claimEnds(t *testing.T, e *env) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	ref := customers.BoxRef{ID: b.ID}
	e.kube.Kubectl("delete", "-n", b.Namespace, "pvc", operator.StateName, "--wait=false")
	if _, err := e.service.SuspendBox(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
	if _, err := e.service.ResumeBox(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxActive, soon)
	e.kube.Kubectl("delete", "-n", b.Namespace, "pvc", operator.StateName, "--wait=false")
	if _, err := e.service.RestartBox(t.Context(), "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxActive, soon)
}

// lateBooks cannot register the token of a box, and for a while after that cannot be read.
type lateBooks struct {
	operator.Books
	box   atomic.Value // its ID
	late  atomic.Value // the same, once it could not be
	until atomic.Int64 // in nanoseconds of Unix time
}

func (l *lateBooks) RegisterToken(ctx context.Context, boxID string, token contract.Token) (control.ProxyToken, error) {
	if l.box.CompareAndSwap(boxID, "") {
		l.late.Store(boxID)
		l.until.Store(time.Now().Add(25 * time.Second).UnixNano())
		return control.ProxyToken{}, errors.New("Postgres went away")
	}
	return l.Books.RegisterToken(ctx, boxID, token)
}

func (l *lateBooks) Desired(ctx context.Context, boxID string) (control.DesiredBox, error) {
	if l.late.Load() == boxID && time.Now().UnixNano() < l.until.Load() {
		return control.DesiredBox{}, errors.New("Postgres is away")
	}
	return l.Books.Desired(ctx, boxID)
}

// The time that a gateway has to become ready does not pass while Postgres is away.
func (l *lateBooks) away(t *testing.T, e *env) {
	customer, err := e.service.CreateCustomer(t.Context(), "test", customers.NewCustomer{Name: "Ada", Tier: "starter"})
	if err != nil {
		t.Fatal(err)
	}
	id := customer.Box.ID
	e.becomes(id, control.BoxActive, soon)
	// Its next provision is the one that is interrupted.
	l.box.Store(id)
	e.kube.Kubectl("delete", "namespace", customer.Box.Namespace)
	e.until(soon, func() string {
		if l.until.Load() == 0 {
			return "its token is not registered again"
		}
		return ""
	})
	time.Sleep(25 * time.Second)
	e.becomes(id, control.BoxActive, soon)
	if n := strings.TrimSpace(e.pg.Query("SELECT count(*) FROM audit_log WHERE target = '" + id + "' AND detail->>'state' IN ('failed', 'unhealthy')")); n != "0" {
		t.Errorf("it was given up %s times because Postgres was away", n)
	}
}

// A pod that no Deployment knows does not run in a box that is suspended.
func strayPod(t *testing.T, e *env) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	if _, err := e.service.SuspendBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxSuspended, soon)
	e.until(soon, func() string { // the quota still counts the pod that has just gone
		err := e.kube.Apply(fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"stray","namespace":%q,"labels":{%q:%q,%q:%q}},"spec":{
			"securityContext":{"runAsNonRoot":true,"runAsUser":1000,"seccompProfile":{"type":"RuntimeDefault"}},
			"containers":[{"name":"gateway","image":%q,"resources":{"requests":{"cpu":"10m","memory":"16Mi"},"limits":{"cpu":"1","memory":"1Gi"}},
				"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]}}`,
			b.Namespace, operator.LabelManagedBy, operator.ManagedBy, operator.LabelBox, b.ID, image))
		if err != nil {
			return err.Error()
		}
		return ""
	})
	e.until(soon, func() string {
		if uid := e.podUID(b.Namespace); uid != "" {
			return "a suspended box has the pod " + uid
		}
		return ""
	})
}

// A pod that a quota has refused for a while comes soon after it is allowed; its ReplicaSet alone
// would wait as long as it was refused once more.
func refusedByQuota(t *testing.T, e *env) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	e.kube.Kubectl("create", "quota", "another", "-n", b.Namespace, "--hard=pods=0")
	e.until(soon, func() string {
		if e.field(b.Namespace, "resourcequota/another", ".status.hard.pods") != "0" {
			return "the quota is not in force"
		}
		return ""
	})
	e.kube.Kubectl("delete", "pod", "-n", b.Namespace, "--all", "--wait=false")
	time.Sleep(45 * time.Second)
	if uid := e.podUID(b.Namespace); uid != "" {
		t.Fatalf("the quota allows the pod %s", uid)
	}
	e.kube.Kubectl("delete", "quota", "another", "-n", b.Namespace)
	e.until(30*time.Second, func() string {
		if e.podUID(b.Namespace) == "" {
			return "there is no pod"
		}
		return ""
	})
}

// What the cluster does not allow is tried on, but after a while the box says so.
func refused(t *testing.T, e *env) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	name := "refuse-" + b.Namespace
	if err := e.kube.Apply(fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicy","metadata":{"name":%[1]q},"spec":{
		"matchConstraints":{"namespaceSelector":{"matchLabels":{%[2]q:%[3]q}},
			"resourceRules":[{"apiGroups":["apps"],"apiVersions":["v1"],"operations":["UPDATE"],"resources":["deployments"]}]},
		"validations":[{"expression":"request.userInfo.username != 'system:serviceaccount:platform:operator'","message":"not today"}]}}
		{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingAdmissionPolicyBinding","metadata":{"name":%[1]q},"spec":{"policyName":%[1]q,"validationActions":["Deny"]}}`,
		name, operator.LabelBox, b.ID)); err != nil {
		t.Fatal(err)
	}
	e.until(soon, func() string { // it takes a moment until it is obeyed
		_, err := e.kube.TryKubectl("annotate", "--as=system:serviceaccount:platform:operator", "--as-group=system:masters", "--dry-run=server", "--overwrite",
			"-n", b.Namespace, "deployment/openclaw-gateway", "x=y")
		if err == nil || !strings.Contains(err.Error(), "not today") {
			return fmt.Sprintf("nothing refuses a change: %v", err)
		}
		return ""
	})
	if _, err := e.service.RestartBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.until(2*soon, func() string {
		if now, detail := e.box(b.ID), e.detail(b.ID); now.State != control.BoxUpdating || !strings.Contains(detail, "not today") || strings.Contains(now.Message, "not today") {
			return fmt.Sprintf("the box is %s, and says %q, to operators %q", now.State, now.Message, detail)
		}
		return ""
	})
	e.kube.Kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)
	if now := e.becomes(b.ID, control.BoxActive, 2*soon); now.Message != "" {
		t.Errorf("it still says %q", now.Message)
	}
}

// The namespace of a box that is destroyed goes; that of a box that the books do not know stays.
func orphans(t *testing.T, e *env) {
	b := e.customer("starter")
	e.becomes(b.ID, control.BoxActive, soon)
	if _, err := e.service.DestroyBox(t.Context(), "test", customers.BoxRef{ID: b.ID}, ""); err != nil {
		t.Fatal(err)
	}
	e.becomes(b.ID, control.BoxDestroyed, 2*soon)
	unknown := "customer-" + strings.ToLower(control.NewID(control.BoxID))
	unknown = strings.ReplaceAll(unknown, "_", "-")
	for ns, box := range map[string]string{b.Namespace: b.ID, unknown: "unknown-box"} {
		e.kube.Kubectl("create", "namespace", ns)
		e.kube.Kubectl("label", "namespace", ns, operator.LabelManagedBy+"="+operator.ManagedBy, operator.LabelBox+"="+box)
	}
	e.until(soon, func() string {
		if name := e.field("", "namespace/"+b.Namespace, ".metadata.name"); name != "" {
			return "the namespace of a box that is destroyed is still there"
		}
		return ""
	})
	time.Sleep(5 * time.Second) // two sweeps
	if at := e.field("", "namespace/"+unknown, ".metadata.uid"); at == "" || e.field("", "namespace/"+unknown, ".metadata.deletionTimestamp") != "" {
		t.Error("the namespace of a box that the books do not know was deleted")
	}
}
