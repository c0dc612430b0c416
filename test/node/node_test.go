//go:build linux

package node

import (
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

var (
	real       = flag.Bool("node", false, "run a real node; needs root, Debian's packages and a kube-router program: see make node")
	kubeRouter = flag.String("kube-router", "", "path of the program kube-router")
	inside     = flag.String("inside", "", "the cgroup of the node; only the test gives it to itself")
)

//go:embed platform.yaml
var platform string

func TestMain(m *testing.M) {
	flag.Parse()
	switch {
	case !*real:
		fmt.Println("test/node: NO REAL NODE RAN. `make node` runs it.")
		os.Exit(m.Run())
	case *inside != "":
		if err := enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		testenv.Main(m)
	default:
		if _, err := FindPrograms(*kubeRouter); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		code, err := Sandboxed(os.Args[1:])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}
}

// target is something to connect to from a box.
type target struct {
	name, kind, address string
	open                bool // for boxes
	other               bool // a box itself: nobody may connect to it
}

// boxes is the system with two boxes that run.
type boxes struct {
	*Node
	*stack.Stack
	api      *stack.API
	operator func() *stack.Process
	a, b     control.Box
	control  string // address of the pod in a namespace without policy
}

// A box reaches token-proxy, the cluster's DNS and public addresses by HTTPS, and nothing else that there is.
// That each would answer it if the policy were not there is seen as well.
func TestBox(t *testing.T) {
	if !*real {
		t.Fatal("it needs root, a container runtime and an engine of network policies: run it by make node, which brings them; make test leaves it out")
	}
	programs, err := FindPrograms(*kubeRouter)
	if err != nil {
		t.Fatal(err)
	}
	x := start(t, programs)
	operator := x.operator()
	began := time.Now()
	x.a, x.b = x.box(t, "Ada"), x.box(t, "Bob")
	podA, podB := x.running(t, x.a), x.running(t, x.b)
	t.Logf("two boxes are active %.1f s after the first was asked for", time.Since(began).Seconds())
	t.Run("Restricted", func(t *testing.T) { x.restricted(t, podA) })

	targets := x.targets(podB)
	gateway := net.JoinHostPort(podA, "18789")
	// A policy is in force a moment after the pod runs; how long, the gateway's log says.
	x.Eventually("the policy is in force", 30*time.Second, func() bool {
		return x.try(t, podA, target{kind: "tcp", address: "postgres.platform.svc.cluster.local:5432"}).Answer == ""
	})
	seen, without := x.tryAll(t, podA, targets), x.tryAll(t, x.control, targets)
	if in := x.try(t, x.control, target{kind: "http", address: gateway}); in.Answer != "" {
		t.Errorf("another pod reaches the gateway of a box: %s", in.Answer)
	}
	t.Run("Logs", func(t *testing.T) { x.logs(t) })

	// The operator would put them back.
	if err := operator.Stop(20 * time.Second); err != nil {
		t.Errorf("the operator ended with: %v", err)
	}
	for _, b := range []control.Box{x.a, x.b} {
		x.Kubectl("delete", "networkpolicy", "-n", b.Namespace, "--all")
	}
	x.Eventually("the policies are gone", 30*time.Second, func() bool {
		return x.try(t, podA, target{kind: "http", address: net.JoinHostPort(podB, "18789")}).Answer != ""
	})
	bare := x.tryAll(t, podA, targets)
	x.report(t, targets, seen, without, bare)
	if in := x.try(t, x.control, target{kind: "http", address: gateway}); in.Answer == "" {
		t.Errorf("without its policy the gateway of a box does not answer either: %s", in.Error)
	}

	began = time.Now()
	x.operator()
	x.Eventually("the operator puts the policies back", 30*time.Second, func() bool {
		return x.try(t, podA, target{kind: "tcp", address: "postgres.platform.svc.cluster.local:5432"}).Answer == "" &&
			x.try(t, podA, target{kind: "http", address: net.JoinHostPort(podB, "18789")}).Answer == ""
	})
	t.Logf("the operator was started again, and %.1f s later boxes were closed again", time.Since(began).Seconds())
	for i, again := range x.tryAll(t, podA, targets) {
		if (again.Answer != "") != targets[i].open {
			t.Errorf("with its policy put back, a box sees of %s: %+v", targets[i].name, again)
		}
	}
	t.Run("Stops", func(t *testing.T) { x.stops(t) })
}

// start starts everything but the operator.
func start(t *testing.T, programs Programs) *boxes {
	t.Helper()
	began := time.Now()
	x := &boxes{Node: Start(t, programs)}
	t.Logf("the node is ready after %.1f s", time.Since(began).Seconds())
	x.Kubectl("create", "namespace", "platform")
	if err := x.Apply(strings.ReplaceAll(platform, "IMAGE", Tag)); err != nil {
		t.Fatal(err)
	}
	for label, namespace := range map[string]string{
		"app.kubernetes.io/name=token-proxy": "platform", "app.kubernetes.io/name=api": "platform", "app.kubernetes.io/name=postgres": "platform",
		"app.kubernetes.io/name=redis": "platform", "k8s-app=kube-dns": "kube-system", "k8s-app=other": "kube-system",
	} {
		x.pod(namespace, label)
	}
	x.control = x.pod("open", "app.kubernetes.io/name=control")

	x.Stack = stack.New(t, stack.Options{})
	program := testenv.BuildBinary(t, "./cmd/control")
	access, err := exec.Command(program, "operator", "access", "--gateway-image", x.Image).Output()
	if err != nil {
		t.Fatalf("control operator access: %v", err)
	}
	if err := x.Apply(string(access)); err != nil {
		t.Fatal(err)
	}
	config := x.ServiceAccountKubeconfig("platform", "operator")
	key := x.write("operator-key", strings.Repeat("fake", 8)+"\n")
	address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	x.operator = func() *stack.Process {
		return x.Stack.Start("operator", program, "operator", "--kubeconfig", config, "--gateway-image", x.Image, "--listen", address,
			"--operator-key-file", key, "--allow-unsafe-redis", "--allow-no-bot", "--sweep-every", "2s", "--lease", "10s")
	}
	x.api = x.StartAPI("--operator-url", "http://"+address, "--operator-key-file", key)
	return x
}

// ctl runs openclawctl by the api, and decodes its output into v, or returns it.
func (x *boxes) ctl(t *testing.T, v any, args ...string) string {
	t.Helper()
	if v != nil {
		args = append(args, "--output", "json")
	}
	code, out, errs := x.api.Ctl(args...)
	if code != 0 {
		t.Fatalf("openclawctl %s: %s%s", strings.Join(args, " "), out, errs)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(out), v); err != nil {
			t.Fatalf("openclawctl %s: %v in %s", strings.Join(args, " "), err, out)
		}
	}
	return out
}

