package manifests

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// workload is a Deployment or StatefulSet with its pods.
type workload struct {
	*object
	name      string // of its pods: app.kubernetes.io/name
	selector  map[string]string
	labels    map[string]string // of its pods
	notes     map[string]string // their annotations
	pod       podSpec
	replicas  *int
	strategy  strategy
	templates []string // names of the volumes that a StatefulSet makes
}

// strategy is how the pods of a Deployment are replaced.
type strategy struct {
	Type          string `yaml:"type"`
	RollingUpdate struct {
		MaxSurge       int `yaml:"maxSurge"`
		MaxUnavailable int `yaml:"maxUnavailable"`
	} `yaml:"rollingUpdate"`
}

type podSpec struct {
	Containers     []container `yaml:"containers"`
	InitContainers []container `yaml:"initContainers"`
	Volumes        []volume    `yaml:"volumes"`

	TerminationGracePeriodSeconds int            `yaml:"terminationGracePeriodSeconds"`
	AutomountServiceAccountToken  *bool          `yaml:"automountServiceAccountToken"`
	ServiceAccountName            string         `yaml:"serviceAccountName"`
	EnableServiceLinks            *bool          `yaml:"enableServiceLinks"`
	SecurityContext               map[string]any `yaml:"securityContext"`
	TopologySpreadConstraints     []any          `yaml:"topologySpreadConstraints"`
}

func (p podSpec) all() []container { return slices.Concat(p.InitContainers, p.Containers) }

