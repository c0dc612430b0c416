package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Asked is a query that was sent, and the plans by which Postgres answers it: made for
// its arguments, and made for any.
type Asked struct{ SQL, Custom, Generic string }

type queryLog struct {
	mu   sync.Mutex
	sent []pgx.TraceQueryStartData
}

func (l *queryLog) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, d)
	return ctx
}

func (l *queryLog) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Plans runs do with the store and returns the plans of what it asked, except where that
// changed something. With a customer, do gets a transaction of that customer, and the plans
// are those under its policies.
func Plans(ctx context.Context, s *Store, customer string, do func(*Store, *Tx) error) ([]Asked, error) {
	log := &queryLog{}
	cfg := s.pool.Config()
	cfg.ConnConfig.Tracer = log
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	traced := &Store{pool: pool, now: s.now, months: make(map[string]bool), locks: make(map[string]bool)}
	defer pool.Close()
	if customer == "" {
		err = do(traced, nil)
	} else {
		err = traced.ForCustomer(ctx, customer, func(tx *Tx) error { return do(traced, tx) })
	}
	if err != nil {
		return nil, err
	}
	var asked []Asked
	for _, q := range log.sent {
		sql := strings.TrimSpace(q.SQL)
		if !strings.HasPrefix(sql, "SELECT") && !strings.HasPrefix(sql, "WITH") || strings.Contains(sql, "set_config") {
			continue
		}
		in := func(ctx context.Context, _ string, do func(*Tx) error) error { return s.InTx(ctx, do) }
		if customer != "" {
			in = s.ForCustomer
		}
		a := Asked{SQL: sql}
		err := in(ctx, customer, func(tx *Tx) (err error) {
			if a.Custom, err = planOf(ctx, tx, "EXPLAIN "+sql, q.Args...); err != nil {
				return err
			}
			if _, err := tx.tx.Exec(ctx, "SET LOCAL plan_cache_mode = force_generic_plan"); err != nil {
				return err
			}
			if _, err := tx.tx.Exec(ctx, "PREPARE asked AS "+sql); err != nil {
				return err
			}
			a.Generic, err = planOf(ctx, tx, "EXPLAIN EXECUTE asked"+literals(q.Args))
			if err != nil {
				return err
			}
			_, err = tx.tx.Exec(ctx, "DEALLOCATE asked")
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sql, err)
		}
		asked = append(asked, a)
	}
	return asked, nil
}

func planOf(ctx context.Context, tx *Tx, explain string, args ...any) (string, error) {
	rows, _ := tx.tx.Query(ctx, explain, args...)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(lines, "\n"), err
}

// literals writes arguments as EXECUTE takes them.
func literals(args []any) string {
	if len(args) == 0 {
		return ""
	}
	list := make([]string, len(args))
	for i, a := range args {
		text := fmt.Sprint(a)
		switch v := a.(type) {
		case time.Time:
			text = v.Format(time.RFC3339Nano)
		case []byte:
			text = fmt.Sprintf(`\x%x`, v)
		case []string:
			text = "{" + strings.Join(v, ",") + "}"
		}
		list[i] = "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	return "(" + strings.Join(list, ", ") + ")"
}
