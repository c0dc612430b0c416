package store

import (
	"context"
	"fmt"
	"math"
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
	return replica != "" && len(replica) <= maxReplicaBytes && seq > 0 && seq < math.MaxInt64 &&
		utf8.ValidString(replica) && !strings.ContainsRune(replica, 0)
}

// account adds numbers to what is known of replicas, and so marks them as seen.
// Column acked_seq follows from the set: it ends before the first number that is not
// in it. The set lives in the replica's row, which the statement locks until the end
// of the transaction, so that workers which commit 1…5 and 6…10 in any order end with
// 10; and it has as many parts as there are gaps, so that nothing has to be searched
// in usage_events, however many events wait behind a gap.
const account = `
INSERT INTO replicas AS r (id, accounted)
SELECT id, '{[0,0]}'::int8multirange + range_agg(int8range(first, last, '[]'))
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (id, first, last)
GROUP BY id ORDER BY id
ON CONFLICT (id) DO UPDATE SET
	accounted = r.accounted + excluded.accounted,
	last_seen_at = greatest(r.last_seen_at, excluded.last_seen_at)
RETURNING id, acked_seq`

// accounted are the numbers of events that one transaction makes rows of, parks or
// finds there: runs of consecutive ones.
type accounted struct {
	replicas    []string
	first, last []int64
}

// add takes numbers of one replica best in ascending order: those make few runs.
func (a *accounted) add(replica string, seq int64) {
	if !validNumber(replica, seq) {
		return
	}
	if n := len(a.replicas) - 1; n >= 0 && a.replicas[n] == replica && a.last[n]+1 == seq {
		a.last[n] = seq
		return
	}
	a.replicas, a.first, a.last = append(a.replicas, replica), append(a.first, seq), append(a.last, seq)
}

// write returns what each of the replicas may forget.
func (a *accounted) write(ctx context.Context, tx pgx.Tx) (map[string]int64, error) {
	if len(a.replicas) == 0 {
		return nil, nil
	}
	rows, _ := tx.Query(ctx, account, a.replicas, a.first, a.last)
	acked, err := collectAcked(rows)
	if err != nil {
		return nil, fmt.Errorf("account for events: %w", err)
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
// highest n such that all of its events 1…n are rows or parked.
func (s *Store) Acked(ctx context.Context) (map[string]int64, error) {
	rows, _ := s.pool.Query(ctx, `SELECT id, acked_seq FROM replicas WHERE status = 'live' AND last_seen_at > $1`,
		s.now().Add(-forgottenAfter))
	acked, err := collectAcked(rows)
	return acked, explain("acknowledged events", err)
}

const selectReplicas = `
SELECT id, status, first_seen_at, last_seen_at, acked_seq, upper(accounted) - 1, registered_at,
	(SELECT seen_at FROM replica_beats WHERE replica = id), lost_at, coalesce(lost_reason, '') FROM replicas`

func scanReplica(row pgx.CollectableRow) (r control.Replica, err error) {
	var registered, beat, lost *time.Time
	err = row.Scan(&r.ID, &r.Status, &r.FirstSeen, &r.LastSeen, &r.Acked, &r.Highest, &registered, &beat, &lost, &r.LostReason)
	r.FirstSeen, r.LastSeen = r.FirstSeen.UTC(), r.LastSeen.UTC()
	r.RegisteredAt, r.LastBeat, r.LostAt = orZero(registered), orZero(beat), orZero(lost)
	return r, err
}

// Replicas lists the replicas that were ever registered or sent an event, at most limit, those seen last
// first.
func (s *Store) Replicas(ctx context.Context, limit int) ([]control.Replica, error) {
	rows, _ := s.pool.Query(ctx, selectReplicas+` ORDER BY last_seen_at DESC, id LIMIT $1`, limit)
	list, err := pgx.CollectRows(rows, scanReplica)
	return list, explain("list replicas", err)
}

// LockReplica reads a replica and keeps changes of it waiting until the transaction
// ends, the ledger's among them: keep it short.
func (t *Tx) LockReplica(ctx context.Context, id string) (control.Replica, error) {
	rows, _ := t.tx.Query(ctx, selectReplicas+` WHERE id = $1 FOR NO KEY UPDATE`, id)
	r, err := pgx.CollectExactlyOneRow(rows, scanReplica)
	return r, explain("replica "+id, err)
}

// SetReplicaLost marks a replica as lost.
func (t *Tx) SetReplicaLost(ctx context.Context, id, reason string, at time.Time) error {
	_, err := t.tx.Exec(ctx, `UPDATE replicas SET status = 'lost', lost_at = $2, lost_reason = $3 WHERE id = $1`, id, at, reason)
	return explain("set replica "+id+" lost", err)
}
