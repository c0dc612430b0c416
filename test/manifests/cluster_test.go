package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// foreignKinds are those of External Secrets Operator: without what is in them, for that is its to say.
func foreignKinds() string {
	const crd = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.external-secrets.io}
spec:
  group: external-secrets.io
  scope: Namespaced
  names: {kind: KIND, plural: PLURAL, singular: SINGULAR}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
`
	var all strings.Builder
	for _, kind := range []string{"SecretStore", "ExternalSecret"} {
		singular := strings.ToLower(kind)
		all.WriteString(strings.NewReplacer("KIND", kind, "PLURAL", singular+"s", "SINGULAR", singular).Replace(crd))
	}
	return all.String()
}

// A real API server takes what is rendered, without a warning and without a field that it does not
// know; all pods are made, so Pod Security lets them; and applying the same again changes nothing.
func TestGoldenIsApplied(t *testing.T) {
	k := testenv.Kubernetes(t)
	if err := k.Apply(foreignKinds()); err != nil {
		t.Fatal(err)
	}
	k.Kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	for _, r := range renderings(t) {
		dir := r.dir(t)
		// Of what is in a namespace that does not exist nothing can be said by a dry run.
		k.Kubectl("apply", "-f", filepath.Join(dir, "00-namespaces.yaml"), "--validate=strict", "--warnings-as-errors")
		k.Kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "--validate=strict", "--warnings-as-errors", "-f", dir)
		k.Kubectl("apply", "--validate=strict", "--warnings-as-errors", "-f", dir)
		for _, w := range r.workloads(t) {
			if w.Kind == "Deployment" {
				k.Kubectl("-n", w.Metadata.Namespace, "rollout", "status", "deployment/"+w.Metadata.Name, "--timeout=90s")
				k.Kubectl("-n", w.Metadata.Namespace, "wait", "--for=condition=Available", "deployment/"+w.Metadata.Name, "--timeout=60s")
				continue
			}
			// Nothing here makes its volume, so its pod waits for a node, but it is there.
			k.Kubectl("-n", w.Metadata.Namespace, "wait", "--for=create", "pod/"+w.Metadata.Name+"-0", "--timeout=60s")
		}
		available(t, k, r)
		// kubectl itself cannot tell: it says "configured" where the API server has filled something in.
		generations := func() string {
			return k.Kubectl("get", "deployments,statefulsets,poddisruptionbudgets,networkpolicies,ingresses,validatingadmissionpolicies", "-A",
				"-o", `jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.generation}{"\n"}{end}`)
		}
		before := generations()
		k.Kubectl("apply", "-f", dir)
		if after := generations(); after != before || !strings.Contains(before, "Deployment platform/token-proxy ") {
			t.Errorf("%s: applied again, something changes:\n%s\n%s", r.name, before, after)
		}
	}
}

// available waits until autoscalers scale what they name, and budgets count its pods.
func available(t *testing.T, k *testenv.KubernetesServer, r rendering) {
	t.Helper()
	scalers, budgets := r.of("HorizontalPodAutoscaler"), r.of("PodDisruptionBudget")
	if len(scalers) < 2 || len(budgets) < 4 {
		t.Errorf("%s has %d autoscalers and %d budgets", r.name, len(scalers), len(budgets))
	}
	for _, h := range scalers {
		k.Kubectl("-n", h.Metadata.Namespace, "wait", "--for=condition=AbleToScale", "horizontalpodautoscaler/"+h.Metadata.Name, "--timeout=90s")
		k.Kubectl("-n", h.Metadata.Namespace, "wait", "--for=jsonpath={.spec.replicas}=2", "deployment/"+h.Metadata.Name, "--timeout=90s")
	}
	for _, b := range budgets {
		// Of two pods one may be taken at a time.
		for field, want := range map[string]string{"expectedPods": "2", "disruptionsAllowed": "1"} {
			k.Kubectl("-n", b.Metadata.Namespace, "wait", "--for=jsonpath={.status."+field+"}="+want, "poddisruptionbudget/"+b.Metadata.Name, "--timeout=90s")
		}
	}
}

// What TestGoldenIsApplied relies on: the API server does refuse such things.
func TestFaultsAreRefused(t *testing.T) {
	k := testenv.Kubernetes(t)
	space := k.Namespace("pod-security.kubernetes.io/enforce=restricted", "pod-security.kubernetes.io/warn=restricted")
	api := string(usual(t).files["30-platform-api.yaml"])
	for _, fault := range []struct{ name, old, new, says string }{
		{"an unknown field", "enableServiceLinks: false", "enableServiceLink: false", "enableServiceLink: field not declared"},
		{"an unknown value", "type: RollingUpdate", "type: Rolling", "Unsupported value"},
		{"a wrong type", "averageUtilization: 70", "averageUtilization: most", "expected numeric"},
		{"a selector that selects nothing", "    matchLabels:\n      app.kubernetes.io/name: api\n  strategy", "    matchLabels:\n      app.kubernetes.io/name: ape\n  strategy", "selector"},
		{"a pod that is not restricted", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "PodSecurity"},
	} {
		if !strings.Contains(api, fault.old) {
			t.Errorf("%s: the manifest has no %q: this test would change nothing", fault.name, fault.old)
			continue
		}
		text := strings.ReplaceAll(api, "namespace: platform", "namespace: "+space)
		file := filepath.Join(t.TempDir(), "api.yaml")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, fault.old, fault.new)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := k.TryKubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", file)
		if err == nil || !strings.Contains(err.Error(), fault.says) {
			t.Errorf("%s: want an error about %q, got %v", fault.name, fault.says, err)
		}
	}
}
