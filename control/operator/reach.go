package operator

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// refusedFor is how long the cluster may refuse what the box's RoleBinding, or a deleted
// object's place in the quota, should allow: both take effect a moment after the write.
const (
	refusedFor   = 10 * time.Second
	refusedPause = 100 * time.Millisecond
)

// stepOf names the step of an object.
func stepOf(kind string) string {
	return map[string]string{
		kindNamespace: StepNamespace, kindBinding: StepRights, kindAccount: StepAccount, kindSecret: StepSecret, kindLimits: StepLimits,
		kindPolicy: StepNetwork, kindClaim: StepState, kindQuota: StepQuota, kindDeployment: StepGateway,
	}[kind]
}

// apply makes all objects of the box what they shall be, but for the Secret's token nothing
// that is so already.
func (p *pass) apply(ctx context.Context, working bool) error {
	secrets, fresh, err := p.secrets()
	if err != nil {
		return err
	}
	objects, err := Objects(p.o.objects(), p.d, secrets)
	if err != nil {
		return errUnusable{err}
	}
	var ending error
	for _, object := range objects {
		err := p.put(ctx, object, working)
		if wait := (errEnds{}); errors.As(err, &wait) && object.GetKind() == kindClaim {
			// It goes only with the pod that has it, which goes by the Deployment.
			ending = wait.wait()
			continue
		}
		if wait := (errEnds{}); errors.As(err, &wait) {
			return wait.wait()
		}
		if _, waits := err.(errWait); err != nil && !waits && object.GetKind() == kindClaim { //nolint:errorlint // as put returns it
			return errClaim{err} // it is the last one
		}
		if err != nil {
			return err
		}
		// Now the Secret has it, and nothing else: if this process dies here, the token is one
		// that nobody knows, and the next makes another.
		if object.GetKind() == kindSecret && fresh {
			if err := p.do(StepToken, func() error { return p.register(ctx, secrets.ProxyToken) }); err != nil {
				return err
			}
		}
	}
	p.m.refusedSince = time.Time{}
	if p.d.Wants == control.BoxSuspend || p.v.gateway(p.d.Namespace) != nil && rolledOut(p.v.gateway(p.d.Namespace)) {
		return nil // which has what it needs, and the claim comes back when it is gone
	}
	return ending
}

// errClaim is why the claim, which only grows, is not what it shall be. The gateway runs or is
// stopped all the same.
type errClaim struct{ error }

func (e errClaim) Unwrap() error { return e.error }

// errEnds is an errWait for an object that is being deleted.
type errEnds struct{ what string }

func (e errEnds) Error() string { return e.what }

func (e errEnds) wait() errWait {
	return errWait{"a part of it is being deleted, and comes back after that", e.what}
}

