package testenv_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// kubernetesChildMode makes the test binary play a test process with Kubernetes that is killed.
const kubernetesChildMode = "OPENCLAW_TESTENV_KUBERNETES_CHILD"

// deployment is what passes Pod Security's strictest level.
func deployment(namespace, name string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: main
        image: registry.invalid/nothing:1
        resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 100m, memory: 64Mi}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`, namespace, name, replicas)
}

func pod(namespace, name, memory string, privileged bool) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: registry.invalid/nothing:1
    resources: {requests: {memory: %[3]s}, limits: {memory: %[3]s}}
    securityContext: {privileged: %[4]t, allowPrivilegeEscalation: %[4]t, capabilities: {drop: [ALL]}}
`, namespace, name, memory, privileged)
}

func apply(t *testing.T, k *testenv.KubernetesServer, manifest string) {
	t.Helper()
	if err := k.Apply(manifest); err != nil {
		t.Fatal(err)
	}
}

// refused checks that err is a refusal which says why.
func refused(t *testing.T, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("not refused with %q: %v", why, err)
	}
}

func TestKubernetesRunsDeployments(t *testing.T) {
	t.Parallel()
	k := testenv.Kubernetes(t)
	ns := k.Namespace("pod-security.kubernetes.io/enforce=restricted")
	apply(t, k, deployment(ns, "web", 3))
	k.Kubectl("wait", "-n", ns, "deployment/web", "--for=condition=Available", "--timeout=60s")
	ips := strings.Fields(k.Kubectl("get", "pods", "-n", ns, "-o", "jsonpath={.items[*].status.podIP}"))
	if len(ips) != 3 || ips[0] == ips[1] || !strings.HasPrefix(ips[0], "10.") {
		t.Errorf("the pods' addresses are %v", ips)
	}
	// What is deleted takes along what it owns.
	k.Kubectl("delete", "-n", ns, "deployment/web", "--cascade=foreground", "--timeout=60s")
	if left := k.Kubectl("get", "-n", ns, "pods,replicasets", "-o", "name"); left != "" {
		t.Errorf("the Deployment left %s", left)
	}
}

func TestKubernetesEnforcesPodSecurity(t *testing.T) {
	t.Parallel()
	k := testenv.Kubernetes(t)
	ns := k.Namespace("pod-security.kubernetes.io/enforce=restricted")
	refused(t, k.Apply(pod(ns, "bad", "64Mi", true)), `violates PodSecurity "restricted`)
	if err := k.Apply(pod(ns, "good", "64Mi", false)); err != nil {
		t.Errorf("a restricted pod: %v", err)
	}
	if err := k.Apply(pod(k.Namespace(), "bad", "64Mi", true)); err != nil {
		t.Errorf("in a namespace without the label: %v", err)
	}
}

func TestKubernetesEnforcesRBAC(t *testing.T) {
	t.Parallel()
	k := testenv.Kubernetes(t)
	ns, other := k.Namespace(), k.Namespace()
	k.Kubectl("create", "serviceaccount", "reader", "-n", ns)
	k.Kubectl("create", "role", "reader", "-n", ns, "--verb=get,list", "--resource=configmaps")
	k.Kubectl("create", "rolebinding", "reader", "-n", ns, "--role=reader", "--serviceaccount="+ns+":reader")
	as := "--kubeconfig=" + k.ServiceAccountKubeconfig(ns, "reader")
	if out := k.Kubectl("get", "configmaps", as, "-o", "name"); !strings.Contains(out, "kube-root-ca.crt") {
		t.Errorf("it sees %q", out)
	}
	for _, args := range [][]string{
		{"get", "secrets", as}, {"create", "configmap", "x", as}, {"get", "configmaps", "-n", other, as}, {"get", "namespaces", as},
	} {
		_, err := k.TryKubectl(args...)
		refused(t, err, `is forbidden: User "system:serviceaccount:`+ns+`:reader" cannot`)
	}
}

func TestKubernetesKnowsUsersByCertificates(t *testing.T) {
	t.Parallel()
	k := testenv.Kubernetes(t)
	as := "--kubeconfig=" + k.UserKubeconfig("system:node:far-away", "system:nodes")
	if out := k.Kubectl("auth", "whoami", as, "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"); !strings.Contains(out, `system:node:far-away ["system:nodes"`) {
		t.Errorf("it is %s", out)
	}
	_, err := k.TryKubectl("delete", "node", "node-0", as)
	refused(t, err, `is forbidden`)
}

func TestKubernetesEnforcesQuotas(t *testing.T) {
	t.Parallel()
	k := testenv.Kubernetes(t)
	ns := k.Namespace()
	k.Kubectl("create", "quota", "tier", "-n", ns, "--hard=pods=2,limits.memory=100Mi")
	k.Kubectl("wait", "-n", ns, "quota/tier", "--for=jsonpath={.status.hard.pods}=2", "--timeout=60s")
	apply(t, k, pod(ns, "a", "60Mi", false))
	refused(t, k.Apply(pod(ns, "b", "60Mi", false)), "exceeded quota: tier, requested: limits.memory=60Mi, used: limits.memory=60Mi, limited: limits.memory=100Mi")
	apply(t, k, pod(ns, "c", "10Mi", false))
	refused(t, k.Apply(pod(ns, "d", "10Mi", false)), "exceeded quota: tier, requested: pods=1")
}

