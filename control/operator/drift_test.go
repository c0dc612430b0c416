package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// retry does what may be refused for a moment: the API server's own view of a RoleBinding that
// was just made comes a moment later.
func retry(t *testing.T, do func(context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := do(t.Context())
		if err == nil {
			return
		}
		if !apierrors.IsForbidden(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// What was applied must not seem to differ, with all that the API server, the controllers and
// the scheduler add; so nothing is sent again.
func TestNothingIsWrittenToWhatIsAsItShallBe(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	for _, tier := range []string{"starter", "team"} {
		t.Run(tier, func(t *testing.T) {
			t.Parallel()
			o, box := testOptions(), g.box(t, tier)
			if tier == "team" {
				o.StorageClass = "none" // nothing provides it; the pod waits
			}
			objects := g.make(t, o, box)
			if tier == "starter" {
				g.Kubectl("wait", "-n", box.Namespace, "deployment/"+GatewayName, "--for=condition=Available", "--timeout=60s")
			}
			for _, object := range objects {
				live := g.live(t, object)
				if at := Differs(object, live); at != "" {
					t.Fatalf("%s: %s differs", object.GetKind(), at)
				}
				// Without a client nothing can be sent.
				if got, err := Apply(t.Context(), nil, object, live); err != nil || got != live {
					t.Errorf("%s: got another object, or %v", object.GetKind(), err)
				}
				// And if it is sent all the same, as after a restart, it changes nothing.
				again := retryApply(t, g, object)
				// Controllers write the status of these, which is another version too.
				status := slices.Contains([]string{"Deployment", "PersistentVolumeClaim", "ResourceQuota"}, object.GetKind())
				if !status && again.GetResourceVersion() != live.GetResourceVersion() {
					t.Errorf("%s was written to", object.GetKind())
				}
				if again.GetGeneration() != live.GetGeneration() {
					t.Errorf("%s is of generation %d after %d", object.GetKind(), again.GetGeneration(), live.GetGeneration())
				}
			}
		})
	}
}

func retryApply(t *testing.T, g guarded, object Object) (got *unstructured.Unstructured) {
	t.Helper()
	retry(t, func(ctx context.Context) (err error) {
		got, err = Apply(ctx, g.Operator, object, nil)
		return err
	})
	return got
}

// edit is what somebody does to an object by hand.
type edit struct {
	name  string
	kind  string
	as    string // type of the patch: strategic, merge, json; or apply
	patch string
	same  bool // nothing that has to be repaired
}

func edits() []edit {
	return []edit{
		{"weaker Pod Security", "Namespace", "merge", `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`, false},
		{"older Pod Security", "Namespace", "merge", `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce-version":"v1.20"}}}`, false},
		{"no Pod Security", "Namespace", "merge", `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":null}}}`, false},
		{"no owner", "Namespace", "merge", `{"metadata":{"labels":{"openclaw.cloud/box":null}}}`, false},
		{"another owner", "Namespace", "merge", `{"metadata":{"labels":{"openclaw.cloud/customer":"x"}}}`, false},
		{"a label that policies go by", "Namespace", "merge", `{"metadata":{"labels":{"app.kubernetes.io/part-of":"platform","openclaw.cloud/x":"y"}}}`, false},
		{"a label of somebody else", "Namespace", "merge", `{"metadata":{"labels":{"example.test/team":"y"},"annotations":{"example.test/a":"b"}}}`, true},

		{"a second subject", "RoleBinding", "json", `[{"op":"add","path":"/subjects/-","value":{"kind":"ServiceAccount","name":"default","namespace":"default"}}]`, false},
		{"another subject", "RoleBinding", "json", `[{"op":"replace","path":"/subjects/0/name","value":"default"}]`, false},
		{"no subject", "RoleBinding", "merge", `{"subjects":null}`, false},

		{"a token for the pod", "ServiceAccount", "merge", `{"automountServiceAccountToken":true}`, false},
		{"a default token", "ServiceAccount", "merge", `{"automountServiceAccountToken":null}`, false},
		{"secrets", "ServiceAccount", "merge", `{"imagePullSecrets":[{"name":"x"}],"secrets":[{"name":"y"}]}`, false},

		{"another value", "Secret", "merge", `{"data":{"openclaw.json":"e30="}}`, false},
		{"a missing key", "Secret", "merge", `{"data":{"OPENCLAW_PROXY_TOKEN":null}}`, false},
		{"an extra key", "Secret", "merge", `{"stringData":{"NODE_OPTIONS":"--inspect"}}`, false},
		{"another rotation", "Secret", "merge", `{"metadata":{"annotations":{"openclaw.cloud/rotation":"9"}}}`, false},
		{"immutable", "Secret", "merge", `{"immutable":true}`, false},

		{"more pods", "ResourceQuota", "merge", `{"spec":{"hard":{"pods":"7"}}}`, false},
		{"a missing count", "ResourceQuota", "merge", `{"spec":{"hard":{"services":null}}}`, false},
		{"an extra count", "ResourceQuota", "merge", `{"spec":{"hard":{"count/leases.coordination.k8s.io":"0"}}}`, false},

		{"a greater limit", "LimitRange", "json", `[{"op":"replace","path":"/spec/limits/0/max/cpu","value":"64"}]`, false},
		{"a ratio", "LimitRange", "json", `[{"op":"add","path":"/spec/limits/0/maxLimitRequestRatio","value":{"cpu":"99"}}]`, false},
		{"a missing item", "LimitRange", "json", `[{"op":"remove","path":"/spec/limits/1"}]`, false},

		{"an egress rule", "NetworkPolicy", "json", `[{"op":"add","path":"/spec/egress/-","value":{}}]`, false},
		{"an ingress rule", "NetworkPolicy", "merge", `{"spec":{"ingress":[{}]}}`, false},
		{"one direction", "NetworkPolicy", "merge", `{"spec":{"policyTypes":["Ingress"]}}`, false},
		{"a shorter list", "NetworkPolicy", "json", `[{"op":"remove","path":"/spec/egress/2/to/0/ipBlock/except/2"}]`, false},
		{"fewer pods", "NetworkPolicy", "merge", `{"spec":{"podSelector":{"matchLabels":{"a":"b"}}}}`, false},
		{"any port", "NetworkPolicy", "json", `[{"op":"remove","path":"/spec/egress/2/ports"}]`, false},
		{"a range of ports", "NetworkPolicy", "json", `[{"op":"add","path":"/spec/egress/2/ports/0/endPort","value":9999}]`, false},

		{"an extra container", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"extra","image":"x"}]}}}}`, false},
		{"an init container", "Deployment", "strategic", `{"spec":{"template":{"spec":{"initContainers":[{"name":"extra","image":"x"}]}}}}`, false},
		{"another image", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","image":"x"}]}}}}`, false},
		{"an extra variable", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","env":[{"name":"X","value":"y"}]}]}}}}`, false},
		{"all of another Secret", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","envFrom":[{"secretRef":{"name":"x"}}]}]}}}}`, false},
		{"a command", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","command":["sh"]}]}}}}`, false},
		{"a lifecycle hook", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","lifecycle":{"preStop":{"sleep":{"seconds":9}}}}]}}}}`, false},
		{"the host's network", "Deployment", "strategic", `{"spec":{"template":{"spec":{"hostNetwork":true}}}}`, false},
		{"privileges", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","securityContext":{"privileged":true,"allowPrivilegeEscalation":true}}]}}}}`, false},
		{"capabilities", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","securityContext":{"capabilities":{"add":["NET_BIND_SERVICE"]}}}]}}}}`, false},
		{"a supplemental group", "Deployment", "strategic", `{"spec":{"template":{"spec":{"securityContext":{"supplementalGroups":[0]}}}}}`, false},
		{"a volume", "Deployment", "strategic", `{"spec":{"template":{"spec":{"volumes":[{"name":"extra","emptyDir":{}}]}}}}`, false},
		{"a toleration", "Deployment", "json", `[{"op":"add","path":"/spec/template/spec/tolerations/-","value":{"operator":"Exists"}}]`, false},
		{"a node selector", "Deployment", "strategic", `{"spec":{"template":{"spec":{"nodeSelector":{"a":"b"}}}}}`, false},
		{"a host alias", "Deployment", "strategic", `{"spec":{"template":{"spec":{"hostAliases":[{"ip":"1.2.3.4","hostnames":["x"]}]}}}}`, false},
		{"DNS elsewhere", "Deployment", "strategic", `{"spec":{"template":{"spec":{"dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"]}}}}}`, false},
		{"a label of the pods", "Deployment", "strategic", `{"spec":{"template":{"metadata":{"labels":{"x":"y"}}}}}`, false},
		{"no replica", "Deployment", "merge", `{"spec":{"replicas":0}}`, false},
		{"paused", "Deployment", "merge", `{"spec":{"paused":true}}`, false},
		{"surge", "Deployment", "merge", `{"spec":{"strategy":{"type":"RollingUpdate"}}}`, false},
		{"no probe", "Deployment", "json", `[{"op":"remove","path":"/spec/template/spec/containers/0/livenessProbe"}]`, false},
		{"fewer resources", "Deployment", "json", `[{"op":"remove","path":"/spec/template/spec/containers/0/resources/limits/cpu"}]`, false},
		{"not our labels", "Deployment", "merge", `{"metadata":{"labels":{"openclaw.cloud/box":null}}}`, false},
		{"a default that is another one", "Deployment", "strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","terminationMessagePath":"/tmp/x"}]}}}}`, false},
		{"a restart by hand", "Deployment", "strategic", `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"2026-11-26T00:00:00Z"}}}}}`, true},
		{"somebody's annotation", "Deployment", "merge", `{"metadata":{"annotations":{"example.test/a":"b"},"labels":{"example.test/c":"d"}}}`, true},
		{"no record of who set what", "Deployment", "merge", `{"metadata":{"managedFields":[{}]}}`, false},

		{"a command in our name", "Deployment", "as us", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","lifecycle":{"preStop":{"sleep":{"seconds":9}}}}]}}}}`, false},
		{"a DNS server in our name", "Deployment", "as us", `{"spec":{"template":{"spec":{"dnsConfig":{"nameservers":["1.1.1.1"]}}}}}`, false},
		{"a default in our name", "Deployment", "as us", `{"spec":{"template":{"spec":{"containers":[{"name":"gateway","terminationMessagePath":"/tmp/x"}]}}}}`, false},
		{"replicas in our name", "Deployment", "as us", `{"spec":{"replicas":0}}`, false},
		{"an owner", "Deployment", "merge", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"kube-root-ca.crt","uid":"UID"}]}}`, false},
		{"a finalizer", "Secret", "merge", `{"metadata":{"finalizers":["example.test/stays"]}}`, false},
		{"an owner of its network", "NetworkPolicy", "merge", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"kube-root-ca.crt","uid":"UID"}]}}`, false},
		{"an applied variable", "Deployment", "apply", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"openclaw-gateway"},"spec":{"template":{"spec":{"hostPID":true}}}}`, false},
		{"an applied key", "Secret", "apply", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"openclaw-config"},"data":{"X":"eA=="}}`, false},
	}
}

