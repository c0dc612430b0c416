package operator

import (
	"context"
	"errors"
	"time"
)

// policyAgain is how soon the policy is looked for again that is not in force.
const policyAgain = 5 * time.Second

var errUnread = errors.New("what there is in the cluster is not read yet")

// Ready is an error while the process cannot do, or should not do, what it is for.
func (o *Operator) Ready() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queue == nil {
		return o.policy // only who leads looks around
	}
	err := errors.Join(o.unseen, o.policy)
	if !o.read {
		err = errors.Join(errUnread, err)
	}
	return err
}

// watchPolicy looks whether the operator's rights are limited as they should be, until ctx ends.
func (o *Operator) watchPolicy(ctx context.Context) {
	if o.opts.PolicyInForce == nil {
		return
	}
	for {
		err := o.checkPolicy(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := o.opts.SweepEvery
		if err != nil {
			pause = min(pause, policyAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (o *Operator) checkPolicy(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := o.opts.PolicyInForce(limited, o.client)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	o.mu.Lock()
	before := o.policy
	o.policy = err
	o.mu.Unlock()
	if err != nil {
		// Of an API server that does not answer it is not known; without it nobody makes boxes anyway.
		if errors.Is(err, ErrNoPolicy) {
			o.metrics.policy.Set(0)
		}
		if before == nil || before.Error() != err.Error() {
			o.log.Error("nothing is seen that limits the operator's rights to boxes", "error", err, "alert", true)
		}
		return err
	}
	o.metrics.policy.Set(1)
	if before != nil {
		o.log.Info("the operator's rights are limited to boxes")
	}
	return nil
}

// limited waits until the policy is in force, or ctx ends.
func (o *Operator) limited(ctx context.Context) error {
	for {
		o.mu.Lock()
		err := o.policy
		o.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
