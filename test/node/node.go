//go:build linux

package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// Name is the node's, in the cluster and as a host.
const Name = "real-0"

// Where things are. The node has a public address, as rented machines do, and the API server the port
// to which boxes may connect: so nothing but the addresses that the operator leaves out keeps them from it.
const (
	Address    = "5.161.7.7"
	APIPort    = 443
	dnsAddress = "10.96.0.10"
)

// Node is a running real node with its control plane.
type Node struct {
	*testenv.KubernetesServer
	Image string // of the gateway that only tries connections, by digest

	t        testing.TB
	dir      string
	programs Programs
}

// Start starts the control plane and the node, and waits until pods can run. It must run in what Sandboxed made.
func Start(t testing.TB, programs Programs) *Node {
	t.Helper()
	n := &Node{t: t, programs: programs, dir: filepath.Join(os.TempDir(), "node")}
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n.run("ip", "link", "set", "lo", "up")
	n.run("ip", "address", "add", Address+"/32", "dev", "lo")
	gateway := filepath.Join(n.dir, "gateway")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", gateway, "./gateway")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("node: build the gateway: %v\n%s", err, out)
	}
	var err error
	if n.Image, err = writeImage(filepath.Join(n.dir, "image.tar"), gateway); err != nil {
		t.Fatal(err)
	}
	n.world(gateway)
	n.KubernetesServer = testenv.NodelessKubernetes(t, Address, APIPort)
	n.containerd()
	n.kubelet()
	n.network()
	return n
}

// run runs a short command.
func (n *Node) run(name string, args ...string) string {
	n.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("node: %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts a program that ends with the test, and shows the end of its log if that fails.
func (n *Node) start(name, path string, args ...string) *testenv.Program {
	n.t.Helper()
	log := filepath.Join(n.dir, name+".log")
	n.t.Cleanup(func() {
		if text, err := os.ReadFile(log); err == nil && n.t.Failed() {
			n.t.Logf("--- the end of the log of %s:\n%s", name, text[max(0, len(text)-6000):])
		}
	})
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + n.dir, "TMPDIR=" + os.TempDir(), "LC_ALL=C", "NODE_NAME=" + Name}
	return testenv.Start(n.t, env, log, path, args...)
}

// until waits until what returns "".
func (n *Node) until(within time.Duration, what func() string) {
	n.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		problem := what()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("node: after %s: %s", within, problem)
		}
	}
}

func (n *Node) write(name, text string) string {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return path
}

func (n *Node) containerd() {
	n.t.Helper()
	config := n.write("containerd.toml", fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = %[3]q
[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE nobody's score can be lowered.
  restrict_oom_score_adj = true
  sandbox_image = %[4]q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %[5]q
    conf_dir = %[6]q
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = %[7]q
`, filepath.Join(n.dir, "containerd"), "/run/containerd-state", n.socket(), Tag, n.programs.Plugins, filepath.Join(n.dir, "cni"), n.programs.Runc))
	p := n.start("containerd", n.programs.Containerd, "-c", config)
	n.until(30*time.Second, func() string {
		if p.Ended() {
			n.t.Fatal("node: containerd ended")
		}
		out, err := exec.Command(n.programs.Ctr, "-a", n.socket(), "version").CombinedOutput()
		if err != nil {
			return string(out)
		}
		return ""
	})
	n.run(n.programs.Ctr, "-a", n.socket(), "-n", "k8s.io", "images", "import", "--base-name", Repository, "--digests", filepath.Join(n.dir, "image.tar"))
}

func (n *Node) socket() string { return "/run/containerd.sock" }

func (n *Node) kubelet() {
	n.t.Helper()
	config, err := json.Marshal(map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": Address, "containerRuntimeEndpoint": "unix://" + n.socket(),
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true}, "x509": map[string]any{"clientCAFile": n.CA},
		},
		"authorization": map[string]any{"mode": "Webhook"},
		"clusterDNS":    []string{dnsAddress}, "clusterDomain": "cluster.local", "resolvConf": "",
		"cgroupDriver": "cgroupfs", "cgroupRoot": "/" + filepath.Base(os.TempDir()), "failCgroupV1": false, "enforceNodeAllocatable": []string{},
		"failSwapOn": false, "makeIPTablesUtilChains": false, "oomScoreAdj": 0,
		"evictionHard":    map[string]string{"memory.available": "100Mi", "nodefs.available": "1%"},
		"volumePluginDir": filepath.Join(n.dir, "plugins"), "podLogsDir": filepath.Join(n.dir, "podlogs"),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	p := n.start("kubelet", n.Program, "kubelet", "--config="+n.write("kubelet.json", string(config)),
		"--kubeconfig="+n.UserKubeconfig("system:node:"+Name, "system:nodes"), "--hostname-override="+Name, "--node-ip="+Address,
		"--root-dir="+filepath.Join(n.dir, "kubelet"), "--cert-dir="+filepath.Join(n.dir, "certificates"), "-v=1")
	var cidr string
	n.until(time.Minute, func() string {
		if p.Ended() {
			n.t.Fatal("node: the kubelet ended")
		}
		var err error
		if cidr, err = n.TryKubectl("get", "node", Name, "-o", "jsonpath={.spec.podCIDR}"); err != nil || cidr == "" {
			return fmt.Sprintf("the node has no addresses for pods: %v", err)
		}
		return ""
	})
	n.write("cni/10-openclaw.conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "openclaw", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}}
]}`, cidr))
	n.until(time.Minute, func() string {
		ready, err := n.TryKubectl("get", "node", Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.spec.taints}`)
		if strings.TrimSpace(ready) != "True" {
			return fmt.Sprintf("the node is not ready: %s %v", ready, err)
		}
		return ""
	})
}

// network starts what makes Services reachable, and what enforces network policies.
func (n *Node) network() {
	n.t.Helper()
	n.start("kube-proxy", n.Program, "kube-proxy", "--kubeconfig="+n.UserKubeconfig("system:kube-proxy", "system:node-proxier"), "--hostname-override="+Name,
		"--proxy-mode=nftables", "--bind-address="+Address, "--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249",
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s")
	n.start("kube-router", n.programs.KubeRouter, "--kubeconfig="+n.Kubeconfig, "--hostname-override="+Name,
		"--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--run-loadbalancer=false",
		"--service-cluster-ip-range=10.96.0.0/16", "--health-port=0", "--metrics-port=0")
	n.until(30*time.Second, func() string {
		res, err := http.Get("http://127.0.0.1:10256/healthz")
		if err != nil {
			return err.Error()
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return "kube-proxy is not ready: " + res.Status
		}
		return ""
	})
}

// pod returns the address of the only pod with a label, once it is ready.
func (n *Node) pod(namespace, label string) string {
	n.t.Helper()
	var address string
	n.until(time.Minute, func() string {
		out, err := n.TryKubectl("get", "pods", "-n", namespace, "-l", label, "-o", `jsonpath={.items[*].status.podIP} {.items[*].status.conditions[?(@.type=="Ready")].status}`)
		fields := strings.Fields(out)
		if err != nil || len(fields) != 2 || fields[1] != "True" {
			pods, _ := n.TryKubectl("describe", "pods", "-n", namespace)
			return fmt.Sprintf("pod %s of %s is not ready: %s %v\n%s", label, namespace, out, err, pods)
		}
		address = fields[0]
		return ""
	})
	return address
}
