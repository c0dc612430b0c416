package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Books is what operators do to the ledger: look after what was parked, compare the
// totals with the events, give up a replica. Whatever changes something is in the
// audit log under the name of its actor. It is safe for concurrent use, also while
// any number of Ledgers run.
type Books struct {
	Store *store.Store
	Redis redis.UniversalClient
	// Leases frees what lost replicas held. Until it is set nothing is freed.
	Leases LeaseReleaser
}

// LeaseReleaser frees what a replica that was declared lost leased of its customers'
// limits; see limits.Records. It may be called again, and then frees what is left.
type LeaseReleaser interface {
	// GiveUp returns all that was freed so far.
	GiveUp(ctx context.Context, replica string) ([]control.Released, error)
}

// ErrUnacknowledged says that what was recorded is safe, but that the replicas do not
// know yet: a running Ledger tells them within seconds of Redis' return.
var ErrUnacknowledged = errors.New("recorded, but the replicas do not know yet")

// Replay decodes a dead letter again and records what it holds, exactly once, also
// where it has been recorded meanwhile. A single event that is refused again is
// control.ErrInvalid, says why, and stays parked. Of a whole entry, each event that is
// refused is parked by itself and returned. With ErrUnacknowledged it is done.
func (b *Books) Replay(ctx context.Context, actor string, id int64) (control.Recorded, error) {
	d, err := b.Store.DeadLetter(ctx, id)
	if err != nil {
		return control.Recorded{}, fmt.Errorf("replay: %w", err)
	}
	var decoded batch
	switch {
	case d.Index >= 0:
		decoded.addEvent(d.StreamID, d.Index, d.Replica, d.Payload)
	default:
		decoded.add(entry{id: d.StreamID, fields: map[string]any{contract.UsageField: string(d.Payload)}})
	}
	if len(decoded.deliveries) == 0 && len(decoded.dead) == 1 && decoded.dead[0].Index == d.Index {
		return control.Recorded{}, fmt.Errorf("replay dead letter %d: %w: refused again: %s", id, control.ErrInvalid, decoded.dead[0].Reason)
	}
	recorded, err := b.Store.ReplayDeadLetter(ctx, actor, id, decoded.deliveries, decoded.dead)
	if err != nil {
		return control.Recorded{}, err
	}
	return recorded, b.acknowledge(ctx, recorded.Acked)
}

// acknowledge publishes what replicas may forget.
func (b *Books) acknowledge(ctx context.Context, acked map[string]int64) error {
	if err := PublishAcked(ctx, b.Redis, acked); err != nil {
		return fmt.Errorf("%w: %w", ErrUnacknowledged, err)
	}
	return nil
}

// Drop marks a dead letter as one that will never be recorded. The reason is required.
// The event keeps its number, so that those behind it are acknowledged.
func (b *Books) Drop(ctx context.Context, actor string, id int64, reason string) error {
	if reason == "" {
		return fmt.Errorf("drop dead letter %d: %w: a reason is required", id, control.ErrInvalid)
	}
	return b.Store.DropDeadLetter(ctx, actor, id, reason)
}

// Lost is what DeclareLost did.
type Lost struct {
	control.Replica
	// Released is how many weighted tokens of its leases were freed in all; nil if nothing
	// frees them.
	Released *int64 `json:"released_tokens"`
	// Settled is how many of the tokens that it leased it had used without settling them;
	// they are settled now.
	Settled int64              `json:"settled_tokens"`
	Leases  []control.Released `json:"leases"`
}

// DeclareLost records that a replica's journal will not come back, and frees what the
// replica held. Whatever its journal held and was not sent is then lost. Declaring it
// again changes neither time nor reason, and frees what is still held: so it can be
// repeated after an error.
func (b *Books) DeclareLost(ctx context.Context, actor, replica, reason string) (Lost, error) {
	if reason == "" {
		return Lost{}, fmt.Errorf("declare replica lost: %w: a reason is required", control.ErrInvalid)
	}
	var out Lost
	err := b.Store.InTx(ctx, func(tx *store.Tx) error {
		r, err := tx.LockReplica(ctx, replica)
		if err != nil {
			return err
		}
		if r.Status != control.ReplicaLost {
			r.Status, r.LostAt, r.LostReason = control.ReplicaLost, time.Now().UTC().Truncate(time.Microsecond), reason
			if err := tx.SetReplicaLost(ctx, replica, reason, r.LostAt); err != nil {
				return err
			}
			if err := tx.AddAudit(ctx, control.Audit{
				Actor: actor, Action: "ledger.declare_lost", Target: replica,
				Detail: map[string]any{"reason": reason, "acked_seq": r.Acked, "highest_seq": r.Highest, "last_seen": r.LastSeen},
			}); err != nil {
				return err
			}
		}
		out.Replica = r
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("declare replica lost: %w", err)
	}
	if b.Leases == nil {
		return out, nil
	}
	if out.Leases, err = b.Leases.GiveUp(ctx, replica); err != nil {
		return out, fmt.Errorf("replica %s is declared lost, but what it leased is not freed; repeat the command: %w", replica, err)
	}
	out.Released = new(int64)
	for _, l := range out.Leases {
		*out.Released += l.Freed
		out.Settled += l.Settled
	}
	return out, nil
}
