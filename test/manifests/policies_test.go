package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

type policySpec struct {
	PodSelector selector `yaml:"podSelector"`
	PolicyTypes []string `yaml:"policyTypes"`
	Ingress     []struct {
		From  []peer       `yaml:"from"`
		Ports []policyPort `yaml:"ports"`
	} `yaml:"ingress"`
	Egress []struct {
		To    []peer       `yaml:"to"`
		Ports []policyPort `yaml:"ports"`
	} `yaml:"egress"`
}

type selector struct {
	MatchLabels      map[string]string `yaml:"matchLabels"`
	MatchExpressions []any             `yaml:"matchExpressions"`
}

type peer struct {
	NamespaceSelector *selector `yaml:"namespaceSelector"`
	PodSelector       *selector `yaml:"podSelector"`
	IPBlock           *struct {
		CIDR   string   `yaml:"cidr"`
		Except []string `yaml:"except"`
	} `yaml:"ipBlock"`
}

type policyPort struct {
	Port     int    `yaml:"port"`
	Protocol string `yaml:"protocol"`
}

// outsiders are pods that these manifests do not run, by how policies name them: namespace, or the
// namespace's label, and pod's label.
var outsiders = map[string]string{
	"kubernetes.io/metadata.name=ingress-nginx app.kubernetes.io/name=ingress-nginx":         "ingress-nginx",
	"kubernetes.io/metadata.name=kube-system k8s-app=kube-dns":                               "dns",
	"app.kubernetes.io/managed-by=openclaw-operator app.kubernetes.io/name=openclaw-gateway": "boxes",
}

// flows are who may connect where, each as "from -> to:port". The usual ones are written here by hand,
// from what each service has to speak to.
var usualFlows = []string{
	"ingress-nginx -> platform/api:8000",
	"ingress-nginx -> platform/web:3000",
	"boxes -> platform/token-proxy:8080",

	"platform/api -> platform/redis:6379",
	"platform/api -> platform/operator:8081",
	"platform/api -> postgres:5432",
	"platform/api -> public:443",
	"platform/billing-worker -> platform/redis:6379",
	"platform/billing-worker -> postgres:5432",
	"platform/billing-worker -> public:443",
	"platform/operator -> platform/redis:6379",
	"platform/operator -> postgres:5432",
	"platform/operator -> apiserver:6443",
	"platform/token-proxy -> platform/redis:6379",
	"platform/token-proxy -> public:443",
	"platform/onboarding-agent -> platform/redis:6379",
	"platform/onboarding-agent -> platform/token-proxy:8080",
	"platform/onboarding-agent -> postgres:5432",
	"platform/onboarding-agent -> public:443",
	"platform/web -> platform/api:8000",
	"platform/web -> platform/onboarding-agent:9000",

	"monitoring/prometheus -> platform/api:8083",
	"monitoring/prometheus -> platform/billing-worker:8082",
	"monitoring/prometheus -> platform/onboarding-agent:9000",
	"monitoring/prometheus -> platform/operator:8081",
	"monitoring/prometheus -> platform/redis:9121",
	"monitoring/prometheus -> platform/token-proxy:9090",
	"monitoring/prometheus -> platform/web:8085",
	"monitoring/prometheus -> monitoring/prometheus:9090",
	"monitoring/prometheus -> monitoring/alertmanager:9093",
	"monitoring/prometheus -> monitoring/grafana:3000",
	"monitoring/prometheus -> apiserver:6443",
	"monitoring/alertmanager -> public:443",
	"monitoring/grafana -> monitoring/prometheus:9090",
	"monitoring/grafana -> monitoring/alertmanager:9093",
}

// moreFlows are those of what is off by default.
var moreFlows = []string{
	"ingress-nginx -> platform/token-proxy:8080",
	"platform/billing-worker -> public:587",
}

