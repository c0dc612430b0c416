package operator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the Lease that the leader holds, in the namespace OperatorSpace.
const LeaseName = "openclaw-operator"

// ErrLost says that the process could not show in time that it still leads. Another one may
// lead by now, so it has to end.
var ErrLost = errors.New("the lease of the operator is lost")

// lookEvery is how often who does not lead reads the Lease, and who leads asks whether it is to be
// renewed, or tries again to.
const lookEvery = 5 * time.Second

// renewEvery is how long a Lease is good until it is renewed. By default that is less than one write to
// the cluster in a minute, which is all that is written while nothing changes.
func renewEvery(leaseFor time.Duration) time.Duration { return leaseFor / 3 }

// lease is the Lease, and what this process knows of it. The election alone would renew it as often as
// another one looks whether it is free, and would end the work only after it has tried to renew the Lease,
// and then to give it away, for longer than it is good.
type lease struct {
	resourcelock.Interface
	whole time.Duration
	ended <-chan struct{} // closed once nothing works any more

	mu      sync.Mutex
	renewed time.Time // when the last request was sent by which this process holds it
	holder  string    // whose it was when it was read last
}

// Get reads the Lease. A connection that hangs must not take the time of all attempts.
func (l *lease) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, l.attempt())
	defer cancel()
	r, text, err := l.Interface.Get(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder = ""; err == nil {
		l.holder = r.HolderIdentity
	}
	return r, text, err
}

// mine reports whether the Lease was this process's when it was read last.
func (l *lease) mine() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder == l.Identity()
}

// attempt is how long one request may take.
func (l *lease) attempt() time.Duration { return min(requestTimeout, l.whole/6) }

// Create makes the Lease.
func (l *lease) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	return l.write(ctx, r, l.Interface.Create)
}

// Update renews the Lease if it is time to, or gives it away; not before the work has ended, for the
// next one would begin beside it, and not what is another's by now: the election asks what it knows, which
// may be as old as the last renewal, but reads the Lease just before.
func (l *lease) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if r.HolderIdentity == "" {
		select {
		case <-l.ended:
		default:
			return errors.New("the lease is not given away before the work has ended")
		}
		if !l.mine() {
			return errors.New("the lease is another process's, and not given away")
		}
	}
	if r.HolderIdentity == l.Identity() && l.fresh() {
		return nil
	}
	return l.write(ctx, r, l.Interface.Update)
}

// fresh reports whether this process has renewed the Lease lately.
func (l *lease) fresh() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.renewed.IsZero() && time.Since(l.renewed) < renewEvery(l.whole)
}

func (l *lease) write(ctx context.Context, r resourcelock.LeaderElectionRecord, do func(context.Context, resourcelock.LeaderElectionRecord) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.attempt())
	defer cancel()
	sent := time.Now()
	err := do(ctx, r)
	if err == nil && r.HolderIdentity == l.Identity() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.renewed = sent
	}
	return err
}

// goodFor is how long the process may go on without renewing it.
func (l *lease) goodFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Until(l.renewed.Add(l.whole * 2 / 3))
}

// Run waits until no other process leads, and then makes boxes what they shall be, until ctx
// ends. It returns ErrLost if it may not lead any more: the caller must then end the process.
// Who has the identity of the one that led last, which was killed and did not give the Lease away, leads
// at once. It is called once.
func (o *Operator) Run(ctx context.Context) error {
	// The lease is given up once the work has ended, and not when it is told to.
	election, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	mine, lose := context.WithCancel(context.WithoutCancel(ctx))
	defer lose()
	var worked error
	began, ended := make(chan struct{}), make(chan struct{})
	lock := &lease{whole: o.opts.LeaseFor, ended: ended, Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: OperatorSpace, Name: LeaseName},
		Client:     o.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: o.opts.Identity},
	}}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: LeaseName, Lock: lock,
		LeaseDuration: o.opts.LeaseFor, RenewDeadline: o.opts.LeaseFor * 2 / 3, RetryPeriod: min(lookEvery, o.opts.LeaseFor*2/15),
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(began)
				defer giveUp()
				defer close(ended)
				leading, stop := context.WithCancel(leading)
				defer stop()
				defer context.AfterFunc(mine, stop)()
				worked = o.lead(ctx, leading)
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("operator: %w", err)
	}
	// Who does not lead has no work to end.
	defer context.AfterFunc(ctx, func() {
		select {
		case <-began:
		default:
			giveUp()
		}
	})()
	policies, stop := context.WithCancel(ctx)
	defer stop()
	go o.watchPolicy(policies)
	o.log.Info("waiting to lead", "identity", o.opts.Identity, "lease", OperatorSpace+"/"+LeaseName)
	elected := make(chan struct{})
	go func() {
		defer close(elected)
		elector.Run(election)
	}()
	select {
	case <-elected:
		select {
		case <-began:
		default:
			return nil // told to stop before it led
		}
	case <-began:
	}
	if lost := o.held(lock, elected, ended); !lost {
		<-elected // it is given away
		return worked
	}
	lose()
	giveUp()
	select {
	case <-ended:
	case <-time.After(o.opts.LeaseFor / 6):
		// By then the next one may lead; nothing of this process may go on.
	}
	return ErrLost
}

// held waits until the work has ended, or the lease must be taken for lost.
func (o *Operator) held(l *lease, elected, ended <-chan struct{}) (lost bool) {
	for {
		wait := l.goodFor()
		select {
		case <-ended:
			return false
		case <-elected:
			select {
			case <-ended:
				return false
			default:
				return true
			}
		case <-time.After(max(wait, 0)):
			if l.goodFor() <= 0 {
				return true
			}
		}
	}
}

// lead does what only one process may do, until ctx, which is that of the process, or leading ends.
func (o *Operator) lead(ctx, leading context.Context) error {
	o.log.Info("leading", "identity", o.opts.Identity)
	o.metrics.swept.SetToCurrentTime() // how long ago it was is counted from here
	o.metrics.leader.Set(1)
	defer o.metrics.leader.Set(0)
	running, stop := context.WithCancel(leading)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	beside := make(chan error, 1)
	go func() {
		if o.opts.WhileLeading == nil {
			beside <- nil
			return
		}
		err := o.opts.WhileLeading(running)
		if err != nil {
			stop()
		}
		beside <- err
	}()
	err := o.work(running, leading)
	stop()
	return errors.Join(err, <-beside)
}
