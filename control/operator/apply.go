package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
)

// Apply makes an object of the cluster what it shall be, and returns it as it then is. live
// is what was seen of it last, nil for nothing; it may be out of date. If live does not differ,
// nothing is sent.
//
// Server-side apply, with force, makes the object and sets what is ours. It leaves fields that
// others added, so whoever still finds a difference after it puts our parts in place of the
// object's, which the API server then fills with its defaults again. What cannot be changed at
// all, such as a RoleBinding's role or a Secret that was made immutable, is deleted and made
// anew; but never a namespace or a claim, with which data would go. A claim keeps what it was
// made with, and may only grow.
//
// The error is of the API server, or says where the object still differs.
func Apply(ctx context.Context, client dynamic.Interface, desired Object, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if live != nil && Differs(desired, live) == "" {
		return live, nil
	}
	name := desired.GetKind() + " " + desired.GetName()
	if desired.GetNamespace() != "" {
		name += " of " + desired.GetNamespace()
	}
	resource := client.Resource(desired.Resource).Namespace(desired.GetNamespace())
	apply := func(ctx context.Context) (*unstructured.Unstructured, error) {
		return resource.Apply(ctx, desired.GetName(), asMade(desired, live).Unstructured, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	}
	got, err := patiently(ctx, apply)
	if desired.GetKind() == kindClaim && apierrors.IsInvalid(err) {
		// It is not what was seen of it, or was not seen yet.
		if live, err = resource.Get(ctx, desired.GetName(), metav1.GetOptions{}); err == nil {
			got, err = patiently(ctx, apply)
		}
	}
	switch {
	case err == nil && Differs(desired, got) == "":
		return got, nil
	case err == nil:
		live = got
	case live == nil || !apierrors.IsInvalid(err):
		return nil, fmt.Errorf("apply %s: %w", name, err)
	}
	// What others added is still there, or does not go with what is ours.
	patch, err := replacement(desired, live)
	if err != nil {
		return nil, fmt.Errorf("replace %s: %w", name, err)
	}
	_, err = resource.Patch(ctx, desired.GetName(), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsInvalid(err) && fixed(desired, live) {
		err = resource.Delete(ctx, desired.GetName(), metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: new(live.GetUID())}, PropagationPolicy: new(metav1.DeletePropagationBackground),
		})
	}
	if err != nil {
		return nil, fmt.Errorf("replace %s: %w", name, err)
	}
	if got, err = patiently(ctx, apply); err != nil {
		return nil, fmt.Errorf("apply %s: %w", name, err)
	}
	if got, err = disown(ctx, resource, got); err != nil {
		return nil, fmt.Errorf("apply %s: %w", name, err)
	}
	if at := Differs(desired, got); at != "" {
		return nil, fmt.Errorf("apply %s: %s still differs", name, at)
	}
	return got, nil
}

