package operator

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// pass is what the operator does at each look at a box: it applies each object in order, until one
// cannot be.
func (g guarded) pass(t *testing.T, o ObjectOptions, box control.DesiredBox) ([]Object, error) {
	t.Helper()
	objects := build(t, o, box, testSecrets(t))
	for _, object := range objects {
		live, err := g.Operator.Resource(object.Resource).Namespace(object.GetNamespace()).Get(t.Context(), object.GetName(), metav1.GetOptions{})
		if err != nil {
			live = nil
		}
		if _, err := Apply(t.Context(), g.Operator, object, live); err != nil {
			return objects, err
		}
	}
	return objects, nil
}

// passes does that until it succeeds: some of what was changed is obeyed a moment later.
func (g guarded) passes(t *testing.T, o ObjectOptions, box control.DesiredBox) []Object {
	t.Helper()
	var objects []Object
	retry(t, func(context.Context) (err error) {
		objects, err = g.pass(t, o, box)
		return err
	})
	for _, object := range objects {
		if at := Differs(object, g.live(t, object)); at != "" {
			t.Errorf("%s: %s differs", object.GetKind(), at)
		}
	}
	return objects
}

// storage makes a class whose volumes can grow, with one volume for the box's claim.
func (g guarded) storage(t *testing.T, box control.DesiredBox) (class string) {
	t.Helper()
	class = "class-" + strings.TrimPrefix(box.Namespace, NamespaceStart)
	manifest := fmt.Sprintf(`
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: %[1]s}
provisioner: example.test/none
allowVolumeExpansion: true
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: %[1]s
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: %[2]s, name: openclaw-state}
  hostPath: {path: /nowhere}
`, class, box.Namespace)
	if err := g.KubernetesServer.Apply(manifest); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Kubectl("delete", "persistentvolume/"+class, "storageclass/"+class, "--wait=false", "--ignore-not-found")
	})
	return class
}

func claimOf(objects []Object) Object {
	return objects[slices.IndexFunc(objects, func(o Object) bool { return o.GetKind() == kindClaim })]
}

// A box's storage may be made larger, smaller or another one for all boxes at any time. What a claim
// cannot follow it keeps, and nothing else waits for that.
func TestStorageOfABoxCanBeChanged(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	o := testOptions()
	asks := func(object Object) string {
		text, _, _ := unstructured.NestedString(g.live(t, object).Object, storagePath()...)
		return text
	}

	// Without a volume, then with one, of which the quota knew nothing.
	g.passes(t, o, box)
	o.StorageClass, o.StateMiB = g.storage(t, box), 1024
	objects := g.passes(t, o, box)
	claim := claimOf(objects)
	retryUntil(t, func() bool { return bound(g.live(t, claim)) })

	o.StateMiB = 2048
	if g.passes(t, o, box); asks(claim) != "2Gi" {
		t.Errorf("the claim asks for %s after it was to grow to 2Gi", asks(claim))
	}
	o.StateMiB, box.Settings.SystemPrompt = 1024, "smaller"
	if g.passes(t, o, box); asks(claim) != "2Gi" {
		t.Errorf("the claim asks for %s after it was to shrink", asks(claim))
	}
	// A process that has just begun has seen nothing of it yet.
	if _, err := Apply(t.Context(), g.Operator, claimOf(build(t, o, box, testSecrets(t))), nil); err != nil {
		t.Errorf("unseen: %v", err)
	}

	// Nothing else lets it grow.
	g.Kubectl("delete", "resourcequota/"+LimitsName, "-n", box.Namespace)
	retryAny(t, func() error {
		_, err := g.TryKubectl("patch", "persistentvolumeclaim/"+StateName, "-n", box.Namespace, "--type=merge", "-p", `{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}`)
		return err
	})
	o.StateMiB = 2560
	if g.passes(t, o, box); asks(claim) != "3Gi" {
		t.Errorf("the claim asks for %s after somebody had it grow to 3Gi", asks(claim))
	}
	first := o.StorageClass
	o.StorageClass = "another"
	g.passes(t, o, box)
	if class, _, _ := unstructured.NestedString(g.live(t, claim).Object, "spec", "storageClassName"); class != first {
		t.Errorf("the claim is of class %s", class)
	}
	o.StorageClass = ""
	g.passes(t, o, box)
	if g.live(t, claim).GetDeletionTimestamp() != nil {
		t.Error("the claim was deleted")
	}
}

// A claim that is being deleted, or that the cluster lets not grow, must not keep a box from being
// suspended, limited or isolated.
func TestNothingWaitsForAClaim(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	o := testOptions()
	o.StorageClass = g.storage(t, box)
	claim := claimOf(g.passes(t, o, box))
	retryUntil(t, func() bool { return bound(g.live(t, claim)) })
	g.Kubectl("patch", "persistentvolumeclaim/"+StateName, "-n", box.Namespace, "--type=merge", "-p", `{"metadata":{"finalizers":["example.test/stays"]}}`)
	t.Cleanup(func() {
		g.Kubectl("patch", "persistentvolumeclaim/"+StateName, "-n", box.Namespace, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	})
	g.Kubectl("delete", "persistentvolumeclaim/"+StateName, "-n", box.Namespace, "--wait=false")
	box.Wants, box.Tier, o.StateMiB = control.BoxSuspend, testBox(t, "team").Tier, 4096
	o.Exclude = append(o.Exclude, netip.MustParsePrefix("5.75.0.0/20"))
	var objects []Object
	retryUntil(t, func() bool {
		var err error
		objects, err = g.pass(t, o, box)
		return err != nil && strings.Contains(err.Error(), kindClaim)
	})
	for _, object := range objects {
		if at := Differs(object, g.live(t, object)); at != "" && object.GetKind() != kindClaim {
			t.Errorf("%s: %s differs", object.GetKind(), at)
		}
	}
}

// Before a claim is anything's it cannot even grow, and needs not.
func TestClaimWithoutAVolumeStaysAsItIs(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	o := testOptions()
	o.StorageClass, o.StateMiB = "none", 1024
	g.passes(t, o, box)
	o.StateMiB = 2048
	live := g.live(t, claimOf(g.passes(t, o, box)))
	if got, _, _ := unstructured.NestedString(live.Object, storagePath()...); got != "1Gi" || bound(live) {
		t.Errorf("it asks for %s", got)
	}
}

func TestGrowthIsTold(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.StorageClass = "fast"
	claim := claimOf(build(t, o, testBox(t, "pro"), testSecrets(t)))
	for _, c := range []struct {
		have, volume string
		same         bool
	}{{"1Gi", "v", false}, {"1Gi", "", true}, {"2Gi", "v", true}, {"2048Mi", "v", true}, {"3Gi", "v", true}} {
		live := claim.DeepCopy()
		live.SetManagedFields(nil)
		_ = unstructured.SetNestedField(live.Object, c.have, storagePath()...)
		if c.volume != "" {
			_ = unstructured.SetNestedField(live.Object, c.volume, "spec", "volumeName")
		}
		at := Differs(claim, live)
		if same := at == "metadata.managedFields"; same != c.same { // which is what differs at last
			t.Errorf("%+v: %s differs", c, at)
		}
	}
}
