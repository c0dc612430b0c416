package store

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// maxReplicaBytes is the longest id of a replica that the tables take.
const maxReplicaBytes = 128

// validNumber reports whether Postgres takes replica and seq as the name of an event.
// What fails it was never sent by a proxy, and must not keep its neighbours.
func validNumber(replica string, seq int64) bool {
	return replica != "" && len(replica) <= maxReplicaBytes && seq > 0 &&
		utf8.ValidString(replica) && !strings.ContainsRune(replica, 0)
}

// lockReplicas makes the rows of replicas that were never seen before, and locks all
// of them until the transaction ends.
const lockReplicas = `
INSERT INTO replicas AS r (id) SELECT id FROM unnest($1::text[]) AS u (id) ORDER BY id
ON CONFLICT (id) DO UPDATE SET last_seen_at = greatest(r.last_seen_at, excluded.last_seen_at)`

// advanceReplicas moves acked_seq to the end of the run without gaps that begins
// behind it, and returns where it is then. It must be a statement of its own after
// one that locked the rows: everybody who writes events locks them last, so what
// earlier holders of the lock wrote is committed, and only a statement that begins
// after the wait sees it. Otherwise two workers that write 1…5 and 6…10 at the same
// time would each see a gap where the other one's events are, and 10 would stay
// unacknowledged until something else came.
//
// The rows are read in order and no further than to the first gap, so the work is
// that of the events which are acknowledged, however many wait behind a gap. $2
// bounds it; what is left is for the next call.
const advanceReplicas = `
WITH run AS (
	SELECT r.id, r.acked_seq, coalesce(last.seq, r.acked_seq) AS seq
	FROM replicas r LEFT JOIN LATERAL (
		SELECT CASE WHEN seq > before + 1 THEN before ELSE seq END AS seq
		FROM (
			SELECT seq, lag(seq, 1, r.acked_seq) OVER (ORDER BY seq) AS before, lead(seq) OVER (ORDER BY seq) AS after
			FROM (
				SELECT seq FROM (
					SELECT e.seq FROM usage_events e WHERE e.replica = r.id AND e.seq > r.acked_seq
					UNION ALL
					SELECT d.seq FROM dead_letters d WHERE d.replica = r.id AND d.seq > r.acked_seq
				) AS present
				ORDER BY seq LIMIT $2
			) AS bounded
		) AS neighbours
		WHERE seq > before + 1 OR after IS NULL
		ORDER BY neighbours.seq LIMIT 1
	) AS last ON true
	WHERE r.id = ANY ($1::text[])
), moved AS (
	UPDATE replicas r SET acked_seq = run.seq FROM run WHERE r.id = run.id AND run.seq > run.acked_seq
)
SELECT id, seq FROM run`

// advanceRows bounds how many events of one replica are acknowledged in one transaction.
const advanceRows = 50_000

// advance marks replicas as seen, and moves forward what they may forget. It must be
// the last thing that a transaction does to usage.
func advance(ctx context.Context, tx pgx.Tx, replicas []string) (map[string]int64, error) {
	if len(replicas) == 0 {
		return nil, nil
	}
	var b pgx.Batch // one round trip, but two statements
	b.Queue(lockReplicas, replicas)
	b.Queue(advanceReplicas, replicas, advanceRows)
	results := tx.SendBatch(ctx, &b)
	acked, err := func() (map[string]int64, error) {
		if _, err := results.Exec(); err != nil {
			return nil, err
		}
		rows, _ := results.Query()
		return collectAcked(rows)
	}()
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("advance replicas: %w", err)
	}
	return acked, nil
}

func collectAcked(rows pgx.Rows) (map[string]int64, error) {
	acked := make(map[string]int64)
	var id string
	var seq int64
	_, err := pgx.ForEachRow(rows, []any{&id, &seq}, func() error { acked[id] = seq; return nil })
	return acked, err
}

