package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Shut notes that a lost replica, if it lives, cannot know of the epoch any more, from
// now on, and returns when nothing that it leased is usable: a grace after that, or after
// its last sign of life was new, if beat is still that one. A later time that was
// returned before stays.
func (s *Store) Shut(ctx context.Context, replica string, beat control.Beat, grace time.Duration) (time.Time, error) {
	var free time.Time
	err := s.pool.QueryRow(ctx, `
		UPDATE replicas r SET shut_at = now(), free_at = greatest(r.free_at, make_interval(secs => $2) + coalesce(
			(SELECT b.seen_at FROM replica_beats b WHERE b.replica = r.id AND b.life = $3 AND b.beat_at = $4), now()))
		WHERE id = $1 AND status = 'lost' RETURNING free_at`, replica, grace.Seconds(), beat.Life, beat.At).Scan(&free)
	return free.UTC(), explain("shut replica "+replica, err)
}

// Usable returns for how long what a lost replica leased may still be usable; 0 if it is
// not. known is false while it has not been shut.
func (s *Store) Usable(ctx context.Context, replica string) (left time.Duration, known bool, err error) {
	var seconds *float64
	err = s.pool.QueryRow(ctx, `SELECT extract(epoch FROM free_at - now())::float8 FROM replicas WHERE id = $1`, replica).Scan(&seconds)
	if err != nil || seconds == nil {
		return 0, false, explain("lost replica "+replica, err)
	}
	return max(time.Duration(*seconds*float64(time.Second)), 0), true, nil
}

// RecordKeys lists the records that were made in an epoch, at most limit, from after on.
func (s *Store) RecordKeys(ctx context.Context, epoch int64, after control.QuotaKey, limit int) ([]control.QuotaKey, error) {
	rows, _ := s.pool.Query(ctx, `
		SELECT customer_id, period_id FROM quota_records WHERE epoch = $1 AND (customer_id, period_id) > ($2, $3)
		ORDER BY customer_id, period_id LIMIT $4`, epoch, after.CustomerID, after.PeriodID, limit)
	keys, err := collectKeys(rows)
	return keys, explain("records of the quota", err)
}

// LeftBehind are events of a replica, as of one moment.
type LeftBehind struct {
	accounted string // numbers of all its events
}

// LeftBehind calls do for each event of a replica above base, in the order of their
// numbers.
func (s *Store) LeftBehind(ctx context.Context, replica string, base int64, do func(k control.QuotaKey, seq, tokens int64)) (LeftBehind, error) {
	var out LeftBehind
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, s.pool, snapshot, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT accounted::text FROM replicas WHERE id = $1`, replica).Scan(&out.accounted); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, `
			SELECT customer_id, period_id, seq, settled_tokens FROM usage_events WHERE replica = $1 AND seq > $2 ORDER BY seq`, replica, base)
		var k control.QuotaKey
		var seq, tokens int64
		_, err := pgx.ForEachRow(rows, []any{&k.CustomerID, &k.PeriodID, &seq, &tokens}, func() error { do(k, seq, tokens); return nil })
		return err
	})
	return out, explain("events of replica "+replica, err)
}

// NoteReleases notes what is about to be freed of a lost replica's leases. Noting less of
// the same later changes nothing, as when it is repeated after a part was freed.
func (s *Store) NoteReleases(ctx context.Context, replica string, freed []control.Released) error {
	customers, periods := make([]string, len(freed)), make([]string, len(freed))
	settled, tokens := make([]int64, len(freed)), make([]int64, len(freed))
	for i, f := range freed {
		customers[i], periods[i], settled[i], tokens[i] = f.CustomerID, f.PeriodID, f.Settled, f.Freed
	}
	_, err := s.pool.Exec(ctx, `
		INSERT INTO quota_releases AS r (replica, customer_id, period_id, settled_tokens, freed_tokens)
		SELECT $1, n.* FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS n (customer_id, period_id, settled, freed)
		ORDER BY customer_id, period_id
		ON CONFLICT (replica, customer_id, period_id) DO UPDATE SET
			settled_tokens = greatest(r.settled_tokens, excluded.settled_tokens),
			freed_tokens = greatest(r.freed_tokens, excluded.freed_tokens)`, replica, customers, periods, settled, tokens)
	return explain("note what is freed of replica "+replica, err)
}

// Released takes a lost replica off the register: what it leased in an epoch is free, and
// the epoch's records contain all its events of l.
func (s *Store) Released(ctx context.Context, epoch int64, replica string, l LeftBehind) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
			UPDATE replicas SET registered_at = NULL, retiring = false, released_at = coalesce(released_at, now())
			WHERE id = $1 AND status = 'lost'`, replica); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `
			UPDATE quota_bases SET member = false, counted = $3::text::int8multirange WHERE epoch = $1 AND replica = $2 AND member`,
			epoch, replica, l.accounted)
		return err
	})
	return explain("release replica "+replica, err)
}

// Releases lists what was freed when a replica was given up.
func (s *Store) Releases(ctx context.Context, replica string) ([]control.Released, error) {
	rows, _ := s.pool.Query(ctx, `
		SELECT customer_id, period_id, settled_tokens, freed_tokens FROM quota_releases WHERE replica = $1
		ORDER BY customer_id, period_id`, replica)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[control.Released])
	return list, explain("what was freed of replica "+replica, err)
}