func (x *boxes) box(t *testing.T, name string) control.Box {
	t.Helper()
	var made struct {
		Customer struct {
			ID string `json:"id"`
		} `json:"customer"`
		ID string `json:"id"`
	}
	x.ctl(t, &made, "customer", "create", "--name", name, "--tier", "starter")
	id := made.ID
	if id == "" {
		id = made.Customer.ID
	}
	var list []control.Box
	x.ctl(t, &list, "box", "list", "--customer", id)
	if len(list) != 1 {
		t.Fatalf("the customer has the boxes %+v", list)
	}
	return list[0]
}

// becomes waits until a box is in a state.
func (x *boxes) becomes(t *testing.T, b control.Box, state control.BoxState) {
	t.Helper()
	var now control.BoxDetail
	x.until(time.Minute, func() string {
		x.ctl(t, &now, "box", "show", b.ID)
		if now.State != state || now.Observed != now.Generation {
			pods, _ := x.TryKubectl("describe", "pods", "-n", b.Namespace)
			return fmt.Sprintf("box %s is %s (%q)\n%s", b.ID, now.State, now.Message, pods)
		}
		return ""
	})
}

// running waits until a box is active, and returns the address of its pod.
func (x *boxes) running(t *testing.T, b control.Box) string {
	t.Helper()
	x.becomes(t, b, control.BoxActive)
	return x.pod(b.Namespace, "app.kubernetes.io/name=openclaw-gateway")
}

