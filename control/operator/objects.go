package operator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Names of a box's objects, which are the same in every box's namespace: so the operator's
// rights can be bound to names, and informers can select by them.
const (
	GatewayName    = "openclaw-gateway"   // Deployment and ServiceAccount
	ConfigName     = "openclaw-config"    // Secret
	StateName      = "openclaw-state"     // PersistentVolumeClaim, where there is a storage class
	LimitsName     = "tier-limits"        // ResourceQuota and LimitRange
	IsolationName  = "customer-isolation" // NetworkPolicy
	BindingName    = "openclaw-operator"  // RoleBinding
	BoxRole        = "openclaw-box"       // ClusterRole that the RoleBinding is to
	FieldManager   = "openclaw-operator"  // of server-side apply
	OperatorSpace  = "platform"           // default namespace of the operator and token-proxy
	OperatorName   = "operator"           // default ServiceAccount of the operator
	NamespaceStart = "customer-"          // how the name of every box's namespace begins
)

// Labels and annotations of a box's objects.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by" // ManagedBy
	LabelCustomer  = "openclaw.cloud/customer"
	LabelBox       = "openclaw.cloud/box"
	ManagedBy      = "openclaw-operator"

	// AnnotationApplied is a hash of all that was applied. What a later version of this
	// program no longer wants in an object is found by it.
	AnnotationApplied = "openclaw.cloud/applied"
	// AnnotationRotation and AnnotationToken stand at the Secret: which rotation its proxy
	// token is of, and the token's ID once it is registered.
	AnnotationRotation = "openclaw.cloud/rotation"
	AnnotationToken    = "openclaw.cloud/token" // #nosec G101 -- a name
)

// podSecurityVersion is the version of the restricted profile that is enforced. It is named,
// so that an upgrade of the cluster does not turn boxes away on its own.
const podSecurityVersion = "v1.37"

// ObjectOptions say what is the same in all boxes of a cluster. Image, ProxyURL and Render are
// required; what else is left zero gets its default.
type ObjectOptions struct {
	// Image is the gateway's image by digest: NAME@sha256:…. Boxes have no Secret for a
	// registry, so nodes must be able to pull it by themselves.
	Image string
	// Main is where OpenClaw's main program is in it; openclaw.Main by default.
	Main string
	// ProxyURL is where gateways find token-proxy.
	ProxyURL string
	// ProxyNamespace, ProxyLabels and ProxyPort say which pods token-proxy is, for the
	// NetworkPolicy; by default platform, app.kubernetes.io/name=token-proxy and 8080.
	ProxyNamespace string
	ProxyLabels    map[string]string
	ProxyPort      int32
	// DNSNamespace and DNSLabels say which pods the cluster's DNS is; by default kube-system
	// and k8s-app=kube-dns. A cache on each node, at a link-local address, is no pod: boxes would
	// have no DNS.
	DNSNamespace string
	DNSLabels    map[string]string
	// Exclude are addresses that boxes must not reach: all public ones of the cluster itself and
	// of what stands in front of it. ClusterAddresses knows some of them. Private, link-local and
	// other special ones can never be reached.
	Exclude []netip.Prefix
	// StorageClass of the volume that keeps a gateway's state. If it is "", the state lies on
	// the node's disk: it is lost with the pod, and so if it gets larger than StateMiB.
	StorageClass string
	// StateMiB is how large a gateway's state may get, in MiB; 2048 by default. A volume that
	// is larger already stays so.
	StateMiB int64
	// OperatorNamespace and OperatorAccount name the operator's ServiceAccount; platform and
	// operator by default.
	OperatorNamespace string
	OperatorAccount   string
	// Model is the model that gateways ask token-proxy for.
	Model string
	// Render writes a box's openclaw.json. It must not put a secret in: those are in the
	// environment under the names EnvProxyToken, EnvGatewayToken and EnvTelegramToken. The
	// same input must give the same bytes.
	Render func(ObjectOptions, control.DesiredBox) ([]byte, error)
}

// Secrets is what a box's Secret holds beside the customer's own bot token.
type Secrets struct {
	ProxyToken contract.Token
	// Rotation is the one that ProxyToken was made for.
	Rotation int64
	// TokenID is ProxyToken's; "" as long as it is not registered.
	TokenID      string
	GatewayToken secret.Text
}

// Object is one object of a box, as it shall be applied.
type Object struct {
	*unstructured.Unstructured
	Resource schema.GroupVersionResource
}

