package operator

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// addressKept is how long an address stays closed after the cluster told of it last. A node that comes
// and goes must not open what it had to everybody, nor have each box's policy written twice.
const addressKept = time.Hour

// lastSeen is when the cluster told of each of its own addresses last.
type lastSeen map[netip.Prefix]time.Time

// see notes what the cluster tells of at a time, and returns what is to be closed: that, and what was
// seen within addressKept. It is sorted; the rest is forgotten.
func (s lastSeen) see(now time.Time, told []netip.Prefix) []netip.Prefix {
	for _, p := range told {
		s[p] = now
	}
	maps.DeleteFunc(s, func(_ netip.Prefix, at time.Time) bool { return now.Sub(at) > addressKept })
	return outermost(slices.Collect(maps.Keys(s)))
}

// closedBy returns what most of some policies close beside what all have to, and known. So what an
// earlier operator has seen of the cluster outlives it. One policy that somebody edited has no say.
func closedBy(policies []*networkingv1.NetworkPolicy, known []netip.Prefix) []netip.Prefix {
	count := make(map[netip.Prefix]int)
	for _, policy := range policies {
		of := make(map[netip.Prefix]bool)
		for _, rule := range policy.Spec.Egress {
			for _, peer := range rule.To {
				if peer.IPBlock == nil {
					continue
				}
				for _, text := range peer.IPBlock.Except {
					if p, err := netip.ParsePrefix(text); err == nil {
						of[p.Masked()] = true
					}
				}
			}
		}
		for p := range of {
			count[p]++
		}
	}
	for _, text := range slices.Concat(special4(), special6()) {
		delete(count, netip.MustParsePrefix(text))
	}
	for _, p := range known {
		delete(count, p.Masked())
	}
	maps.DeleteFunc(count, func(_ netip.Prefix, n int) bool { return 2*n <= len(policies) })
	return slices.Collect(maps.Keys(count))
}

// policies returns the network policies of boxes.
func (v *view) policies() []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for _, ns := range v.namespaces() {
		live := v.get(kindPolicy, ns.GetName(), IsolationName)
		if live == nil {
			continue
		}
		policy := &networkingv1.NetworkPolicy{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, policy); err != nil {
			v.log.Warn("a network policy cannot be read", "namespace", ns.GetName(), "error", err)
			continue
		}
		out = append(out, policy)
	}
	return out
}

// surroundings reads the cluster's own addresses, or tries again until ctx ends: without them gateways
// might reach the nodes and the API server.
func (o *Operator) surroundings(ctx context.Context, v *view) error {
	o.mu.Lock()
	o.seen = make(lastSeen)
	o.seen.see(time.Now(), closedBy(v.policies(), o.opts.Objects.Exclude))
	o.mu.Unlock()
	for {
		err := o.readAddresses(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		o.log.Warn("cannot read the cluster's own addresses, and begins with no box before it has", "error", err)
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
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unseen = err
	if err != nil {
		o.unseen = fmt.Errorf("what gateways must not reach: %w", err)
		return o.unseen
	}
	list = o.seen.see(time.Now(), list)
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
