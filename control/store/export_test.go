package store

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

type queryCounter struct{ n atomic.Int64 }

func (q *queryCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	q.n.Add(1)
	return ctx
}

func (q *queryCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// CountQueries counts the statements that s sends from now on.
func CountQueries(s *Store) *atomic.Int64 {
	counter := &queryCounter{}
	cfg := s.pool.Config()
	cfg.ConnConfig.Tracer = counter
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		panic(err)
	}
	s.pool.Close()
	s.pool = pool
	return &counter.n
}

// SetNow sets the clock of s.
func SetNow(s *Store, now func() time.Time) { s.now = now }

// ForBenchmark returns a migrated store on a fresh database.
func ForBenchmark(b *testing.B) *Store {
	st, err := Open(b.Context(), testenv.Postgres(b).URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(st.Close)
	if _, err := st.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	return st
}

// Exec runs any statement within tx and returns how many rows it was about.
func Exec(ctx context.Context, tx *Tx, statement string, args ...any) (int64, error) {
	tag, err := tx.tx.Exec(ctx, statement, args...)
	return tag.RowsAffected(), err
}

// Text runs a query within tx that answers with one text.
func Text(ctx context.Context, tx *Tx, query string, args ...any) (s string, err error) {
	err = tx.tx.QueryRow(ctx, query, args...).Scan(&s)
	return s, err
}