func TestKubernetesEnforcesAdmissionPolicies(t *testing.T) {
	t.Parallel()
	k := testenv.Kubernetes(t)
	ns := k.Namespace()
	// A policy is of the whole cluster: its name and what it matches are this test's.
	apply(t, k, fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]s}}
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}
  validations:
  - {expression: "object.metadata.name.startsWith('fine-')", message: "names begin with fine-"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec: {policyName: %[1]s, validationActions: [Deny]}
`, ns))
	t.Cleanup(func() {
		k.Kubectl("delete", "validatingadmissionpolicybinding/"+ns, "validatingadmissionpolicy/"+ns)
	})
	// The API server reads policies a moment after they were written.
	deadline := time.Now().Add(30 * time.Second)
	for n := 0; ; n++ {
		_, err := k.TryKubectl("create", "configmap", fmt.Sprintf("bad-%d", n), "-n", ns)
		if err != nil {
			refused(t, err, "denied request: names begin with fine-")
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the policy is never enforced")
		}
	}
	k.Kubectl("create", "configmap", "fine-1", "-n", ns)
}

func TestKubernetesHoldsManyPods(t *testing.T) {
	t.Parallel()
	k := testenv.DedicatedKubernetes(t)
	k.EnsureNodes(3)
	if nodes := strings.Fields(k.Kubectl("get", "nodes", "-o", "name")); len(nodes) != 3 {
		t.Fatalf("the nodes are %v", nodes)
	}
	ns := k.Namespace()
	apply(t, k, deployment(ns, "web", 500))
	k.Kubectl("wait", "-n", ns, "deployment/web", "--for=condition=Available", "--timeout=120s")
	k.Kubectl("wait", "-n", ns, "deployment/web", "--for=jsonpath={.status.readyReplicas}=500", "--timeout=120s")
}

func TestKubernetesKeepsObjectsThroughAKill(t *testing.T) {
	t.Parallel()
	k := testenv.DedicatedKubernetes(t)
	ns := k.Namespace()
	k.Kubectl("create", "configmap", "kept", "-n", ns, "--from-literal=a=b")
	k.StopAPIServer()
	addr := strings.TrimPrefix(k.URL, "https://")
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		conn.Close()
		t.Fatal("the API server still accepts connections after StopAPIServer")
	}
	k.StartAPIServer()
	if got := k.Kubectl("get", "configmap", "kept", "-n", ns, "-o", "jsonpath={.data.a}"); got != "b" {
		t.Errorf("after the restart: %q", got)
	}
	// The controllers and nodes find it again.
	apply(t, k, deployment(ns, "web", 1))
	k.Kubectl("wait", "-n", ns, "deployment/web", "--for=condition=Available", "--timeout=60s")

	k.PauseAPIServer()
	if _, err := k.TryKubectl("get", "namespaces", "--request-timeout=500ms"); err == nil {
		t.Error("a paused API server answered")
	}
	k.ResumeAPIServer()
	k.Kubectl("get", "namespaces")
	if log := k.Log("kube-apiserver"); !strings.Contains(log, "Serving securely on "+addr) {
		t.Errorf("its log does not tell that it serves:\n%.500s", log)
	}
}

// TestKilledTestLeavesNoKubernetes starts this binary as a test that is then killed, and looks for
// its processes and files.
func TestKilledTestLeavesNoKubernetes(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKubernetesChild$", "-test.v")
	cmd.Env = append(os.Environ(), kubernetesChildMode+"=1", "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		dir, _ = strings.CutPrefix(lines.Text(), "ready ")
		if !filepath.IsAbs(dir) {
			dir = ""
		}
	}
	if dir == "" {
		_ = cmd.Process.Kill()
		t.Fatalf("the child did not start Kubernetes: %v", cmd.Wait())
	}
	if n := len(commandsWith(t, dir)); n != 5 {
		t.Errorf("%d processes run", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := commandsWith(t, dir)
		_, err := os.Stat(dir)
		if len(left) == 0 && os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v, and %s: %v", left, dir, err)
		}
	}
}

// TestKubernetesChild is the process that TestKilledTestLeavesNoKubernetes kills.
func TestKubernetesChild(t *testing.T) {
	if os.Getenv(kubernetesChildMode) == "" {
		return
	}
	k := testenv.Kubernetes(t)
	if _, err := os.Stdout.WriteString("ready " + filepath.Dir(k.Kubeconfig) + "\n"); err != nil {
		t.Fatal(err)
	}
	select {}
}

// commandsWith returns the command lines of running processes in which text occurs.
func commandsWith(t *testing.T, text string) []string {
	t.Helper()
	out, err := exec.Command("ps", "-A", "-ww", "-o", "args=").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, text) && !strings.HasPrefix(line, "/bin/sh") { // the janitor's own
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
