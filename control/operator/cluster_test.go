package operator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// guarded is the control plane of this test process, with the operator's rights in it.
type guarded struct {
	*testenv.KubernetesServer
	Admin    dynamic.Interface
	Operator dynamic.Interface     // with the rights of the operator's ServiceAccount
	Typed    *kubernetes.Clientset // the same
}

func newGuarded(t *testing.T) guarded {
	t.Helper()
	k := testenv.Kubernetes(t)
	rights, err := AccessFor(testOptions())
	if err != nil {
		t.Fatal(err)
	}
	for _, manifest := range []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: platform}\n", rights} {
		if err := k.Apply(manifest); err != nil {
			t.Fatal(err)
		}
	}
	operator := restConfig(t, k.ServiceAccountKubeconfig(OperatorSpace, OperatorName))
	g := guarded{KubernetesServer: k, Admin: dynamicClient(t, restConfig(t, k.Kubeconfig)), Operator: dynamicClient(t, operator)}
	if g.Typed, err = kubernetes.NewForConfig(operator); err != nil {
		t.Fatal(err)
	}
	return g
}

func restConfig(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1 // no limit
	return config
}

func dynamicClient(t *testing.T, config *rest.Config) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// boxSpace returns a name for the namespace of a box that no other has.
func boxSpace() string { return NamespaceStart + strings.ToLower(rand.Text()) }

// box returns a box with a namespace of its own, which is deleted when the test ends.
func (g guarded) box(t *testing.T, tier string) control.DesiredBox {
	t.Helper()
	box := testBox(t, tier)
	box.Namespace = boxSpace()
	t.Cleanup(func() { g.Kubectl("delete", "namespace", box.Namespace, "--wait=false", "--ignore-not-found") })
	return box
}

// make applies all objects of a box as the operator, and returns them with what there is then.
func (g guarded) make(t *testing.T, o ObjectOptions, box control.DesiredBox) []Object {
	t.Helper()
	objects := build(t, o, box, testSecrets(t))
	for _, object := range objects {
		retry(t, func(ctx context.Context) error {
			_, err := Apply(ctx, g.Operator, object, nil)
			return err
		})
	}
	return objects
}

// live reads an object as the administrator, since some kinds the operator can only watch.
func (g guarded) live(t *testing.T, object Object) *unstructured.Unstructured {
	t.Helper()
	live, err := g.Admin.Resource(object.Resource).Namespace(object.GetNamespace()).Get(t.Context(), object.GetName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return live
}

// manifest writes an object as JSON, without what only the server sets.
func manifest(v any) string {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(v)
	if err != nil {
		return err.Error() // which is no manifest
	}
	delete(content, "status")
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	text, err := json.Marshal(content)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// object reads what manifest wrote. Kinds that are no box's are known too.
func object(t *testing.T, text string) Object {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	resource, _ := resourceOf(o.GroupVersionKind())
	if resource.Resource == "" {
		resource.Resource = strings.ToLower(o.GetKind()) + "s"
	}
	return Object{Unstructured: o, Resource: resource}
}
