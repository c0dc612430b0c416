package operator

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// The kinds of a box's objects.
const (
	kindNamespace  = "Namespace"
	kindBinding    = "RoleBinding"
	kindAccount    = "ServiceAccount"
	kindQuota      = "ResourceQuota"
	kindLimits     = "LimitRange"
	kindPolicy     = "NetworkPolicy"
	kindSecret     = "Secret"
	kindClaim      = "PersistentVolumeClaim"
	kindDeployment = "Deployment"
)

// ownFor is how long an object that this process has written, and that the watch has not shown
// yet, is taken to be there. The watch mostly takes milliseconds.
const ownFor = 10 * time.Second

// view is what there is in the cluster, as far as it is known: the caches of the watches, and
// over them what this process has written and they do not show yet. Without the latter each
// pass would write again what the one before it has written. It is safe for concurrent use;
// what it returns must not be changed.
type view struct {
	informers map[string]cache.SharedIndexInformer // by kind, of unstructured objects
	podsSeen  cache.SharedIndexInformer            // of *corev1.Pod
	wake      func(boxID string)
	log       *slog.Logger

	mu  sync.Mutex
	own map[string]written // by kind and key
}

type written struct {
	object  *unstructured.Unstructured
	expires time.Time
}

// followed are the kinds that are watched, and by which name: a right to watch this one name
// suffices then.
func followed() []struct {
	kind schema.GroupVersionKind
	name string // "" for those with the label of a box
} {
	v1 := schema.GroupVersion{Version: "v1"}
	return []struct {
		kind schema.GroupVersionKind
		name string
	}{
		{v1.WithKind(kindNamespace), ""},
		{schema.GroupVersion{Group: "rbac.authorization.k8s.io", Version: "v1"}.WithKind(kindBinding), BindingName},
		{v1.WithKind(kindAccount), GatewayName},
		{v1.WithKind(kindQuota), LimitsName},
		{v1.WithKind(kindLimits), LimitsName},
		{schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}.WithKind(kindPolicy), IsolationName},
		{v1.WithKind(kindSecret), ConfigName},
		{v1.WithKind(kindClaim), StateName},
		{appsv1.SchemeGroupVersion.WithKind(kindDeployment), GatewayName},
	}
}

func newView(cluster *Cluster, wake func(boxID string), log *slog.Logger) (*view, error) {
	v := &view{informers: make(map[string]cache.SharedIndexInformer), wake: wake, log: log, own: make(map[string]written)}
	byLabel := LabelManagedBy + "=" + ManagedBy
	for _, f := range followed() {
		resource, ok := resourceOf(f.kind)
		if !ok {
			return nil, fmt.Errorf("watch: kind %s is not one of a box's", f.kind.Kind)
		}
		only := func(o *metav1.ListOptions) {
			if f.name == "" {
				o.LabelSelector = byLabel
			} else {
				o.FieldSelector = "metadata.name=" + f.name
			}
		}
		all := cluster.dynamic.Resource(resource)
		source := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				only(&o)
				return all.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				only(&o)
				return all.Watch(ctx, o)
			},
		}, cluster.dynamic)
		informer, err := v.informer(f.kind.Kind, source, &unstructured.Unstructured{})
		if err != nil {
			return nil, err
		}
		v.informers[f.kind.Kind] = informer
	}
	source := cache.ToListWatcherWithWatchListSemantics(cache.NewFilteredListWatchFromClient(cluster.client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll,
		func(o *metav1.ListOptions) { o.LabelSelector = byLabel }), cluster.client)
	var err error
	if v.podsSeen, err = v.informer("Pod", source, &corev1.Pod{}); err == nil {
		err = v.podsSeen.SetTransform(podAsRead)
	}
	return v, err
}

// podAsRead keeps of a pod what is read of it.
func podAsRead(o any) (any, error) {
	if pod, ok := o.(*corev1.Pod); ok {
		pod.ManagedFields, pod.Annotations = nil, nil
		pod.Spec = corev1.PodSpec{NodeName: pod.Spec.NodeName}
	}
	return o, nil
}

