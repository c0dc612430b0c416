package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// pass is one look at a box: what it shall be, what there is, and one attempt at the
// difference. It never waits: what takes time wakes the box when it is done, or again says
// when to look.
type pass struct {
	o   *Operator
	v   *view
	d   control.DesiredBox
	m   *memo
	now time.Time
	// again is after how long to look although nothing happened; 0 is not at all.
	again time.Duration
	// waits says that the gateway is of an earlier version of this program or another image, and that
	// others are replaced first.
	waits bool
	// note is what is to be said of a box that is as it shall be, to its customer too.
	note string
}

// errWait says that something has to happen first, which will wake the box. what is for customers too,
// and detail for operators; see said.
type errWait struct{ what, detail string }

func (e errWait) Error() string {
	if e.detail == "" {
		return e.what
	}
	return e.what + ": " + e.detail
}

// errUnusable says that nothing can be made of what a box shall be. It stays so until that is
// changed.
type errUnusable struct{ error }

func (e errUnusable) Unwrap() error { return e.error }

func (p *pass) run(ctx context.Context) error {
	if p.d.State == control.BoxDestroyed || p.d.Wants == control.BoxDestroy {
		return p.destroy(ctx)
	}
	if p.d.State == control.BoxFailed && p.d.Observed == p.d.Generation {
		if wait := p.untilRetry(); wait > 0 {
			p.lookAfter(wait)
			return p.compensate(ctx)
		}
	}
	if waits := p.lacks(); waits != "" && p.d.Wants == control.BoxRun {
		return p.await(ctx, waits)
	}
	return p.keep(ctx)
}

// lacks says what must be given until a box can run, "" if nothing. A bot's token that cannot be
// read is taken from the Secret, where it was written when it could.
func (p *pass) lacks() string {
	if p.d.TelegramTokenError != nil {
		p.d.TelegramToken = p.botInSecret()
		if p.d.TelegramToken == "" {
			p.lookAfter(p.o.opts.SweepEvery)
			return "waiting until the token of its Telegram bot can be read"
		}
		p.note = "the token of its Telegram bot cannot be read; it stays what it was"
	}
	if p.o.opts.Mute {
		return ""
	}
	return p.d.WaitsFor
}

// await has no gateway run until what is missing was given, which wakes the box.
func (p *pass) await(ctx context.Context, waits string) error {
	p.m.op = activity{}
	p.o.rolled(p.d.ID)
	if err := errors.Join(p.end(ctx), p.forgetBot(ctx)); err != nil {
		return err
	}
	if p.d.State == control.BoxPending && p.d.Observed == p.d.Generation && p.d.Message == waits {
		return nil
	}
	return p.report(ctx, control.BoxPending, said{text: waits})
}

// end has no gateway run, and does not give it the time to finish that one has which is replaced.
func (p *pass) end(ctx context.Context) error {
	if err := p.halt(ctx); err != nil {
		return err
	}
	pods := p.v.pods(p.d.Namespace)
	return errors.Join(p.hurry(ctx, pods, false), p.forceLost(ctx, pods), p.clear(ctx, pods))
}

// keep makes a box that runs or is suspended what it shall be.
func (p *pass) keep(ctx context.Context) error {
	ns := p.v.get(kindNamespace, "", p.d.Namespace)
	working := !settled(p.d.Box) || p.d.Wants == control.BoxRun && (ns == nil || ns.GetDeletionTimestamp() != nil)
	if working {
		if err := p.begin(ctx, ns); err != nil {
			return err
		}
	} else if p.m.op.name != "" {
		p.m.op = activity{} // it was ended by a report whose answer was lost
	}
	lost := p.forceLost(ctx, p.v.pods(p.d.Namespace))
	var halted error
	if p.d.Wants == control.BoxSuspend && ns != nil {
		// Whatever is wrong with its other objects must not keep it running.
		halted = p.halt(ctx)
	}
	err := p.apply(ctx, working)
	var claim errClaim
	if err == nil || errors.As(err, &claim) {
		err = both(p.judge(ctx, working), lost)
		if claim.error != nil && away(claim) {
			err = both(err, claim)
		}
		p.toldOfClaim(claim.error)
		working = working && p.m.op.name != ""
	} else if p.d.Wants == control.BoxSuspend {
		err = both(err, both(halted, p.hurry(ctx, p.v.pods(p.d.Namespace), false)))
	}
	if err == nil {
		return nil
	}
	return p.obstacle(ctx, working, err)
}

