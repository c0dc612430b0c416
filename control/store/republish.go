package store

import (
	"context"
	"errors"
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
	err := s.pool.QueryRow(ctx, newestFeedSeq).Scan(&seq)
	return seq, explain("newest number of the feed", err)
}

const newestFeedSeq = `SELECT coalesce(max(feed_seq), 0) FROM config_changes WHERE feed_seq IS NOT NULL`

// maxLocks is how many locks a process has at once. Each has its connection to Postgres, beside
// the pool's, and customers ask for them: without a bound they could use up all that it accepts.
const maxLocks = 8

// WithLock runs do while nobody else holds the lock of that name, here or in another process,
// and reports whether it ran: it does not wait for the lock. A process that dies, loses its
// connection or is stopped for some seconds loses the lock with it: then the context of do ends,
// and that is an error. More than 8 locks at once in a process are control.ErrUnavailable.
func (s *Store) WithLock(ctx context.Context, name string, do func(context.Context) error) (ran bool, err error) {
	op := "lock " + name
	free, err := s.reserveLock(name)
	if err != nil || !free {
		return false, explain(op, err)
	}
	defer s.forgetLock(name)
	conn, err := s.connect(ctx)
	if err != nil {
		return false, explain(op, err)
	}
	defer disconnect(ctx, conn)
	if ran, err = tryLock(ctx, conn, name); err != nil || !ran {
		return false, explain(op, err)
	}
	working, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		keepLock(working, conn, stop)
	}()
	err = do(working)
	lost := context.Cause(working)
	stop(nil)
	<-ended
	if ctx.Err() == nil && lost != nil {
		err = errors.Join(err, fmt.Errorf("%s: it was lost: %w", op, lost))
	}
	return true, err
}

// reserveLock reports whether the process may ask for the lock of a name: not while it has it
// itself. forgetLock ends that.
func (s *Store) reserveLock(name string) (bool, error) {
	s.locksMu.Lock()
	defer s.locksMu.Unlock()
	switch {
	case s.locks[name]:
		return false, nil
	case len(s.locks) >= maxLocks:
		return false, fmt.Errorf("%w: %d locks are in use here", control.ErrUnavailable, maxLocks)
	}
	s.locks[name] = true
	return true, nil
}

func (s *Store) forgetLock(name string) {
	s.locksMu.Lock()
	defer s.locksMu.Unlock()
	delete(s.locks, name)
}

// keepLock is heard of until ctx ends. If the server does not answer, it calls lost.
func keepLock(ctx context.Context, conn *pgx.Conn, lost context.CancelCauseFunc) {
	tick := time.NewTicker(leaderSilence / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asking, cancel := context.WithTimeout(ctx, leaderSilence/2)
		_, err := conn.Exec(asking, `SELECT`)
		cancel()
		if err != nil {
			lost(err)
			return
		}
	}
}