func (v *view) informer(kind string, source cache.ListerWatcher, example runtime.Object) (cache.SharedIndexInformer, error) {
	informer := cache.NewSharedIndexInformer(source, example, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		v.log.Warn("the watch of the cluster was interrupted, and is begun again", "kind", kind, "error", err)
	})
	if err == nil {
		_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { v.changed(kind, o, false) },
			UpdateFunc: func(before, o any) {
				v.changed(kind, o, false)
				v.changed(kind, before, false) // should it have lost the label
			},
			DeleteFunc: func(o any) { v.changed(kind, o, true) },
		})
	}
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", kind, err)
	}
	return informer, nil
}

// run follows the cluster until ctx ends. It returns once all is read, or ctx has ended.
func (v *view) run(ctx context.Context) error {
	go v.podsSeen.RunWithContext(ctx)
	unread := []cache.InformerSynced{v.podsSeen.HasSynced}
	for _, informer := range v.informers {
		go informer.RunWithContext(ctx)
		unread = append(unread, informer.HasSynced)
	}
	said := time.Now()
	for _, synced := range unread {
		for !synced() {
			if time.Since(said) > 10*time.Second {
				said = time.Now()
				v.log.Warn("waiting to have read what there is in the cluster")
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// changed wakes the box that an object belongs to.
func (v *view) changed(kind string, o any, deleted bool) {
	if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	obj, ok := o.(metav1.Object)
	if !ok {
		return
	}
	if deleted {
		v.forget(kind, obj)
	}
	if id := v.boxOf(obj); id != "" {
		v.wake(id)
	}
}

// boxOf returns the box whose namespace an object is or lies in, or "".
func (v *view) boxOf(obj metav1.Object) string {
	if id := obj.GetLabels()[LabelBox]; id != "" {
		return id
	}
	if ns := v.get(kindNamespace, "", obj.GetNamespace()); ns != nil {
		return ns.GetLabels()[LabelBox]
	}
	return ""
}

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// get returns an object, or nil if there is none.
func (v *view) get(kind, namespace, name string) *unstructured.Unstructured {
	k := key(namespace, name)
	var cached *unstructured.Unstructured
	if o, ok, _ := v.informers[kind].GetIndexer().GetByKey(k); ok { // it has no error to return
		cached, _ = o.(*unstructured.Unstructured)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	own, ok := v.own[kind+" "+k]
	if !ok {
		return cached
	}
	if cached == nil && time.Now().Before(own.expires) || cached != nil && newer(own.object, cached) {
		return own.object
	}
	delete(v.own, kind+" "+k)
	return cached
}

// wrote notes what the cluster answered to a write.
func (v *view) wrote(kind string, obj *unstructured.Unstructured) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.own[kind+" "+key(obj.GetNamespace(), obj.GetName())] = written{obj, time.Now().Add(ownFor)}
}

// forget drops what was written of an object that was deleted.
func (v *view) forget(kind string, obj metav1.Object) {
	k := kind + " " + key(obj.GetNamespace(), obj.GetName())
	v.mu.Lock()
	defer v.mu.Unlock()
	if own, ok := v.own[k]; ok && own.object.GetUID() == obj.GetUID() {
		delete(v.own, k)
	}
}

// newer reports whether a is a later state than b. Resource versions grow over all objects
// of a cluster.
func newer(a, b metav1.Object) bool {
	x, errA := strconv.ParseUint(a.GetResourceVersion(), 10, 64)
	y, errB := strconv.ParseUint(b.GetResourceVersion(), 10, 64)
	return errA == nil && errB == nil && x > y
}

// pods returns the pods in a namespace.
func (v *view) pods(namespace string) []*corev1.Pod {
	list, err := v.podsSeen.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil // the index is there
	}
	var out []*corev1.Pod
	for _, o := range list {
		if pod, ok := o.(*corev1.Pod); ok {
			out = append(out, pod)
		}
	}
	return out
}

// namespaces returns all namespaces of boxes.
func (v *view) namespaces() []metav1.Object {
	var out []metav1.Object
	for _, o := range v.informers[kindNamespace].GetIndexer().List() {
		if ns, ok := o.(metav1.Object); ok {
			out = append(out, ns)
		}
	}
	return out
}

// gateway returns a box's deployment, or nil.
func (v *view) gateway(namespace string) *appsv1.Deployment {
	live := v.get(kindDeployment, namespace, GatewayName)
	if live == nil {
		return nil
	}
	var d appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, &d); err != nil {
		v.log.Error("a deployment cannot be read", "namespace", namespace, "error", err)
		return nil
	}
	return &d
}