// halt has the gateway run no more. It needs nothing of what the box shall be, so nothing that
// is wrong with that stands in its way.
func (p *pass) halt(ctx context.Context) error {
	live := p.v.get(kindDeployment, p.d.Namespace, GatewayName)
	if live == nil || live.GetDeletionTimestamp() != nil {
		return nil
	}
	if replicas, ok, err := unstructured.NestedInt64(live.Object, "spec", "replicas"); ok && err == nil && replicas == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resource, _ := resourceOf(live.GroupVersionKind())
	got, err := p.o.opts.Cluster.dynamic.Resource(resource).Namespace(p.d.Namespace).Patch(ctx, GatewayName, types.MergePatchType,
		[]byte(`{"spec":{"replicas":0}}`), metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsInvalid(err) {
		// The admission policy lets it be written only as it would be made today, and this one is
		// older, or was changed by somebody.
		uid := live.GetUID()
		if err = p.o.opts.Cluster.dynamic.Resource(resource).Namespace(p.d.Namespace).Delete(ctx, GatewayName, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: new(metav1.DeletePropagationBackground),
		}); err == nil {
			p.v.forget(kindDeployment, live)
			return nil
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop the gateway of box %s: %w", p.d.ID, err)
	}
	p.v.wrote(kindDeployment, got)
	return nil
}

// put makes one object what it shall be.
func (p *pass) put(ctx context.Context, want Object, working bool) error {
	step := stepOf(want.GetKind())
	live := p.v.get(want.GetKind(), want.GetNamespace(), want.GetName())
	if want.GetKind() == kindNamespace {
		var err error
		if live, err = p.space(ctx, want, live); err != nil {
			return err
		}
	}
	if live != nil && live.GetDeletionTimestamp() != nil {
		return errEnds{fmt.Sprintf("%s %s is being deleted, and comes back after that", want.GetKind(), want.GetName())}
	}
	at := Differs(want, live)
	if at == "" {
		p.finish(step, nil) // it was begun, and its answer lost
		return nil
	}
	// What somebody else has changed needs no place.
	anew := live != nil && live.GetAnnotations()[AnnotationApplied] != want.GetAnnotations()[AnnotationApplied]
	if !working && anew && want.GetKind() == kindDeployment && !p.o.mayRoll(p.d.ID) {
		p.waits = true
		return nil
	}
	p.step(step)
	err := p.write(ctx, want, live)
	if live == nil && overcounted(err) {
		if err := p.recount(ctx); err != nil {
			return err
		}
	}
	if want.GetKind() != kindClaim && p.refused(err) { // what a storage class refuses it refuses for good
		p.lookAfter(refusedPause)
		return errWait{"the cluster does not allow it yet", err.Error()}
	}
	p.finish(step, err)
	if err == nil && !working {
		p.o.metrics.repaired.WithLabelValues(want.GetKind()).Inc()
		p.o.log.Info("an object was not what it shall be, and is again", "box", p.d.ID, "kind", want.GetKind(), "differed", at)
	}
	return err
}

// write applies an object, whatever others have made of the fields that are ours.
func (p *pass) write(ctx context.Context, want Object, live *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	got, err := Apply(ctx, p.o.opts.Cluster.dynamic, want, live)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return errWait{what: "its namespace is being deleted, and comes back after that"}
	}
	if err != nil {
		return err
	}
	p.v.wrote(want.GetKind(), got)
	return nil
}

// refused reports whether an error is one that the cluster gives for a moment after the
// RoleBinding was made, or after an object was deleted whose place in the quota is not free yet.
func (p *pass) refused(err error) bool {
	if !apierrors.IsForbidden(err) {
		return false
	}
	now := time.Now()
	if p.m.refusedSince.IsZero() || now.Sub(p.m.refusedSince) > 10*refusedFor {
		p.m.refusedSince = now
	}
	return now.Sub(p.m.refusedSince) < refusedFor
}

// overcounted reports whether a quota refused something.
func overcounted(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota")
}

// recountEvery is how often the quota of a box may be made anew.
const recountEvery = 5 * time.Second

// recount has the box's quota made anew. The API server counts an object before it writes it, so
// one whose request was cut off, as by the end of the operator, counts for minutes although it is
// not there; and there is room for one of each only. A new quota counts what there is.
func (p *pass) recount(ctx context.Context) error {
	live := p.v.get(kindQuota, p.d.Namespace, LimitsName)
	if live == nil || time.Since(p.m.recounted) < recountEvery {
		return nil
	}
	p.m.recounted = time.Now()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	p.o.log.Warn("the quota of a box counts what is not there, and is made anew", "box", p.d.ID)
	resource, _ := resourceOf(live.GroupVersionKind())
	uid := live.GetUID()
	err := p.o.opts.Cluster.dynamic.Resource(resource).Namespace(p.d.Namespace).Delete(ctx, LimitsName, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete the quota of box %s: %w", p.d.ID, err)
	}
	p.v.forget(kindQuota, live)
	return nil // its end wakes the box
}

// Between touches of a Deployment.
const (
	nudgeMin = time.Second
	nudgeMax = 15 * time.Second
)

// AnnotationNudge stands at a Deployment that was touched to have its ReplicaSet try again.
const AnnotationNudge = "openclaw.cloud/nudge"

