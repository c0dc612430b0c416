package operator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// leaseName is the Lease that the operator leads by.
const leaseName = "openclaw-operator"

// right is a question about a right: verb, resource with group and subresource, and a name.
type right struct {
	verb, group, resource, subresource, name string
}

func (r right) String() string {
	s := r.verb + " " + r.resource
	if r.subresource != "" {
		s += "/" + r.subresource
	}
	if r.group != "" {
		s += "." + r.group
	}
	if r.name != "" {
		s += " " + r.name
	}
	return s
}

// boxKinds are the resources of a box's objects with their names. Each may be made, read and
// changed where the operator is bound, by that name only.
func boxKinds() []right {
	return []right{
		{"", "", "secrets", "", ConfigName},
		{"", "", "serviceaccounts", "", GatewayName},
		{"", "", "resourcequotas", "", LimitsName},
		{"", "", "limitranges", "", LimitsName},
		{"", "", "persistentvolumeclaims", "", StateName},
		{"", "networking.k8s.io", "networkpolicies", "", IsolationName},
		{"", "apps", "deployments", "", GatewayName},
	}
}

// everywhere are the operator's rights in every namespace, "" being all of them at once.
func everywhere() []right {
	rights := []right{
		{"list", "", "pods", "", ""}, {"watch", "", "pods", "", ""},
		// Those of a Pod's name are the same rights.
		{"list", "", "pods", "", "x"}, {"watch", "", "pods", "", "x"},
	}
	for _, verb := range []string{"get", "list", "watch", "create", "patch", "delete"} {
		rights = append(rights, right{verb, "rbac.authorization.k8s.io", "rolebindings", "", BindingName})
		for _, name := range []string{"", "x"} {
			rights = append(rights, right{verb, "", "namespaces", "", name})
		}
	}
	// Kubernetes itself gives every ServiceAccount those: certificates of authorities, which are public.
	for _, verb := range []string{"get", "list", "watch"} {
		rights = append(rights, right{verb, "certificates.k8s.io", "clustertrustbundles", "", ""})
	}
	for _, kind := range boxKinds() {
		for _, verb := range []string{"list", "watch"} {
			rights = append(rights, right{verb, kind.group, kind.resource, "", kind.name})
		}
	}
	return append(rights,
		right{"bind", "rbac.authorization.k8s.io", "clusterroles", "", BoxRole},
		right{"get", "", "nodes", "", ""}, right{"get", "", "nodes", "", "x"}, right{"list", "", "nodes", "", ""}, right{"list", "", "nodes", "", "x"},
		right{"get", "discovery.k8s.io", "endpointslices", "", "kubernetes"},
	)
}

// inBox are those in the namespace of a box beside them.
func inBox() []right {
	var rights []right
	for _, kind := range boxKinds() {
		for _, verb := range []string{"get", "create", "patch"} {
			rights = append(rights, right{verb, kind.group, kind.resource, "", kind.name})
		}
		if slices.Contains([]string{"secrets", "resourcequotas", "deployments"}, kind.resource) {
			rights = append(rights, right{"delete", kind.group, kind.resource, "", kind.name})
		}
	}
	for _, name := range []string{"", "x"} {
		rights = append(rights,
			right{"get", "", "pods", "", name}, right{"delete", "", "pods", "", name},
			right{"get", "", "pods", "log", name}, right{"list", "", "events", "", name},
		)
	}
	return rights
}

// inPlatform are those in the operator's own namespace beside them.
func inPlatform() []right {
	return []right{
		{"create", "coordination.k8s.io", "leases", "", ""}, {"create", "coordination.k8s.io", "leases", "", "x"}, {"create", "coordination.k8s.io", "leases", "", leaseName},
		{"get", "coordination.k8s.io", "leases", "", leaseName}, {"update", "coordination.k8s.io", "leases", "", leaseName},
	}
}