// digestPattern is an image's name with a digest.
var digestPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}$`)

// Objects builds all objects of a box, in the order in which they are to be applied: what
// guards a box comes before what runs in it, and its quota before what is counted. The claim is
// the last, where there is one: it is the only one that can be out of anybody's hands, while it
// is being deleted or its volume cannot grow, and must keep nothing else from being applied. A
// pod waits for its claim. The same arguments give the same objects. Nothing but the Secret has
// a secret in it.
func Objects(o ObjectOptions, box control.DesiredBox, s Secrets) ([]Object, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("objects of box %s: %w", box.ID, err)
	}
	if err := checkBox(box, s); err != nil {
		return nil, fmt.Errorf("objects of box %s: %w", box.ID, err)
	}
	config, err := o.Render(o, box)
	if err != nil {
		return nil, fmt.Errorf("objects of box %s: render openclaw.json: %w", box.ID, err)
	}
	b := builder{o: o, box: box, secrets: s, config: config}
	typed := []runtime.Object{
		b.namespace(), b.roleBinding(), b.serviceAccount(), b.secret(), b.limitRange(), b.networkPolicy(), b.quota(), b.deployment(),
	}
	if o.StorageClass != "" {
		typed = append(typed, b.claim())
	}
	objects := make([]Object, 0, len(typed))
	for _, t := range typed {
		object, err := b.finish(t)
		if err != nil {
			return nil, fmt.Errorf("objects of box %s: %w", box.ID, err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func (o ObjectOptions) withDefaults() ObjectOptions {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.Main, openclaw.Main)
	set(&o.ProxyNamespace, OperatorSpace)
	set(&o.DNSNamespace, "kube-system")
	set(&o.OperatorNamespace, OperatorSpace)
	set(&o.OperatorAccount, OperatorName)
	if len(o.ProxyLabels) == 0 {
		o.ProxyLabels = map[string]string{"app.kubernetes.io/name": "token-proxy"}
	}
	if len(o.DNSLabels) == 0 {
		o.DNSLabels = map[string]string{"k8s-app": "kube-dns"}
	}
	if o.ProxyPort == 0 {
		o.ProxyPort = 8080
	}
	if o.StateMiB == 0 {
		o.StateMiB = 2048
	}
	return o
}

func (o ObjectOptions) check() error {
	switch {
	case !digestPattern.MatchString(o.Image):
		return fmt.Errorf("%w image %q: name the gateway's image by digest: NAME@sha256:…", control.ErrInvalid, o.Image)
	case !path.IsAbs(o.Main):
		return fmt.Errorf("%w options: main program %q: name it by its path in the image, such as %s", control.ErrInvalid, o.Main, openclaw.Main)
	case o.ProxyURL == "":
		return fmt.Errorf("%w options: say where token-proxy is", control.ErrInvalid)
	case !o.reachable():
		return fmt.Errorf("%w options: token-proxy is at %s, and boxes may reach pods of namespace %s: give the namespace in which it is", control.ErrInvalid, o.ProxyURL, o.ProxyNamespace)
	case o.Render == nil:
		return fmt.Errorf("%w options: nothing renders openclaw.json", control.ErrInvalid)
	case o.StateMiB < 0 || o.ProxyPort < 0:
		return fmt.Errorf("%w options: the size of the state and token-proxy's port must be positive", control.ErrInvalid)
	}
	if err := o.checkLabels(); err != nil {
		return err
	}
	for _, p := range o.Exclude {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("%w excluded range %s: write it as IPv4 or IPv6, such as 203.0.113.0/24", control.ErrInvalid, p)
		}
	}
	return nil
}

// checkLabels says which label of other pods is none: no pod could bear it.
func (o ObjectOptions) checkLabels() error {
	for _, labels := range []map[string]string{o.ProxyLabels, o.DNSLabels} {
		for key, value := range labels {
			if problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(problems) > 0 {
				return fmt.Errorf("%w options: label %s=%s: %s", control.ErrInvalid, key, value, problems[0])
			}
		}
	}
	return nil
}

// reachable reports whether the NetworkPolicy can let a box reach ProxyURL: a Service must be of
// the namespace whose pods it names. What port of theirs a Service leads to does not show in it.
func (o ObjectOptions) reachable() bool {
	u, err := url.Parse(o.ProxyURL)
	if err != nil || u.Hostname() == "" {
		return false
	}
	name := strings.Split(u.Hostname(), ".")
	return len(name) < 3 || name[2] != "svc" || name[1] == o.ProxyNamespace
}

func checkBox(box control.DesiredBox, s Secrets) error {
	if problems := validation.IsDNS1123Label(box.Namespace); len(problems) > 0 || !strings.HasPrefix(box.Namespace, NamespaceStart) {
		return fmt.Errorf("%w namespace %q: it must be a DNS label that begins with %q", control.ErrInvalid, box.Namespace, NamespaceStart)
	}
	for _, id := range []string{box.ID, box.CustomerID} {
		if problems := validation.IsValidLabelValue(id); len(problems) > 0 || id == "" {
			return fmt.Errorf("%w ID %q: it cannot be the value of a label", control.ErrInvalid, id)
		}
	}
	if s.ProxyToken.Reveal() == "" || s.GatewayToken == "" {
		return fmt.Errorf("%w secrets: a box needs a proxy token and a gateway token", control.ErrInvalid)
	}
	return nil
}

// builder makes the objects of one box.
type builder struct {
	o       ObjectOptions
	box     control.DesiredBox
	secrets Secrets
	config  []byte // openclaw.json
}

// meta is the metadata of an object in the box's namespace.
func (b *builder) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: b.box.Namespace, Labels: b.labels()}
}

func (b *builder) labels() map[string]string {
	return map[string]string{LabelManagedBy: ManagedBy, LabelCustomer: b.box.CustomerID, LabelBox: b.box.ID}
}

func (b *builder) namespace() *corev1.Namespace {
	labels := b.labels()
	for _, mode := range []string{"enforce", "audit", "warn"} {
		labels[podSecurityDomain+mode] = "restricted"
		labels[podSecurityDomain+mode+"-version"] = podSecurityVersion
	}
	return &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: b.box.Namespace, Labels: labels},
	}
}

// podSecurityDomain begins the labels that Pod Security admission obeys.
const podSecurityDomain = "pod-security.kubernetes.io/"

// roleBinding gives the operator its rights in this namespace. In the whole cluster it has
// almost none.
func (b *builder) roleBinding() *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
		ObjectMeta: b.meta(BindingName),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: BoxRole},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: b.o.OperatorAccount, Namespace: b.o.OperatorNamespace}},
	}
}

// serviceAccount is the gateway's. It has no rights, and its token is mounted nowhere.
func (b *builder) serviceAccount() *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta:                     metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta:                   b.meta(GatewayName),
		AutomountServiceAccountToken: new(false),
	}
}

// finish turns a typed object into what is sent to the API server.
func (b *builder) finish(typed runtime.Object) (Object, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		return Object{}, fmt.Errorf("convert %T: %w", typed, err)
	}
	// What only the server sets must not be applied, not even empty.
	delete(content, "status")
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(content, "spec", "template", "metadata", "creationTimestamp")
	if spec, ok := content["spec"].(map[string]any); ok && len(spec) == 0 {
		delete(content, "spec")
	}
	object := &unstructured.Unstructured{Object: content}
	resource, ok := resourceOf(object.GroupVersionKind())
	if !ok {
		return Object{}, fmt.Errorf("kind %s is not one of a box's", object.GetKind())
	}
	sum, err := hashOf(content)
	if err != nil {
		return Object{}, err
	}
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = make(map[string]string)
	}
	annotations[AnnotationApplied] = sum
	object.SetAnnotations(annotations)
	return Object{Unstructured: object, Resource: resource}, nil
}

// resourceOf names the resource of one of a box's kinds.
func resourceOf(kind schema.GroupVersionKind) (schema.GroupVersionResource, bool) {
	resources := map[string]string{
		"Namespace": "namespaces", "RoleBinding": "rolebindings", "ServiceAccount": "serviceaccounts", "Secret": "secrets",
		"ResourceQuota": "resourcequotas", "LimitRange": "limitranges", "NetworkPolicy": "networkpolicies",
		"PersistentVolumeClaim": "persistentvolumeclaims", "Deployment": "deployments",
	}
	resource, ok := resources[kind.Kind]
	return kind.GroupVersion().WithResource(resource), ok
}

// hashOf is a hash of what v is as JSON.
func hashOf(v any) (string, error) {
	encoded, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("hash: %w", err)
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:]), nil
}

// hashOfBytes is the same for what is sure to have a form in JSON.
func hashOfBytes(m map[string][]byte) string {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(m)) {
		// With the lengths, no two maps are written alike.
		fmt.Fprintf(h, "%d %s %d %s\n", len(key), key, len(m[key]), m[key])
	}
	return hex.EncodeToString(h.Sum(nil))
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