// forgottenAfter is how long a replica that sends nothing counts as live. Later its
// acknowledgement is not repeated any more; it is once it sends again.
const forgottenAfter = 7 * 24 * time.Hour

// Acked returns what each live replica that was seen in the last days may forget: the
// highest n such that all of its events 1…n are rows or parked. It moves forward
// first what a transaction left behind.
func (s *Store) Acked(ctx context.Context) (map[string]int64, error) {
	rows, _ := s.pool.Query(ctx, `
		SELECT id, acked_seq,
			EXISTS (SELECT FROM usage_events e WHERE e.replica = r.id AND e.seq = r.acked_seq + 1) OR
			EXISTS (SELECT FROM dead_letters d WHERE d.replica = r.id AND d.seq = r.acked_seq + 1)
		FROM replicas r WHERE status = 'live' AND last_seen_at > $1`, s.now().Add(-forgottenAfter))
	acked := make(map[string]int64)
	var behind []string
	var id string
	var seq int64
	var more bool
	if _, err := pgx.ForEachRow(rows, []any{&id, &seq, &more}, func() error {
		acked[id] = seq
		if more {
			behind = append(behind, id)
		}
		return nil
	}); err != nil {
		return nil, explain("acknowledged events", err)
	}
	for _, id := range behind {
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SELECT FROM replicas WHERE id = $1 FOR NO KEY UPDATE`, id); err != nil {
				return err
			}
			rows, _ := tx.Query(ctx, advanceReplicas, []string{id}, advanceRows)
			moved, err := collectAcked(rows)
			acked[id] = max(acked[id], moved[id])
			return err
		})
		if err != nil {
			return nil, explain("advance replica "+id, err)
		}
	}
	return acked, nil
}

const selectReplicas = `
SELECT r.id, r.status, r.first_seen_at, r.last_seen_at, r.acked_seq, r.lost_at, coalesce(r.lost_reason, ''),
	greatest(r.acked_seq,
		(SELECT max(e.seq) FROM usage_events e WHERE e.replica = r.id),
		(SELECT max(d.seq) FROM dead_letters d WHERE d.replica = r.id))
FROM replicas r`

func scanReplica(row pgx.CollectableRow) (r control.Replica, err error) {
	var lost *time.Time
	err = row.Scan(&r.ID, &r.Status, &r.FirstSeen, &r.LastSeen, &r.Acked, &lost, &r.LostReason, &r.Highest)
	r.FirstSeen, r.LastSeen, r.LostAt = r.FirstSeen.UTC(), r.LastSeen.UTC(), orZero(lost)
	return r, err
}

// Replicas lists the replicas that ever sent an event, at most limit, those seen last
// first.
func (s *Store) Replicas(ctx context.Context, limit int) ([]control.Replica, error) {
	rows, _ := s.pool.Query(ctx, selectReplicas+` ORDER BY r.last_seen_at DESC, r.id LIMIT $1`, limit)
	list, err := pgx.CollectRows(rows, scanReplica)
	return list, explain("list replicas", err)
}

// LockReplica reads a replica and keeps changes of it waiting until the transaction
// ends, the ledger's among them: keep it short.
func (t *Tx) LockReplica(ctx context.Context, id string) (control.Replica, error) {
	rows, _ := t.tx.Query(ctx, selectReplicas+` WHERE r.id = $1 FOR NO KEY UPDATE OF r`, id)
	r, err := pgx.CollectExactlyOneRow(rows, scanReplica)
	return r, explain("replica "+id, err)
}

// SetReplicaLost marks a replica as lost.
func (t *Tx) SetReplicaLost(ctx context.Context, id, reason string, at time.Time) error {
	_, err := t.tx.Exec(ctx, `UPDATE replicas SET status = 'lost', lost_at = $2, lost_reason = $3 WHERE id = $1`, id, at, reason)
	return explain("set replica "+id+" lost", err)
}