// questions are all combinations that are asked: each verb with each kind of the API server and
// those of its subresources that give power; for no name, and where we have a right, for a
// stranger's and for ours.
func questions(t *testing.T, g guarded) []right {
	t.Helper()
	discovered, err := g.Typed.Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	resources := []right{
		{"", "", "pods", "exec", ""}, {"", "", "pods", "attach", ""}, {"", "", "pods", "portforward", ""}, {"", "", "pods", "proxy", ""}, {"", "", "pods", "log", ""},
		{"", "", "pods", "ephemeralcontainers", ""}, {"", "", "pods", "eviction", ""}, {"", "", "pods", "binding", ""}, {"", "", "pods", "status", ""},
		{"", "", "serviceaccounts", "token", ""}, {"", "", "nodes", "proxy", ""}, {"", "", "services", "proxy", ""}, {"", "", "namespaces", "finalize", ""}, {"", "", "namespaces", "status", ""},
		{"", "apps", "deployments", "scale", ""}, {"", "apps", "deployments", "status", ""}, {"", "certificates.k8s.io", "certificatesigningrequests", "approval", ""},
		{"", "", "users", "", ""}, {"", "", "groups", "", ""},
	}
	for _, list := range discovered {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if strings.HasPrefix(r.Name, "self") { // everybody may ask about his own rights
				continue
			}
			resources = append(resources, right{"", version.Group, r.Name, "", ""})
		}
	}
	ours := slices.Concat(everywhere(), inBox(), inPlatform())
	var all []right
	for _, r := range resources {
		names := []string{""}
		if slices.ContainsFunc(ours, func(o right) bool {
			return o.group == r.group && o.resource == r.resource && o.subresource == r.subresource && r.resource != "clustertrustbundles"
		}) {
			names = append(names, "x")
		}
		for _, kind := range append(boxKinds(),
			right{"", "rbac.authorization.k8s.io", "rolebindings", "", BindingName}, right{"", "rbac.authorization.k8s.io", "clusterroles", "", BoxRole},
			right{"", "coordination.k8s.io", "leases", "", leaseName}, right{"", "discovery.k8s.io", "endpointslices", "", "kubernetes"}) {
			if r.subresource == "" && r.group == kind.group && r.resource == kind.resource {
				names = append(names, kind.name)
			}
		}
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "bind", "escalate", "impersonate", "approve", "*"} {
			for _, name := range names {
				all = append(all, right{verb, r.group, r.resource, r.subresource, name})
			}
		}
	}
	return all
}

// TestRights asks the API server, as the operator, about every verb of every kind in every sort of
// namespace: what it needs is allowed, and everything else is refused.
func TestRights(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	g.make(t, testOptions(), box)
	unbound := boxSpace()
	g.Kubectl("create", "namespace", unbound)
	t.Cleanup(func() { g.Kubectl("delete", "namespace", unbound, "--wait=false") })
	spaces := map[string][]right{"": nil, OperatorSpace: inPlatform(), "kube-system": nil, "default": nil, unbound: nil, box.Namespace: inBox()}
	asked, allowed := 0, 0
	all := questions(t, g)
	for space, more := range spaces {
		yes := append(everywhere(), more...)
		known := make(map[right]bool)
		for _, r := range yes {
			known[r] = true
		}
		answers := g.ask(t, space, all)
		for i, r := range all {
			asked++
			if answers[i] {
				allowed++
			}
			if answers[i] != known[r] {
				t.Errorf("in namespace %q: %s is allowed: %t", space, r, answers[i])
			}
			delete(known, r)
		}
		for r := range known {
			t.Errorf("%s was not asked about", r)
		}
	}
	t.Logf("%d questions, %d allowed", asked, allowed)
	if asked < 5000 {
		t.Errorf("only %d questions", asked)
	}
}

// ask puts all questions as SelfSubjectAccessReviews, many at once.
func (g guarded) ask(t *testing.T, space string, questions []right) []bool {
	t.Helper()
	answers, errs := make([]bool, len(questions)), make(chan error, 16)
	next := make(chan int)
	for range cap(errs) {
		go func() {
			var failed error
			for i := range next {
				r := questions[i]
				review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: space, Verb: r.verb, Group: r.group, Resource: r.resource, Subresource: r.subresource, Name: r.name,
				}}}
				got, err := g.Typed.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
				if err != nil {
					failed = err
					continue
				}
				answers[i] = got.Status.Allowed
			}
			errs <- failed
		}()
	}
	for i := range questions {
		next <- i
	}
	close(next)
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	return answers
}

