package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the Lease that the leader holds.
const LeaseName = "openclaw-operator"

// ErrLost says that the process could not show in time that it still leads. Another one may
// lead by now, so it has to end.
var ErrLost = errors.New("the lease of the operator is lost")

// Run waits until no other process leads, and then makes boxes what they shall be, until ctx
// ends. It returns ErrLost if it may not lead any more: the caller must then end the process.
// It is called once.
func (o *Operator) Run(ctx context.Context) error {
	// The lease is given up once the work has ended, and not when it is told to.
	election, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	var worked error
	began, ended := make(chan struct{}), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: LeaseName,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: o.opts.Namespace, Name: LeaseName},
			Client:     o.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: o.opts.Identity},
		},
		LeaseDuration: o.opts.LeaseFor, RenewDeadline: o.opts.LeaseFor * 2 / 3, RetryPeriod: o.opts.LeaseFor * 2 / 15,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(began)
				defer close(ended)
				defer giveUp()
				leading, stop := context.WithCancel(leading)
				defer stop()
				defer context.AfterFunc(ctx, stop)()
				worked = o.lead(leading)
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
	o.log.Info("waiting to lead", "identity", o.opts.Identity, "lease", o.opts.Namespace+"/"+LeaseName)
	elector.Run(election)
	select {
	case <-began:
	default:
		return nil // told to stop before it led
	}
	lost := election.Err() == nil
	select {
	case <-ended:
	case <-time.After(o.opts.LeaseFor / 6):
		// By then the next one may lead; nothing of this process may go on.
		return ErrLost
	}
	if lost {
		return ErrLost
	}
	return worked
}

// lead does what only one process may do.
func (o *Operator) lead(ctx context.Context) error {
	o.log.Info("leading", "identity", o.opts.Identity)
	o.metrics.leader.Set(1)
	defer o.metrics.leader.Set(0)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	beside := make(chan error, 1)
	go func() {
		if o.opts.WhileLeading == nil {
			beside <- nil
			return
		}
		err := o.opts.WhileLeading(ctx)
		if err != nil {
			stop()
		}
		beside <- err
	}()
	err := o.work(ctx)
	stop()
	return errors.Join(err, <-beside)
}