// Both ends of a connection have to allow it, so each flow is in two policies; neither may have one
// that the other has not.
func TestPoliciesFit(t *testing.T) {
	for _, r := range renderings(t) {
		all := r.workloads(t)
		in, out := make(map[string]bool), make(map[string]bool)
		guarded := make(map[string]int) // policies of their own, by pods
		closed := make(map[string]bool) // namespaces where nothing is allowed that is not named
		for _, o := range r.of("NetworkPolicy") {
			var spec policySpec
			o.spec(t, &spec)
			if len(spec.PodSelector.MatchExpressions) > 0 {
				t.Fatalf("%v: this test knows no expressions", o)
			}
			if o.Metadata.Name == "acme-solver" {
				continue // of pods that cert-manager makes; TestCertificatesCanBeProven
			}
			if len(spec.PodSelector.MatchLabels) == 0 {
				closed[o.Metadata.Namespace] = slices.Equal(spec.PolicyTypes, []string{"Ingress", "Egress"}) && len(spec.Ingress) == 0 &&
					len(spec.Egress) == 1 && len(spec.Egress[0].To) == 1 && name(t, all, o, spec.Egress[0].To[0]) == "dns" &&
					canonical(t, spec.Egress[0].Ports) == `[{"Port":53,"Protocol":"UDP"},{"Port":53,"Protocol":"TCP"}]`
				continue
			}
			var of []workload
			for _, w := range all {
				if w.Metadata.Namespace == o.Metadata.Namespace && has(w.labels, spec.PodSelector.MatchLabels) {
					of = append(of, w)
				}
			}
			if len(of) != 1 {
				t.Errorf("%v is for the pods of %d workloads", o, len(of))
				continue
			}
			self := of[0].Metadata.Namespace + "/" + of[0].Metadata.Name
			guarded[self]++
			if !slices.Equal(spec.PolicyTypes, []string{"Ingress", "Egress"}) {
				t.Errorf("%v: is for %v only", o, spec.PolicyTypes)
			}
			for _, rule := range spec.Ingress {
				if len(rule.From) == 0 || len(rule.Ports) == 0 {
					t.Errorf("%v lets everyone in, or to every port", o)
				}
				for _, p := range rule.Ports {
					if !of[0].listens(p.Port) {
						t.Errorf("%v lets somebody in at %d, where nothing listens", o, p.Port)
					}
					for _, from := range rule.From {
						in[fmt.Sprintf("%s -> %s:%d", name(t, all, o, from), self, p.Port)] = true
					}
				}
			}
			for _, rule := range spec.Egress {
				if len(rule.To) == 0 || len(rule.Ports) == 0 {
					t.Errorf("%v lets out to everyone, or to every port", o)
				}
				for _, p := range rule.Ports {
					for _, to := range rule.To {
						out[fmt.Sprintf("%s -> %s:%d", self, name(t, all, o, to), p.Port)] = true
					}
				}
			}
		}
		for _, w := range all {
			if self := w.Metadata.Namespace + "/" + w.Metadata.Name; guarded[self] != 1 {
				t.Errorf("%v has %d policies of its own", w, guarded[self])
			}
		}
		for _, ns := range []string{"platform", "monitoring"} {
			if !closed[ns] {
				t.Errorf("%s: in namespace %s pods may connect as they like, or to more than DNS", r.name, ns)
			}
		}

		want := make(map[string]bool)
		for _, f := range usualFlows {
			want[f] = true
		}
		if r.name == "everything" {
			for _, f := range moreFlows {
				want[f] = true
			}
		}
		got := make(map[string]bool)
		for f := range out {
			_, to, _ := strings.Cut(f, " -> ")
			if strings.Contains(to, "/") && !in[f] {
				t.Errorf("%s: %s is let out, and not in", r.name, f)
			}
			got[f] = true
		}
		for f := range in {
			if strings.Contains(strings.Split(f, " -> ")[0], "/") && !out[f] {
				t.Errorf("%s: %s is let in, and not out", r.name, f)
			}
			got[f] = true
		}
		for f := range got {
			if !want[f] {
				t.Errorf("%s: %s is allowed, and not wanted", r.name, f)
			}
		}
		for f := range want {
			if !got[f] {
				t.Errorf("%s: %s is wanted, and not allowed", r.name, f)
			}
		}
	}
}

