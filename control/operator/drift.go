package operator

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Differs says where an object of the cluster is not what it shall be, or "" if nothing has to
// be repaired. It never says what stands there, which may be a secret.
//
// What is compared, and why:
//
//  1. Each value that we apply must be there. Lists must have our elements and no others,
//     and so must the maps of closed: there the API server fills nothing in.
//  2. The annotation with the hash of what was applied is among them. So a field that an
//     earlier version of this program set, and this one does not, is noticed.
//  3. Elsewhere an object has fields that we do not set: defaults, of which the next version of
//     Kubernetes may have more, so that a list of them would be wrong some day, and every box
//     written to for ever; and what somebody added. The API server itself keeps the two apart:
//     metadata.managedFields names who set a field, and a default has nobody. A field that
//     somebody has set, and we have not applied, was added. Ours is only what was applied: by
//     any other way somebody else may have used our name.
//
// Of the metadata only our labels and annotations count, the labels of a namespace that others
// obey, and owners and finalizers, which decide when an object is deleted. The status is not
// compared. Of a claim's spec only what it asks for counts, which must be as much as is
// wanted, or more: else it stays as it was made.
//
// Two things are not seen: a value whose record somebody deletes with a second request, for that
// looks like a default; and what somebody does to a pod. A webhook of the cluster that changes
// what we apply looks like a stranger, for ever, so it must leave the namespaces of boxes alone.
func Differs(desired Object, live *unstructured.Unstructured) string {
	if live == nil {
		return "it is not there"
	}
	if live.GetDeletionTimestamp() != nil {
		return "it is being deleted"
	}
	kind, wanted := desired.GetKind(), asMade(desired, live)
	for _, key := range slices.Sorted(maps.Keys(wanted.Object)) {
		switch key {
		case "metadata", "apiVersion", "kind", "status":
			continue
		}
		if at := different(kind, key, wanted.Object[key], live.Object[key]); at != "" {
			return at
		}
	}
	for _, key := range slices.Sorted(maps.Keys(desired.GetLabels())) {
		if live.GetLabels()[key] != desired.GetLabels()[key] {
			return "metadata.labels." + key
		}
	}
	for _, key := range slices.Sorted(maps.Keys(desired.GetAnnotations())) {
		if live.GetAnnotations()[key] != desired.GetAnnotations()[key] {
			return "metadata.annotations." + key
		}
	}
	if extra := addedLabels(desired, live); len(extra) > 0 {
		return "metadata.labels." + extra[0]
	}
	if extra := links(desired, live); len(extra) > 0 {
		return "metadata." + extra[0]
	}
	return added(live)
}

// links lists what of the metadata ties an object to others: owners, with which it would be
// deleted, and finalizers, which would keep it. Ours have none. A namespace's finalizers are
// those of whoever has to clean up after it, and a claim's those of who uses its volume.
func links(desired Object, live *unstructured.Unstructured) []string {
	var extra []string
	if len(live.GetFinalizers()) > 0 && desired.GetKind() != kindNamespace && desired.GetKind() != kindClaim {
		extra = append(extra, "finalizers")
	}
	if len(live.GetOwnerReferences()) > 0 {
		extra = append(extra, "ownerReferences")
	}
	return extra
}

// closed reports whether the map at path is wholly ours. All below it is too.
func closed(kind, path string) bool {
	for _, p := range map[string][]string{
		"Secret":        {"data"},
		"RoleBinding":   {"roleRef"},
		"ResourceQuota": {"spec"},
		"LimitRange":    {"spec"},
		"NetworkPolicy": {"spec"},
		"Deployment":    {"spec.selector", "spec.template.metadata.labels", "spec.template.spec.nodeSelector"},
	}[kind] {
		if path == p || strings.HasPrefix(path, p+".") || strings.HasPrefix(path, p+"[") {
			return true
		}
	}
	return false
}

