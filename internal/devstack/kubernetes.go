package devstack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kubebox"
)

// kubernetesNodes is how many nodes are played; each takes 1,000 pods.
const kubernetesNodes = 2

// The ServiceAccount under which the operator of the boxes runs, as "control operator access" makes
// it, and how long its token is valid; each Up makes another one.
const (
	operatorNamespace = "platform"
	operatorAccount   = "operator"
	operatorToken     = 30 * 24 * time.Hour
)

// gatewayImage is what boxes are said to run. There is no such image, and nothing pulls it.
const gatewayImage = "openclaw-gateway@sha256:0000000000000000000000000000000000000000000000000000000000000000"

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

func (s *stack) operatorKubeconfig() string { return s.cfg.path("kubernetes", "operator.kubeconfig") }

// boxOperator makes boxes in the cluster. It has the rights that are bound to its ServiceAccount, and no
// others.
func (s *stack) boxOperator() service {
	return service{
		name:  "box-operator",
		ports: []int{s.cfg.Ports.Boxes},
		prepare: func(ctx context.Context) error {
			access := exec.CommandContext(ctx, s.binary("control"), "operator", "access")
			access.Env = s.cleanEnv()
			manifests, err := access.Output()
			if err != nil {
				return fmt.Errorf("control operator access: %w", err)
			}
			plane := s.controlPlane()
			space := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n", operatorNamespace)
			if _, err := plane.Kubectl(ctx, strings.NewReader(space+string(manifests)), "apply", "--server-side", "--field-manager=devstack", "-f", "-"); err != nil {
				return err
			}
			return plane.ServiceAccountKubeconfig(ctx, operatorNamespace, operatorAccount, s.operatorKubeconfig(), operatorToken)
		},
		command: func() (command, error) {
			args := []string{
				"operator", "--identity", "the only one", "--listen", address(s.cfg.Ports.Boxes), "--kubeconfig", s.operatorKubeconfig(), "--gateway-image", gatewayImage,
				"--box-secrets-key-file", s.cfg.path("box-secrets-key"), "--operator-key-file", s.cfg.path("operator-key"),
				// The customer that is made first has none.
				"--allow-no-bot",
			}
			if s.cfg.RedisURL != "" {
				args = append(args, "--allow-unsafe-redis")
			}
			return command{program: s.binary("control"), args: args, env: s.controlEnv(), dir: s.cfg.RunDir}, nil
		},
		ready:    answers("http://" + address(s.cfg.Ports.Boxes) + "/readyz"),
		stopWith: syscall.SIGTERM, stopLimit: 25 * time.Second,
	}
}

// startKubernetes starts the control plane, and what works on it.
func (s *stack) startKubernetes(ctx context.Context) error {
	for _, svc := range append(s.kubernetes(), s.boxOperator()) {
		if err := s.start(ctx, svc); err != nil {
			return err
		}
	}
	return nil
}

// showKubernetes says what can be seen of a customer there.
func (s *stack) showKubernetes(ctx context.Context, customer, email string) error {
	var boxes []struct {
		ID string `json:"id"`
	}
	if err := s.openclawctl(ctx, s.operatorEnv(email), &boxes, "box", "list", "--customer", customer); err != nil {
		return err
	}
	if len(boxes) == 0 {
		return fmt.Errorf("customer %s has no box", customer)
	}
	// The printed lines use the token that stays good.
	token, err := s.boxToken(ctx, customer)
	if err != nil {
		return err
	}
	if err := writePrivate(s.cfg.path("token"), token+"\n"); err != nil {
		return err
	}
	return s.kubernetesInstructions(customer, boxes[0].ID)
}

// kubernetesInstructions writes a wrapper of kubectl with the settings of this stack, and prints
// lines to paste.
func (s *stack) kubernetesInstructions(customer, box string) error {
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
	ctl := quote(s.cfg.path("openclawctl"))
	s.printf(`
Kubernetes is ready too. Its rights, quotas and policies are real; nothing runs in its pods, which are ready at once:

  %[1]s get nodes,pods --all-namespaces

The operator of the boxes makes the customer's box in it; each step with its time, and then what there is:

  %[2]s box list
  %[2]s box show %[6]s
  %[1]s get all,quota,netpol -n customer-%[3]s

One more customer, whose box is made within seconds:

  %[2]s customer create --name Another --tier pro

For other programs: KUBECONFIG=%[4]s
With the rights of the operator's ServiceAccount: KUBECONFIG=%[5]s
`, quote(kubectl), ctl, customer, quote(plane.Kubeconfig), quote(s.operatorKubeconfig()), box)
	return nil
}