func (x *boxes) targets(podB string) []target {
	pod := func(namespace, label, port string) string {
		return net.JoinHostPort(x.pod(namespace, label), port)
	}
	named := func(name, port string) string { return pod("platform", "app.kubernetes.io/name="+name, port) }
	dns, other := x.pod("kube-system", "k8s-app=kube-dns"), x.pod("kube-system", "k8s-app=other")
	return []target{
		{name: "token-proxy's Service, by its name", kind: "http", address: "token-proxy.platform.svc.cluster.local:8080", open: true},
		{name: "token-proxy's pod", kind: "http", address: named("token-proxy", "8080"), open: true},
		{name: "DNS Service, UDP", kind: "dns-udp", address: dnsAddress + ":53", open: true},
		{name: "DNS Service, TCP", kind: "dns-tcp", address: dnsAddress + ":53", open: true},
		{name: "a public address, 443", kind: "tcp", address: Public + ":443", open: true},

		{name: "customer-b's gateway", kind: "http", address: net.JoinHostPort(podB, "18789"), other: true},
		{name: "a pod of another namespace", kind: "http", address: net.JoinHostPort(x.control, "18789")},
		{name: "token-proxy's other port", kind: "tcp", address: named("token-proxy", "9090")},
		{name: "another pod of platform, 8080", kind: "http", address: named("api", "8080")},
		{name: "Postgres' Service, by its name", kind: "tcp", address: "postgres.platform.svc.cluster.local:5432"},
		{name: "Postgres' pod", kind: "tcp", address: named("postgres", "5432")},
		{name: "Redis' Service, by its name", kind: "tcp", address: "redis.platform.svc.cluster.local:6379"},
		{name: "Redis' pod", kind: "tcp", address: named("redis", "6379")},
		{name: "Postgres outside, private", kind: "tcp", address: Private + ":5432"},
		{name: "Redis outside, private", kind: "tcp", address: Private + ":6379"},
		{name: "Postgres outside, public", kind: "tcp", address: Public + ":5432"},
		{name: "a private address, 443", kind: "tcp", address: Private + ":443"},
		{name: "the API server's Service", kind: "tls", address: "10.96.0.1:443"},
		{name: "the API server, public, 443", kind: "tls", address: fmt.Sprintf("%s:%d", Address, APIPort)},
		{name: "the API server, private, 443", kind: "tls", address: fmt.Sprintf("%s:%d", nodeEnd, APIPort)},
		{name: "the kubelet", kind: "tls", address: Address + ":10250"},
		{name: "metadata", kind: "tcp", address: Metadata + ":80"},
		{name: "metadata, 443", kind: "tcp", address: Metadata + ":443"},
		{name: "metadata of Alibaba", kind: "tcp", address: Shared + ":80"},
		{name: "a public address, 80", kind: "tcp", address: Public + ":80"},
		{name: "a public DNS server, UDP", kind: "dns-udp", address: Public + ":53"},
		{name: "a public DNS server, TCP", kind: "dns-tcp", address: Public + ":53"},
		{name: "another pod of kube-system, UDP", kind: "dns-udp", address: net.JoinHostPort(other, "53")},
		{name: "the DNS pod's other port", kind: "tcp", address: net.JoinHostPort(dns, "9153")},
	}
}

// attempt is what came of a connection.
type attempt struct {
	Answer string `json:"answer"`
	Error  string `json:"error"`
}

// try has a pod connect. It is asked from the node, as the kubelet asks its probes.
func (x *boxes) try(t *testing.T, pod string, to target) (a attempt) {
	t.Helper()
	x.get(t, pod, "/try?"+url.Values{"kind": {to.kind}, "address": {to.address}}.Encode(), &a)
	if (a.Answer == "") == (a.Error == "") {
		t.Fatalf("an attempt at %s gave %+v", to.address, a)
	}
	return a
}

// tryAll tries all targets.
func (x *boxes) tryAll(t *testing.T, pod string, targets []target) []attempt {
	t.Helper()
	all := make([]attempt, len(targets))
	for i := range targets {
		all[i] = x.try(t, pod, targets[i])
	}
	return all
}

func (x *boxes) get(t *testing.T, pod, path string, into any) {
	t.Helper()
	res, err := http.Get("http://" + net.JoinHostPort(pod, "18789") + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v: %s", path, res.Status, err, text)
	}
}

