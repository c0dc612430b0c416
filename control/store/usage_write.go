package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
)

// eventKey is the unique key of a usage event, with the precision of Postgres.
type eventKey struct {
	replica  string
	seq      int64
	admitted int64 // microseconds
}

func keyOf(d *control.Delivery) eventKey {
	return eventKey{d.Event.Replica, d.Event.Seq, d.Event.AdmittedAt.UnixMicro()}
}

// eventNames are the columns of usage_events, as eventColumns has them.
const eventNames = `
		replica, seq, admitted_at, period_id, request_id, upstream_request_id, customer_id, box_id, token_id, tier,
		model_asked, model_served, face, upstream, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
		settled_tokens, unbilled_tokens, reserved_tokens, basis, outcome, status, ttfb_us, duration_us`

// isDropped is what holds of the dead letters of a number if the event of that number with a given
// payload has been decided not to be billed: its own letter was dropped; or, if it has none, one
// was, and none waits, which may be billed still.
const isDropped = `bool_or(d.dropped_at IS NOT NULL) AND (bool_or(d.dropped_at IS NOT NULL AND d.payload_digest = k.payload_digest)
			OR NOT bool_or(d.dropped_at IS NULL AND d.replayed_at IS NULL))`

// insertEvents writes the events of known customers that are not there yet, and that nobody
// has decided not to bill, and adds to the totals, of periods and of days, what was really
// inserted: one statement, however many events. The outer parts of the CTE read all of "ins"
// before they lock a period, and all locks are taken in sorted order, so that concurrent
// writers never deadlock. Days come after the totals, because they ask for them: the row of a
// period guards the rows of its days.
const insertEvents = `
WITH ins AS (
	INSERT INTO usage_events (` + eventNames + `)
	SELECT ` + eventNames + `
	FROM unnest(
		$1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
		$11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[],
		$19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], $24::bigint[], $25::bigint[], $26::bigint[], $27::bytea[]
	) AS k (` + eventNames + `, payload_digest)
	WHERE EXISTS (SELECT FROM customers c WHERE c.id = k.customer_id)
		AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.replica = k.replica AND d.seq = k.seq HAVING ` + isDropped + `)
	ORDER BY k.replica, k.seq
	ON CONFLICT (replica, seq, admitted_at) DO NOTHING
	RETURNING replica, seq, admitted_at, customer_id, period_id, model_served, prompt_tokens, cached_tokens, completion_tokens,
		reasoning_tokens, settled_tokens, unbilled_tokens
), totals AS (
	INSERT INTO usage_periods AS p (
		customer_id, period_id, requests, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
		settled_tokens, unbilled_tokens)
	SELECT customer_id, period_id, count(*), sum(prompt_tokens)::bigint, sum(cached_tokens)::bigint,
		sum(completion_tokens)::bigint, sum(reasoning_tokens)::bigint, sum(settled_tokens)::bigint, sum(unbilled_tokens)::bigint
	FROM ins
	GROUP BY customer_id, period_id
	ORDER BY customer_id, period_id
	ON CONFLICT (customer_id, period_id) DO UPDATE SET
		requests = p.requests + excluded.requests,
		prompt_tokens = p.prompt_tokens + excluded.prompt_tokens,
		cached_tokens = p.cached_tokens + excluded.cached_tokens,
		completion_tokens = p.completion_tokens + excluded.completion_tokens,
		reasoning_tokens = p.reasoning_tokens + excluded.reasoning_tokens,
		settled_tokens = p.settled_tokens + excluded.settled_tokens,
		unbilled_tokens = p.unbilled_tokens + excluded.unbilled_tokens,
		updated_at = now()
	RETURNING 1
), days AS (
	INSERT INTO usage_days AS d (
		customer_id, day, model, period_id, requests, prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens,
		settled_tokens, unbilled_tokens)
	SELECT customer_id, (admitted_at AT TIME ZONE 'UTC')::date AS day, model_served, period_id, count(*), sum(prompt_tokens)::bigint,
		sum(cached_tokens)::bigint, sum(completion_tokens)::bigint, sum(reasoning_tokens)::bigint, sum(settled_tokens)::bigint,
		sum(unbilled_tokens)::bigint
	FROM ins WHERE (SELECT count(*) FROM totals) > 0
	GROUP BY customer_id, day, model_served, period_id
	ORDER BY customer_id, day, model_served, period_id
	ON CONFLICT (customer_id, day, model, period_id) DO UPDATE SET
		requests = d.requests + excluded.requests,
		prompt_tokens = d.prompt_tokens + excluded.prompt_tokens,
		cached_tokens = d.cached_tokens + excluded.cached_tokens,
		completion_tokens = d.completion_tokens + excluded.completion_tokens,
		reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
		settled_tokens = d.settled_tokens + excluded.settled_tokens,
		unbilled_tokens = d.unbilled_tokens + excluded.unbilled_tokens
)
SELECT replica, seq, admitted_at FROM ins`

