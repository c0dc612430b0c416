package operator

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// surroundings reads the cluster's own addresses, or tries again until ctx ends: without them gateways
// might reach the nodes and the API server.
func (o *Operator) surroundings(ctx context.Context) error {
	for {
		err := o.readAddresses(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		o.log.Warn("cannot read the cluster's own addresses, which gateways must not reach", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(o.opts.SweepEvery, policyAgain)):
		}
	}
}

func (o *Operator) readAddresses(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := ClusterAddresses(ctx, o.client)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.addresses != nil && !slices.Equal(o.addresses, list) {
		o.log.Info("the cluster's own addresses are others; boxes learn of it when each is looked at", "addresses", len(list))
	}
	o.addresses = list
	return nil
}

// objects is what all boxes have in common, with what the cluster tells of itself.
func (o *Operator) objects() ObjectOptions {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.opts.Objects
	out.Exclude = slices.Concat(out.Exclude, o.addresses)
	return out
}

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