// name says who a peer is. A peer must be a workload of ours, an outsider, or a block of addresses.
func name(t *testing.T, all []workload, of *object, p peer) string {
	t.Helper()
	if p.IPBlock != nil {
		switch p.IPBlock.CIDR {
		case "0.0.0.0/0":
			for _, private := range []string{"10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} {
				if !slices.Contains(p.IPBlock.Except, private) {
					t.Errorf("%v: public addresses include %s", of, private)
				}
			}
			return "public"
		case "10.0.0.0/24":
			return "postgres"
		case "10.0.0.10/32":
			return "apiserver"
		}
		t.Errorf("%v: who is %s?", of, p.IPBlock.CIDR)
		return p.IPBlock.CIDR
	}
	if p.PodSelector == nil || len(p.PodSelector.MatchLabels) == 0 {
		t.Errorf("%v names whole namespaces", of)
		return "everyone"
	}
	namespace := of.Metadata.Namespace
	if p.NamespaceSelector != nil {
		key := labelText(p.NamespaceSelector.MatchLabels) + " " + labelText(p.PodSelector.MatchLabels)
		if outsider, ok := outsiders[key]; ok {
			return outsider
		}
		namespace = p.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]
	}
	for _, w := range all {
		if w.Metadata.Namespace == namespace && has(w.labels, p.PodSelector.MatchLabels) {
			return w.Metadata.Namespace + "/" + w.Metadata.Name
		}
	}
	t.Errorf("%v names pods of %q with %v, which nobody runs", of, namespace, p.PodSelector.MatchLabels)
	return "nobody"
}

func labelText(labels map[string]string) string {
	var parts []string
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// cert-manager proves that a name is ours by a pod beside the Ingress, which only the controller
// may ask.
func TestCertificatesCanBeProven(t *testing.T) {
	r := usual(t)
	var spec policySpec
	policy := r.one(t, "NetworkPolicy", "platform", "acme-solver")
	policy.spec(t, &spec)
	if labelText(spec.PodSelector.MatchLabels) != "acme.cert-manager.io/http01-solver=true" || len(spec.Ingress) != 1 || len(spec.Egress) != 0 {
		t.Fatalf("%v: %+v", policy, spec)
	}
	if from := spec.Ingress[0].From; len(from) != 1 || name(t, r.workloads(t), policy, from[0]) != "ingress-nginx" || spec.Ingress[0].Ports[0].Port != 8089 {
		t.Errorf("%v lets in %+v", policy, spec.Ingress)
	}
}

// Each pod with the annotation is asked for metrics at a port that it has and that Prometheus may
// connect to; each workload has it.
func TestMetricsAreScraped(t *testing.T) {
	flows := strings.Join(append(slices.Clone(usualFlows), moreFlows...), "\n") + "\n"
	for _, r := range renderings(t) {
		for _, w := range r.workloads(t) {
			port := w.notes["prometheus.io/port"]
			if w.notes["prometheus.io/scrape"] != "true" || w.notes["prometheus.io/path"] != "/metrics" || port == "" {
				t.Errorf("%v: nobody reads its metrics", w)
				continue
			}
			var number int
			if _, err := fmt.Sscan(port, &number); err != nil || !w.listens(number) {
				t.Errorf("%v: metrics are asked for at %q, where nothing listens", w, port)
			}
			if flow := fmt.Sprintf("monitoring/prometheus -> %s/%s:%s\n", w.Metadata.Namespace, w.Metadata.Name, port); !strings.Contains(flows, flow) {
				t.Errorf("%v: Prometheus may not connect to port %s", w, port)
			}
		}
	}
}
