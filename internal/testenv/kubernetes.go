package testenv

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kubebox"
	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// KubernetesServer is a real Kubernetes control plane whose nodes are played by kwok: pods become
// ready at once, and nothing runs in them. RBAC, Pod Security, quotas, admission policies and garbage
// collection are real. Its methods are safe for concurrent use, and fail the test when they cannot do
// what they say.
type KubernetesServer struct {
	URL        string // https://127.0.0.1:PORT, of the API server
	CA         string // path of the certificate by which it is known, in PEM
	Kubeconfig string // path of a kubeconfig that may do everything
	Program    string // path of the program that is kubelet and kube-proxy as well, by its first argument

	t     testing.TB
	plane *plane
	own   bool // the control plane is this test's own
}

// kubernetesNodes is how many nodes a new control plane has; each takes 1,000 pods.
const kubernetesNodes = 2

// sharedPlane serves all tests of this process that ask for Kubernetes.
var sharedPlane = &plane{}

// Kubernetes returns the control plane that all tests of this process share; it is started at the
// first call, which takes 5 s or more, and 0.9 GB of memory. A test works in namespaces of its own
// (see Namespace) and gives what is in none a name of its own.
func Kubernetes(t testing.TB) *KubernetesServer {
	t.Helper()
	return newKubernetes(t, sharedPlane, false)
}

// DedicatedKubernetes returns a control plane of its own, whose API server the test may stop, pause and
// start again, and whose every object is the test's.
func DedicatedKubernetes(t testing.TB) *KubernetesServer {
	t.Helper()
	p := &plane{}
	t.Cleanup(p.stop)
	return newKubernetes(t, p, true)
}

// NodelessKubernetes returns a control plane of its own in which kwok plays no nodes: the test brings a
// real one. The API server has an address of this machine at which pods find it, and a port.
func NodelessKubernetes(t testing.TB, address string, port int) *KubernetesServer {
	t.Helper()
	p := &plane{nodeless: true, address: address, port: port}
	t.Cleanup(p.stop)
	return newKubernetes(t, p, true)
}

func newKubernetes(t testing.TB, p *plane, own bool) *KubernetesServer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The program may have to be built first. It gets what time the test has, less what telling
	// about it takes.
	if limited, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := limited.Deadline(); ok {
			ctx, cancel = context.WithDeadline(ctx, deadline.Add(-20*time.Second))
			defer cancel()
		}
	}
	if err := p.start(ctx); err != nil {
		t.Fatal(err)
	}
	s := &KubernetesServer{URL: p.control.URL, CA: p.control.CA, Kubeconfig: p.control.Kubeconfig, Program: p.control.Program, t: t, plane: p, own: own}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.tails())
		}
	})
	return s
}