// Each kind is edited by hand in several ways; each is noticed, repaired by the operator with its
// own rights, and not noticed again.
func TestEditsByHandAreNoticedAndRepaired(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	objects := g.make(t, testOptions(), box)
	kinds := make(map[string]int)
	authorities := ""
	retryUntil(t, func() bool {
		authorities = strings.TrimSpace(g.Kubectl("get", "configmap/kube-root-ca.crt", "-n", box.Namespace, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"))
		return authorities != ""
	})
	for _, e := range edits() {
		kinds[e.kind]++
		object := objects[slices.IndexFunc(objects, func(o Object) bool { return o.GetKind() == e.kind })]
		resource := strings.ToLower(e.kind) + "/" + object.GetName()
		if e.as == "apply" {
			if err := g.Apply(e.patch, "-n", box.Namespace, "--field-manager=somebody"); err != nil {
				t.Fatalf("%s %s: %v", e.kind, e.name, err)
			}
		} else {
			args := []string{"patch", resource, "-n", box.Namespace, "-p", strings.ReplaceAll(e.patch, "UID", authorities)}
			if e.as == "as us" {
				args = append(args, "--type=strategic", "--field-manager="+FieldManager)
			} else {
				args = append(args, "--type", e.as)
			}
			g.Kubectl(args...)
		}
		live := g.live(t, object)
		at := Differs(object, live)
		if e.same {
			if at != "" {
				t.Errorf("%s, %s: %s differs", e.kind, e.name, at)
			}
			continue
		}
		if at == "" {
			t.Errorf("%s, %s: nothing differs", e.kind, e.name)
			continue
		}
		var got *unstructured.Unstructured
		retry(t, func(ctx context.Context) (err error) {
			if got, err = Apply(ctx, g.Operator, object, live); err != nil {
				err = fmt.Errorf("%s, %s: %w", e.kind, e.name, err)
			}
			return err
		})
		if at := Differs(object, got); at != "" {
			t.Errorf("%s, %s: after the repair %s differs", e.kind, e.name, at)
		}
		if at := Differs(object, g.live(t, object)); at != "" {
			t.Errorf("%s, %s: some time after the repair %s differs", e.kind, e.name, at)
		}
		for _, entry := range g.live(t, object).GetManagedFields() {
			if entry.Manager == FieldManager && entry.Operation != metav1.ManagedFieldsOperationApply && entry.Subresource == "" {
				t.Errorf("%s, %s: after the repair more is ours than was applied: %s", e.kind, e.name, entry.FieldsV1.GetRawString())
			}
		}
	}
	for _, object := range objects {
		if kinds[object.GetKind()] == 0 {
			t.Errorf("no %s was edited", object.GetKind())
		}
	}
}

// Each object that is deleted by hand, or made anew as another one, comes back.
func TestDeletedObjectsComeBack(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	o := testOptions()
	o.StorageClass = "none"
	for _, object := range g.make(t, o, box) {
		if object.GetKind() == "Namespace" || object.GetKind() == "PersistentVolumeClaim" {
			continue
		}
		g.Kubectl("delete", strings.ToLower(object.GetKind()), object.GetName(), "-n", box.Namespace)
		retry(t, func(ctx context.Context) error {
			_, err := Apply(ctx, g.Operator, object, nil)
			return err
		})
		if at := Differs(object, g.live(t, object)); at != "" {
			t.Errorf("%s: %s differs", object.GetKind(), at)
		}
	}
}

// What cannot be changed is made anew.
func TestWhatCannotBeChangedIsMadeAnew(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	objects := g.make(t, testOptions(), box)
	for kind, change := range map[string]func(map[string]any){
		"RoleBinding": func(o map[string]any) { o["roleRef"].(map[string]any)["name"] = "view" },
		"Secret":      func(o map[string]any) { o["type"] = "example.test/other" },
		"Deployment": func(o map[string]any) {
			for _, path := range [][]string{{"spec", "selector", "matchLabels"}, {"spec", "template", "metadata", "labels"}} {
				if err := unstructured.SetNestedField(o, "y", append(path, "x")...); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		object := objects[slices.IndexFunc(objects, func(o Object) bool { return o.GetKind() == kind })]
		other := object.DeepCopy()
		change(other.Object)
		text, err := json.Marshal(other.Object)
		if err != nil {
			t.Fatal(err)
		}
		g.Kubectl("delete", strings.ToLower(kind), object.GetName(), "-n", box.Namespace)
		// With the RoleBinding the operator's own rights in the namespace go.
		retryAny(t, func() error { return g.KubernetesServer.Apply(string(text)) })
		live := g.live(t, object)
		if Differs(object, live) == "" {
			t.Errorf("%s: nothing differs", kind)
		}
		retry(t, func(ctx context.Context) error {
			_, err := Apply(ctx, g.Operator, object, live)
			return err
		})
		if at := Differs(object, g.live(t, object)); at != "" {
			t.Errorf("%s: %s differs", kind, at)
		}
	}
}

// retryAny is for kubectl, whose errors have no kind.
func retryAny(t *testing.T, do func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// An object that the API server refuses must not cost the one that works.
func TestRefusedObjectLeavesTheOneThatWorks(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	objects := g.make(t, testOptions(), box)
	good := objects[len(objects)-1]
	bad := Object{Unstructured: good.DeepCopy(), Resource: good.Resource}
	if err := unstructured.SetNestedField(bad.Object, "Sometimes", "spec", "strategy", "type"); err != nil {
		t.Fatal(err)
	}
	before := g.live(t, good)
	if _, err := Apply(t.Context(), g.Operator, bad, before); !apierrors.IsInvalid(err) {
		t.Errorf("got %v, want Invalid", err)
	}
	if g.live(t, good).GetUID() != before.GetUID() {
		t.Error("the Deployment that worked is gone")
	}
}

func TestDiffersNeedsAnObjectThatStays(t *testing.T) {
	t.Parallel()
	object := build(t, testOptions(), testBox(t, "pro"), testSecrets(t))[3]
	if Differs(object, nil) == "" {
		t.Error("nothing is taken for the object")
	}
	going := object.DeepCopy()
	going.SetDeletionTimestamp(&metav1.Time{Time: time.Now()})
	if Differs(object, going) == "" {
		t.Error("an object that is being deleted is taken for one that stays")
	}
}