// different returns the path of the first difference below path, or "".
func different(kind, path string, want, have any) string {
	switch want := want.(type) {
	case map[string]any:
		m, ok := have.(map[string]any)
		if !ok {
			// An empty map and none are the same to the API server.
			if len(want) == 0 && have == nil {
				return ""
			}
			return path
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if at := different(kind, path+"."+key, want[key], m[key]); at != "" {
				return at
			}
		}
		if closed(kind, path) {
			for _, key := range slices.Sorted(maps.Keys(m)) {
				if _, ok := want[key]; !ok {
					return path + "." + key
				}
			}
		}
		return ""
	case []any:
		list, ok := have.([]any)
		if !ok || len(list) != len(want) {
			return path
		}
		list = inOrderOf(want, list)
		for i := range want {
			if at := different(kind, fmt.Sprintf("%s[%d]", path, i), want[i], list[i]); at != "" {
				return at
			}
		}
		return ""
	default:
		if !reflect.DeepEqual(want, have) {
			return path
		}
		return ""
	}
}

// inOrderOf sorts a list of named elements as another one is, since the API server merges such
// lists by name. Other lists, and what has no counterpart, stay.
func inOrderOf(want, list []any) []any {
	name := func(v any) string {
		m, _ := v.(map[string]any)
		s, _ := m["name"].(string)
		return s
	}
	byName := make(map[string]any)
	for _, v := range list {
		if name(v) == "" || byName[name(v)] != nil {
			return list
		}
		byName[name(v)] = v
	}
	sorted := make([]any, 0, len(want))
	for _, v := range want {
		sorted = append(sorted, byName[name(v)])
	}
	return sorted
}

// addedLabels lists labels that a namespace must not have beside ours: those of the domains
// that Pod Security, network policies of the platform and we ourselves go by. Others are
// left alone, for there are programs that put theirs on every namespace.
func addedLabels(desired Object, live *unstructured.Unstructured) []string {
	if desired.GetKind() != "Namespace" {
		return nil
	}
	var extra []string
	ours := desired.GetLabels()
	for _, key := range slices.Sorted(maps.Keys(live.GetLabels())) {
		domain, _, _ := strings.Cut(key, "/")
		_, wanted := ours[key]
		if !wanted && slices.Contains([]string{"pod-security.kubernetes.io", "openclaw.cloud", "app.kubernetes.io"}, domain) {
			extra = append(extra, key)
		}
	}
	return extra
}

// added returns the first field that somebody has set and we have not applied, or "".
func added(live *unstructured.Unstructured) string {
	ours := fieldpath.NewSet()
	others := fieldpath.NewSet()
	applied := false
	for _, entry := range live.GetManagedFields() {
		if entry.FieldsV1 == nil || entry.Subresource == "status" {
			continue
		}
		var set fieldpath.Set
		if err := set.FromJSON(entry.FieldsV1.GetRawReader()); err != nil {
			return "metadata.managedFields"
		}
		if entry.Manager != FieldManager || entry.Operation != metav1.ManagedFieldsOperationApply {
			others = others.Union(&set)
			continue
		}
		ours = ours.Union(&set)
		applied = true
	}
	if !applied {
		return "metadata.managedFields"
	}
	var at string
	others.Leaves().Difference(ours).Iterate(func(p fieldpath.Path) {
		if at == "" && !foreign(live.GetKind(), p) && present(live.Object, p) {
			at = strings.TrimPrefix(p.String(), ".")
		}
	})
	return at
}

// foreign reports whether a field is for others to set.
func foreign(kind string, p fieldpath.Path) bool {
	path := strings.TrimPrefix(p.String(), ".")
	if strings.HasPrefix(path, "status") {
		return true
	}
	// Who restarts a gateway by hand may: it takes nothing from us.
	if kind == "Deployment" && path == "spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt" {
		return true
	}
	// The binding of a claim to its volume, and its growth; what else it has cannot be changed.
	if kind == kindClaim && strings.HasPrefix(path, "spec") {
		return true
	}
	return strings.HasPrefix(path, "metadata")
}

// present reports whether the object still has the field: a manager that removed one is
// named with it for a moment.
func present(object map[string]any, p fieldpath.Path) bool {
	var at any = object
	for _, element := range p {
		if element.FieldName == nil {
			return true // an element of a list
		}
		m, ok := at.(map[string]any)
		if !ok {
			return false
		}
		if at, ok = m[*element.FieldName]; !ok {
			return false
		}
	}
	return true
}
