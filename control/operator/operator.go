package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/workqueue"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Options are what an Operator needs. Times that are 0 get the defaults that are named.
type Options struct {
	Books   Books
	Cluster *Cluster
	Hasher  *contract.Hasher // under the pepper that the proxies have
	Objects ObjectOptions    // what all boxes have in common
	Logger  *slog.Logger
	// Registerer gets the metrics, if it is not nil.
	Registerer prometheus.Registerer

	// Identity names this process among those that want to lead; no two that live may have the same. Who
	// comes after one that was killed, and has its name, need not wait until its Lease is over.
	Identity string
	// LeaseFor is how long a leader that says nothing is believed to live; 5 m by default. It is renewed
	// three times in that, which is all that is written while nothing changes.
	LeaseFor time.Duration
	// WhileLeading runs beside the operator while it leads, until its ctx ends; it may be nil.
	// If it returns an error, so does Run.
	WhileLeading func(ctx context.Context) error

	// PolicyInForce looks whether the admission policy is in force that limits the operator's rights
	// to boxes. It is asked at the start and then every SweepEvery. While it returns an error the
	// process is not ready, and does not begin to work; what it has begun it goes on with. It may
	// be nil.
	PolicyInForce func(ctx context.Context, client kubernetes.Interface) error

	// Mute has boxes made too that nobody can write to: without a bot, or people who may. Otherwise
	// they wait for what is missing. Objects.Render must know what to do with them.
	Mute bool

	Workers    int           // boxes that are worked on at once; 8 by default
	SweepEvery time.Duration // how often to look for boxes that nobody told of; 1 m by default
	// SweepAll is how often each box is looked at, whether anything changed or not; 10 m by default.
	SweepAll time.Duration
	// PlacedWithin is how long a box may take, once it is worked on, until it has all its objects,
	// and then until its pod runs: it needs a node and the image, but not the time that the pod before
	// it takes to end; 5 m by default.
	PlacedWithin time.Duration
	// ReadyWithin is how long a gateway that runs may take until it is ready; by default
	// openclaw.GivenUpAfter, which is when the kubelet has given it up. A shorter time is for tests, in
	// which nothing really starts: see CheckReadyWithin.
	ReadyWithin time.Duration
	// EndWithin is how long a gateway gets to end that is not replaced: of a box that is suspended or
	// destroyed, or that does not answer; 30 s by default. It has whole seconds.
	EndWithin time.Duration
	// HealthEvery is how often gateways are checked that should be ready; 5 m by default. The
	// third check in a row that finds one down makes it unhealthy, and has its pod restarted.
	HealthEvery time.Duration
	// Overlap is how long an old proxy token is good once the gateway runs with the new one; 1 m by default.
	Overlap time.Duration
	// RetryMin and RetryMax are how long a box that could not be provisioned waits until that
	// is tried again: RetryMin after the first failure, twice as long after each further one;
	// 5 m and 1 h by default.
	RetryMin, RetryMax time.Duration
	// BackoffMax is the longest pause between attempts after errors; 30 s by default.
	BackoffMax time.Duration
	// ForceAfter is how long a pod may be ending on a node that is gone, beyond EndWithin, until it
	// is removed by force; 1 m by default.
	ForceAfter time.Duration
	// LostAfter is how long a node must be silent to be taken for lost; 5 m by default. One of which it
	// is known that it is gone, or that bears the taint out-of-service, is lost at once.
	LostAfter time.Duration
	// Rolling is how many gateways that run may be replaced at once for what nobody decided about
	// their boxes: another image, or another version of this program. One that does not become
	// ready keeps its place, so a bad image stops after so many boxes. 10 by default.
	Rolling int
}

// CheckReadyWithin says what is wrong with an Options.ReadyWithin for gateways that really start: the
// kubelet must have given one up before the operator does.
func CheckReadyWithin(d time.Duration) error {
	if d < openclaw.GivenUpAfter {
		return fmt.Errorf("%s is too short: a gateway that starts has %s until its probes give it up, and must not be failed while it may still come up; use %s or more",
			d, openclaw.StartupLimit, openclaw.GivenUpAfter)
	}
	return nil
}

