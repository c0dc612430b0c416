package limits

import (
	"context"
	"slices"

	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// found writes the epoch that is to be built, and returns the replicas that go on while it is.
func (k *Keeper) found(ctx context.Context, l *store.Leader, epoch int64, servers []string) (going []string, err error) {
	// One that is declared lost meanwhile goes on as well. Not after its leases were freed.
	timed, cancel := context.WithTimeout(ctx, k.opts.Grace+graceMargin)
	defer cancel()
	members, err := l.Members(timed, epoch)
	if err != nil {
		return nil, err
	}
	var lost []string
	for _, m := range members {
		if m.Lost {
			lost = append(lost, m.ID)
		} else {
			going = append(going, m.ID)
		}
	}
	if err := k.quota.Begin(timed, epoch, servers, going, lost); err != nil {
		return nil, err
	}
	return going, k.quota.SetGrace(timed, epoch, k.opts.Grace)
}

// declare ends the making of records. Those of the replicas that went on meanwhile which were
// declared lost since are told now, and so may use what they lease for a grace from now on,
// whatever was noted before.
func (k *Keeper) declare(ctx context.Context, l *store.Leader, epoch int64, bases map[string]int64, going []string) error {
	members, err := l.Members(ctx, epoch)
	if err != nil {
		return err
	}
	live := make(map[string]bool, len(members))
	var lost []string
	for _, m := range members {
		if live[m.ID] = !m.Lost; m.Lost {
			delete(bases, m.ID)
			lost = append(lost, m.ID)
		}
	}
	late := slices.DeleteFunc(going, func(id string) bool { return live[id] })
	if len(late) > 0 {
		// Should another process note just now that one was told, that it was is not further
		// away than the margin.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, graceMargin)
		defer cancel()
		if err := l.Unshut(ctx, late); err != nil {
			return err
		}
		lost = append(lost, late...)
	}
	faultpoint.At("epoch.declare.before")
	if err := k.quota.Declare(ctx, epoch, bases, lost); err != nil {
		return err
	}
	faultpoint.At("epoch.declare.after")
	return nil
}