// nudge has the ReplicaSet of a gateway without a pod try again to make one. If a quota has refused it
// again and again, it waits longer after each refusal, up to a quarter of an hour. Each change of the ReplicaSet makes it try at once, and it takes over the
// annotations of its Deployment.
func (p *pass) nudge(ctx context.Context, live *appsv1.Deployment, pods []*corev1.Pod) error {
	if live == nil || live.Status.ObservedGeneration < live.Generation || len(alive(pods)) > 0 ||
		diagnose(live, nil).kind != troubleQuota {
		return nil
	}
	pause := min(nudgeMin<<min(p.m.nudges, 10), nudgeMax)
	if wait := p.m.nudged.Add(pause).Sub(p.now); wait > 0 {
		p.lookAfter(wait)
		return nil
	}
	p.m.nudged = p.now
	p.m.nudges++
	p.lookAfter(pause)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resource, _ := resourceOf(appsv1.SchemeGroupVersion.WithKind(kindDeployment))
	text := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, AnnotationNudge, p.now.UTC().Format(time.RFC3339Nano))
	got, err := p.o.opts.Cluster.dynamic.Resource(resource).Namespace(p.d.Namespace).Patch(ctx, GatewayName, types.MergePatchType,
		[]byte(text), metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) { // it is to be written whole, as it would be made today
		return nil
	}
	if err != nil {
		return fmt.Errorf("touch the gateway of box %s: %w", p.d.ID, err)
	}
	p.v.wrote(kindDeployment, got)
	return nil
}

// space looks at the box's namespace, which must not be anybody else's, and returns it, or nil.
func (p *pass) space(ctx context.Context, want Object, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if live == nil {
		// One that does not bear our label is not in view, and must not be taken over.
		p.step(StepNamespace)
		var err error
		live, err = p.o.opts.Cluster.dynamic.Resource(want.Resource).Get(ctx, want.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look at namespace %s: %w", want.GetName(), err)
		}
	}
	if err := p.mine(live); err != nil {
		return nil, err
	}
	return live, nil
}

// mine is an error if a namespace is not this box's. One without the label of any box is
// taken for one that lost it, if it was made by the operator.
func (p *pass) mine(ns *unstructured.Unstructured) error {
	owner := ns.GetLabels()[LabelBox]
	made := slices.ContainsFunc(ns.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == FieldManager })
	if owner == p.d.ID || owner == "" && made {
		return nil
	}
	if owner == "" {
		return fmt.Errorf("%w: namespace %s is there and was not made for a box; it is not touched", control.ErrConflict, ns.GetName())
	}
	return fmt.Errorf("%w: namespace %s is of box %s; it is not touched", control.ErrConflict, ns.GetName(), owner)
}

// secrets returns what the box's Secret shall hold. What it holds is kept if the box's token in it
// is registered, does not end, and is of the rotation that is wanted. A token that is not
// registered is never taken over: somebody may have put it there.
func (p *pass) secrets() (s Secrets, fresh bool, err error) {
	live, err := p.inSecret()
	if err == nil && live.Rotation == p.d.Rotation {
		if _, ok := p.registered(live.ProxyToken); ok {
			return Secrets{ProxyToken: live.ProxyToken, Rotation: live.Rotation, GatewayToken: live.GatewayToken}, false, nil
		}
	}
	// One that this process made and could not register yet is still good.
	if p.m.minted.Rotation == p.d.Rotation && p.m.minted.ProxyToken.Reveal() != "" {
		return p.m.minted, true, nil
	}
	if s, err = mint(p.d.Rotation); err != nil {
		return s, false, err
	}
	p.m.minted = s
	return s, true, nil
}

// inSecret reads the box's Secret; the error is control.ErrInvalid if it cannot be used.
func (p *pass) inSecret() (Secrets, error) {
	live := p.v.get(kindSecret, p.d.Namespace, ConfigName)
	if live == nil {
		return Secrets{}, fmt.Errorf("%w: there is no Secret", control.ErrInvalid)
	}
	return ReadSecrets(live)
}

