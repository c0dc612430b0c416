package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ErrLeavePending is for the function that PublishChanges calls: the change could not
// be published, but that is no failure, and it stays pending.
var ErrLeavePending = errors.New("leave the change pending")

// PublishChanges hands changes that are not yet published, at most limit, oldest
// first, to publish, and marks those that it returns nil for, with the number that
// it returns. With ids it waits for other publishers of these rows, so that on return
// they are published, by whomever; without, it leaves rows that another publisher
// has in hand to it. It goes on after a failure and returns the failures joined, but
// stops after a few failures of publish in a row: then the next one makes no sense.
//
// A change that cannot be read is set aside, for good, and reported this once: see
// OutboxState.
//
// A process that dies between publishing and marking leaves the row pending: it is
// published once more, which changes nothing.
func (s *Store) PublishChanges(ctx context.Context, ids []int64, limit int, publish func(context.Context, control.Change) (int64, error)) (int, error) {
	var published int
	var failures []error
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		query := `SELECT id, kind, customer_id, digest, payload, created_at FROM config_changes
			WHERE published_at IS NULL AND failed_at IS NULL AND ($1::bigint[] IS NULL OR id = ANY($1))
			ORDER BY id LIMIT $2 FOR UPDATE`
		if ids == nil {
			query += ` SKIP LOCKED`
		}
		rows, _ := tx.Query(ctx, query, ids, limit)
		changes, err := pgx.CollectRows(rows, scanChange)
		if err != nil {
			return err
		}
		failed := 0 // in a row
		for _, row := range changes {
			c, err := row.decode()
			if err != nil {
				failures = append(failures, fmt.Errorf("change %d cannot be read and is set aside: %w", row.change.ID, err))
				if _, err := tx.Exec(ctx, `UPDATE config_changes SET failed_at = now(), error = $2 WHERE id = $1`, row.change.ID, err.Error()); err != nil {
					return err
				}
				continue
			}
			// Of now, not of when this began: others publish meanwhile.
			if err := tx.QueryRow(ctx, newestFeedSeq).Scan(&c.Newest); err != nil {
				return err
			}
			seq, err := publish(ctx, c)
			if errors.Is(err, ErrLeavePending) {
				continue
			}
			if err != nil {
				failures = append(failures, fmt.Errorf("publish change %d: %w", row.change.ID, err))
				if failed++; failed == publishFailures || ctx.Err() != nil {
					break
				}
				continue
			}
			failed = 0
			if _, err := tx.Exec(ctx, `UPDATE config_changes SET published_at = now(), feed_seq = $2 WHERE id = $1`, c.ID, seq); err != nil {
				return err
			}
			published++
		}
		return nil
	})
	if err != nil {
		return 0, errors.Join(append(failures, explain("publish changes", err))...)
	}
	return published, errors.Join(failures...)
}

// SupersedeChange ends a pending change that a newer one makes void.
func (t *Tx) SupersedeChange(ctx context.Context, id int64) error {
	_, err := t.tx.Exec(ctx, `UPDATE config_changes SET published_at = now() WHERE id = $1 AND published_at IS NULL`, id)
	return explain("supersede change", err)
}

// OutboxState says how much waits in the outbox.
type OutboxState struct {
	Pending int64         // changes that wait to be published
	Oldest  time.Duration // age of the oldest of them; 0 without any
	// Failed changes were set aside because they cannot be read. Someone must look at
	// them: column error of table config_changes.
	Failed int64
}

// OutboxState reads the state of the outbox.
func (s *Store) OutboxState(ctx context.Context) (OutboxState, error) {
	var o OutboxState
	var seconds float64
	err := s.pool.QueryRow(ctx, `
		SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8,
			(SELECT count(*) FROM config_changes WHERE failed_at IS NOT NULL)
		FROM config_changes WHERE published_at IS NULL AND failed_at IS NULL`).Scan(&o.Pending, &seconds, &o.Failed)
	o.Oldest = max(time.Duration(seconds*float64(time.Second)), 0)
	return o, explain("state of the outbox", err)
}

// PruneChanges removes changes that were published before then, at most limit of them,
// and returns how many. What waits or was set aside stays, and so does the change with
// the newest number of the feed: see NewestFeedSeq.
func (s *Store) PruneChanges(ctx context.Context, then time.Time, limit int) (int64, error) {
	tag, err := s.pool.Exec(ctx, `
		DELETE FROM config_changes WHERE id IN (
			SELECT id FROM config_changes WHERE published_at < $1
				AND feed_seq IS DISTINCT FROM (SELECT max(feed_seq) FROM config_changes WHERE feed_seq IS NOT NULL)
			ORDER BY published_at LIMIT $2 FOR UPDATE SKIP LOCKED)`, then, limit)
	return tag.RowsAffected(), explain("prune changes", err)
}

// PendingChanges returns how many changes wait to be published.
func (s *Store) PendingChanges(ctx context.Context) (int64, error) {
	o, err := s.OutboxState(ctx)
	return o.Pending, err
}

// publishFailures in a row mean that trying the next change makes no sense now.
const publishFailures = 3

// changeRow is a change as it is stored: one that cannot be decoded must not keep the
// others from being published.
type changeRow struct {
	change          control.Change
	digest, payload []byte
}

func scanChange(row pgx.CollectableRow) (r changeRow, err error) {
	err = row.Scan(&r.change.ID, &r.change.Kind, &r.change.CustomerID, &r.digest, &r.payload, &r.change.CreatedAt)
	return r, err
}

func (r changeRow) decode() (control.Change, error) {
	c := r.change
	switch c.Kind {
	case control.ChangeGrant:
		if len(r.digest) != len(c.Digest) {
			return c, fmt.Errorf("digest of %d bytes", len(r.digest))
		}
		c.Digest = contract.Digest(r.digest)
		g, err := contract.DecodeGrant(r.payload)
		if err != nil {
			return c, err
		}
		c.Grant = *g
	case control.ChangeLimit:
		if err := json.Unmarshal(r.payload, &c.Limit); err != nil {
			return c, fmt.Errorf("decode limit: %w", err)
		}
	default:
		return c, fmt.Errorf("unknown kind %q", c.Kind)
	}
	return c, nil
}
