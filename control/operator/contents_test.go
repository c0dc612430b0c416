package operator

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// What the operator may write into a box is what belongs there, whoever has its rights.
func TestContentsAreLimited(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	o := testOptions()
	objects := g.make(t, o, box)
	patch := func(kind, text string) error {
		object := objects[slices.IndexFunc(objects, func(o Object) bool { return o.GetKind() == kind })]
		as := types.MergePatchType
		if text[0] == '[' {
			as = types.JSONPatchType
		}
		_, err := g.Operator.Resource(object.Resource).Namespace(box.Namespace).Patch(t.Context(), object.GetName(), as, []byte(text), metav1.PatchOptions{FieldManager: FieldManager, DryRun: []string{metav1.DryRunAll}})
		return err
	}
	pod := func(text string) string { return `{"spec":{"template":{"spec":` + text + `}}}` }
	add := func(path, value string) string {
		return `[{"op":"add","path":"` + path + `","value":` + value + `}]`
	}
	const template, first = "/spec/template/spec", "/spec/template/spec/containers/0"
	digest := "@sha256:" + strings.Repeat("1f", 32)
	// The policy takes effect a moment after it was made.
	retryUntil(t, func() bool { return refusedBy(patch("Deployment", pod(`{"hostNetwork":true}`))) == "policy" })
	for what, change := range map[string]string{
		"another repository":       add(first+"/image", `"evil.test/openclaw-gateway`+digest+`"`),
		"a longer repository":      add(first+"/image", `"registry.test/openclaw-gateway-evil`+digest+`"`),
		"a prefix before it":       add(first+"/image", `"evil.test/registry.test/openclaw-gateway`+digest+`"`),
		"another dot":              add(first+"/image", `"registry-test/openclaw-gateway`+digest+`"`),
		"a tag":                    add(first+"/image", `"registry.test/openclaw-gateway:latest"`),
		"a second container":       add(template+"/containers/-", `{"name":"x","image":"registry.test/openclaw-gateway`+digest+`"}`),
		"an init container":        add(template+"/initContainers", `[{"name":"x","image":"registry.test/openclaw-gateway`+digest+`"}]`),
		"two replicas":             `{"spec":{"replicas":2}}`,
		"another account":          pod(`{"serviceAccountName":"default","serviceAccount":"default"}`),
		"an account's token":       pod(`{"automountServiceAccountToken":true}`),
		"a default token":          pod(`{"automountServiceAccountToken":null}`),
		"a projected token":        add(template+"/volumes/-", `{"name":"x","projected":{"sources":[{"serviceAccountToken":{"path":"x","audience":"vault"}}]}}`),
		"a path of the host":       add(template+"/volumes/-", `{"name":"x","hostPath":{"path":"/"}}`),
		"another Secret":           add(template+"/volumes/-", `{"name":"x","secret":{"secretName":"tls"}}`),
		"another claim":            add(template+"/volumes/-", `{"name":"x","persistentVolumeClaim":{"claimName":"data"}}`),
		"a ConfigMap":              add(template+"/volumes/-", `{"name":"x","configMap":{"name":"x"}}`),
		"a CSI volume":             add(template+"/volumes/-", `{"name":"x","csi":{"driver":"secrets.example.test"}}`),
		"a variable of a Secret":   add(first+"/env/-", `{"name":"X","valueFrom":{"secretKeyRef":{"name":"tls","key":"x"}}}`),
		"a variable of the node":   add(first+"/env/-", `{"name":"X","valueFrom":{"fieldRef":{"fieldPath":"status.hostIP"}}}`),
		"all of a Secret":          add(first+"/envFrom", `[{"secretRef":{"name":"tls"}}]`),
		"the host's processes":     pod(`{"hostPID":true}`),
		"the host's IPC":           pod(`{"hostIPC":true}`),
		"a node":                   pod(`{"nodeName":"control-plane"}`),
		"a sort of node":           pod(`{"nodeSelector":{"node-role.kubernetes.io/control-plane":""}}`),
		"an affinity":              pod(`{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"x","operator":"Exists"}]}]}}}}`),
		"any taint":                add(template+"/tolerations/-", `{"operator":"Exists"}`),
		"the control plane's":      add(template+"/tolerations/-", `{"key":"node-role.kubernetes.io/control-plane","operator":"Exists","effect":"NoSchedule"}`),
		"a priority":               pod(`{"priorityClassName":"system-node-critical"}`),
		"a runtime":                pod(`{"runtimeClassName":"x"}`),
		"a scheduler":              pod(`{"schedulerName":"x"}`),
		"names of its own":         pod(`{"hostAliases":[{"ip":"1.2.3.4","hostnames":["x"]}]}`),
		"another DNS":              pod(`{"dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"]}}`),
		"credentials for an image": pod(`{"imagePullSecrets":[{"name":"x"}]}`),
	} {
		if by := refusedBy(patch("Deployment", change)); by != "policy" {
			t.Errorf("a Deployment with %s: refused by %s", what, by)
		}
	}
	rule := func(text string) string { return `{"spec":{"egress":[` + text + `]}}` }
	for what, change := range map[string]string{
		"everything":              rule(`{}`),
		"any port":                rule(`{"to":[{"ipBlock":{"cidr":"0.0.0.0/0"}}]}`),
		"any address":             rule(`{"ports":[{"port":443,"protocol":"TCP"}]}`),
		"private addresses":       rule(`{"to":[{"ipBlock":{"cidr":"0.0.0.0/0"}}],"ports":[{"port":443,"protocol":"TCP"}]}`),
		"a network":               rule(`{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"}}],"ports":[{"port":443,"protocol":"TCP"}]}`),
		"the metadata":            rule(`{"to":[{"ipBlock":{"cidr":"169.254.169.254/32"}}],"ports":[{"port":443,"protocol":"TCP"}]}`),
		"all of IPv6":             rule(`{"to":[{"ipBlock":{"cidr":"::/0"}}],"ports":[{"port":443,"protocol":"TCP"}]}`),
		"6to4":                    rule(`{"to":[{"ipBlock":{"cidr":"2000::/3","except":["2001::/23","2001:db8::/32","3fff::/20"]}}],"ports":[{"port":443,"protocol":"TCP"}]}`),
		"a shorter list":          `[{"op":"remove","path":"/spec/egress/2/to/0/ipBlock/except/5"}]`,
		"another port":            `[{"op":"replace","path":"/spec/egress/2/ports/0/port","value":6379}]`,
		"a range of ports":        `[{"op":"add","path":"/spec/egress/2/ports/0/endPort","value":9999}]`,
		"no port":                 `[{"op":"remove","path":"/spec/egress/2/ports/0/port"}]`,
		"all pods":                rule(`{"to":[{"namespaceSelector":{},"podSelector":{}}],"ports":[{"port":443,"protocol":"TCP"}]}`),
		"pods beside token-proxy": `[{"op":"replace","path":"/spec/egress/1/to/0/podSelector/matchLabels","value":{"app.kubernetes.io/name":"postgres"}}]`,
		"all pods of platform":    `[{"op":"remove","path":"/spec/egress/1/to/0/podSelector/matchLabels"}]`,
		"token-proxy anywhere":    `[{"op":"remove","path":"/spec/egress/1/to/0/namespaceSelector"}]`,
		"token-proxy's own pages": `[{"op":"replace","path":"/spec/egress/1/ports/0/port","value":9090}]`,
		"another namespace":       `[{"op":"replace","path":"/spec/egress/1/to/0/namespaceSelector/matchLabels","value":{"kubernetes.io/metadata.name":"default"}}]`,
		"any namespace's DNS":     `[{"op":"add","path":"/spec/egress/0/to/0/namespaceSelector","value":{"matchExpressions":[{"key":"x","operator":"DoesNotExist"}]}}]`,
		"ingress":                 `{"spec":{"ingress":[{}]}}`,
		"no pod":                  `{"spec":{"podSelector":{"matchLabels":{"a":"b"}}}}`,
		"some pods":               `{"spec":{"podSelector":{"matchExpressions":[{"key":"x","operator":"Exists"}]}}}`,
		"one direction":           `{"spec":{"policyTypes":["Ingress"]}}`,
	} {
		if by := refusedBy(patch("NetworkPolicy", change)); by != "policy" {
			t.Errorf("a NetworkPolicy that lets through or selects %s: refused by %s", what, by)
		}
	}
	// What it must be able to write it can: with more excluded, from another version, with a volume.
	for what, change := range map[string]func(*ObjectOptions, *control.DesiredBox){
		"as it is": func(*ObjectOptions, *control.DesiredBox) {},
		"ranges excluded": func(o *ObjectOptions, _ *control.DesiredBox) {
			o.Exclude = prefixes("5.75.0.0/20", "10.0.0.0/7", "2001::/20")
		},
		"no IPv6": func(o *ObjectOptions, _ *control.DesiredBox) { o.Exclude = prefixes("::/0") },
		"another version": func(o *ObjectOptions, _ *control.DesiredBox) {
			o.Image = "registry.test/openclaw-gateway" + digest
		},
		"a volume":  func(o *ObjectOptions, _ *control.DesiredBox) { o.StorageClass = "none" },
		"suspended": func(_ *ObjectOptions, b *control.DesiredBox) { b.Wants = control.BoxSuspend },
	} {
		changed, b := o, box
		change(&changed, &b)
		for _, object := range build(t, changed, b, testSecrets(t)) {
			if object.GetKind() == kindClaim {
				continue
			}
			_, err := g.Operator.Resource(object.Resource).Namespace(object.GetNamespace()).Apply(t.Context(), object.GetName(), object.Unstructured,
				metav1.ApplyOptions{FieldManager: FieldManager, Force: true, DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				t.Errorf("%s: %s: %v", what, object.GetKind(), err)
			}
		}
	}
}

// A namespace that people have made, and called so, cannot be taken over, neither by labels nor by
// what is put into it; one of a box that lost its label can be repaired.
func TestForeignNamespacesAreNotTakenOver(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	foreign, box := boxSpace(), g.box(t, "pro")
	g.Kubectl("create", "namespace", foreign)
	t.Cleanup(func() { g.Kubectl("delete", "namespace", foreign, "--wait=false", "--ignore-not-found") })
	objects := g.make(t, testOptions(), box)
	theirs := box
	theirs.Namespace = foreign
	adopted := build(t, testOptions(), theirs, testSecrets(t))
	retryUntil(t, func() bool {
		return refusedBy(g.apply(t, bindingIn("default", BoxRole, OperatorName, OperatorSpace))) == "policy"
	})
	labels, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": adopted[0].GetLabels()}})
	if err != nil {
		t.Fatal(err)
	}
	spaces := g.Typed.CoreV1().Namespaces()
	for what, err := range map[string]error{
		"labels":  second(spaces.Patch(t.Context(), foreign, types.MergePatchType, labels, metav1.PatchOptions{})),
		"applied": g.apply(t, manifest(adopted[0].Unstructured)),
		"rights":  g.apply(t, bindingIn(foreign, BoxRole, OperatorName, OperatorSpace)),
		"deleted": spaces.Delete(t.Context(), foreign, metav1.DeleteOptions{}),
	} {
		if by := refusedBy(err); by != "policy" {
			t.Errorf("%s: refused by %s", what, by)
		}
	}
	g.Kubectl("label", "namespace", box.Namespace, LabelManagedBy+"-", LabelBox+"-")
	retryUntil(t, func() bool {
		_, err := Apply(t.Context(), g.Operator, objects[0], g.live(t, objects[0]))
		return err == nil
	})
	if at := Differs(objects[0], g.live(t, objects[0])); at != "" {
		t.Errorf("%s differs", at)
	}
}

// Without the policy, or with one that only warns, the operator is told, and makes nothing.
func TestPolicyInForce(t *testing.T) {
	t.Parallel()
	k := testenv.DedicatedKubernetes(t)
	manifests := strings.SplitN(Access(), "apiVersion: v1\nkind: ServiceAccount", 2)
	if len(manifests) != 2 || !strings.Contains(manifests[0], "ValidatingAdmissionPolicyBinding") || strings.Contains(manifests[1], "ValidatingAdmissionPolicy\n") {
		t.Fatal("the policy does not come before the rights")
	}
	for _, text := range []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: platform}\n", "apiVersion: v1\nkind: ServiceAccount" + manifests[1]} {
		if err := k.Apply(text); err != nil {
			t.Fatal(err)
		}
	}
	client, err := kubernetes.NewForConfig(restConfig(t, k.ServiceAccountKubeconfig(OperatorSpace, OperatorName)))
	if err != nil {
		t.Fatal(err)
	}
	check := func() error { return PolicyInForce(t.Context(), client) }
	if err := check(); !errors.Is(err, ErrNoPolicy) {
		t.Errorf("without the policy: %v", err)
	}
	if err := k.Apply(manifests[0]); err != nil {
		t.Fatal(err)
	}
	retryUntil(t, func() bool { return check() == nil })
	const binding = "validatingadmissionpolicybinding/" + policyName
	k.Kubectl("patch", binding, "--type=merge", "-p", `{"spec":{"validationActions":["Warn"]}}`)
	retryUntil(t, func() bool { return errors.Is(check(), ErrNoPolicy) })
	k.Kubectl("delete", binding)
	retryUntil(t, func() bool { return errors.Is(check(), ErrNoPolicy) })
	if err := k.Apply(manifests[0]); err != nil {
		t.Fatal(err)
	}
	retryUntil(t, func() bool { return check() == nil })
	if list, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil || slices.ContainsFunc(list.Items, func(n corev1.Namespace) bool { return n.Name == "openclaw-canary" }) {
		t.Errorf("something was made (%v)", err)
	}
	// Who has no such rights at all is not told that he is limited.
	k.Kubectl("delete", "clusterrolebinding/openclaw-operator")
	retryUntil(t, func() bool { err := check(); return err != nil && !errors.Is(err, ErrNoPolicy) })
}

func TestAccessFollowsTheOptions(t *testing.T) {
	t.Parallel()
	o := ObjectOptions{OperatorNamespace: "claws", OperatorAccount: "boxes", Image: testOptions().Image, ProxyNamespace: "data", ProxyPort: 8443, ProxyLabels: map[string]string{"b": "2", "a": "1"}}
	text, err := AccessFor(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"system:serviceaccount:claws:boxes", "namespace: claws", "name: boxes", `^registry\.test/openclaw-gateway@sha256:`, "{'a': '1', 'b': '2'}", "p.port == 8443", "'kubernetes.io/metadata.name': 'data'",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("nothing says %s", want)
		}
	}
	for _, not := range []string{"[[", "<no value>", "platform", "\n  name: operator\n"} {
		if strings.Contains(text, not) {
			t.Errorf("there is %q", not)
		}
	}
	for what, o := range map[string]ObjectOptions{
		"account": {OperatorAccount: "a' || true || '"}, "namespace": {OperatorNamespace: "A"}, "label": {ProxyLabels: map[string]string{"a": "'"}}, "image": {Image: "x:latest"},
	} {
		if _, err := AccessFor(o); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
}