// Namespace makes a namespace with a name that no other has, and with labels, each "name=value". It is
// deleted when the test ends, which does not wait for that.
func (s *KubernetesServer) Namespace(labels ...string) string {
	s.t.Helper()
	name := "test-" + strings.ToLower(rand.Text())
	manifest := "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: " + name + "\n"
	if len(labels) > 0 {
		manifest += "  labels:\n"
	}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		manifest += fmt.Sprintf("    %s: %q\n", key, value)
	}
	if err := s.Apply(manifest); err != nil {
		s.t.Fatal(err)
	}
	// What the cluster itself puts into each.
	s.Kubectl("wait", "-n", name, "--for=create", "serviceaccount/default", "configmap/kube-root-ca.crt", "--timeout=60s")
	if !s.own { // or it goes with its control plane, whose API server may be stopped by then
		s.t.Cleanup(func() { s.Kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found") })
	}
	return name
}

// Kubectl runs kubectl with all rights, unless --kubeconfig says otherwise, and returns its output. It
// fails the test on an error.
func (s *KubernetesServer) Kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.TryKubectl(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// TryKubectl is Kubectl for commands that may fail. The error has what kubectl wrote about it.
func (s *KubernetesServer) TryKubectl(args ...string) (string, error) {
	return s.kubectl(nil, args...)
}

// Apply makes and changes the objects of a manifest, in YAML or JSON, as a server-side apply. The error
// is the API server's.
func (s *KubernetesServer) Apply(manifest string, args ...string) error {
	_, err := s.kubectl(strings.NewReader(manifest), append([]string{"apply", "--server-side", "-f", "-"}, args...)...)
	return err
}

func (s *KubernetesServer) kubectl(stdin io.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return s.plane.control.Kubectl(ctx, stdin, args...)
}

// ServiceAccountKubeconfig returns the path of a kubeconfig with the rights of an existing
// ServiceAccount, valid for a day.
func (s *KubernetesServer) ServiceAccountKubeconfig(namespace, name string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	file, err := os.CreateTemp(s.plane.dir, name+"-*.kubeconfig") // others may ask for the same
	if err != nil {
		s.t.Fatalf("testenv: %v", err)
	}
	file.Close()
	if err := s.plane.control.ServiceAccountKubeconfig(ctx, namespace, name, file.Name(), 24*time.Hour); err != nil {
		s.t.Fatal(err)
	}
	return file.Name()
}

// UserKubeconfig returns the path of a kubeconfig of a user in a group, such as system:node:NAME in
// system:nodes.
func (s *KubernetesServer) UserKubeconfig(user, group string) string {
	s.t.Helper()
	file, err := os.CreateTemp(s.plane.dir, "user-*.kubeconfig")
	if err != nil {
		s.t.Fatalf("testenv: %v", err)
	}
	file.Close()
	if err := s.plane.control.UserKubeconfig(file.Name(), user, group); err != nil {
		s.t.Fatal(err)
	}
	return file.Name()
}

// EnsureNodes makes nodes until there are n, and waits until pods can be put on all.
func (s *KubernetesServer) EnsureNodes(n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.plane.control.EnsureNodes(ctx, n); err != nil {
		s.t.Fatal(err)
	}
	for {
		err := s.plane.control.NodesReady(ctx)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			s.t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// StopAPIServer kills the API server of a dedicated control plane with SIGKILL and waits for its end.
// Everything it acknowledged is there again after StartAPIServer.
func (s *KubernetesServer) StopAPIServer() {
	s.t.Helper()
	s.dedicated("StopAPIServer")
	s.plane.halt(kubebox.APIServer)
}

// StartAPIServer starts it again, at the same address, and waits until it is ready. It does nothing while it runs.
func (s *KubernetesServer) StartAPIServer() {
	s.t.Helper()
	s.dedicated("StartAPIServer")
	if err := s.plane.restart(kubebox.APIServer); err != nil {
		s.t.Fatal(err)
	}
}

// PauseAPIServer freezes the API server of a dedicated control plane: connections stay open and nothing
// is answered.
func (s *KubernetesServer) PauseAPIServer() {
	s.t.Helper()
	s.dedicated("PauseAPIServer")
	s.signal(syscall.SIGSTOP)
}

// ResumeAPIServer ends PauseAPIServer.
func (s *KubernetesServer) ResumeAPIServer() {
	s.t.Helper()
	s.dedicated("ResumeAPIServer")
	s.signal(syscall.SIGCONT)
}

func (s *KubernetesServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.plane.signal(kubebox.APIServer, sig); err != nil {
		s.t.Fatal(err)
	}
}

// Log returns what a component has written so far: "etcd", "kube-apiserver", "kube-controller-manager",
// "kube-scheduler" or "kwok". The end of each is logged when a test fails.
func (s *KubernetesServer) Log(component string) string {
	s.t.Helper()
	content, err := os.ReadFile(s.plane.log(component))
	if err != nil {
		s.t.Fatalf("testenv: %v", err)
	}
	return string(content)
}

func (s *KubernetesServer) dedicated(method string) {
	s.t.Helper()
	if !s.own {
		s.t.Fatalf("testenv: %s of a shared Kubernetes; use DedicatedKubernetes", method)
	}
}

// plane is the processes of one control plane and their directory. The zero value has not been
// created yet.
type plane struct {
	mu      sync.Mutex
	dir     string // "" before the first start; never changes while a test uses it
	control *kubebox.ControlPlane
	running map[string]*process

	// Of NodelessKubernetes.
	nodeless bool
	address  string
	port     int
}

// start creates the control plane if need be, and waits until pods can be made.
func (p *plane) start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.control != nil {
		return nil
	}
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	program, err := kubebox.Build(ctx, filepath.Join(root, "test", "kubebox"), os.Stderr)
	if err != nil {
		return err
	}
	// A program that is none of ours may take a port between the choice and the start.
	for attempt := 1; ; attempt++ {
		err := p.create(ctx, program)
		if err == nil {
			return nil
		}
		p.remove()
		if attempt == 3 || ctx.Err() != nil {
			return err
		}
	}
}

func (p *plane) create(ctx context.Context, program string) error {
	dir, err := workDir("kubernetes-")
	if err != nil {
		return err
	}
	p.dir, p.running = dir, make(map[string]*process)
	cfg := kubebox.Config{Program: program, Dir: dir, Nodes: kubernetesNodes, Address: p.address}
	if p.nodeless {
		cfg.Nodes = 0
	}
	for _, port := range []*int{&cfg.Ports.APIServer, &cfg.Ports.Etcd, &cfg.Ports.EtcdPeers, &cfg.Ports.ControllerManager, &cfg.Ports.Scheduler} {
		if *port, err = localserver.FreePort(); err != nil {
			return err
		}
	}
	if p.port != 0 {
		cfg.Ports.APIServer = p.port
	}
	control := kubebox.New(cfg)
	if err := control.Prepare(ctx); err != nil {
		return err
	}
	// The first two wait for each other, and the others for the second but not for one another.
	components := control.Components()
	for _, stage := range [][]kubebox.Component{components[:2], components[2:]} {
		for _, c := range stage {
			if err := p.run(control, c); err != nil {
				return err
			}
		}
		for _, c := range stage {
			if err := p.ready(ctx, c); err != nil {
				return err
			}
		}
	}
	p.control = control
	return nil
}

func (p *plane) run(control *kubebox.ControlPlane, c kubebox.Component) error {
	started, err := startWith(control.Env(), syscall.SIGKILL, nil, p.dir, p.log(c.Name), control.Program, c.Args...)
	if err != nil {
		return err
	}
	p.running[c.Name] = started
	return nil
}

func (p *plane) ready(ctx context.Context, c kubebox.Component) error {
	err := p.running[c.Name].ready(time.Minute, func() error { return c.Ready(ctx) })
	if err == nil && c.After != nil {
		err = c.After(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	return nil
}

func (p *plane) log(component string) string { return filepath.Join(p.dir, component+".log") }

// tails returns the last lines of all logs.
func (p *plane) tails() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.control == nil {
		return ""
	}
	var all strings.Builder
	for _, c := range p.control.Components() {
		fmt.Fprintf(&all, "--- the end of the log of %s:\n%s\n", c.Name, tail(p.log(c.Name)))
	}
	return all.String()
}

// halt kills a component.
func (p *plane) halt(component string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if running := p.running[component]; running != nil {
		running.end(syscall.SIGKILL)
		delete(p.running, component)
	}
}

// restart starts a component that was killed.
func (p *plane) restart(component string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[component] != nil {
		return nil
	}
	for _, c := range p.control.Components() {
		if c.Name == component {
			if err := p.run(p.control, c); err != nil {
				return err
			}
			return p.ready(context.Background(), c)
		}
	}
	return fmt.Errorf("testenv: there is no component %s", component)
}

func (p *plane) signal(component string, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	running := p.running[component]
	if running == nil {
		return fmt.Errorf("testenv: %v for %s, which is stopped", sig, component)
	}
	if err := running.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("testenv: %v for %s: %w", sig, component, err)
	}
	return nil
}

// stop ends all components and removes the data.
func (p *plane) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.remove()
}

func (p *plane) remove() {
	for _, running := range p.running {
		running.end(syscall.SIGKILL)
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
	p.dir, p.control, p.running = "", nil, nil
}