// strikesOut is how many health checks in a row have to find a gateway down.
const strikesOut = 3

func (o *Options) complete() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("operator: "+what+" is missing"))
		}
	}
	need(o.Books != nil, "Books")
	need(o.Cluster != nil, "Cluster")
	need(o.Hasher != nil, "Hasher")
	need(o.Logger != nil, "Logger")
	need(o.Identity != "", "Identity")
	if o.Workers <= 0 {
		o.Workers = 8
	}
	if o.Rolling <= 0 {
		o.Rolling = 10
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.LeaseFor, 5 * time.Minute}, {&o.SweepEvery, time.Minute}, {&o.SweepAll, 10 * time.Minute},
		{&o.PlacedWithin, 5 * time.Minute}, {&o.ReadyWithin, openclaw.GivenUpAfter}, {&o.EndWithin, 30 * time.Second}, {&o.LostAfter, 5 * time.Minute}, {&o.HealthEvery, 5 * time.Minute}, {&o.Overlap, time.Minute},
		{&o.RetryMin, 5 * time.Minute}, {&o.RetryMax, time.Hour}, {&o.BackoffMax, 30 * time.Second},
		{&o.ForceAfter, time.Minute},
	} {
		if *d.value < 0 {
			errs = append(errs, errors.New("operator: a time is negative"))
		}
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	o.RetryMax = max(o.RetryMax, o.RetryMin)
	if o.Books != nil {
		o.Books = timedBooks{o.Books}
	}
	return errors.Join(errs...)
}

// Operator makes boxes what they shall be while it leads. It is safe for concurrent use.
type Operator struct {
	opts    Options
	client  kubernetes.Interface
	log     *slog.Logger
	metrics *metrics
	memos   memos

	mu    sync.Mutex
	queue workqueue.TypedRateLimitingInterface[string] // nil while it does not lead
	read  bool                                         // it leads, and has read what there is in the cluster
	// policy is why the policy is not taken to be in force; nil if it is.
	policy error
	// addresses are the cluster's own, which gateways must not reach, and seen what they are made of;
	// see ClusterAddresses.
	addresses []netip.Prefix
	seen      lastSeen
	// unseen is why addresses could not be read when that was tried last; nil if they could.
	unseen error
	places places
	// orphans are the namespaces that were told of.
	orphans map[string]bool
}

// Check says what is wrong with the options.
func (o ObjectOptions) Check() error { return o.withDefaults().check() }

// Note says whether this process leads, for whoever asks whether it is ready.
func (o *Operator) Note() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.queue == nil:
		return "another process leads, or none yet"
	case !o.read:
		return "this process leads, and reads what there is in the cluster"
	}
	return "this process leads"
}

// New returns an Operator; Run has it work.
func New(opts Options) (*Operator, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	o := &Operator{opts: opts, client: opts.Cluster.client, log: opts.Logger, orphans: make(map[string]bool)}
	o.places.taken = make(map[string]bool)
	if opts.PolicyInForce != nil {
		o.policy = errors.New("it is not known yet whether the operator's rights are limited to boxes")
	}
	var err error
	o.metrics, err = newMetrics(opts.Registerer, opts.Cluster, o.depth)
	return o, err
}

// Wake has a box looked at soon, if this process leads. It never waits. Whoever is not
// heard is made up for by the sweep.
func (o *Operator) Wake(boxID string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queue != nil {
		o.queue.Add(boxID)
	}
}

func (o *Operator) depth() float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queue == nil {
		return 0
	}
	return float64(o.queue.Len())
}

// finishWithin is how long the passes in hand may take after the process was told to end.
const finishWithin = 5 * time.Second

