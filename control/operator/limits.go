package operator

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/andreabadesso/openclaw-cloud/control"
)

func resources(r control.PodResources) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(r.CPUMillis, resource.DecimalSI),
		corev1.ResourceMemory: *mebibytes(r.MemoryMiB),
	}
}

// logsMiB is what the kubelet keeps of a container's log, and some room beside.
const logsMiB = 128

// diskMiB is what a pod may take of its node's disk: its temporary files, its log, and the state
// if no volume of its own keeps that.
func (b *builder) diskMiB() int64 {
	disk := int64(tmpMiB + logsMiB)
	if b.o.StorageClass == "" {
		disk += b.o.StateMiB
	}
	return disk
}

// with adds the disk. What is asked for is what is allowed, so that a node's disk is never promised
// twice: who fills it has other boxes' pods evicted.
func (b *builder) with(list corev1.ResourceList) corev1.ResourceList {
	list[corev1.ResourceEphemeralStorage] = *mebibytes(b.diskMiB())
	return list
}

func mebibytes(n int64) *resource.Quantity { return resource.NewQuantity(n<<20, resource.BinarySI) }

// quota allows exactly the box's objects: one pod of the tier's size, and of the other kinds
// what is ours and what the cluster itself puts into each namespace. So nothing can be reached
// from outside by a Service, and no second NetworkPolicy can open what the first one closes.
// ReplicaSets are not counted: those of roll-outs that failed stay until one succeeds.
func (b *builder) quota() *corev1.ResourceQuota {
	tier := b.box.Tier
	hard := corev1.ResourceList{
		corev1.ResourceRequestsCPU:    *resource.NewMilliQuantity(tier.PodRequests.CPUMillis, resource.DecimalSI),
		corev1.ResourceRequestsMemory: *mebibytes(tier.PodRequests.MemoryMiB),
		corev1.ResourceLimitsCPU:      *resource.NewMilliQuantity(tier.PodLimits.CPUMillis, resource.DecimalSI),
		corev1.ResourceLimitsMemory:   *mebibytes(tier.PodLimits.MemoryMiB),

		corev1.ResourceRequestsEphemeralStorage: *mebibytes(b.diskMiB()),
		corev1.ResourceLimitsEphemeralStorage:   *mebibytes(b.diskMiB()),
	}
	claims := int64(0)
	if b.o.StorageClass != "" {
		claims = 1
	}
	hard[corev1.ResourceRequestsStorage] = *mebibytes(claims * b.o.StateMiB)
	for name, n := range map[corev1.ResourceName]int64{
		corev1.ResourcePods:                            1,
		corev1.ResourceServices:                        0,
		corev1.ResourceServicesLoadBalancers:           0,
		corev1.ResourceServicesNodePorts:               0,
		corev1.ResourceSecrets:                         1,
		corev1.ResourceConfigMaps:                      5, // certificate authorities, by the cluster
		corev1.ResourcePersistentVolumeClaims:          claims,
		corev1.ResourceReplicationControllers:          0,
		"count/serviceaccounts":                        2, // ours, and default
		"count/deployments.apps":                       1,
		"count/statefulsets.apps":                      0,
		"count/daemonsets.apps":                        0,
		"count/jobs.batch":                             0,
		"count/cronjobs.batch":                         0,
		"count/ingresses.networking.k8s.io":            0,
		"count/networkpolicies.networking.k8s.io":      1,
		"count/roles.rbac.authorization.k8s.io":        0,
		"count/rolebindings.rbac.authorization.k8s.io": 1,
	} {
		hard[name] = *resource.NewQuantity(n, resource.DecimalSI)
	}
	return &corev1.ResourceQuota{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ResourceQuota"},
		ObjectMeta: b.meta(LimitsName),
		Spec:       corev1.ResourceQuotaSpec{Hard: hard},
	}
}

// limitRange gives a container without requests and limits the tier's, and lets none have more. It
// says nothing about the claim, which the quota bounds: a claim that is larger than what is wanted
// now could not even be labelled.
func (b *builder) limitRange() *corev1.LimitRange {
	most := b.with(resources(b.box.Tier.PodLimits))
	items := []corev1.LimitRangeItem{
		{
			Type: corev1.LimitTypeContainer, Max: most,
			Default: maps.Clone(most), DefaultRequest: b.with(resources(b.box.Tier.PodRequests)),
		},
		{Type: corev1.LimitTypePod, Max: maps.Clone(most)},
	}
	return &corev1.LimitRange{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "LimitRange"},
		ObjectMeta: b.meta(LimitsName),
		Spec:       corev1.LimitRangeSpec{Limits: items},
	}
}