// report prints what was seen, and judges it.
func (x *boxes) report(t *testing.T, targets []target, seen, without, bare []attempt) {
	t.Helper()
	word := func(a attempt) string {
		switch {
		case a.Answer != "":
			return "answers"
		case strings.Contains(a.Error, "refused"):
			return "refused"
		default:
			return "no answer"
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "from customer-a's pod\n%-36s %-44s %-9s %-10s %-20s %s\n", "TARGET", "ADDRESS", "EXPECTED", "SEEN", "POD WITHOUT POLICY", "SAME POD, POLICY REMOVED")
	for i, to := range targets {
		expected := "refused"
		if to.open {
			expected = "answers"
		}
		fmt.Fprintf(&out, "%-36s %-44s %-9s %-10s %-20s %s\n", to.name, to.address, expected, word(seen[i]), word(without[i]), word(bare[i]))
		if (seen[i].Answer != "") != to.open {
			t.Errorf("%s: expected %s, seen %+v", to.name, expected, seen[i])
		}
		// Or nothing was shown.
		if (without[i].Answer != "") == to.other {
			t.Errorf("%s: a pod without policy saw %+v", to.name, without[i])
		}
		if bare[i].Answer == "" {
			t.Errorf("%s: nothing answers there even if the policy is removed: %s", to.name, bare[i].Error)
		}
	}
	t.Log(out.String())
}

// restricted looks at the gateway's process from within, and at what its namespace would let in.
func (x *boxes) restricted(t *testing.T, pod string) {
	var self struct {
		UID, GID        int
		Writable, Files []string
		Status          map[string]string
	}
	x.get(t, pod, "/self", &self)
	if self.UID != 1000 || self.GID != 1000 {
		t.Errorf("the gateway runs as %d:%d", self.UID, self.GID)
	}
	if !slices.Equal(self.Writable, []string{"/data", "/tmp"}) {
		t.Errorf("the gateway can write to %v", self.Writable)
	}
	if !slices.Equal(self.Files, []string{"/etc/openclaw/openclaw.json"}) {
		t.Errorf("the gateway has the files %v", self.Files)
	}
	for name, want := range map[string]string{"CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2"} {
		if self.Status[name] != want {
			t.Errorf("%s of the gateway is %q, want %q", name, self.Status[name], want)
		}
	}
	err := x.Apply(fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":%q},"spec":{"hostNetwork":true,"containers":[{"name":"x","image":%q}]}}`,
		x.a.Namespace, x.Image), "--dry-run=server")
	if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
		t.Errorf("a pod in the host's network: %v", err)
	}
}

// logs reads what a box's gateway wrote, by the cluster and by the api.
func (x *boxes) logs(t *testing.T) {
	direct := x.Kubectl("logs", "-n", x.a.Namespace, "deployment/openclaw-gateway")
	api := x.ctl(t, nil, "box", "logs", x.a.ID, "--tail", "1000")
	for line := range strings.Lines(direct) {
		if strings.Contains(line, "gateway: started") || strings.Contains(line, "refused") && strings.Contains(line, "after the start") {
			t.Logf("from the box's log: %s", strings.TrimSpace(line))
		}
	}
	if !strings.Contains(direct, "gateway: started") || api != direct {
		t.Errorf("kubectl logs: %q\nopenclawctl box logs: %q", direct, api)
	}
	if events := x.ctl(t, nil, "box", "events", x.a.ID); !strings.Contains(events, "Started") {
		t.Errorf("openclawctl box events: %s", events)
	}
}

// stops suspends a box, whose pod goes, has it run again, and destroys the other one.
func (x *boxes) stops(t *testing.T) {
	x.ctl(t, nil, "box", "suspend", x.a.ID, "--reason", "test")
	x.becomes(t, x.a, control.BoxSuspended)
	// The pod has a while to end.
	x.Eventually("the pod of a suspended box is gone", time.Minute, func() bool {
		return x.Kubectl("get", "pods", "-n", x.a.Namespace, "-o", "name") == ""
	})
	x.ctl(t, nil, "box", "resume", x.a.ID, "--reason", "test")
	x.running(t, x.a)
	x.ctl(t, nil, "box", "destroy", x.b.ID, "--yes", "--reason", "test")
	x.becomes(t, x.b, control.BoxDestroyed)
	if left := x.Kubectl("get", "namespace", x.b.Namespace, "--ignore-not-found", "-o", "name"); left != "" {
		t.Errorf("a destroyed box has %s", left)
	}
}