// toldOfClaim tells once of a claim that is not what it shall be: nothing is gained by trying
// again soon what a storage class does not allow.
func (p *pass) toldOfClaim(err error) {
	text := ""
	if err != nil {
		text = err.Error()
		p.lookAfter(p.o.opts.SweepAll)
		if p.m.claim != text {
			p.o.log.Error("the volume of a box cannot be what it shall be; it stays what it is", "box", p.d.ID, "error", err, "alert", true)
		}
	}
	p.m.claim = text
}

// both joins two errors, either of which may be nil. What only waits does so alone: with an error
// beside it the pass is tried again.
func both(a, b error) error {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	return errors.Join(a, b)
}

// obstacle deals with what keeps a box from what it shall be. A provision that has had its
// time ends with it; anything else waits, or is tried again.
func (p *pass) obstacle(ctx context.Context, working bool, err error) error {
	if ctx.Err() != nil {
		return err
	}
	provisions := working && p.m.op.state == control.BoxProvisioning
	var unusable errUnusable
	if working && errors.As(err, &unusable) {
		if p.d.Wants == control.BoxSuspend {
			// What is wrong with its settings must not keep it running.
			if err := p.halt(ctx); err != nil {
				return err
			}
			return p.judge(ctx, working)
		}
		return p.fail(ctx, trouble{troubleConfig, err.Error()}) // time changes nothing of it
	}
	if away(err) {
		p.m.op.pause(time.Now())
	} else if provisions && p.overdue() {
		return p.fail(ctx, trouble{troubleCluster, err.Error()})
	}
	message := said{p.d.Message, p.d.Detail}
	if working {
		message = said{}
	}
	if working && p.overdue() {
		// It is tried on: what is refused today may be allowed tomorrow.
		message = said{forCustomers(troubleStuck), err.Error()}
		p.late(message.detail)
	}
	wait, waits := err.(errWait) // and nothing beside it
	if !waits {
		return errors.Join(err, p.progress(ctx, message))
	}
	if provisions {
		p.lookAfter(p.untilOverdue())
	}
	if working {
		message = say(wait)
	}
	return p.progress(ctx, message)
}

// begin says that something is being done to the box.
func (p *pass) begin(ctx context.Context, ns *unstructured.Unstructured) error {
	state := control.BoxUpdating
	var name string
	switch {
	case p.d.Wants == control.BoxSuspend && p.d.State == control.BoxSuspended:
		name = opUpdate
	case p.d.Wants == control.BoxSuspend:
		name = opSuspend
	case p.d.State == control.BoxSuspended:
		name, state = opResume, control.BoxProvisioning
	case p.d.State == control.BoxProvisioning && p.m.op.name == opResume:
		name, state = opResume, control.BoxProvisioning // it was changed meanwhile
	case ns == nil || p.d.State == control.BoxPending || p.d.State == control.BoxProvisioning || p.d.State == control.BoxFailed:
		name, state = opProvision, control.BoxProvisioning
	default:
		name = p.kindOfUpdate()
	}
	if p.m.op.name == "" || p.m.op.generation != p.d.Generation {
		p.m.op = activity{name: name, generation: p.d.Generation, started: p.now, since: time.Now(), state: state}
		p.m.steps = steps{}
	}
	if p.d.State == p.m.op.state && p.d.Observed == p.d.Generation {
		return nil
	}
	return p.report(ctx, p.m.op.state, said{})
}

