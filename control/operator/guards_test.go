package operator

import (
	"context"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
)

// admin is a client with all rights.
func (g guarded) admin(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(restConfig(t, g.Kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// The namespace of a box takes the gateway's pod, and no pod that is weaker by one rule of the
// restricted profile, whoever makes it.
func TestPodSecurityOfABox(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	objects := build(t, testOptions(), box, testSecrets(t))
	if _, err := Apply(t.Context(), g.Operator, objects[0], nil); err != nil {
		t.Fatal(err)
	}
	g.Kubectl("create", "serviceaccount", GatewayName, "-n", box.Namespace)
	template := pick[appsv1.Deployment](t, objects, "Deployment").Spec.Template
	client := g.admin(t)
	try := func(change func(*corev1.PodSpec, *corev1.Container)) error {
		pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
		pod.Name = "gateway"
		change(&pod.Spec, &pod.Spec.Containers[0])
		_, err := client.CoreV1().Pods(box.Namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	retryUntil(t, func() bool { // the token controller may still have to see the ServiceAccount
		err := try(func(*corev1.PodSpec, *corev1.Container) {})
		if err != nil && strings.Contains(err.Error(), "PodSecurity") {
			t.Fatalf("the gateway's own pod is refused: %v", err)
		}
		return err == nil
	})
	for rule, change := range map[string]func(*corev1.PodSpec, *corev1.Container){
		"host network": func(s *corev1.PodSpec, _ *corev1.Container) { s.HostNetwork = true },
		"host PID":     func(s *corev1.PodSpec, _ *corev1.Container) { s.HostPID = true },
		"host IPC":     func(s *corev1.PodSpec, _ *corev1.Container) { s.HostIPC = true },
		"privileged": func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.AllowPrivilegeEscalation, c.SecurityContext.Privileged = nil, new(true)
		},
		"privilege escalation": func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil },
		"capabilities kept":    func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.Capabilities = nil },
		"a capability added": func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
		},
		"root": func(s *corev1.PodSpec, _ *corev1.Container) { s.SecurityContext.RunAsUser = new(int64(0)) },
		"perhaps root": func(s *corev1.PodSpec, c *corev1.Container) {
			s.SecurityContext.RunAsNonRoot, c.SecurityContext.RunAsNonRoot = nil, nil
		},
		"no seccomp profile": func(s *corev1.PodSpec, _ *corev1.Container) { s.SecurityContext.SeccompProfile = nil },
		"seccomp unconfined": func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		},
		"AppArmor unconfined": func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
		},
		"SELinux user": func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{User: "x"}
		},
		"a path of the host": func(s *corev1.PodSpec, _ *corev1.Container) {
			s.Volumes[1].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}
		},
		"a port of the host": func(_ *corev1.PodSpec, c *corev1.Container) { c.Ports[0].HostPort = openclaw.Port },
		"a sysctl": func(s *corev1.PodSpec, _ *corev1.Container) {
			s.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}
		},
		"a probe of another host": func(_ *corev1.PodSpec, c *corev1.Container) { c.LivenessProbe.HTTPGet.Host = "169.254.169.254" },
		"an ephemeral root": func(s *corev1.PodSpec, _ *corev1.Container) {
			s.InitContainers = []corev1.Container{{Name: "x", Image: "x", SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(0))}}}
		},
	} {
		if err := try(change); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
			t.Errorf("%s: got %v, want a refusal by Pod Security", rule, err)
		}
	}
}