// The watches of all boxes need no right to all Secrets: a list and a watch by name are allowed.
func TestSecretsAreWatchedByNameOnly(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	g.make(t, testOptions(), box)
	g.Kubectl("create", "secret", "generic", "platform-secrets", "-n", OperatorSpace, "--from-literal=a=b")
	t.Cleanup(func() { g.Kubectl("delete", "secret", "platform-secrets", "-n", OperatorSpace) })
	ours := metav1.ListOptions{FieldSelector: "metadata.name=" + ConfigName}
	secrets := g.Typed.CoreV1().Secrets("")
	list, err := secrets.List(t.Context(), ours)
	if err != nil || len(list.Items) == 0 || slices.ContainsFunc(list.Items, func(s corev1.Secret) bool { return s.Name != ConfigName }) {
		t.Errorf("list by name: %d Secrets, %v", len(list.Items), err)
	}
	watch, err := secrets.Watch(t.Context(), ours)
	if err != nil {
		t.Errorf("watch by name: %v", err)
	} else {
		watch.Stop()
	}
	for what, err := range map[string]error{
		"list of all":                 second(secrets.List(t.Context(), metav1.ListOptions{})),
		"watch of all":                second(secrets.Watch(t.Context(), metav1.ListOptions{})),
		"list by label":               second(secrets.List(t.Context(), metav1.ListOptions{LabelSelector: LabelManagedBy})),
		"list of another":             second(secrets.List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=platform-secrets"})),
		"list of all but one":         second(secrets.List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name!=x"})),
		"list in the box":             second(g.Typed.CoreV1().Secrets(box.Namespace).List(t.Context(), metav1.ListOptions{})),
		"get of the platform's":       second(g.Typed.CoreV1().Secrets(OperatorSpace).Get(t.Context(), "platform-secrets", metav1.GetOptions{})),
		"get of another in the box":   second(g.Typed.CoreV1().Secrets(box.Namespace).Get(t.Context(), "other", metav1.GetOptions{})),
		"get of one not in a box":     second(g.Typed.CoreV1().Secrets(OperatorSpace).Get(t.Context(), ConfigName, metav1.GetOptions{})),
		"a token of a ServiceAccount": second(g.Typed.CoreV1().RESTClient().Post().Namespace(box.Namespace).Resource("serviceaccounts").Name(GatewayName).SubResource("token").Body([]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest"}`)).DoRaw(t.Context())),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want Forbidden", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// refusedBy tells what refused: rights or the admission policy.
func refusedBy(err error) string {
	switch {
	case err == nil:
		return "nothing"
	case !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err):
		return err.Error()
	case strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'openclaw-operator'"):
		return "policy"
	case strings.Contains(err.Error(), "attempting to grant RBAC permissions"):
		return "escalation"
	default:
		return "rights"
	}
}

// TestAttempts does as the operator what somebody would try who has taken it over.
func TestAttempts(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	box := g.box(t, "pro")
	objects := g.make(t, testOptions(), box)
	foreign, system, attempt := boxSpace(), "kube-"+boxSpace(), boxSpace()
	g.Kubectl("create", "namespace", foreign)
	g.Kubectl("create", "namespace", system)
	t.Cleanup(func() {
		for _, name := range []string{foreign, system, attempt} {
			g.Kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
		}
	})
	// The policy takes effect a moment after it was made.
	retryUntil(t, func() bool {
		return refusedBy(g.apply(t, bindingIn("kube-system", BoxRole, OperatorName, OperatorSpace))) == "policy"
	})

	label := map[string]string{LabelManagedBy: ManagedBy, LabelBox: "b", LabelCustomer: "c", podSecurityDomain + "enforce": "restricted", podSecurityDomain + "enforce-version": podSecurityVersion}
	without := func(key, value string) map[string]string {
		m := make(map[string]string)
		for k, v := range label {
			m[k] = v
		}
		if m[key] = value; value == "" {
			delete(m, key)
		}
		return m
	}
	space := func(name string, labels map[string]string) string {
		return manifest(&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	}
	remove := func(name string) error {
		return g.Typed.CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{})
	}
	patchSpace := func(name, patch string) error {
		return second(g.Typed.CoreV1().Namespaces().Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}))
	}
	core := g.Typed.CoreV1().RESTClient()
	for _, a := range []struct {
		what string
		err  error
		by   string
	}{
		{"a namespace of the system", g.apply(t, space("kube-x", label)), "policy"},
		{"a namespace called platform", g.apply(t, space(OperatorSpace, label)), "policy"},
		{"a namespace without owner", g.apply(t, space(attempt, without(LabelManagedBy, ""))), "policy"},
		{"a namespace without box", g.apply(t, space(attempt, without(LabelBox, ""))), "policy"},
		{"a namespace without Pod Security", g.apply(t, space(attempt, without(podSecurityDomain+"enforce", ""))), "policy"},
		{"a privileged namespace", g.apply(t, space(attempt, without(podSecurityDomain+"enforce", "privileged"))), "policy"},
		{"a namespace of an old profile", g.apply(t, space(attempt, without(podSecurityDomain+"enforce-version", "v1.0"))), "policy"},
		{"a POST of a namespace", second(g.Typed.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "kube-", Labels: label}}, metav1.CreateOptions{})), "policy"},
		{"weaker Pod Security of a box", patchSpace(box.Namespace, `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"baseline"}}}`), "policy"},
		{"no labels of a box", patchSpace(box.Namespace, `{"metadata":{"labels":null}}`), "policy"},
		{"a label on kube-system", patchSpace("kube-system", `{"metadata":{"labels":{"a":"b"}}}`), "policy"},
		{"the end of platform", remove(OperatorSpace), "policy"},
		{"the end of a stranger's namespace", remove(system), "policy"},
		{"the end of one that is only called so", remove(foreign), "policy"},
		{"the end of all namespaces", g.Typed.CoreV1().RESTClient().Delete().Resource("namespaces").Do(t.Context()).Error(), "rights"},

		{"cluster-admin in a box", g.apply(t, bindingIn(box.Namespace, "cluster-admin", OperatorName, OperatorSpace)), "escalation"},
		{"admin in kube-system", g.apply(t, bindingIn("kube-system", "admin", OperatorName, OperatorSpace)), "escalation"},
		{"openclaw-box in kube-system", g.apply(t, bindingIn("kube-system", BoxRole, OperatorName, OperatorSpace)), "policy"},
		{"openclaw-box in default", g.apply(t, bindingIn("default", BoxRole, OperatorName, OperatorSpace)), "policy"},
		{"its own binding in platform", second(g.Typed.RbacV1().RoleBindings(OperatorSpace).Patch(t.Context(), BindingName, types.MergePatchType, []byte(`{"subjects":[{"kind":"ServiceAccount","name":"default","namespace":"default"}]}`), metav1.PatchOptions{})), "policy"},
		{"the end of its own binding in platform", g.Typed.RbacV1().RoleBindings(OperatorSpace).Delete(t.Context(), BindingName, metav1.DeleteOptions{}), "policy"},
		{"openclaw-box to the gateway", g.apply(t, bindingIn(box.Namespace, BoxRole, GatewayName, box.Namespace)), "policy"},
		{"another binding in a box", g.apply(t, strings.Replace(bindingIn(box.Namespace, BoxRole, OperatorName, OperatorSpace), `"name":"`+BindingName+`"`, `"name":"other"`, 1)), "rights"},
		{"a ClusterRoleBinding", g.apply(t, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"openclaw-operator"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[]}`), "rights"},
		{"more rights for its role", second(g.Typed.RbacV1().ClusterRoles().Patch(t.Context(), BoxRole, types.JSONPatchType, []byte(`[{"op":"add","path":"/rules/-","value":{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}}]`), metav1.PatchOptions{})), "rights"},
		{"the end of its policy", g.Typed.AdmissionregistrationV1().ValidatingAdmissionPolicies().Delete(t.Context(), "openclaw-operator", metav1.DeleteOptions{}), "rights"},
		{"the end of its policy's binding", g.Typed.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(t.Context(), "openclaw-operator", metav1.DeleteOptions{}), "rights"},

		{"exec into a pod", core.Post().Namespace(box.Namespace).Resource("pods").Name("x").SubResource("exec").Param("command", "sh").Do(t.Context()).Error(), "rights"},
		{"a pod", second(g.Typed.CoreV1().Pods(box.Namespace).Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "x", Image: "x"}}}}, metav1.CreateOptions{})), "rights"},
		{"a Deployment of another name", g.apply(t, strings.Replace(manifest(objects[len(objects)-1].Unstructured), `"name":"openclaw-gateway","namespace"`, `"name":"other","namespace"`, 1)), "rights"},
		{"a Secret by POST", second(g.Typed.CoreV1().Secrets(box.Namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})), "rights"},
		{"a Secret where it is not bound", second(g.Typed.CoreV1().Secrets(foreign).Patch(t.Context(), ConfigName, types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"openclaw-config"}}`), metav1.PatchOptions{FieldManager: FieldManager})), "rights"},
		{"a Lease elsewhere", second(g.Typed.CoordinationV1().Leases("kube-system").Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaseName}}, metav1.CreateOptions{})), "rights"},
		{"another Lease in platform", second(g.Typed.CoordinationV1().Leases(OperatorSpace).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "kube-controller"}}, metav1.CreateOptions{})), "policy"},
		{"the end of a box's NetworkPolicy", g.Typed.NetworkingV1().NetworkPolicies(box.Namespace).Delete(t.Context(), IsolationName, metav1.DeleteOptions{}), "rights"},
		{"somebody else", g.impersonate(t), "rights"},
	} {
		if got := refusedBy(a.err); got != a.by {
			t.Errorf("%s: refused by %s, want %s (%v)", a.what, got, a.by, a.err)
		}
	}
	// What it must be able to do still can be done.
	if err := g.apply(t, space(attempt, label)); err != nil {
		t.Errorf("a namespace of a box: %v", err)
	}
	if err := g.apply(t, bindingIn(attempt, BoxRole, OperatorName, OperatorSpace)); err != nil {
		t.Errorf("its binding: %v", err)
	}
	if err := remove(attempt); err != nil {
		t.Errorf("its end: %v", err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaseName}}
	if _, err := g.Typed.CoordinationV1().Leases(OperatorSpace).Create(t.Context(), lease, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Errorf("its Lease: %v", err)
	}
}