// work does all that the leader does, until ctx ends. The passes in hand are finished after that,
// unless leading has ended: then nothing may be written any more.
func (o *Operator) work(ctx, leading context.Context) error {
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, o.opts.BackoffMax))
	v, err := newView(o.opts.Cluster, o.Wake, o.log)
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.queue, o.unseen = queue, nil
	o.mu.Unlock()
	// Before the queue ends, so that nobody waits for it in vain.
	var workers sync.WaitGroup
	defer func() {
		o.mu.Lock()
		o.queue, o.read = nil, false
		o.mu.Unlock()
		queue.ShutDown()
		workers.Wait()
	}()
	if o.limited(ctx) != nil || v.run(ctx) != nil || o.surroundings(ctx, v) != nil {
		return nil // told to stop
	}
	o.takePlaces(v)
	o.mu.Lock()
	o.read = true
	o.mu.Unlock()
	if o.takeBooks(ctx) != nil {
		return nil
	}
	ctx, fence := context.WithCancelCause(ctx)
	defer fence(nil)
	passes, stop := context.WithCancel(leading)
	defer stop()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), control.ErrFenced) {
			stop()
			return
		}
		select {
		case <-passes.Done():
		case <-time.After(finishWithin):
			stop()
		}
	})()
	for range o.opts.Workers {
		workers.Go(func() {
			for o.next(ctx, passes, queue, v, fence) {
			}
		})
	}
	var beside sync.WaitGroup
	beside.Go(func() { o.sweep(ctx, queue, v) })
	beside.Go(func() { o.checkHealth(ctx, v) })
	beside.Wait()
	// Before the contexts of the passes end.
	queue.ShutDown()
	workers.Wait()
	if err := context.Cause(ctx); errors.Is(err, control.ErrFenced) {
		return errors.Join(ErrLost, err)
	}
	return nil
}

// takeBooks reads the books once, or waits until ctx ends: whoever led before writes nothing into
// them after that.
func (o *Operator) takeBooks(ctx context.Context) error {
	for {
		_, err := o.opts.Books.Unfinished(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		o.log.Warn("cannot read which boxes there are, so they stay as they are", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(o.opts.SweepEvery, 5*time.Second)):
		}
	}
}

// next works on the next box that was woken. The queue hands out a box to one worker at a
// time; who is woken meanwhile is handed out again.
// fence ends all of them if another operator has begun to lead.
func (o *Operator) next(ctx, passes context.Context, queue workqueue.TypedRateLimitingInterface[string], v *view, fence func(error)) bool {
	id, over := queue.Get()
	if over {
		return false
	}
	defer queue.Done(id)
	if ctx.Err() != nil {
		return false
	}
	began := time.Now()
	again, err := o.reconcile(passes, v, id)
	o.metrics.reconciled(time.Since(began), err)
	if errors.Is(err, control.ErrFenced) {
		fence(err)
	}
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		o.log.Warn("cannot bring a box where it shall be, and will try again", "box", id, "attempts", queue.NumRequeues(id)+1, "error", err)
		queue.AddRateLimited(id)
		return true
	}
	queue.Forget(id)
	if again > 0 {
		queue.AddAfter(id, again)
	}
	return true
}

// passLimit bounds a pass, whatever does not answer.
const passLimit = 3 * time.Minute

// reconcile is one pass over a box. It says after how long to look again although nothing
// happened; 0 is not at all.
func (o *Operator) reconcile(ctx context.Context, v *view, id string) (again time.Duration, err error) {
	// A panic costs this box a pass, and no other box anything.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
			o.log.Error("BUG: a pass over a box panicked", "box", id, "panic", r, "stack", string(debug.Stack()), "alert", true)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, passLimit)
	defer cancel()
	d, err := o.opts.Books.Desired(ctx, id)
	if errors.Is(err, control.ErrNotFound) {
		// Nothing is deleted for it: the books may be those of a backup. See lookForOrphans.
		o.memos.forget(id)
		o.rolled(id)
		return 0, nil
	}
	if err != nil {
		if m := o.memos.find(id); m != nil {
			m.op.pause(time.Now())
		}
		return 0, err
	}
	m := o.memos.get(id)
	m.known(d.State, d.Namespace)
	p := &pass{o: o, v: v, d: d, m: m, now: time.Now()}
	err = p.run(ctx)
	return p.again, err
}
