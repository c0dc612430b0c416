package operator

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// networkPolicy closes the namespace but for what a gateway needs. It selects every pod and
// both directions, so what it does not name is refused.
//
// Nothing may come in. The kubelet's probes come from the pod's own node, to which no policy
// applies.
//
// Out may go: questions to the cluster's DNS and to no other server, since DNS carries data
// anywhere; requests to token-proxy; and HTTPS to public addresses, which Telegram and the
// agent's tools need. The metadata of cloud providers has none of those. Pods, Services, nodes,
// the API server and what stands in front of the cluster may well have public ones: they are
// closed only if Exclude names them. A request to a Service, such as the API server's, is judged
// by where it ends.
func (b *builder) networkPolicy() *networkingv1.NetworkPolicy {
	egress := []networkingv1.NetworkPolicyEgressRule{
		{To: pods(b.o.DNSNamespace, b.o.DNSLabels), Ports: ports(53, corev1.ProtocolUDP, corev1.ProtocolTCP)},
		{To: pods(b.o.ProxyNamespace, b.o.ProxyLabels), Ports: ports(b.o.ProxyPort, corev1.ProtocolTCP)},
	}
	for _, public := range publicRanges(b.o.Exclude) {
		egress = append(egress, networkingv1.NetworkPolicyEgressRule{
			To: []networkingv1.NetworkPolicyPeer{{IPBlock: &public}}, Ports: ports(443, corev1.ProtocolTCP),
		})
	}
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
		ObjectMeta: b.meta(IsolationName),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Egress:      egress,
		},
	}
}

// pods selects pods of one namespace. Both selectors stand in one peer: as two they would
// select either.
func pods(namespace string, labels map[string]string) []networkingv1.NetworkPolicyPeer {
	return []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: labels},
	}}
}

func ports(number int32, protocols ...corev1.Protocol) []networkingv1.NetworkPolicyPort {
	var list []networkingv1.NetworkPolicyPort
	for _, protocol := range protocols {
		list = append(list, networkingv1.NetworkPolicyPort{Protocol: new(protocol), Port: new(intstr.FromInt32(number))})
	}
	return list
}

// publicRanges returns the addresses of IPv4 and IPv6 that boxes may reach: those that are
// public, without exclude.
//
// For IPv6 it begins with 2000::/3, the only part that is given out for public addresses, and
// not with everything. So loopback, IPv4-mapped (::ffff:0:0/96), NAT64 (64:ff9b::/96),
// unique-local (fc00::/7), link-local (fe80::/10), multicast (ff00::/8) and all that is yet to
// be given a meaning are out without a list that could forget one.
func publicRanges(exclude []netip.Prefix) []networkingv1.IPBlock {
	var blocks []networkingv1.IPBlock
	block := func(within string, except []string) {
		all := netip.MustParsePrefix(within)
		var list []netip.Prefix
		for _, s := range except {
			list = append(list, netip.MustParsePrefix(s))
		}
		for _, p := range exclude {
			switch {
			case p.Overlaps(all) && p.Bits() <= all.Bits():
				return // nothing is left
			case p.Overlaps(all):
				list = append(list, p.Masked())
			}
		}
		b := networkingv1.IPBlock{CIDR: within}
		for _, p := range outermost(list) {
			b.Except = append(b.Except, p.String())
		}
		blocks = append(blocks, b)
	}
	block("0.0.0.0/0", special4())
	block("2000::/3", special6())
	return blocks
}

// special4 and special6 are the parts of 0.0.0.0/0 and 2000::/3 that are not public. The
// admission policy demands them too.
func special4() []string {
	return []string{
		"0.0.0.0/8",        // this host
		"10.0.0.0/8",       // private
		"100.64.0.0/10",    // carrier-grade NAT, and Alibaba's metadata
		"127.0.0.0/8",      // loopback
		"168.63.129.16/32", // Azure's host, in every virtual network
		"169.254.0.0/16",   // link-local, and the metadata of most cloud providers
		"172.16.0.0/12",    // private
		"192.0.0.0/24",     // protocol assignments, and Oracle's metadata
		"192.0.2.0/24",     // documentation
		"192.88.99.0/24",   // 6to4 relays, given up
		"192.168.0.0/16",   // private
		"198.18.0.0/15",    // benchmarks
		"198.51.100.0/24",  // documentation
		"203.0.113.0/24",   // documentation
		"224.0.0.0/4",      // multicast
		"240.0.0.0/4",      // reserved, and broadcast
	}
}

func special6() []string {
	return []string{
		"2001::/23",     // protocol assignments: Teredo, which carries IPv4, and others
		"2001:db8::/32", // documentation
		"2002::/16",     // 6to4, which carries IPv4
		"3fff::/20",     // documentation
	}
}

// outermost sorts prefixes and leaves out those that lie in another one.
func outermost(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range list {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