// impersonate asks something as an administrator whom the operator pretends to be.
func (g guarded) impersonate(t *testing.T) error {
	t.Helper()
	config := restConfig(t, g.ServiceAccountKubeconfig(OperatorSpace, OperatorName))
	config.Impersonate = rest.ImpersonationConfig{UserName: "admin", Groups: []string{"system:masters"}}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return second(client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}))
}

// apply is a server-side apply of one object as the operator.
func (g guarded) apply(t *testing.T, text string) error {
	t.Helper()
	object := object(t, text)
	_, err := g.Operator.Resource(object.Resource).Namespace(object.GetNamespace()).Apply(t.Context(), object.GetName(), object.Unstructured, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	return err
}

func bindingIn(namespace, role, account, of string) string {
	return manifest(&rbacv1.RoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: BindingName, Namespace: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: of}},
	})
}

func retryUntil(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("it never came to be")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// The names in the manifests must be those in the program.
func TestAccessNamesWhatTheProgramDoes(t *testing.T) {
	t.Parallel()
	text := Access()
	for _, name := range []string{GatewayName, ConfigName, StateName, LimitsName, IsolationName, BindingName, BoxRole, leaseName} {
		if !strings.Contains(text, fmt.Sprintf("[%s]", name)) {
			t.Errorf("no right is to the name %s", name)
		}
	}
	for _, name := range []string{LabelManagedBy, LabelBox, LabelCustomer, ManagedBy, NamespaceStart, podSecurityDomain, podSecurityVersion, "system:serviceaccount:" + OperatorSpace + ":" + OperatorName} {
		if !strings.Contains(text, name) {
			t.Errorf("the policy does not know %s", name)
		}
	}
}
