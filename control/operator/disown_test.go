package operator

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// busy is a Deployment whose status somebody writes before each of the first so many patches.
type busy struct {
	dynamic.ResourceInterface
	conflicts, patches int
	end                context.CancelFunc // is called when they are over, if it is there
}

func (b *busy) Get(ctx context.Context, name string, _ metav1.GetOptions, _ ...string) (*unstructured.Unstructured, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	o := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"managedFields": []any{
		map[string]any{"manager": FieldManager, "operation": string(metav1.ManagedFieldsOperationApply)},
		map[string]any{"manager": FieldManager, "operation": string(metav1.ManagedFieldsOperationUpdate)},
	}}}}
	o.SetName(name)
	return o, nil
}

func (b *busy) Patch(_ context.Context, name string, _ types.PatchType, _ []byte, _ metav1.PatchOptions, _ ...string) (*unstructured.Unstructured, error) {
	if b.patches++; b.patches <= b.conflicts {
		if b.patches == b.conflicts && b.end != nil {
			b.end()
		}
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "deployments"}, name, errors.New("it was written meanwhile"))
	}
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetName(name)
	return o, nil
}

// A controller that writes the status of what is repaired many times in a row makes no repair fail;
// one that never stops, and an end meanwhile, are told for what they are.
func TestDisown(t *testing.T) {
	t.Parallel()
	disowned := func(ctx context.Context, b *busy) error {
		live, err := b.Get(t.Context(), "x", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := disown(ctx, b, live)
		if (got == nil) != (err != nil) {
			t.Errorf("after %d conflicts: %v and %v", b.conflicts, got, err)
		}
		return err
	}
	if err := disowned(t.Context(), &busy{conflicts: 8}); err != nil {
		t.Errorf("after some conflicts: %v", err)
	}
	b := &busy{conflicts: 1000}
	if err := disowned(t.Context(), b); !apierrors.IsConflict(err) || b.patches > 20 {
		t.Errorf("conflicts without end: %v after %d attempts", err, b.patches)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := disowned(ctx, &busy{conflicts: 3, end: cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("the end meanwhile: %v", err)
	}
}