type container struct {
	Name    string   `yaml:"name"`
	Image   string   `yaml:"image"`
	Command []string `yaml:"command"`
	Args    []string `yaml:"args"`
	Env     []struct {
		Name      string `yaml:"name"`
		Value     string `yaml:"value"`
		ValueFrom struct {
			SecretKeyRef *keyRef `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	} `yaml:"env"`
	Ports          []containerPort `yaml:"ports"`
	LivenessProbe  *probe          `yaml:"livenessProbe"`
	ReadinessProbe *probe          `yaml:"readinessProbe"`
	StartupProbe   *probe          `yaml:"startupProbe"`
	Lifecycle      struct {
		PreStop struct {
			Sleep struct {
				Seconds int `yaml:"seconds"`
			} `yaml:"sleep"`
		} `yaml:"preStop"`
	} `yaml:"lifecycle"`
	SecurityContext map[string]any `yaml:"securityContext"`
	Resources       struct {
		Requests map[string]string `yaml:"requests"`
		Limits   map[string]string `yaml:"limits"`
	} `yaml:"resources"`
	VolumeMounts []struct {
		Name      string `yaml:"name"`
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

func (c container) env() map[string]string {
	values := make(map[string]string)
	for _, e := range c.Env {
		values[e.Name] = e.Value
	}
	return values
}

type containerPort struct {
	Name          string `yaml:"name"`
	ContainerPort int    `yaml:"containerPort"`
}

type keyRef struct {
	Name     string `yaml:"name"`
	Key      string `yaml:"key"`
	Optional bool   `yaml:"optional"`
}

type probe struct {
	HTTPGet *struct {
		Path string `yaml:"path"`
		Port string `yaml:"port"`
	} `yaml:"httpGet"`
	TCPSocket *struct {
		Port string `yaml:"port"`
	} `yaml:"tcpSocket"`
}

type volume struct {
	Name      string         `yaml:"name"`
	EmptyDir  map[string]any `yaml:"emptyDir"`
	ConfigMap *struct {
		Name  string `yaml:"name"`
		Items []item `yaml:"items"`
	} `yaml:"configMap"`
	Secret *struct {
		SecretName string `yaml:"secretName"`
		Items      []item `yaml:"items"`
	} `yaml:"secret"`
}

type item struct {
	Key  string `yaml:"key"`
	Path string `yaml:"path"`
}

func (r rendering) workloads(t *testing.T) []workload {
	t.Helper()
	var found []workload
	for _, o := range slices.Concat(r.of("Deployment"), r.of("StatefulSet")) {
		var spec struct {
			Replicas *int     `yaml:"replicas"`
			Strategy strategy `yaml:"strategy"`
			Selector struct {
				MatchLabels map[string]string `yaml:"matchLabels"`
			} `yaml:"selector"`
			Template struct {
				Metadata struct {
					Labels      map[string]string `yaml:"labels"`
					Annotations map[string]string `yaml:"annotations"`
				} `yaml:"metadata"`
				Spec podSpec `yaml:"spec"`
			} `yaml:"template"`
			VolumeClaimTemplates []struct {
				Metadata struct {
					Name string `yaml:"name"`
				} `yaml:"metadata"`
			} `yaml:"volumeClaimTemplates"`
		}
		o.spec(t, &spec)
		w := workload{
			object: o, name: spec.Template.Metadata.Labels["app.kubernetes.io/name"], selector: spec.Selector.MatchLabels,
			labels: spec.Template.Metadata.Labels, notes: spec.Template.Metadata.Annotations, pod: spec.Template.Spec, replicas: spec.Replicas, strategy: spec.Strategy,
		}
		for _, v := range spec.VolumeClaimTemplates {
			w.templates = append(w.templates, v.Metadata.Name)
		}
		found = append(found, w)
	}
	if len(found) < 5 {
		t.Fatalf("%s has %d workloads: this test would look at nothing", r.name, len(found))
	}
	return found
}

func (r rendering) workload(t *testing.T, namespace, name string) workload {
	t.Helper()
	for _, w := range r.workloads(t) {
		if w.Metadata.Namespace == namespace && w.Metadata.Name == name {
			return w
		}
	}
	t.Fatalf("%s runs no %s/%s", r.name, namespace, name)
	return workload{}
}

// port returns the number of a named port of the pods, 0 if there is none.
func (w workload) port(name string) int {
	for _, c := range w.pod.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return p.ContainerPort
			}
		}
	}
	return 0
}

func (w workload) listens(number int) bool {
	return slices.ContainsFunc(w.pod.Containers, func(c container) bool {
		return slices.ContainsFunc(c.Ports, func(p containerPort) bool { return p.ContainerPort == number })
	})
}

// Pods ask the API server for nothing, but for these.
var withAccount = map[string]string{"operator": "operator", "prometheus": "prometheus"}

func TestPodsAreConfined(t *testing.T) {
	for _, r := range renderings(t) {
		for _, w := range r.workloads(t) {
			if !has(w.labels, w.selector) || w.name != w.Metadata.Name {
				t.Errorf("%v: its pods have the labels %v, and it selects %v", w, w.labels, w.selector)
			}
			if account := withAccount[w.name]; account != w.pod.ServiceAccountName || w.pod.AutomountServiceAccountToken == nil || *w.pod.AutomountServiceAccountToken != (account != "") {
				t.Errorf("%v: wrong account %q, or its token is in the pod, or missing", w, w.pod.ServiceAccountName)
			}
			if w.pod.EnableServiceLinks == nil || *w.pod.EnableServiceLinks {
				t.Errorf("%v: variables of Services would be taken for settings", w)
			}
			user, _ := w.pod.SecurityContext["runAsUser"].(int)
			if w.pod.SecurityContext["runAsNonRoot"] != true || user == 0 {
				t.Errorf("%v: runs as %v", w, w.pod.SecurityContext)
			}
			if w.pod.TerminationGracePeriodSeconds == 0 && w.Metadata.Namespace == "platform" {
				t.Errorf("%v: does not say how long it takes to end", w)
			}
			for _, c := range w.pod.all() {
				if c.SecurityContext["readOnlyRootFilesystem"] != true || c.SecurityContext["allowPrivilegeEscalation"] != false ||
					canonical(t, c.SecurityContext["capabilities"]) != `{"drop":["ALL"]}` {
					t.Errorf("%v: container %s has the security context %v", w, c.Name, c.SecurityContext)
				}
				if c.Resources.Requests["cpu"] == "" || c.Resources.Requests["memory"] == "" || c.Resources.Limits["memory"] == "" {
					t.Errorf("%v: container %s reserves and may take %v", w, c.Name, c.Resources)
				}
				for _, m := range c.VolumeMounts {
					known := slices.Contains(w.templates, m.Name) || slices.ContainsFunc(w.pod.Volumes, func(v volume) bool { return v.Name == m.Name })
					if !known {
						t.Errorf("%v: container %s mounts %q, which is no volume of the pod", w, c.Name, m.Name)
					}
				}
			}
			for _, c := range w.pod.Containers {
				if c.LivenessProbe == nil {
					t.Errorf("%v: nobody asks whether container %s is alive", w, c.Name)
				}
				for what, p := range map[string]*probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe, "startup": c.StartupProbe} {
					if p != nil && p.HTTPGet != nil && w.port(p.HTTPGet.Port) == 0 || p != nil && p.TCPSocket != nil && w.port(p.TCPSocket.Port) == 0 {
						t.Errorf("%v: the %s probe of %s asks a port that it has not", w, what, c.Name)
					}
				}
			}
			for _, v := range w.pod.Volumes {
				if v.ConfigMap == nil {
					continue
				}
				data := r.one(t, "ConfigMap", w.Metadata.Namespace, v.ConfigMap.Name).Data
				for _, i := range v.ConfigMap.Items {
					if data[i.Key] == "" {
						t.Errorf("%v: volume %s wants %q, which ConfigMap %s has not", w, v.Name, i.Key, v.ConfigMap.Name)
					}
				}
				if w.notes["openclaw.cloud/config-hash"] == "" {
					t.Errorf("%v: its pods would not be replaced when ConfigMap %s changes", w, v.ConfigMap.Name)
				}
			}
		}
	}
}

// Everything that a Service, an autoscaler, a budget or an Ingress names must be there.
func TestServicesFit(t *testing.T) {
	for _, r := range renderings(t) {
		all := r.workloads(t)
		selected := func(namespace string, selector map[string]string) []workload {
			var found []workload
			for _, w := range all {
				if w.Metadata.Namespace == namespace && len(selector) > 0 && has(w.labels, selector) {
					found = append(found, w)
				}
			}
			return found
		}
		ports := make(map[string]map[string]int) // of Services, by namespace/name
		for _, s := range r.of("Service") {
			var spec struct {
				Selector map[string]string `yaml:"selector"`
				Ports    []struct {
					Name       string `yaml:"name"`
					Port       int    `yaml:"port"`
					TargetPort string `yaml:"targetPort"`
				} `yaml:"ports"`
			}
			s.spec(t, &spec)
			pods := selected(s.Metadata.Namespace, spec.Selector)
			if len(pods) != 1 {
				t.Errorf("%v selects the pods of %d workloads", s, len(pods))
				continue
			}
			ports[s.Metadata.Namespace+"/"+s.Metadata.Name] = make(map[string]int)
			for _, p := range spec.Ports {
				ports[s.Metadata.Namespace+"/"+s.Metadata.Name][p.Name] = p.Port
				// The number is the same, so that NetworkPolicies, which know pods only, name the one that callers use.
				if pods[0].port(p.TargetPort) != p.Port {
					t.Errorf("%v: port %d leads to %q, which is %d of the pods", s, p.Port, p.TargetPort, pods[0].port(p.TargetPort))
				}
			}
		}
		for _, b := range r.of("PodDisruptionBudget") {
			var spec struct {
				Selector struct {
					MatchLabels map[string]string `yaml:"matchLabels"`
				} `yaml:"selector"`
			}
			b.spec(t, &spec)
			if len(selected(b.Metadata.Namespace, spec.Selector.MatchLabels)) != 1 {
				t.Errorf("%v guards no pods", b)
			}
		}
		scaled := make(map[string]bool)
		for _, h := range r.of("HorizontalPodAutoscaler") {
			var spec struct {
				ScaleTargetRef struct {
					Kind string `yaml:"kind"`
					Name string `yaml:"name"`
				} `yaml:"scaleTargetRef"`
				MinReplicas int `yaml:"minReplicas"`
			}
			h.spec(t, &spec)
			if w := r.workload(t, h.Metadata.Namespace, spec.ScaleTargetRef.Name); w.replicas != nil {
				t.Errorf("%v: the number of pods is written in %v too: each apply would undo the scaling", h, w)
			}
			if spec.MinReplicas < 2 {
				t.Errorf("%v: with one pod a node that is drained takes the service away", h)
			}
			scaled[spec.ScaleTargetRef.Name] = true
		}
		for _, name := range []string{"api", "token-proxy"} {
			if !scaled[name] {
				t.Errorf("%s: nothing scales %s", r.name, name)
			}
		}
		for _, i := range r.of("Ingress") {
			for _, p := range publicPaths(t, i) {
				if ports["platform/"+p.service][p.port] == 0 {
					t.Errorf("%v: %s leads to %s:%s, which is not there", i, p.path, p.service, p.port)
				}
			}
		}
	}
}

type publicPath struct{ host, path, kind, service, port string }

func publicPaths(t *testing.T, ingress *object) []publicPath {
	t.Helper()
	var spec struct {
		TLS []struct {
			Hosts      []string `yaml:"hosts"`
			SecretName string   `yaml:"secretName"`
		} `yaml:"tls"`
		DefaultBackend any `yaml:"defaultBackend"`
		Rules          []struct {
			Host string `yaml:"host"`
			HTTP struct {
				Paths []struct {
					Path     string `yaml:"path"`
					PathType string `yaml:"pathType"`
					Backend  struct {
						Service struct {
							Name string `yaml:"name"`
							Port struct {
								Name string `yaml:"name"`
							} `yaml:"port"`
						} `yaml:"service"`
					} `yaml:"backend"`
				} `yaml:"paths"`
			} `yaml:"http"`
		} `yaml:"rules"`
	}
	ingress.spec(t, &spec)
	if spec.DefaultBackend != nil {
		t.Errorf("%v has a backend for everything", ingress)
	}
	var paths []publicPath
	for _, rule := range spec.Rules {
		if rule.Host == "" || !slices.ContainsFunc(spec.TLS, func(s struct {
			Hosts      []string `yaml:"hosts"`
			SecretName string   `yaml:"secretName"`
		}) bool {
			return slices.Contains(s.Hosts, rule.Host) && s.SecretName != ""
		}) {
			t.Errorf("%v: host %q has no certificate", ingress, rule.Host)
		}
		for _, p := range rule.HTTP.Paths {
			paths = append(paths, publicPath{rule.Host, p.Path, p.PathType, p.Backend.Service.Name, p.Backend.Service.Port.Name})
		}
	}
	return paths
}

// What is public is these paths, and no other.
func TestPublicPaths(t *testing.T) {
	const domain = "openclaw.example"
	want := map[string][]publicPath{
		"usual": {
			{"api." + domain, "/openapi.json", "Exact", "api", "http"},
			{"api." + domain, "/v1", "Prefix", "api", "http"},
			{"api." + domain, "/v1/webhooks/stripe", "Exact", "api", "http"},
			{"app." + domain, "/v1", "Prefix", "api", "http"},
			{"app." + domain, "/", "Prefix", "web", "http"},
		},
	}
	want["everything"] = append([]publicPath{
		{"proxy." + domain, "/v1", "Prefix", "token-proxy", "http"},
	}, want["usual"]...)
	for _, r := range renderings(t) {
		var got []publicPath
		issuers := make(map[string]int) // by host
		for _, i := range r.of("Ingress") {
			notes := i.Metadata.Annotations
			const nginx = "nginx.ingress.kubernetes.io/"
			for _, p := range publicPaths(t, i) {
				got = append(got, p)
				if notes["cert-manager.io/cluster-issuer"] != "" && p == publicPaths(t, i)[0] {
					issuers[p.host]++
				}
				if p.path == "/v1/webhooks/stripe" {
					if notes[nginx+"limit-rps"] != "" {
						t.Errorf("%v: Stripe sends many events from few addresses, and is limited", i)
					}
				} else if notes[nginx+"proxy-buffering"] != "off" || len(notes[nginx+"proxy-read-timeout"]) < 4 {
					t.Errorf("%v: %s%s serves event streams, which would be held back or cut: %v", i, p.host, p.path, notes)
				}
			}
			for name := range notes {
				if strings.HasSuffix(name, "-snippet") {
					t.Errorf("%v: %s lets who writes an Ingress configure the whole controller", i, name)
				}
			}
		}
		order := func(a, b publicPath) int { return strings.Compare(a.host+a.path, b.host+b.path) }
		slices.SortFunc(got, order)
		slices.SortFunc(want[r.name], order)
		if !slices.Equal(got, want[r.name]) {
			t.Errorf("%s: public are\n%v\nwant\n%v", r.name, got, want[r.name])
		}
		for host := range maps.Keys(issuers) {
			if issuers[host] != 1 {
				t.Errorf("%s: %d Ingresses ask for the certificate of %s", r.name, issuers[host], host)
			}
		}
		if len(issuers) < 2 {
			t.Errorf("%s: certificates are asked for %v only", r.name, issuers)
		}
	}
}

// Pods are replaced as their programs need it: one that must not run beside its successor has ended before, of the
// others there is never one less, and a pod to which a Service sends requests serves until everybody knows that it ends.
func TestPodsAreReplacedInOrder(t *testing.T) {
	alone := []string{"billing-worker", "operator"}
	for _, r := range renderings(t) {
		for _, o := range r.of("Deployment") {
			if o.Metadata.Namespace != "platform" {
				continue
			}
			w := r.workload(t, "platform", o.Metadata.Name)
			c := w.pod.Containers[0]
			if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet == nil || c.LivenessProbe.HTTPGet.Path != "/healthz" ||
				c.ReadinessProbe == nil || c.ReadinessProbe.HTTPGet == nil || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
				t.Errorf("%v: it is ended, or gets requests, by another answer than /healthz and /readyz", w)
			}
			if slices.Contains(alone, w.name) {
				if w.strategy.Type != "Recreate" {
					t.Errorf("%v: two releases of it run beside each other (%+v)", w, w.strategy)
				}
				continue
			}
			if w.strategy.Type != "RollingUpdate" || w.strategy.RollingUpdate.MaxUnavailable != 0 || w.strategy.RollingUpdate.MaxSurge < 1 {
				t.Errorf("%v: there is one less while it is replaced (%+v)", w, w.strategy)
			}
			// token-proxy waits by itself: TestTokenProxyFits.
			if w.name != "token-proxy" && c.Lifecycle.PreStop.Sleep.Seconds < 5 {
				t.Errorf("%v: it ends %d s after it was told to, and still gets requests then", w, c.Lifecycle.PreStop.Sleep.Seconds)
			}
		}
	}
}
