package operator

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
)

// Nodes, their pods and the API server may have public addresses, which boxes must not reach.
func TestClusterAddressesAreReadFromTheCluster(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	name := strings.TrimPrefix(boxSpace(), NamespaceStart)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: "2a01:4f8:2:3::/64", PodCIDRs: []string{"2a01:4f8:2:3::/64"}}}
	admin := g.admin(t)
	if _, err := admin.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Kubectl("delete", "node", name) })
	status, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: "10.0.0.7"},
		{Type: corev1.NodeExternalIP, Address: "5.75.128.9"}, {Type: corev1.NodeExternalIP, Address: "2a01:4f8:1:2::1"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, status, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	// Where the control plane runs on loopback, it does not make this one.
	retryAny(t, func() error {
		return g.KubernetesServer.Apply(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
addressType: IPv4
endpoints: [{addresses: [5.76.1.1]}]
ports: [{name: https, port: 443, protocol: TCP}]
`, "--force-conflicts")
	})
	wanted := prefixes("5.75.128.9/32", "2a01:4f8:1:2::/64", "2a01:4f8:2:3::/64", "10.0.0.7/32", "5.76.1.1/32")
	var got []netip.Prefix
	retryUntil(t, func() bool {
		if got, err = ClusterAddresses(t.Context(), g.Typed); err != nil {
			t.Fatal(err)
		}
		return slices.Contains(got, wanted[0]) // it may be answered from a cache
	})
	for _, p := range wanted {
		if !slices.Contains(got, p) && !slices.ContainsFunc(got, func(o netip.Prefix) bool { return o.Overlaps(p) && o.Bits() <= p.Bits() }) {
			t.Errorf("%s is not among %v", p, got)
		}
	}
	for _, address := range []string{"5.75.128.9", "2a01:4f8:1:2:ffff::1", "2a01:4f8:2:3::9", "5.76.1.1"} {
		a := netip.MustParseAddr(address)
		for _, block := range publicRanges(got) {
			if netip.MustParsePrefix(block.CIDR).Contains(a) && !slices.ContainsFunc(block.Except, func(s string) bool { return netip.MustParsePrefix(s).Contains(a) }) {
				t.Errorf("boxes can reach %s", a)
			}
		}
	}
}

// An address of the cluster is closed for an hour after it was seen last, so that a node that comes and
// goes changes nothing.
func TestAddressesOutliveTheirNodes(t *testing.T) {
	t.Parallel()
	node, other := prefixes("5.75.128.9/32")[0], prefixes("5.76.1.1/32")[0]
	both := []netip.Prefix{node, other}
	begin := time.Now()
	s := make(lastSeen)
	for _, c := range []struct {
		after time.Duration
		told  []netip.Prefix
		want  []netip.Prefix
	}{
		{0, both, both},
		{time.Minute, []netip.Prefix{other}, both}, // the node goes
		{50 * time.Minute, []netip.Prefix{other, node}, both},
		{51 * time.Minute, []netip.Prefix{other}, both},
		{50*time.Minute + addressKept, []netip.Prefix{other}, both},
		{51*time.Minute + addressKept, []netip.Prefix{other}, []netip.Prefix{other}}, // it does not come back
		{52*time.Minute + addressKept, nil, []netip.Prefix{other}},
		{53*time.Minute + 2*addressKept, nil, nil},
	} {
		if got := s.see(begin.Add(c.after), c.told); !slices.Equal(got, c.want) {
			t.Errorf("after %s %v are closed, want %v", c.after, got, c.want)
		}
	}
}

// What the policies in force close counts as seen, so that another operator does not open it at once.
// What one of them says alone does not, nor what is closed anyway.
func TestClosedByPoliciesInForce(t *testing.T) {
	t.Parallel()
	of := func(exclude ...string) *networkingv1.NetworkPolicy {
		p := &networkingv1.NetworkPolicy{}
		for _, block := range publicRanges(prefixes(exclude...)) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &block}}})
		}
		return p
	}
	policies := []*networkingv1.NetworkPolicy{
		of("5.75.128.9/32", "2a01:4f8:1:2::/64", "203.1.0.0/24", "10.0.0.7/32"), of("5.75.128.9/32", "2a01:4f8:1:2::/64", "203.1.0.0/24"),
		of("5.75.128.9/32", "1.0.0.0/8", "203.1.0.0/24"),
	}
	got := outermost(closedBy(policies, prefixes("203.1.0.0/24")))
	if want := prefixes("5.75.128.9/32", "2a01:4f8:1:2::/64"); !slices.Equal(got, want) {
		t.Errorf("%v are closed, want %v", got, want)
	}
	if got := closedBy(nil, nil); len(got) != 0 {
		t.Errorf("no policy closes %v", got)
	}
}

// Who leads is not ready while it cannot tell what gateways must not reach, and says so.
func TestReadySaysThatAddressesAreNotKnown(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case broken.Load():
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no nodes for you","code":403}`)
		case strings.HasSuffix(r.URL.Path, "/nodes"):
			_, _ = io.WriteString(w, `{"kind":"NodeList","apiVersion":"v1","items":[{"metadata":{"name":"a"},"status":{"addresses":[{"type":"InternalIP","address":"5.75.128.9"}]}}]}`)
		default:
			_, _ = io.WriteString(w, `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","addressType":"IPv4","endpoints":[]}`)
		}
	}))
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	defer queue.ShutDown()
	o := &Operator{client: client, log: slog.New(slog.DiscardHandler), seen: make(lastSeen), queue: queue, read: true}
	ready := func(want string) {
		t.Helper()
		text := ""
		if err := o.Ready(); err != nil {
			text = err.Error()
		}
		if (want == "") != (text == "") || !strings.Contains(text, want) {
			t.Errorf("it says %q, and not %q", text, want)
		}
	}
	ready("")
	if o.readAddresses(t.Context()) == nil {
		t.Error("addresses that are refused are read")
	}
	ready("no nodes for you")
	broken.Store(false)
	if err := o.readAddresses(t.Context()); err != nil || !slices.Equal(o.addresses, prefixes("5.75.128.9/32")) {
		t.Errorf("%v, %v", o.addresses, err)
	}
	ready("")
	broken.Store(true)
	_ = o.readAddresses(t.Context()) // seen by ready
	ready("what gateways must not reach")
	if !slices.Equal(o.addresses, prefixes("5.75.128.9/32")) {
		t.Errorf("what was read is forgotten: %v", o.addresses)
	}
	o.queue = nil
	ready("") // another one leads, and looks around
}