// Nobody can add to a box what its quota does not count in, not even who may do all else.
func TestQuotaOfABox(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	g.make(t, testOptions(), box)
	g.Kubectl("wait", "-n", box.Namespace, "deployment/"+GatewayName, "--for=condition=Available", "--timeout=60s")
	client := g.admin(t)
	retryUntil(t, func() bool { // the controller may have counted before it heard of what was made last
		quota, err := client.CoreV1().ResourceQuotas(box.Namespace).Get(t.Context(), LimitsName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for name, hard := range quota.Spec.Hard {
			used, counted := quota.Status.Used[name]
			if exact := name == corev1.ResourceSecrets || strings.HasPrefix(string(name), "count/"); exact && (!counted || used.Cmp(hard) != 0) {
				return false
			}
		}
		return true
	})
	for what, args := range map[string][]string{
		"a Service":        {"create", "service", "clusterip", "x", "--tcp=80"},
		"a NodePort":       {"create", "service", "nodeport", "x", "--tcp=80"},
		"a LoadBalancer":   {"create", "service", "loadbalancer", "x", "--tcp=80"},
		"a Secret":         {"create", "secret", "generic", "x"},
		"a RoleBinding":    {"create", "rolebinding", "x", "--clusterrole=admin", "--serviceaccount=default:default"},
		"a Role":           {"create", "role", "x", "--verb=get", "--resource=secrets"},
		"a ServiceAccount": {"create", "serviceaccount", "x"},
		"a Deployment":     {"create", "deployment", "x", "--image=x"},
		"a Job":            {"create", "job", "x", "--image=x"},
		"a CronJob":        {"create", "cronjob", "x", "--image=x", "--schedule=* * * * *"},
		"an Ingress":       {"create", "ingress", "x", "--rule=a.test/*=x:80"},
	} {
		if out, err := g.TryKubectl(append(args, "-n", box.Namespace)...); err == nil || !strings.Contains(err.Error(), "exceeded quota") {
			t.Errorf("%s: got %q, %v, want a refusal by the quota", what, out, err)
		}
	}
	// NetworkPolicies add up, so a second one would open the box.
	for what, manifest := range map[string]string{
		"a NetworkPolicy": "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelector: {}, egress: [{}]}\n",
		"a claim":         "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: x}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n",
	} {
		if err := g.KubernetesServer.Apply(manifest, "-n", box.Namespace); err == nil || !strings.Contains(err.Error(), "exceeded quota") {
			t.Errorf("%s: got %v, want a refusal by the quota", what, err)
		}
	}
}

// With room for one pod only, each change must still get through, by the old pod going first; and a
// suspended box has none.
func TestEachChangeRollsWithinTheQuota(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "starter")
	g.make(t, testOptions(), box)
	client := g.admin(t)
	pods := func() []string {
		list, err := client.CoreV1().Pods(box.Namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, pod := range list.Items {
			names = append(names, pod.Name)
		}
		return names
	}
	settled := func() {
		t.Helper()
		g.Kubectl("rollout", "status", "-n", box.Namespace, "deployment/"+GatewayName, "--timeout=60s")
	}
	settled()
	last := pods()
	team := testBox(t, "team").Tier
	for _, step := range []struct {
		what   string
		change func()
		rolls  bool
	}{
		{"restart", func() { box.Restart++ }, true},
		{"settings", func() { box.Settings.SystemPrompt = "Other." }, true},
		{"bot", func() { box.TelegramToken += "x" }, true},
		{"larger tier", func() { box.Tier = team }, true},
		{"smaller tier", func() { box.Tier = testBox(t, "starter").Tier }, true},
		{"nothing", func() {}, false},
	} {
		step.change()
		for _, object := range build(t, testOptions(), box, testSecrets(t)) {
			live := g.live(t, object)
			retry(t, func(ctx context.Context) error {
				_, err := Apply(ctx, g.Operator, object, live)
				return err
			})
		}
		settled()
		now := pods()
		if len(now) != 1 || slices.Equal(now, last) == step.rolls {
			t.Errorf("%s: pods were %v and are %v", step.what, last, now)
		}
		last = now
	}
	for _, wants := range []control.BoxWants{control.BoxSuspend, control.BoxRun} {
		box.Wants = wants
		objects := build(t, testOptions(), box, testSecrets(t))
		if _, err := Apply(t.Context(), g.Operator, objects[len(objects)-1], g.live(t, objects[len(objects)-1])); err != nil {
			t.Fatal(err)
		}
		want := map[control.BoxWants]int{control.BoxSuspend: 0, control.BoxRun: 1}[wants]
		retryUntil(t, func() bool { return len(pods()) == want })
	}
	live := g.live(t, build(t, testOptions(), box, testSecrets(t))[0])
	if _, found, _ := unstructured.NestedString(live.Object, "metadata", "labels", LabelBox); !found {
		t.Error("the namespace has lost its label")
	}
}