// classifyEvents says of events that were not inserted why: their customer is
// unknown, a row with their key is there, the same or another one, or they were dropped.
const classifyEvents = `
SELECT k.i, c.id IS NOT NULL, e.replica IS NOT NULL,
	coalesce(e.request_id = k.request_id AND e.customer_id = k.customer_id AND e.period_id = k.period_id
		AND e.settled_tokens = k.settled AND e.unbilled_tokens = k.unbilled
		AND e.prompt_tokens = k.prompt AND e.completion_tokens = k.completion, false),
	EXISTS (SELECT FROM dead_letters d WHERE d.replica = k.replica AND d.seq = k.seq HAVING ` + isDropped + `)
FROM unnest($1::int[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[])
	AS k (i, replica, seq, admitted_at, request_id, customer_id, period_id, settled, unbilled, prompt, completion, payload_digest)
LEFT JOIN customers c ON c.id = k.customer_id
LEFT JOIN usage_events e ON e.replica = k.replica AND e.seq = k.seq AND e.admitted_at = k.admitted_at`

// RecordUsage writes deliveries and parks dead letters in one transaction, all or
// nothing. Each event becomes one row, ever, however often and by however many
// callers it is delivered, and counts in its period's totals exactly once. A
// delivery that cannot be written (its customer is unknown, its number belongs to
// another event, Postgres refuses a value) is parked as well; its neighbours are not
// held up. In the same transaction, what each replica may forget moves forward. An
// error means that nothing is known to be written: call again.
func (s *Store) RecordUsage(ctx context.Context, deliveries []control.Delivery, dead []control.DeadLetter) (control.Recorded, error) {
	w := usageWrite{dead: slices.Clone(dead)}
	recorded, err := s.write(ctx, &w, deliveries)
	return recorded, explain("record usage", err)
}

// write does what RecordUsage says.
func (s *Store) write(ctx context.Context, w *usageWrite, deliveries []control.Delivery) (control.Recorded, error) {
	w.now = s.now().UTC()
	w.accept(deliveries)
	err := s.recordUsage(ctx, w, false)
	if isDataError(err) {
		// One of the values is at fault, or a partition vanished. Find out which.
		s.forgetMonths()
		err = s.recordUsage(ctx, w, true)
	}
	if err != nil {
		return control.Recorded{}, err
	}
	return w.result, nil
}

func (s *Store) recordUsage(ctx context.Context, w *usageWrite, isolate bool) error {
	if err := s.ensureMonths(ctx, w.events); err != nil {
		return err
	}
	w.result = control.Recorded{Duplicates: w.repeats, Parked: slices.Clone(w.dead)}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var err error
		if isolate {
			err = w.insertIsolated(ctx, tx, w.events)
		} else {
			err = w.insert(ctx, tx, w.events)
		}
		if err != nil {
			return err
		}
		if err := parkDeadLetters(ctx, tx, w.result.Parked); err != nil {
			return err
		}
		faultpoint.At("store.record.during")
		if w.result.Acked, err = w.accounted().write(ctx, tx); err != nil {
			return err
		}
		if w.also != nil {
			if err := w.also(&Tx{tx}); err != nil {
				return err
			}
		}
		faultpoint.At("store.commit.before")
		return nil
	})
	faultpoint.At("store.commit.after")
	return err
}

// usageWrite is one call of RecordUsage.
type usageWrite struct {
	now     time.Time
	events  []control.Delivery // sorted, each key once
	repeats int                // same event twice in one call
	dead    []control.DeadLetter
	result  control.Recorded // of the transaction at hand
	// also, if set, runs in the same transaction, after everything else.
	also func(*Tx) error
}

// accounted returns the numbers of all that w has to do with: each event became a
// row, was one already, or is parked.
func (w *usageWrite) accounted() *accounted {
	a := &accounted{}
	for i := range w.events {
		a.add(w.events[i].Event.Replica, w.events[i].Event.Seq)
	}
	for _, d := range w.result.Parked {
		a.add(d.Replica, d.Seq)
	}
	return a
}

