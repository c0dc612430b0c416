package kubebox

import (
	"context"
	"fmt"
	"net/http"
)

// The names of the components.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kwok              = "kwok"
)

const (
	serviceAddresses    = "10.96.0.0/16"
	firstServiceAddress = "10.96.0.1" // of the Service kubernetes
	// 256 nodes with 4,094 addresses each.
	podAddresses    = "10.128.0.0/12"
	nodeAddressMask = "20"
)

// Component is one process of the control plane.
type Component struct {
	Name string
	// Args are all arguments of the program, the component's name first.
	Args []string
	// Ports are those on which it listens.
	Ports []int
	// Ready returns nil once the component does its work.
	Ready func(ctx context.Context) error
	// After is work that needs the running component; nil: there is none. What is done already it
	// leaves alone.
	After func(ctx context.Context) error
}

// Components returns the processes in the order in which they have to start; kwok is one of them if it
// has nodes to play. Each may be started once
// the one before is ready; the API server waits for etcd by itself. All end by SIGTERM and lose nothing by SIGKILL.
func (c *ControlPlane) Components() []Component {
	list := []Component{c.etcd(), c.apiServer(), c.controllerManager(), c.scheduler()}
	if c.cfg.Nodes > 0 {
		list = append(list, c.kwok())
	}
	return list
}

func (c *ControlPlane) etcd() Component {
	clients, peers := "https://"+address(c.cfg.Ports.Etcd), "https://"+address(c.cfg.Ports.EtcdPeers)
	return Component{
		Name:  Etcd,
		Ports: []int{c.cfg.Ports.Etcd, c.cfg.Ports.EtcdPeers},
		Args: []string{
			Etcd, "--name=openclaw", "--data-dir=" + c.path("etcd"),
			"--listen-client-urls=" + clients, "--advertise-client-urls=" + clients,
			"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers, "--initial-cluster=openclaw=" + peers,
			"--client-cert-auth", "--trusted-ca-file=" + c.pki("etcd-ca.crt"), "--cert-file=" + c.pki("etcd.crt"), "--key-file=" + c.pki("etcd.key"),
			"--peer-client-cert-auth", "--peer-trusted-ca-file=" + c.pki("etcd-ca.crt"), "--peer-cert-file=" + c.pki("etcd.crt"), "--peer-key-file=" + c.pki("etcd.key"),
			// Data has to survive the process, not the machine.
			"--unsafe-no-fsync",
			"--log-level=warn",
		},
		Ready: func(ctx context.Context) error {
			return c.send(ctx, "etcd-ca", "etcd", http.MethodGet, clients+"/health", nil, nil)
		},
	}
}

func (c *ControlPlane) apiServer() Component {
	return Component{
		Name:  APIServer,
		Ports: []int{c.cfg.Ports.APIServer},
		Args: append([]string{
			APIServer, fmt.Sprintf("--secure-port=%d", c.cfg.Ports.APIServer),
			"--etcd-servers=https://" + address(c.cfg.Ports.Etcd),
			"--etcd-cafile=" + c.pki("etcd-ca.crt"), "--etcd-certfile=" + c.pki("etcd.crt"), "--etcd-keyfile=" + c.pki("etcd.key"),
			"--tls-cert-file=" + c.pki("server.crt"), "--tls-private-key-file=" + c.pki("server.key"), "--client-ca-file=" + c.pki("ca.crt"),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + c.pki("service-account.pub"), "--service-account-signing-key-file=" + c.pki("service-account.key"),
			"--requestheader-client-ca-file=" + c.pki("front-proxy-ca.crt"), "--requestheader-allowed-names=front-proxy",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + c.pki("front-proxy.crt"), "--proxy-client-key-file=" + c.pki("front-proxy.key"),
			"--service-cluster-ip-range=" + serviceAddresses,
			// As clusters are set up that people pay for. Pod Security, ResourceQuota and
			// ValidatingAdmissionPolicy are on by default.
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
			"--profiling=false",
		}, c.reach()...),
		Ready: func(ctx context.Context) error { return c.do(ctx, http.MethodGet, "/readyz", nil, nil) },
		// Before kwok starts, whose readiness is that of its nodes.
		After: func(ctx context.Context) error { return c.EnsureNodes(ctx, c.cfg.Nodes) },
	}
}