// kindOfUpdate tells what a change of a running box is, by what there is.
func (p *pass) kindOfUpdate() string {
	if live := p.v.get(kindSecret, p.d.Namespace, ConfigName); live != nil && live.GetAnnotations()[AnnotationRotation] != decimal(p.d.Rotation) {
		return opRotate
	}
	if d := p.v.gateway(p.d.Namespace); d != nil && d.Spec.Template.Annotations[AnnotationRestart] != decimal(p.d.Restart) {
		return opRestart
	}
	return opUpdate
}

// judge looks at what became of the gateway once all objects are as they shall be.
func (p *pass) judge(ctx context.Context, working bool) error {
	live := p.v.gateway(p.d.Namespace)
	pods := p.v.pods(p.d.Namespace)
	if p.d.Wants == control.BoxSuspend {
		if !stopped(live, pods) {
			return p.stopping(ctx, live, pods)
		}
		if err := p.clear(ctx, pods); err != nil {
			return err
		}
		return p.arrived(ctx, control.BoxSuspended, StepStopped, working)
	}
	if rolledOut(live) {
		p.m.strike(true)
		p.m.failures, p.m.nudges = 0, 0
		if err := p.clear(ctx, pods); err != nil {
			return err
		}
		return p.arrived(ctx, control.BoxActive, StepReady, working || p.d.State == control.BoxUnhealthy)
	}
	if err := p.nudge(ctx, live, pods); err != nil {
		return err
	}
	if !working {
		return p.down(ctx, live, pods)
	}
	p.step(StepReady)
	t := diagnose(live, pods)
	if t.kind == troubleQuota && len(alive(pods)) == 0 {
		// There is room for one pod, and there is none.
		if err := p.recount(ctx); err != nil {
			return err
		}
	}
	p.m.op.watch(time.Now(), live, pods)
	if p.overdue() {
		if t.text == "" {
			t.text = p.slow()
		}
		return p.fail(ctx, t)
	}
	p.lookAfter(p.untilOverdue())
	return p.progress(ctx, t.said())
}

// stopping waits for the pods of a gateway that shall not run.
func (p *pass) stopping(ctx context.Context, live *appsv1.Deployment, pods []*corev1.Pod) error {
	p.step(StepStopped)
	// Pods that the Deployment does not know are left by whoever deletes it without them.
	stray := live == nil || live.Status.ObservedGeneration >= live.Generation && live.Status.Replicas == 0
	if err := p.hurry(ctx, pods, stray); err != nil {
		return err
	}
	if !p.overdue() {
		p.lookAfter(p.untilOverdue())
		return p.progress(ctx, said{})
	}
	t := diagnose(live, pods)
	if t.text == "" {
		t.text = "the gateway has not ended yet"
	}
	p.late(t.text)
	return p.progress(ctx, t.said())
}

// arrived notes that a box is what it shall be.
func (p *pass) arrived(ctx context.Context, state control.BoxState, step string, working bool) error {
	p.finish(step, nil)
	if !p.waits {
		p.o.rolled(p.d.ID)
		// Not while the gateway may still have one of them.
		if err := p.revokeOthers(ctx); err != nil {
			return err
		}
	}
	if !working {
		return p.progress(ctx, said{text: p.note}) // steps of a repair
	}
	r := p.reportOf(state, said{text: p.note})
	if p.m.op.name != "" {
		r.Operation, r.Took = p.m.op.name, max(time.Since(p.m.op.started), time.Microsecond)
	}
	if err := p.send(ctx, r); err != nil {
		return err
	}
	if r.Operation != "" {
		p.o.metrics.operations.WithLabelValues(r.Operation, "done").Inc()
		p.o.log.Info("a box is what it shall be", "box", p.d.ID, "operation", r.Operation, "state", state, "generation", p.d.Generation, "took", r.Took)
	} else {
		p.o.log.Info("a box has recovered", "box", p.d.ID, "state", state)
	}
	p.m.op = activity{}
	return nil
}

