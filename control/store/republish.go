package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// CustomerState is all that grants and limits are computed from, as of one moment.
type CustomerState struct {
	Customer control.Customer
	Tokens   []control.ProxyToken
	// Period is the newest one that has begun; its ID is empty if there is none.
	Period control.UsagePeriod
}

// CustomerStates lists customers by id with their state as of at, at most limit of
// them, from after on ("" for the first page, then the last id of the page before).
func (s *Store) CustomerStates(ctx context.Context, after string, at time.Time, limit int) ([]CustomerState, error) {
	var states []CustomerState
	// Of one moment: the version of a token stands for the state that it was raised with.
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, s.pool, snapshot, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, selectCustomers+` WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
		customers, err := pgx.CollectRows(rows, scanCustomer)
		if err != nil {
			return err
		}
		ids, places := make([]string, len(customers)), make(map[string]int, len(customers))
		states = make([]CustomerState, len(customers))
		for i, c := range customers {
			ids[i], places[c.ID], states[i].Customer = c.ID, i, c
		}
		rows, _ = tx.Query(ctx, selectTokens+` WHERE customer_id = ANY($1)`, ids)
		tokens, err := pgx.CollectRows(rows, scanToken)
		if err != nil {
			return err
		}
		for _, k := range tokens {
			state := &states[places[k.CustomerID]]
			state.Tokens = append(state.Tokens, k)
		}
		rows, _ = tx.Query(ctx, `SELECT DISTINCT ON (customer_id) `+periodColumns+` FROM usage_periods
			WHERE customer_id = ANY($1) AND starts_at <= $2 ORDER BY customer_id, starts_at DESC`, ids, at)
		periods, err := pgx.CollectRows(rows, scanPeriod)
		if err != nil {
			return err
		}
		for _, p := range periods {
			states[places[p.CustomerID]].Period = p
		}
		return nil
	})
	return states, explain("states of customers", err)
}

// NewestFeedSeq returns the highest number under which a change was published, as far
// as such changes are still kept; 0 without any.
func (s *Store) NewestFeedSeq(ctx context.Context) (int64, error) {
	var seq int64
	err := s.pool.QueryRow(ctx, `SELECT coalesce(max(feed_seq), 0) FROM config_changes WHERE feed_seq IS NOT NULL`).Scan(&seq)
	return seq, explain("newest number of the feed", err)
}

// WithLock runs do while no other process holds the lock of that name, and reports
// whether it ran: it does not wait for the lock. A process that dies, or loses its
// connection, loses the lock with it.
func (s *Store) WithLock(ctx context.Context, name string, do func(context.Context) error) (ran bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, explain("lock "+name, err)
	}
	defer conn.Release()
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtextextended($1, 0))`, "openclaw:"+name).Scan(&ran); err != nil || !ran {
		return false, explain("lock "+name, err)
	}
	defer func() {
		// Also when ctx has ended: the connection goes back to the pool. If it cannot be
		// asked any more it must not, lock and all.
		unlock, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, uerr := conn.Exec(unlock, `SELECT pg_advisory_unlock(hashtextextended($1, 0))`, "openclaw:"+name); uerr != nil {
			_ = conn.Conn().Close(unlock)
			if err == nil {
				err = fmt.Errorf("unlock %s: %w", name, uerr)
			}
		}
	}()
	return true, do(ctx)
}