// reach are the API server's arguments by which pods and real nodes find it, and it them.
func (c *ControlPlane) reach() []string {
	if c.cfg.Address == "" {
		return []string{
			"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
			// A loopback address may be no endpoint of the Service kubernetes.
			"--endpoint-reconciler-type=none",
		}
	}
	return []string{
		"--bind-address=0.0.0.0", "--advertise-address=" + c.cfg.Address, "--endpoint-reconciler-type=lease",
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate=" + c.pki("admin.crt"), "--kubelet-client-key=" + c.pki("admin.key"),
	}
}

// eager is for controllers that should not wait for anybody: the defaults spare API servers of large
// clusters, and tests would wait for seconds. There is one of each, so none is elected.
func eager() []string {
	return []string{"--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000", "--profiling=false"}
}

// as are the arguments by which a component finds the API server and is found by its users.
func (c *ControlPlane) as(name, user string, port int) []string {
	kubeconfig := c.path(user + ".kubeconfig")
	return append([]string{
		name, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + c.pki("server.crt"), "--tls-private-key-file=" + c.pki("server.key"),
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
	}, eager()...)
}

func (c *ControlPlane) controllerManager() Component {
	port := c.cfg.Ports.ControllerManager
	return Component{
		Name:  ControllerManager,
		Ports: []int{port},
		Args: append(c.as(ControllerManager, "controller-manager", port),
			"--use-service-account-credentials=true",
			"--service-account-private-key-file="+c.pki("service-account.key"), "--root-ca-file="+c.pki("ca.crt"),
			"--cluster-signing-cert-file="+c.pki("ca.crt"), "--cluster-signing-key-file="+c.pki("ca.key"),
			"--allocate-node-cidrs=true", "--cluster-cidr="+podAddresses, "--node-cidr-mask-size="+nodeAddressMask,
			// A quota that was counted from an old list says too little until it is counted anew.
			"--resource-quota-sync-period=10s",
			"--concurrent-namespace-syncs=50", "--concurrent-gc-syncs=50",
			"--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20", "--concurrent-resource-quota-syncs=20",
			"--concurrent-endpoint-syncs=20", "--concurrent-serviceaccount-token-syncs=20"),
		Ready: func(ctx context.Context) error {
			if err := c.healthy(ctx, port); err != nil {
				return err
			}
			// Without it no pod can be made in the namespace.
			return c.do(ctx, http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", nil, nil)
		},
	}
}

func (c *ControlPlane) scheduler() Component {
	port := c.cfg.Ports.Scheduler
	return Component{
		Name:  Scheduler,
		Ports: []int{port},
		Args:  c.as(Scheduler, "scheduler", port),
		Ready: func(ctx context.Context) error { return c.healthy(ctx, port) },
	}
}

func (c *ControlPlane) healthy(ctx context.Context, port int) error {
	return c.send(ctx, "ca", "admin", http.MethodGet, "https://"+address(port)+"/healthz", nil, nil)
}

func (c *ControlPlane) kwok() Component {
	return Component{
		Name: Kwok,
		Args: []string{
			Kwok, "--kubeconfig=" + c.path("kwok.kubeconfig"), "--config=" + c.path("stages.yaml"),
			"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=" + playedBy + "=fake",
			"--node-ip=127.0.0.1",
			// Renewed every 10 s; a node whose lease is older than 40 s counts as gone.
			"--node-lease-duration-seconds=40",
			"-v=WARN", // it tells of each lease
		},
		Ready: c.NodesReady,
	}
}
