package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// leaderSilence is how long a leader may say nothing before the server ends its
// connection, and with it its rule: a process that was stopped, or whose host is gone,
// must not keep others from ruling.
const leaderSilence = 3 * time.Second

// Leader is the one process of all that holds a lock. Whatever it reads and writes goes
// over the connection that the lock belongs to: once it is the leader no more, nothing
// works. One goroutine may use it.
type Leader struct {
	conn *pgx.Conn
	now  func() time.Time
}

// Lead waits until this process can be the leader of that name, looking every retry, and
// then runs do. It returns the error of do or of the connection, or ctx's. The leader must
// ask something every few seconds: see Ping.
func (s *Store) Lead(ctx context.Context, name string, retry time.Duration, do func(context.Context, *Leader) error) error {
	op := "lead " + name
	conn, err := s.connect(ctx)
	if err != nil {
		return explain(op, err)
	}
	defer disconnect(ctx, conn)
	for {
		leads, err := tryLock(ctx, conn, name)
		if err != nil {
			return explain(op, err)
		}
		if leads {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
	return do(ctx, &Leader{conn: conn, now: s.now})
}

// connect makes a connection for a lock alone.
func (s *Store) connect(ctx context.Context) (*pgx.Conn, error) {
	connecting, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.ConnectConfig(connecting, s.pool.Config().ConnConfig.Copy())
}

// disconnect ends what connect made, and with it the lock, also when ctx has ended.
func disconnect(ctx context.Context, conn *pgx.Conn) {
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	// The server notices the end of a connection a little later, and until then who asks next
	// would be told that the lock is taken. Where this fails, that is all.
	_, _ = conn.Exec(closing, `SELECT pg_advisory_unlock_all()`)
	_ = conn.Close(closing)
}

// tryLock reports whether conn has the lock of that name. If so, the server ends conn, and
// the lock, when it hears nothing for leaderSilence.
func tryLock(ctx context.Context, conn *pgx.Conn, name string) (has bool, err error) {
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = conn.QueryRow(asking, `SELECT pg_try_advisory_lock(hashtextextended($1, 0))`, "openclaw:"+name).Scan(&has)
	if err != nil || !has {
		return false, err
	}
	// Not every version of Postgres has both.
	_, err = conn.Exec(asking, `SELECT set_config(name, $1, false) FROM pg_settings
		WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout')`, fmt.Sprint(leaderSilence.Milliseconds()))
	return true, err
}

// Alive reports whether this may still be the leader, as far as is known without asking.
func (l *Leader) Alive() bool { return !l.conn.IsClosed() }

// Ping asks whether this is still the leader.
func (l *Leader) Ping(ctx context.Context) error {
	_, err := l.conn.Exec(ctx, `SELECT`)
	return explain("leader", err)
}

// Epoch returns the newest epoch.
func (l *Leader) Epoch(ctx context.Context) (control.QuotaEpoch, error) {
	return newestEpoch(ctx, l.conn)
}

// TakeEpoch begins an epoch, with a number above all others and above that one.
func (l *Leader) TakeEpoch(ctx context.Context, above int64, reason string) (int64, error) {
	var number int64
	err := l.conn.QueryRow(ctx, `
		INSERT INTO quota_epochs (number, reason)
		SELECT greatest(coalesce(max(number), 0), $1) + 1, $2 FROM quota_epochs RETURNING number`, above, reason).Scan(&number)
	return number, explain("take an epoch", err)
}

const (
	keptEpochs = 1000 // for their reasons
	keptBases  = 10   // epochs
)

// SetBases fixes which events the records of an epoch contain. Whatever the replicas
// have forgotten of their journals must be recorded by now. It returns the base of each
// replica on the register, and ends the requests for repairs so far.
func (l *Leader) SetBases(ctx context.Context, epoch int64) (map[string]int64, error) {
	var bases map[string]int64
	err := pgx.BeginTxFunc(ctx, l.conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, `
			WITH all_bases AS (
				INSERT INTO quota_bases (epoch, replica, member, base, counted)
				SELECT $1, id, registered_at IS NOT NULL AND status = 'live', acked_seq, accounted
				FROM replicas WHERE registered_at IS NOT NULL OR last_seen_at > now() - make_interval(secs => $2)
				RETURNING replica, base, member
			)
			SELECT replica, base FROM all_bases WHERE member`, epoch, orphansSince.Seconds())
		var err error
		if bases, err = collectAcked(rows); err != nil {
			return err
		}
		for _, sql := range []string{
			`UPDATE quota_epochs SET based_at = clock_timestamp() WHERE number = $1`,
			`DELETE FROM quota_repairs WHERE $1::bigint > 0`,
			fmt.Sprintf(`DELETE FROM quota_bases WHERE epoch < $1 - %d`, keptBases),
			fmt.Sprintf(`DELETE FROM quota_epochs WHERE number < $1 - %d`, keptEpochs),
		} {
			if _, err := tx.Exec(ctx, sql, epoch); err != nil {
				return err
			}
		}
		return nil
	})
	return bases, explain(fmt.Sprintf("set bases of epoch %d", epoch), err)
}

