package operator

import (
	"context"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ClusterAddresses returns the addresses that the cluster tells of as its own, for
// ObjectOptions.Exclude: those of its nodes and their pods, and of its API server. They are
// sorted, and the same as long as the cluster is; with its nodes they change. A node of a cloud
// has all of its /64 of IPv6, so that is what is returned of it.
//
// What the cluster does not tell of are load balancers in front of it and other services of whoever
// runs it. These have to be excluded by who knows them.
func ClusterAddresses(ctx context.Context, client kubernetes.Interface) ([]netip.Prefix, error) {
	var list []netip.Prefix
	add := func(text string) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return // the name of a host
		}
		a = a.Unmap()
		bits := 32
		if a.Is6() {
			bits = 64
		}
		p, _ := a.WithZone("").Prefix(bits) // which every address of the family has
		list = append(list, p)
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("read the addresses of nodes: %w", err)
	}
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			add(address.Address)
		}
		for _, text := range node.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				list = append(list, p.Masked())
			}
		}
	}
	server, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read the addresses of the API server: %w", err)
	}
	if err != nil {
		return outermost(list), nil // nothing in the cluster can reach it by its Service
	}
	for _, endpoint := range server.Endpoints {
		for _, address := range endpoint.Addresses {
			add(address)
		}
	}
	return outermost(list), nil
}
