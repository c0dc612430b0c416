package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// orphansSince is how far before an epoch's beginning events are looked for that its
// records may lack: longer than any transaction that writes some takes.
const orphansSince = time.Hour

// overdue is how long whoever declares a replica lost has to free its leases.
const overdue = 30 * time.Second

// Members lists the quota's register: replicas that are on it, lost ones until their
// leases are freed.
func (l *Leader) Members(ctx context.Context, epoch int64) ([]control.Member, error) {
	return members(ctx, l.conn, epoch)
}

// Members lists the quota's register: see Leader.Members.
func (s *Store) Members(ctx context.Context, epoch int64) ([]control.Member, error) {
	return members(ctx, s.pool, epoch)
}

func members(ctx context.Context, q querier, epoch int64) ([]control.Member, error) {
	rows, _ := q.Query(ctx, `
		SELECT r.id, r.status = 'lost', r.retiring, r.acked_seq, b.base IS NOT NULL, coalesce(b.base, 0),
			r.free_at IS NOT NULL, r.status = 'lost' AND coalesce(r.free_at > now(), true),
			r.status = 'lost' AND coalesce(r.free_at < now() - make_interval(secs => $2), false),
			coalesce((SELECT life FROM replica_beats WHERE replica = r.id), 0)
		FROM replicas r LEFT JOIN quota_bases b ON b.epoch = $1 AND b.replica = r.id AND b.member
		WHERE r.registered_at IS NOT NULL ORDER BY r.id`, epoch, overdue.Seconds())
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[control.Member])
	return list, explain("register of replicas", err)
}

// Register puts a replica on the register, and into the epoch with a base, which it
// returns. It reports false, and has registered it all the same, if the epoch's records
// cannot be told to contain just the events up to a number: then another epoch is
// needed. A lost replica is control.ErrInvalid.
func (l *Leader) Register(ctx context.Context, epoch int64, replica string) (base int64, fits bool, err error) {
	op := "register replica " + replica
	if !validNumber(replica, 1) {
		return 0, false, fmt.Errorf("%s: %w: bad name", op, control.ErrInvalid)
	}
	err = pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
		// The row is locked from here on: the ledger accounts for no event of it meanwhile.
		var lost bool
		if err := tx.QueryRow(ctx, `
			INSERT INTO replicas AS r (id, registered_at) VALUES ($1, now())
			ON CONFLICT (id) DO UPDATE SET registered_at = coalesce(r.registered_at, now()), retiring = false
			RETURNING status = 'lost', acked_seq`, replica).Scan(&lost, &base); err != nil {
			return err
		}
		if lost {
			return fmt.Errorf("%w: it was declared lost", control.ErrInvalid)
		}
		// It fits if all of its events are in the records, and none is missing between
		// them; or if it was a member before, and has settled all in this epoch.
		if err := tx.QueryRow(ctx, `
			SELECT coalesce(b.member, false) OR
				r.accounted = int8multirange(int8range(0, r.acked_seq, '[]')) AND r.accounted = coalesce(b.counted, CASE
					WHEN r.last_seen_at > e.based_at - make_interval(secs => $3) AND r.acked_seq > 0 THEN '{}' ELSE r.accounted END)
			FROM replicas r JOIN quota_epochs e ON e.number = $1 LEFT JOIN quota_bases b ON b.epoch = e.number AND b.replica = r.id
			WHERE r.id = $2`, epoch, replica, orphansSince.Seconds()).Scan(&fits); err != nil || !fits {
			return err
		}
		_, err := tx.Exec(ctx, `
			INSERT INTO quota_bases (epoch, replica, member, base, counted)
			SELECT $1, id, true, acked_seq, accounted FROM replicas WHERE id = $2
			ON CONFLICT (epoch, replica) DO UPDATE SET member = true, base = excluded.base, counted = excluded.counted`, epoch, replica)
		return err
	})
	return base, fits, explain(op, err)
}

// SetRetiring notes that a replica is, or is not, about to be taken off the register.
func (l *Leader) SetRetiring(ctx context.Context, replica string, retiring bool) error {
	_, err := l.conn.Exec(ctx, `UPDATE replicas SET retiring = $2 WHERE id = $1 AND registered_at IS NOT NULL AND retiring <> $2`, replica, retiring)
	return explain("retire replica "+replica, err)
}

