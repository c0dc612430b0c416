package operator

import (
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
)

const (
	gatewayUser = 1000
	container   = "gateway" // the pod's only one
	tmpMiB      = 512
)

// Annotations of the gateway's pods. A Deployment rolls only if its pod template changes, and
// what is in a Secret is no part of it; these are.
const (
	AnnotationConfigHash  = "openclaw.cloud/config-hash"
	AnnotationSecretsHash = "openclaw.cloud/secrets-hash" // #nosec G101 -- a name
	AnnotationRestart     = "openclaw.cloud/restart"
)

// deployment runs the gateway, or none if the box is to be suspended.
//
// The old pod goes before the new one comes: the quota has room for one only, and two
// gateways with the same bot would take each other's messages.
//
// A pod on a node that is lost is given up after 30 seconds, not after the 5 minutes that
// Kubernetes gives by default.
func (b *builder) deployment() *appsv1.Deployment {
	replicas := int32(0)
	if b.box.Wants == control.BoxRun {
		replicas = 1
	}
	selector := map[string]string{"app.kubernetes.io/name": GatewayName}
	meta := b.meta(GatewayName)
	maps.Copy(meta.Labels, selector)
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "Deployment"},
		ObjectMeta: meta,
		Spec: appsv1.DeploymentSpec{
			Replicas:                &replicas,
			Selector:                &metav1.LabelSelector{MatchLabels: selector},
			Strategy:                appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			RevisionHistoryLimit:    new(int32(1)),
			ProgressDeadlineSeconds: new(seconds(openclaw.GivenUpAfter)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{
					Labels: maps.Clone(meta.Labels),
					Annotations: map[string]string{
						AnnotationConfigHash:  hashOfBytes(map[string][]byte{ConfigFile: b.config}),
						AnnotationSecretsHash: hashOfBytes(b.secretEnvironment()),
						AnnotationRestart:     decimal(b.box.Restart),
					},
				},
				Spec: b.pod(),
			},
		},
	}
}

// pod is what Pod Security's profile restricted allows, and less: the file system is
// read-only, and nothing of the API server or of Services is shown to the gateway.
func (b *builder) pod() corev1.PodSpec {
	lost := func(what string) corev1.Toleration {
		return corev1.Toleration{
			Key: what, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(30)),
		}
	}
	return corev1.PodSpec{
		ServiceAccountName:            GatewayName,
		AutomountServiceAccountToken:  new(false),
		EnableServiceLinks:            new(false),
		TerminationGracePeriodSeconds: new(int64(seconds(openclaw.GracePeriod))),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(int64(gatewayUser)), RunAsGroup: new(int64(gatewayUser)), FSGroup: new(int64(gatewayUser)),
			FSGroupChangePolicy: new(corev1.FSGroupChangeOnRootMismatch),
			SeccompProfile:      &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Tolerations: []corev1.Toleration{lost(corev1.TaintNodeNotReady), lost(corev1.TaintNodeUnreachable)},
		Volumes:     b.volumes(),
		Containers:  []corev1.Container{b.container()},
	}
}

func (b *builder) container() corev1.Container {
	return corev1.Container{
		Name:  container,
		Image: b.o.Image,
		// Whatever the image would start, what was measured and tried is this.
		Command:    []string{openclaw.Node},
		Args:       openclaw.Command(b.o.Main),
		WorkingDir: openclaw.WorkDir,
		Env:        b.environment(),
		Ports:      []corev1.ContainerPort{{Name: "gateway", ContainerPort: openclaw.Port, Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{
			Requests: b.with(resources(b.box.Tier.PodRequests)),
			Limits:   b.with(resources(b.box.Tier.PodLimits)),
		},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			RunAsNonRoot:             new(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{
			// Mounted by its path the file stays what the pod was made with; in a whole volume
			// it would change under the gateway.
			{Name: "config", MountPath: openclaw.ConfigFile, SubPath: ConfigFile, ReadOnly: true},
			{Name: "state", MountPath: openclaw.DataDir},
			{Name: "tmp", MountPath: openclaw.TempDir},
		},
		StartupProbe:   startupProbe(),
		ReadinessProbe: probe(openclaw.ReadinessPath, 5, 3),
		LivenessProbe:  killing(probe(openclaw.LivenessPath, 20, 6)),
	}
}

func seconds(d time.Duration) int32 { return int32(d / time.Second) } // #nosec G115 -- minutes

// probe asks every period seconds, and gives up after so many failures in a row. A gateway
// that works hard within its limit of CPU may take seconds to answer.
func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(openclaw.Port)}},
		PeriodSeconds:    period,
		TimeoutSeconds:   5,
		FailureThreshold: failures,
	}
}

// startupProbe gives a start up after StartupLimit. One that hangs must not count for more than its
// period, or the kubelet would wait for several times the limit.
func startupProbe() *corev1.Probe {
	const period = 3
	p := killing(probe(openclaw.ReadinessPath, period, seconds(openclaw.StartupLimit)/period))
	p.TimeoutSeconds = period
	return p
}

// killing gives a gateway little time to end that a probe finds to hang: it does not hear SIGTERM.
func killing(p *corev1.Probe) *corev1.Probe {
	p.TerminationGracePeriodSeconds = new(int64(openclaw.ShortGrace / time.Second))
	return p
}

// environment is the gateway's. Secrets are in it by reference only.
func (b *builder) environment() []corev1.EnvVar {
	zone := b.box.Settings.TimeZone
	if zone == "" {
		zone = "UTC"
	}
	var env []corev1.EnvVar
	for _, v := range openclaw.Environment(openclaw.DataDir, openclaw.ConfigFile, zone, b.box.Tier.PodLimits.MemoryMiB) {
		env = append(env, corev1.EnvVar{Name: v.Name, Value: v.Value})
	}
	for _, key := range slices.Sorted(maps.Keys(b.secretEnvironment())) {
		env = append(env, corev1.EnvVar{Name: key, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: ConfigName}, Key: key,
		}}})
	}
	return env
}

func (b *builder) volumes() []corev1.Volume {
	state := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: mebibytes(b.o.StateMiB)}}
	if b.o.StorageClass != "" {
		state = corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: StateName}}
	}
	return []corev1.Volume{
		{Name: "config", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName:  ConfigName,
			Items:       []corev1.KeyToPath{{Key: ConfigFile, Path: ConfigFile}},
			DefaultMode: new(int32(0o440)),
		}}},
		{Name: "state", VolumeSource: state},
		{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: mebibytes(tmpMiB)}}},
	}
}

// claim is the volume that outlives the gateway's pods. Only one node can have it at a time, so the pod
// of a node that is lost must be known to be gone before another one gets it.
func (b *builder) claim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: b.meta(StateName),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: &b.o.StorageClass,
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: *mebibytes(b.o.StateMiB)},
			},
		},
	}
}