// fail ends an operation that could not be done. A box that was to be provisioned is taken
// down again; one that ran before is left as it is, for its pod may still come up.
func (p *pass) fail(ctx context.Context, t trouble) error {
	state := control.BoxUnhealthy
	if p.m.op.state == control.BoxProvisioning {
		state = control.BoxFailed
		p.o.rolled(p.d.ID)
		if err := p.compensate(ctx); away(err) {
			p.m.op.pause(time.Now())
			return err
		} else if err != nil {
			// It is level-triggered: whoever sees the failed box next tries again.
			p.o.log.Warn("what is left of a failed box could not be taken down yet", "box", p.d.ID, "error", err)
		}
	}
	p.finish(StepReady, t)
	r := p.reportOf(state, t.said())
	r.Operation, r.Took, r.Failure = p.m.op.name, max(time.Since(p.m.op.started), time.Microsecond), t.text
	if err := p.send(ctx, r); err != nil {
		return err
	}
	p.o.metrics.failed.WithLabelValues(t.kind).Inc()
	p.o.metrics.operations.WithLabelValues(r.Operation, "failed").Inc()
	p.o.log.Error("a box could not be brought where it shall be", "box", p.d.ID, "operation", r.Operation, "state", state, "cause", t.kind, "message", t.text, "alert", true)
	p.m.op = activity{}
	if state == control.BoxFailed {
		p.m.failures++
		p.lookAfter(p.o.opts.retryAfter(p.m.failures))
	}
	return nil
}

// retryAfter is the pause after so many failed provisions in a row.
func (o *Options) retryAfter(failures int) time.Duration {
	pause := o.RetryMin
	for range failures - 1 {
		if pause *= 2; pause >= o.RetryMax {
			return o.RetryMax
		}
	}
	return pause
}

// untilRetry is how long a failed box still waits. The number of failures is forgotten when the
// process ends, which makes the next pause the shortest.
func (p *pass) untilRetry() time.Duration {
	return p.d.ChangedAt.Add(p.o.opts.retryAfter(max(p.m.failures, 1))).Sub(p.now)
}

// compensate takes down what is left of a provision that failed: no gateway, no good token.
func (p *pass) compensate(ctx context.Context) error {
	if err := p.end(ctx); err != nil {
		return err
	}
	if len(p.d.Tokens) == 0 {
		return nil
	}
	if err := p.o.opts.Books.RevokeTokens(ctx, p.d.ID, "", 0); err != nil {
		return fmt.Errorf("revoke the tokens of a failed box: %w", err)
	}
	return nil
}

// down deals with a gateway that should be ready, and is not although nothing is being done.
func (p *pass) down(ctx context.Context, live *appsv1.Deployment, pods []*corev1.Pod) error {
	strikes := p.m.struck()
	if !p.m.due(strikes) {
		return p.progress(ctx, said{p.d.Message, p.d.Detail})
	}
	t := diagnose(live, pods)
	if t.text == "" {
		t = trouble{troubleProbe, "the gateway is not ready"}
	}
	begins := p.d.State != control.BoxUnhealthy
	if about := t.said(); begins || about != (said{p.d.Message, p.d.Detail}) {
		if err := p.report(ctx, control.BoxUnhealthy, about); err != nil {
			return err
		}
	}
	if begins {
		p.o.metrics.unhealthy.Inc()
		p.o.log.Error("a gateway is unhealthy, and its pod is restarted", "box", p.d.ID, "cause", t.kind, "message", t.text, "alert", true)
	}
	grace := int64(p.o.opts.EndWithin / time.Second)
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		if err := p.deletePod(ctx, pod, &grace); err != nil {
			return err
		}
	}
	p.m.dealt = strikes
	return p.hurry(ctx, pods, false)
}

// lookAfter has the box looked at after d, if not earlier.
func (p *pass) lookAfter(d time.Duration) {
	d = max(d, time.Millisecond)
	if p.again == 0 || d < p.again {
		p.again = d
	}
}
