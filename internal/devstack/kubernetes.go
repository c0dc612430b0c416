package devstack

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kubebox"
)

// kubernetesNodes is how many nodes are played; each takes 1,000 pods.
const kubernetesNodes = 2

// The ServiceAccount under which the operator runs, and how long its token is valid; each Up makes
// another one.
const (
	operatorNamespace = "openclaw-system"
	operatorAccount   = "openclaw-operator"
	operatorToken     = 30 * 24 * time.Hour
)

func (s *stack) controlPlane() *kubebox.ControlPlane {
	return kubebox.New(kubebox.Config{
		Program: s.cfg.Kubebox,
		Dir:     s.cfg.path("kubernetes"),
		Nodes:   kubernetesNodes,
		Ports: kubebox.Ports{
			APIServer: s.cfg.Ports.Kubernetes, Etcd: s.cfg.Ports.Etcd, EtcdPeers: s.cfg.Ports.EtcdPeers,
			ControllerManager: s.cfg.Ports.Controllers, Scheduler: s.cfg.Ports.Scheduler,
		},
	})
}

// kubernetes returns the control plane's processes in the order in which they start.
func (s *stack) kubernetes() []service {
	plane := s.controlPlane()
	var all []service
	for _, c := range plane.Components() {
		svc := service{
			name:  c.Name,
			ports: c.Ports,
			command: func() (command, error) {
				return command{program: plane.Program, args: c.Args, env: plane.Env(), dir: plane.Dir}, nil
			},
			ready: c.Ready,
			after: c.After,
			// All of it is in etcd, so none needs long.
			stopWith: syscall.SIGTERM, stopLimit: 10 * time.Second,
		}
		if c.Name == kubebox.Etcd {
			svc.prepare = plane.Prepare
		}
		all = append(all, svc)
	}
	return all
}

// operatorKubeconfig makes the operator's ServiceAccount, unless it is there, and returns the path of
// a kubeconfig with its rights. It has none but those that are bound to it.
func (s *stack) operatorKubeconfig(ctx context.Context) (string, error) {
	plane := s.controlPlane()
	manifest := fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[2]s, namespace: %[1]s}
`, operatorNamespace, operatorAccount)
	if _, err := plane.Kubectl(ctx, strings.NewReader(manifest), "apply", "--server-side", "--field-manager=devstack", "-f", "-"); err != nil {
		return "", err
	}
	file := s.cfg.path("kubernetes", "operator.kubeconfig")
	return file, plane.ServiceAccountKubeconfig(ctx, operatorNamespace, operatorAccount, file, operatorToken)
}

// upKubernetes starts the control plane and what works on it.
func (s *stack) upKubernetes(ctx context.Context) error {
	for _, svc := range s.kubernetes() {
		if err := s.start(ctx, svc); err != nil {
			return err
		}
	}
	operator, err := s.operatorKubeconfig(ctx)
	if err != nil {
		return err
	}
	// Here the operator starts, as a service like the others, with this kubeconfig.
	return s.kubernetesInstructions(operator)
}

// kubernetesInstructions writes a wrapper of kubectl with the settings of this stack, and prints
// lines to paste.
func (s *stack) kubernetesInstructions(operator string) error {
	plane := s.controlPlane()
	kubectl := s.cfg.path("kubectl")
	script := "#!/bin/sh\n# kubectl with all rights in the Kubernetes of this development stack.\n" +
		"export KUBECONFIG=" + quote(plane.Kubeconfig) + " KUBECACHEDIR=" + quote(s.cfg.path("kubernetes", "cache")) + "\n" +
		"exec " + quote(plane.Program) + ` kubectl "$@"` + "\n"
	if err := writePrivate(kubectl, script); err != nil {
		return err
	}
	if err := os.Chmod(kubectl, 0o700); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	s.printf(`
Kubernetes is ready too. Its rights, quotas and policies are real; nothing runs in its pods, which are ready at once:

  %s get nodes,pods --all-namespaces

For other programs: KUBECONFIG=%s
With the rights of the operator's ServiceAccount: KUBECONFIG=%s
`, quote(kubectl), quote(plane.Kubeconfig), quote(operator))
	return nil
}