// forgetBot takes a bot's token out of the Secret that the customer has taken away, so that it is not
// taken for the one that cannot be read later.
func (p *pass) forgetBot(ctx context.Context) error {
	if p.d.TelegramToken != "" || p.d.TelegramTokenError != nil || p.botInSecret() == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resource, _ := resourceOf(corev1.SchemeGroupVersion.WithKind(kindSecret))
	got, err := p.o.opts.Cluster.dynamic.Resource(resource).Namespace(p.d.Namespace).Patch(ctx, ConfigName, types.MergePatchType,
		[]byte(`{"data":{"`+EnvTelegramToken+`":null}}`), metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take the bot's token out of the Secret of box %s: %w", p.d.ID, err)
	}
	p.v.wrote(kindSecret, got)
	return nil
}

// botInSecret is the token of the Telegram bot that the gateway has, "" for none.
func (p *pass) botInSecret() secret.Text {
	live := p.v.get(kindSecret, p.d.Namespace, ConfigName)
	if live == nil {
		return ""
	}
	encoded, _, _ := unstructured.NestedString(live.Object, "data", EnvTelegramToken)
	token, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return ""
	}
	return secret.Text(token)
}

func mint(rotation int64) (Secrets, error) {
	token, err := contract.NewToken(rand.Reader)
	return Secrets{ProxyToken: token, Rotation: rotation, GatewayToken: secret.Text(rand.Text() + rand.Text())}, err
}

// registered finds a token among those of the box that stay good.
func (p *pass) registered(token contract.Token) (control.ProxyToken, bool) {
	digest := p.o.opts.Hasher.Digest([]byte(token.Reveal()))
	for _, t := range p.d.Tokens {
		if t.Digest == digest && t.EndsAt.IsZero() {
			return t, true
		}
	}
	return control.ProxyToken{}, false
}

// register makes the token in the Secret one that the proxies know.
func (p *pass) register(ctx context.Context, token contract.Token) error {
	t, err := p.o.opts.Books.RegisterToken(ctx, p.d.ID, token)
	if errors.Is(err, control.ErrConflict) {
		p.m.minted = Secrets{} // it was revoked, or ends: the next pass makes another
	}
	if err != nil {
		return fmt.Errorf("register the token of box %s: %w", p.d.ID, err)
	}
	p.d.Tokens = append(p.d.Tokens, t)
	p.m.minted = Secrets{}
	return nil
}

// revokeOthers has all tokens end but the one in the Secret, which the gateway has by now.
func (p *pass) revokeOthers(ctx context.Context) error {
	live, err := p.inSecret()
	if errors.Is(err, control.ErrInvalid) && p.d.Wants == control.BoxSuspend {
		return nil // it was stopped without having been made
	}
	if err != nil {
		return err
	}
	current, ok := p.registered(live.ProxyToken)
	if !ok {
		return errWait{what: "its token was changed meanwhile"} // which has woken the box
	}
	others := ""
	for _, t := range p.d.Tokens {
		if t.ID != current.ID && t.EndsAt.IsZero() {
			others += " " + t.ID
		}
	}
	if others == "" || p.m.revoked == others {
		return nil
	}
	err = p.do(StepRevoke, func() error { return p.o.opts.Books.RevokeTokens(ctx, p.d.ID, current.ID, p.o.opts.Overlap) })
	if err != nil {
		return fmt.Errorf("have the old tokens of box %s end: %w", p.d.ID, err)
	}
	p.m.revoked = others
	return nil
}

// away reports whether an error says that the API server does not answer, or has no time.
func away(err error) bool {
	if err == nil {
		return false
	}
	var wait errWait
	if errors.As(err, &wait) {
		return false
	}
	var unusable errUnusable
	if errors.As(err, &unusable) {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return !errors.Is(err, control.ErrConflict) && !errors.Is(err, control.ErrInvalid)
	}
	code := status.Status().Code
	return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests
}