// Opened notes that leases may grow in an epoch, and forgets which records were made in
// epochs long before.
func (l *Leader) Opened(ctx context.Context, epoch int64) error {
	_, err := l.conn.Exec(ctx, `UPDATE quota_epochs SET opened_at = clock_timestamp() WHERE number = $1`, epoch)
	if err == nil {
		_, err = l.conn.Exec(ctx, fmt.Sprintf(`DELETE FROM quota_records WHERE epoch < $1 - %d`, keptBases), epoch)
	}
	return explain("note that an epoch is open", err)
}

// aboveBases sums up what the replicas settle themselves in epoch $1.
const aboveBases = `
SELECT e.customer_id, e.period_id, sum(e.settled_tokens)::bigint
FROM quota_bases b JOIN usage_events e ON e.replica = b.replica AND e.seq > b.base
WHERE b.epoch = $1 AND b.member GROUP BY e.customer_id, e.period_id`

// byNumbers makes Postgres, for this transaction and with $1 no more, find the few events
// above the bases through their numbers. By its own guess, that a third of all events
// lies above, it would read all of them.
const byNumbers = `SELECT set_config(name, CASE WHEN $1 THEN reset_val ELSE 'off' END, true) FROM pg_settings
	WHERE name IN ('enable_seqscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_bitmapscan')`

// EachRecord calls do with what the records of an epoch are made from, page by page: those
// of all periods that end after a given time. All of it is of one moment. Bases must be set.
func (l *Leader) EachRecord(ctx context.Context, epoch int64, endsAfter time.Time, page int, do func([]control.QuotaRecord) error) error {
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, l.conn, snapshot, func(tx pgx.Tx) error {
		above := map[control.QuotaKey]int64{}
		if _, err := tx.Exec(ctx, byNumbers, false); err != nil {
			return err
		}
		rows, _ := tx.Query(ctx, aboveBases, epoch)
		var k control.QuotaKey
		var tokens int64
		if _, err := pgx.ForEachRow(rows, []any{&k.CustomerID, &k.PeriodID, &tokens}, func() error { above[k] = tokens; return nil }); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, byNumbers, true); err != nil {
			return err
		}
		var last control.QuotaRecord
		last.Period.End = endsAfter
		for {
			rows, _ := tx.Query(ctx, `
				SELECT customer_id, period_id, starts_at, ends_at, limit_tokens, limit_version, settled_tokens FROM usage_periods
				WHERE (ends_at, customer_id, period_id) > ($1, $2, $3) ORDER BY ends_at, customer_id, period_id LIMIT $4`,
				last.Period.End, last.CustomerID, last.Period.ID, page)
			records, err := pgx.CollectRows(rows, scanQuotaRecord)
			if err != nil {
				return err
			}
			for i := range records {
				records[i].Settled -= above[records[i].Key()]
			}
			if len(records) > 0 {
				last = records[len(records)-1]
				if err := do(records); err != nil {
					return err
				}
			}
			if len(records) < page {
				return nil
			}
		}
	})
	return explain(fmt.Sprintf("read the records of epoch %d", epoch), err)
}
