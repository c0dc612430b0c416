package kubebox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// playedBy is the annotation of nodes that kwok plays.
const playedBy = "kwok.x-k8s.io/node"

// EnsureNodes makes those of the nodes node-0, node-1 … that are missing until there are n. Each takes
// 1,000 pods and has far more processors and memory than they can ask for. See NodesReady.
func (c *ControlPlane) EnsureNodes(ctx context.Context, n int) error {
	for i := range n {
		name := fmt.Sprintf("node-%d", i)
		resources := map[string]string{"cpu": "1000", "memory": "4Ti", "ephemeral-storage": "10Ti", "pods": "1000"}
		node := map[string]any{
			"apiVersion": "v1", "kind": "Node",
			"metadata": map[string]any{
				"name":        name,
				"annotations": map[string]string{playedBy: "fake"},
				"labels":      map[string]string{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
			},
			"status": map[string]any{"capacity": resources, "allocatable": resources},
		}
		if err := c.do(ctx, http.MethodPost, "/api/v1/nodes", node, nil); err != nil && !answered(err, http.StatusConflict) {
			return fmt.Errorf("kubebox: make %s: %w", name, err)
		}
	}
	return nil
}

// NodesReady returns nil when pods can be put on each node that kwok plays.
func (c *ControlPlane) NodesReady(ctx context.Context) error {
	var list struct {
		Items []struct {
			Metadata struct {
				Name        string            `json:"name"`
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
			Spec struct {
				PodCIDR string            `json:"podCIDR"`
				Taints  []json.RawMessage `json:"taints"`
			} `json:"spec"`
			Status struct {
				Conditions []struct {
					Type   string `json:"type"`
					Status string `json:"status"`
				} `json:"conditions"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := c.do(ctx, http.MethodGet, "/api/v1/nodes", nil, &list); err != nil {
		return fmt.Errorf("kubebox: list the nodes: %w", err)
	}
	played := 0
	for _, node := range list.Items {
		if node.Metadata.Annotations[playedBy] == "" {
			continue
		}
		played++
		ready := false
		for _, condition := range node.Status.Conditions {
			ready = ready || condition.Type == "Ready" && condition.Status == "True"
		}
		// New nodes are tainted until the controller manager has seen that they are ready.
		if !ready || node.Spec.PodCIDR == "" || len(node.Spec.Taints) > 0 {
			return fmt.Errorf("kubebox: %s is not ready yet", node.Metadata.Name)
		}
	}
	if played == 0 {
		return errors.New("kubebox: there are no nodes yet")
	}
	return nil
}