// disown takes away the record of what we have set other than by applying. Of what replaced a
// stranger's values, our own is recorded as applied too, and the rest are defaults, which have
// nobody's name. With two records of ours a field would stay when a later version of this program
// no longer applies it.
func disown(ctx context.Context, resource dynamic.ResourceInterface, live *unstructured.Unstructured) (got *unstructured.Unstructured, err error) {
	// Whoever writes the status meanwhile is not to be undone, so it is for this version only. What was
	// replaced is rolled out just now, and its controller writes many times in a row: hence the pauses.
	var conflict error
	err = wait.ExponentialBackoffWithContext(ctx, pauses(), func(ctx context.Context) (bool, error) {
		entries, _, _ := unstructured.NestedSlice(live.Object, "metadata", "managedFields")
		kept := slices.DeleteFunc(slices.Clone(entries), func(entry any) bool {
			m, _ := entry.(map[string]any)
			return m["manager"] == FieldManager && m["operation"] != string(metav1.ManagedFieldsOperationApply) && m["subresource"] == nil
		})
		if len(kept) == len(entries) || len(kept) == 0 {
			got = live
			return true, nil
		}
		patch, err := json.Marshal([]operation{
			{Op: "add", Path: "/metadata/resourceVersion", Value: live.GetResourceVersion()},
			{Op: "add", Path: "/metadata/managedFields", Value: kept},
		})
		if err != nil {
			return false, err
		}
		got, conflict = resource.Patch(ctx, live.GetName(), types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
		if !apierrors.IsConflict(conflict) {
			return true, conflict
		}
		live, err = resource.Get(ctx, live.GetName(), metav1.GetOptions{})
		return false, err
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		err = conflict
	}
	return got, err
}

// asMade returns what of a claim can be applied: of one that is there, storage class and modes of
// access stay as they are, and its size can only grow, once it has a volume. Other objects are
// returned as they are.
func asMade(desired Object, live *unstructured.Unstructured) Object {
	if desired.GetKind() != kindClaim || live == nil {
		return desired
	}
	adapted := Object{Unstructured: desired.DeepCopy(), Resource: desired.Resource}
	for _, path := range [][]string{{"spec", "storageClassName"}, {"spec", "accessModes"}, storagePath()} {
		have, found, err := unstructured.NestedFieldCopy(live.Object, path...)
		if err != nil || !found {
			continue
		}
		if path[1] == "resources" && bound(live) && larger(desired, live) {
			continue
		}
		// The path is there in our own object.
		_ = unstructured.SetNestedField(adapted.Object, have, path...)
	}
	return adapted
}

func storagePath() []string { return []string{"spec", "resources", "requests", "storage"} }

// bound reports whether a claim has its volume.
func bound(claim *unstructured.Unstructured) bool {
	volume, _, _ := unstructured.NestedString(claim.Object, "spec", "volumeName")
	return volume != ""
}

// larger reports whether more storage is wanted than a claim has asked for.
func larger(desired Object, live *unstructured.Unstructured) bool {
	quantity := func(o *unstructured.Unstructured) (q apiresource.Quantity) {
		text, _, _ := unstructured.NestedString(o.Object, storagePath()...)
		q, _ = apiresource.ParseQuantity(text) // the API server has no others
		return q
	}
	want, have := quantity(desired.Unstructured), quantity(live)
	return want.Cmp(have) > 0
}

// patiently asks again, for some seconds, while the namespace's quota is not counted yet: a new
// one allows nothing until the controller manager has, and what was deleted counts until then.
func patiently(ctx context.Context, apply func(context.Context) (*unstructured.Unstructured, error)) (live *unstructured.Unstructured, err error) {
	// Its own error says only that the time is up.
	_ = wait.ExponentialBackoffWithContext(ctx, pauses(), func(ctx context.Context) (bool, error) {
		live, err = apply(ctx)
		return err == nil || !uncounted(err), nil
	})
	if err == nil && live == nil {
		err = context.Cause(ctx)
	}
	return live, err
}

// pauses are those between attempts to do what the cluster refuses for a moment: some seconds in all.
func pauses() wait.Backoff {
	return wait.Backoff{Duration: 20 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 12}
}

// uncounted reports whether a quota refused that may allow it in a moment. The API server
// tells it by the text alone.
func uncounted(err error) bool {
	return apierrors.IsForbidden(err) &&
		(strings.Contains(err.Error(), "status unknown for quota") || strings.Contains(err.Error(), "exceeded quota"))
}

// fixed reports whether an object can only be repaired by another one in its place: a part
// of it differs that the API server lets nobody change. An object that is refused for
// another reason must stay, or a mistake of ours would take away what works.
func fixed(desired Object, live *unstructured.Unstructured) bool {
	part := map[string][]string{"RoleBinding": {"roleRef"}, "Secret": {"type"}, "Deployment": {"spec", "selector"}}[desired.GetKind()]
	if part == nil {
		return false
	}
	want, _, _ := unstructured.NestedFieldNoCopy(desired.Object, part...)
	have, _, _ := unstructured.NestedFieldNoCopy(live.Object, part...)
	immutable, _, _ := unstructured.NestedBool(live.Object, "immutable")
	return immutable || !reflect.DeepEqual(want, have)
}

// operation is one of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// replacement is a JSON patch that puts desired's parts in the place of live's, and takes away
// those that desired has not. It is a patch and not an update: the right to patch is enough for
// both, and it does not mind that the status has changed meanwhile, as a Deployment's often has.
func replacement(desired Object, live *unstructured.Unstructured) ([]byte, error) {
	var patch []operation
	for _, key := range slices.Sorted(maps.Keys(live.Object)) {
		switch _, wanted := desired.Object[key]; {
		case slices.Contains([]string{"apiVersion", "kind", "metadata", "status"}, key):
		case key == "spec" && slices.Contains([]string{kindNamespace, kindClaim}, desired.GetKind()):
			// A namespace's has only what the cluster needs to delete it; a claim's cannot be changed.
		case !wanted:
			patch = append(patch, operation{Op: "remove", Path: "/" + key})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(desired.Object)) {
		if slices.Contains([]string{"apiVersion", "kind", "metadata"}, key) || desired.GetKind() == kindClaim {
			continue
		}
		patch = append(patch, operation{Op: "add", Path: "/" + key, Value: desired.Object[key]})
	}
	for _, label := range addedLabels(desired, live) {
		patch = append(patch, operation{Op: "remove", Path: "/metadata/labels/" + pointer(label)})
	}
	for _, key := range links(desired, live) {
		patch = append(patch, operation{Op: "remove", Path: "/metadata/" + key})
	}
	// Whoever set what is taken away now must not be named any more as who set what comes in
	// its place. An object whose record was lost has all of it in a stranger's name.
	managers, _, _ := unstructured.NestedSlice(live.Object, "metadata", "managedFields")
	managers = slices.DeleteFunc(managers, func(entry any) bool {
		m, _ := entry.(map[string]any)
		applied := m["manager"] == FieldManager && m["operation"] == string(metav1.ManagedFieldsOperationApply)
		return !applied && m["subresource"] == nil
	})
	if len(managers) == 0 {
		managers = []any{map[string]any{}} // an empty entry empties the record
	}
	patch = append(patch, operation{Op: "add", Path: "/metadata/managedFields", Value: managers})
	return json.Marshal(patch)
}

// pointer escapes a key for a JSON pointer (RFC 6901).
func pointer(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