// Retired takes a replica off the register that leases nothing in an epoch. Unless it has
// settled all its events in the epoch, the epoch's records lack those of them that come
// to Postgres later: see Repair.
func (l *Leader) Retired(ctx context.Context, epoch int64, replica string, settled bool) error {
	err := pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
			UPDATE replicas SET registered_at = NULL, retiring = false, retired_at = now()
			WHERE id = $1 AND registered_at IS NOT NULL AND status = 'live'`, replica); err != nil {
			return err
		}
		if !settled {
			if _, err := tx.Exec(ctx, `
				UPDATE quota_bases SET member = false, counted = int8multirange(int8range(0, base, '[]'))
				WHERE epoch = $1 AND replica = $2 AND member`, epoch, replica); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `DELETE FROM replica_beats WHERE replica = $1`, replica)
		return err
	})
	return explain("retire replica "+replica, err)
}

// Unshut notes of lost replicas that they may know of an epoch that has them: each has to
// be shut, once more.
func (l *Leader) Unshut(ctx context.Context, replicas []string) error {
	_, err := l.conn.Exec(ctx, `
		UPDATE replicas SET shut_at = NULL, free_at = NULL WHERE id = ANY ($1) AND status = 'lost' AND registered_at IS NOT NULL`, replicas)
	return explain("note that lost replicas are to be shut", err)
}

// repair finds out what package limits calls a reason to repair.
const repair = `
SELECT reason FROM (
	(SELECT 1 AS rank, reason FROM quota_repairs ORDER BY id LIMIT 1)
	UNION ALL
	(SELECT 2, 'replica ' || r.id || ' came back with events that the records contain only in part'
	FROM replicas r LEFT JOIN quota_bases b ON b.epoch = $1 AND b.replica = r.id
	WHERE r.registered_at IS NOT NULL AND r.status = 'live' AND NOT coalesce(b.member, false) LIMIT 1)
	UNION ALL
	(SELECT 3, 'events of replica ' || r.id || ' came after the epoch began, and it is not there to settle them'
	FROM quota_epochs e JOIN replicas r ON r.last_seen_at > e.based_at - make_interval(secs => $2)
	LEFT JOIN quota_bases b ON b.epoch = e.number AND b.replica = r.id
	WHERE e.number = $1 AND NOT coalesce(b.member, false) AND r.accounted <> coalesce(b.counted, '{[0,0]}') LIMIT 1)
) AS reasons ORDER BY rank LIMIT 1`

// Repair returns why the records of an epoch have to be made anew, "" if they need not:
// someone asked for it, or there are events that neither the records contain nor anybody
// settles, because their replica is not a member.
func (l *Leader) Repair(ctx context.Context, epoch int64) (string, error) {
	var reason string
	err := l.conn.QueryRow(ctx, repair, epoch, orphansSince.Seconds()).Scan(&reason)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return reason, explain("look for events that nobody settles", err)
}

// NoteBeats keeps the last signs of life of replicas on the register, with the time at which
// each was new. A life stays the newest one whatever is noted later, as from an older copy of
// Redis' data.
func (l *Leader) NoteBeats(ctx context.Context, beats []control.Beat) error {
	ids, lives, ats := make([]string, len(beats)), make([]int64, len(beats)), make([]time.Time, len(beats))
	for i, b := range beats {
		ids[i], lives[i], ats[i] = b.Replica, b.Life, b.At
	}
	_, err := l.conn.Exec(ctx, `
		INSERT INTO replica_beats AS b (replica, life, beat_at)
		SELECT n.replica, n.life, n.beat_at FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS n (replica, life, beat_at)
		JOIN replicas r ON r.id = n.replica WHERE r.registered_at IS NOT NULL
		ON CONFLICT (replica) DO UPDATE SET life = greatest(b.life, excluded.life), beat_at = excluded.beat_at, seen_at = now()
			WHERE (b.life, b.beat_at) IS DISTINCT FROM (excluded.life, excluded.beat_at)`, ids, lives, ats)
	return explain("note signs of life", err)
}
