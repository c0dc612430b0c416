package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

func deadLetter(d control.Delivery, reason string) control.DeadLetter {
	return control.DeadLetter{
		StreamID: d.StreamID, Index: d.Index, Replica: d.Event.Replica, Seq: d.Event.Seq, Payload: d.Payload, Reason: reason,
	}
}

func parkDeadLetters(ctx context.Context, tx pgx.Tx, dead []control.DeadLetter) error {
	if len(dead) == 0 {
		return nil
	}
	ids, payloads, reasons := make([]string, len(dead)), make([][]byte, len(dead)), make([]string, len(dead))
	indexes := make([]int32, len(dead))
	replicas, seqs := make([]*string, len(dead)), make([]*int64, len(dead))
	for i, d := range dead {
		ids[i], indexes[i], payloads[i] = d.StreamID, int32(d.Index), d.Payload // #nosec G115 -- an index within one entry of the stream
		if payloads[i] == nil {
			payloads[i] = []byte{}
		}
		reasons[i] = strings.ReplaceAll(strings.ToValidUTF8(d.Reason, "\uFFFD"), "\x00", "\uFFFD")
		if validNumber(d.Replica, d.Seq) {
			replicas[i], seqs[i] = &dead[i].Replica, &dead[i].Seq
		}
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO dead_letters (stream_id, batch_index, payload, reason, replica, seq)
		SELECT * FROM unnest($1::text[], $2::integer[], $3::bytea[], $4::text[], $5::text[], $6::bigint[])
			AS d (stream_id, batch_index, payload, reason, replica, seq)
		ORDER BY replica, seq, stream_id, batch_index
		ON CONFLICT DO NOTHING`, ids, indexes, payloads, reasons, replicas, seqs)
	if err != nil {
		return fmt.Errorf("park dead letters: %w", err)
	}
	return nil
}

const selectDeadLetters = `
SELECT id, stream_id, batch_index, coalesce(replica, ''), coalesce(seq, 0), payload, reason, seen_at, replayed_at, dropped_at
FROM dead_letters`

func scanDeadLetter(row pgx.CollectableRow) (d control.DeadLetter, err error) {
	var replayed, dropped *time.Time
	err = row.Scan(&d.ID, &d.StreamID, &d.Index, &d.Replica, &d.Seq, &d.Payload, &d.Reason, &d.SeenAt, &replayed, &dropped)
	d.SeenAt, d.ReplayedAt, d.DroppedAt = d.SeenAt.UTC(), orZero(replayed), orZero(dropped)
	return d, err
}

// DeadLetters lists what was parked, newest first, replayed and dropped ones included.
func (s *Store) DeadLetters(ctx context.Context, limit int) ([]control.DeadLetter, error) {
	rows, _ := s.pool.Query(ctx, selectDeadLetters+` ORDER BY id DESC LIMIT $1`, limit)
	list, err := pgx.CollectRows(rows, scanDeadLetter)
	return list, explain("dead letters", err)
}

// WaitingDeadLetters lists what is parked and was neither replayed nor dropped,
// newest first.
func (s *Store) WaitingDeadLetters(ctx context.Context, limit int) ([]control.DeadLetter, error) {
	rows, _ := s.pool.Query(ctx, selectDeadLetters+` WHERE replayed_at IS NULL AND dropped_at IS NULL ORDER BY id DESC LIMIT $1`, limit)
	list, err := pgx.CollectRows(rows, scanDeadLetter)
	return list, explain("dead letters that wait", err)
}

// DeadLetter reads one dead letter.
func (s *Store) DeadLetter(ctx context.Context, id int64) (control.DeadLetter, error) {
	rows, _ := s.pool.Query(ctx, selectDeadLetters+` WHERE id = $1`, id)
	d, err := pgx.CollectExactlyOneRow(rows, scanDeadLetter)
	return d, explain(deadLetterName(id), err)
}

func deadLetterName(id int64) string { return "dead letter " + strconv.FormatInt(id, 10) }

// ReplayDeadLetter records what a dead letter holds, which the caller has decoded
// into deliveries and into what still cannot be decoded, and marks it as replayed;
// all in one transaction, so that it counts exactly once. A single event that is
// refused again is control.ErrInvalid and changes nothing; of a whole entry, what is
// refused is parked by itself. A dead letter that does not wait any more is
// control.ErrInvalid too.
func (s *Store) ReplayDeadLetter(ctx context.Context, actor string, id int64, deliveries []control.Delivery, dead []control.DeadLetter) (control.Recorded, error) {
	w := usageWrite{dead: dead}
	w.also = func(tx *Tx) error {
		d, err := tx.lockWaiting(ctx, id)
		if err != nil {
			return err
		}
		if r := w.result; d.Index >= 0 && len(r.Parked) > 0 {
			return fmt.Errorf("%w: refused again: %s", control.ErrInvalid, r.Parked[0].Reason)
		}
		if _, err := tx.tx.Exec(ctx, `UPDATE dead_letters SET replayed_at = $2 WHERE id = $1`, id, w.now); err != nil {
			return err
		}
		if w.result.Inserted > 0 {
			// Records that were made before lack it, and its replica has settled all up to it.
			if err := tx.RequestRepair(ctx, deadLetterName(id)+" was replayed"); err != nil {
				return err
			}
		}
		detail := map[string]any{
			"inserted": w.result.Inserted, "duplicates": w.result.Duplicates, "parked": len(w.result.Parked), "reason": d.Reason,
		}
		return tx.AddAudit(ctx, control.Audit{Actor: actor, Action: "ledger.replay", Target: deadLetterName(id), Detail: detail})
	}
	recorded, err := s.write(ctx, &w, deliveries)
	return recorded, explain("replay "+deadLetterName(id), err)
}

// DropDeadLetter marks a dead letter as one that will never be recorded. Its event
// stays accounted for. One that does not wait any more is control.ErrInvalid.
func (s *Store) DropDeadLetter(ctx context.Context, actor string, id int64, reason string) error {
	err := s.InTx(ctx, func(tx *Tx) error {
		d, err := tx.lockWaiting(ctx, id)
		if err != nil {
			return err
		}
		if _, err := tx.tx.Exec(ctx, `UPDATE dead_letters SET dropped_at = $2 WHERE id = $1`, id, s.now().UTC()); err != nil {
			return err
		}
		// Records whose replica has settled it contain what will never be billed.
		if err := tx.RequestRepair(ctx, deadLetterName(id)+" was dropped"); err != nil {
			return err
		}
		detail := map[string]any{"reason": reason, "parked_because": d.Reason}
		if d.Replica != "" {
			detail["replica"], detail["seq"] = d.Replica, d.Seq
		}
		return tx.AddAudit(ctx, control.Audit{Actor: actor, Action: "ledger.drop", Target: deadLetterName(id), Detail: detail})
	})
	if err != nil {
		return fmt.Errorf("drop %s: %w", deadLetterName(id), err)
	}
	return nil
}

func (t *Tx) lockWaiting(ctx context.Context, id int64) (control.DeadLetter, error) {
	rows, _ := t.tx.Query(ctx, selectDeadLetters+` WHERE id = $1 FOR NO KEY UPDATE`, id)
	d, err := pgx.CollectExactlyOneRow(rows, scanDeadLetter)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return d, control.ErrNotFound
	case err != nil:
		return d, err
	case !d.ReplayedAt.IsZero():
		return d, fmt.Errorf("%w: it was replayed at %s", control.ErrInvalid, d.ReplayedAt.Format(time.RFC3339))
	case !d.DroppedAt.IsZero():
		return d, fmt.Errorf("%w: it was dropped at %s", control.ErrInvalid, d.DroppedAt.Format(time.RFC3339))
	}
	return d, nil
}