// accept sorts the deliveries, drops repetitions among them, and turns away what
// would ask for a partition far from now.
func (w *usageWrite) accept(deliveries []control.Delivery) {
	events := make([]control.Delivery, 0, len(deliveries))
	seen := make(map[eventKey]int, len(deliveries))
	for _, d := range deliveries {
		if first, ok := seen[keyOf(&d)]; ok {
			if sameEvent(&events[first], &d) {
				w.repeats++
			} else {
				w.dead = append(w.dead, deadLetter(d, "another event has this number"))
			}
			continue
		}
		if t := d.Event.AdmittedAt; t.Before(oldestKept(w.now)) || t.After(w.now.AddDate(0, 0, 2)) {
			w.dead = append(w.dead, deadLetter(d, "admitted_at "+t.UTC().Format(time.RFC3339)+" is outside of the months that are kept"))
			continue
		}
		seen[keyOf(&d)] = len(events)
		// Text that a client or the upstream chose must not keep an event from being
		// billed; Postgres refuses NUL.
		for _, text := range []*string{&d.Event.ModelAsked, &d.Event.ModelServed, &d.Event.UpstreamRequestID} {
			*text = strings.ReplaceAll(*text, "\x00", "\uFFFD")
		}
		events = append(events, d)
	}
	slices.SortFunc(events, func(a, b control.Delivery) int {
		return cmp.Or(cmp.Compare(a.Event.Replica, b.Event.Replica), cmp.Compare(a.Event.Seq, b.Event.Seq),
			a.Event.AdmittedAt.Compare(b.Event.AdmittedAt))
	})
	w.events = events
}

func (w *usageWrite) insert(ctx context.Context, tx pgx.Tx, events []control.Delivery) error {
	if len(events) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, insertEvents, eventColumns(events)...)
	if err != nil {
		return err
	}
	inserted := make(map[eventKey]bool, len(events))
	var replica string
	var seq int64
	var admitted time.Time
	if _, err := pgx.ForEachRow(rows, []any{&replica, &seq, &admitted}, func() error {
		inserted[eventKey{replica, seq, admitted.UnixMicro()}] = true
		return nil
	}); err != nil {
		return err
	}
	w.result.Inserted += len(inserted)
	if len(inserted) == len(events) {
		return nil
	}
	missing := make([]control.Delivery, 0, len(events)-len(inserted))
	for i := range events {
		if !inserted[keyOf(&events[i])] {
			missing = append(missing, events[i])
		}
	}
	return w.classify(ctx, tx, missing)
}

func (w *usageWrite) classify(ctx context.Context, tx pgx.Tx, missing []control.Delivery) error {
	rows, err := tx.Query(ctx, classifyEvents, classifyColumns(missing)...)
	if err != nil {
		return err
	}
	var i int
	var known, there, same, dropped bool
	_, err = pgx.ForEachRow(rows, []any{&i, &known, &there, &same, &dropped}, func() error {
		switch {
		case same:
			w.result.Duplicates++
		case there:
			w.result.Parked = append(w.result.Parked, deadLetter(missing[i], "another event has this number"))
		case !known:
			w.result.Parked = append(w.result.Parked, deadLetter(missing[i], "unknown customer"))
		case dropped:
			w.result.Duplicates++ // of a dead letter that is dealt with
		default:
			// The customer, or the row, came or went between two statements.
			return errRaced
		}
		return nil
	})
	return err
}

// errRaced makes the caller start again.
var errRaced = errors.New("the database changed meanwhile")

// insertIsolated inserts events in halves, each under a savepoint, until what
// Postgres refuses stands alone and is parked.
func (w *usageWrite) insertIsolated(ctx context.Context, tx pgx.Tx, events []control.Delivery) error {
	before := w.result
	err := pgx.BeginFunc(ctx, tx, func(sp pgx.Tx) error { return w.insert(ctx, sp, events) })
	if !isDataError(err) {
		return err
	}
	w.result = before
	if len(events) == 1 {
		w.result.Parked = append(w.result.Parked, deadLetter(events[0], refusal(err)))
		return nil
	}
	half := len(events) / 2
	if err := w.insertIsolated(ctx, tx, events[:half]); err != nil {
		return err
	}
	return w.insertIsolated(ctx, tx, events[half:])
}

func sameEvent(a, b *control.Delivery) bool {
	x, y := &a.Event, &b.Event
	return x.RequestID == y.RequestID && x.CustomerID == y.CustomerID && x.PeriodID == y.PeriodID &&
		x.Settled == y.Settled && x.Unbilled == y.Unbilled && x.Prompt == y.Prompt && x.Completion == y.Completion
}

// isDataError reports whether Postgres refused a value, so that asking again with the
// same values is of no use: classes 22 (data exception), 23 (integrity constraint
// violation) and 54 (program limit exceeded, such as a key too long for its index).
func isDataError(err error) bool {
	code := sqlState(err)
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || strings.HasPrefix(code, "54")
}

// refusal says what Postgres minded, without the row's values.
func refusal(err error) string {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err.Error()
	}
	if pg.ConstraintName != "" {
		return fmt.Sprintf("refused by Postgres: %s (%s)", pg.ConstraintName, pg.Code)
	}
	return fmt.Sprintf("refused by Postgres: %s (%s)", pg.Message, pg.Code)
}
