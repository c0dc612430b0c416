package operator

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	rbacapply "k8s.io/client-go/applyconfigurations/rbac/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// access has the manifests, as templates whose marks are [[ and ]].
//
//go:embed access/*.yaml
var access embed.FS

// Access returns the manifests of what the operator may do, for an operator that is set up by
// default, and for gateways of any image; AccessFor limits them to one.
func Access() string {
	text, _ := AccessFor(ObjectOptions{}) // which are valid
	return text
}

// AccessFor returns the manifests of what an operator with these options may do: the admission
// policy that limits it to namespaces of boxes and to what belongs in them, its ServiceAccount,
// and its roles. They are for kubectl apply by an administrator, again whenever the options
// change, and need the operator's namespace. The operator has no right to change any of them.
//
// If an image is given, gateways can be of its repository only, in any version; without one they
// can be of any. The error is control.ErrInvalid.
func AccessFor(o ObjectOptions) (string, error) {
	o = o.withDefaults()
	values := map[string]any{
		"Namespace": o.OperatorNamespace, "Account": o.OperatorAccount, "ProxyNamespace": o.ProxyNamespace, "DNSNamespace": o.DNSNamespace,
		"ProxyPort": o.ProxyPort, "ProxyLabels": celMap(o.ProxyLabels), "DNSLabels": celMap(o.DNSLabels),
		"Closed4": celList(special4()), "Closed6": celList(special6()), "Repository": anyRepository,
	}
	// These become part of expressions.
	for _, name := range []string{o.OperatorNamespace, o.OperatorAccount, o.ProxyNamespace, o.DNSNamespace} {
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return "", fmt.Errorf("%w options: namespace or account %q: %s", control.ErrInvalid, name, problems[0])
		}
	}
	if err := o.checkLabels(); err != nil {
		return "", err
	}
	if o.Image != "" {
		if !digestPattern.MatchString(o.Image) {
			return "", fmt.Errorf("%w image %q: name the gateway's image by digest: NAME@sha256:…", control.ErrInvalid, o.Image)
		}
		repository, _, _ := strings.Cut(o.Image, "@")
		values["Repository"] = regexp.QuoteMeta(repository)
	}
	all, err := template.New("").Delims("[[", "]]").Option("missingkey=error").ParseFS(access, "access/*.yaml")
	if err != nil {
		return "", fmt.Errorf("manifests of the operator's rights: %w", err)
	}
	var texts []string
	// In the order of their names: with the rights before the policy there would be a moment in
	// which the operator may do anything.
	files, err := access.ReadDir("access")
	if err != nil {
		return "", fmt.Errorf("manifests of the operator's rights: %w", err)
	}
	for _, file := range files {
		var text strings.Builder
		if err := all.ExecuteTemplate(&text, file.Name(), values); err != nil {
			return "", fmt.Errorf("manifests of the operator's rights: %w", err)
		}
		texts = append(texts, text.String())
	}
	return strings.Join(texts, "---\n"), nil
}

// anyRepository is a pattern of an image's name without its digest.
const anyRepository = `[a-z0-9][a-z0-9._:/-]*`

// celMap and celList write literals of the policy's language, of what needs no escapes.
func celMap(m map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, "'"+key+"': '"+m[key]+"'")
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func celList(list []string) string { return "['" + strings.Join(list, "', '") + "']" }

// policyName is the admission policy's, by which a refusal names it.
const policyName = "openclaw-operator"

// ErrNoPolicy says that the cluster would let the operator do what only its admission policy keeps
// it from. With the rights that it has then it must not work.
var ErrNoPolicy = errors.New("the admission policy openclaw-operator does not limit the operator: have an administrator apply what \"control operator access\" prints")

// PolicyInForce asks the API server whether the operator's admission policy refuses what the
// operator's rights allow: a namespace that is no box's, and its rights in one. Nothing is made.
// Client must have the operator's own rights; for an administrator the policy is not meant. The
// error is ErrNoPolicy if one of them would have been made, and another one if that could not be
// found out. It takes effect some seconds after it was applied.
func PolicyInForce(ctx context.Context, client kubernetes.Interface) error {
	const canary = "openclaw-canary"
	space := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,"labels":{%q:%q}}}`, canary, LabelManagedBy, ManagedBy)
	_, err := client.CoreV1().Namespaces().Patch(ctx, canary, types.ApplyPatchType, space,
		metav1.PatchOptions{FieldManager: FieldManager, Force: new(true), DryRun: []string{metav1.DryRunAll}})
	if err := refusal("make a namespace that is no box's", err); err != nil {
		return err
	}
	binding := rbacapply.RoleBinding(BindingName, corev1.NamespaceDefault).
		WithRoleRef(rbacapply.RoleRef().WithAPIGroup(rbacv1.GroupName).WithKind("ClusterRole").WithName(BoxRole))
	_, err = client.RbacV1().RoleBindings(corev1.NamespaceDefault).Apply(ctx, binding,
		metav1.ApplyOptions{FieldManager: FieldManager, Force: true, DryRun: []string{metav1.DryRunAll}})
	return refusal("have rights in the namespace default", err)
}

// refusal is nil if the policy has refused something.
func refusal(what string, err error) error {
	refused := apierrors.IsForbidden(err) || apierrors.IsInvalid(err)
	switch {
	case err == nil:
		return fmt.Errorf("the operator could %s: %w", what, ErrNoPolicy)
	case refused && strings.Contains(err.Error(), "ValidatingAdmissionPolicy '"+policyName+"'"):
		return nil
	default:
		return fmt.Errorf("try whether the operator could %s: %w", what, err)
	}
}
