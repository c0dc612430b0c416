// Package quota keeps the promise of the monthly limit: settled tokens of a period
// never exceed max(limit, what was settled and leased when the limit was lowered), over
// all replicas, under any concurrency, kills and loss of Redis included.
//
// Vocabulary: a request reserves an upper bound of what it can use (a Hold) before
// anything is sent to the upstream, and settles what it really used, never more than it
// reserved. A replica reserves from tokens that it has leased; free = limit − settled −
// leased.
//
//   - Leases is a replica's side: it answers from memory, leases in the background, and
//     settles what it reads in the journal.
//   - Keeper is the control plane's side: it makes the records in Redis, and rules the
//     epochs that follow a loss of Redis' data.
//
// script.go has the protocol between them, account.go the arithmetic of a replica;
// model_test.go explores every schedule of both for small numbers.
package quota

import (
	"context"
	"errors"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Account names whose tokens are reserved, and carries what the grant says of the
// limit. The limit with the highest version wins, wherever it was seen first.
type Account struct {
	Customer     string
	Period       contract.Period
	Limit        int64 // weighted tokens
	LimitVersion int64
}

// Verdict is the answer to a reservation.
type Verdict uint8

// The verdicts.
const (
	// Unknown: this process cannot tell without I/O; call Reserve.
	Unknown Verdict = iota
	// Granted: the tokens are held.
	Granted
	// Held: they fit into limit − settled, but others hold part of it just now.
	Held
	// Exceeds: they do not fit into limit − settled.
	Exceeds
)

// Hold is a reservation. The zero Hold reserves nothing. It ends exactly once: released,
// or settled by the event that the journal makes of its request.
type Hold struct {
	Customer string
	PeriodID string // of admission; settlement goes there whatever the clock says by then
	Tokens   int64
}

// IsZero reports whether h reserves nothing and never did.
func (h Hold) IsZero() bool { return h.PeriodID == "" }

// Answer is what a reservation came to. The counters are as of the decision.
type Answer struct {
	Verdict Verdict
	Hold    Hold // with Granted
	Limit   int64
	Settled int64
	Held    int64 // by requests in flight on this replica, this one included
}

// Left returns limit − settled, at least 0: what a request may use once nobody
// else holds anything.
func (a Answer) Left() int64 { return max(a.Limit-a.Settled, 0) }

// Usage is the state of one account.
type Usage struct {
	Customer string
	PeriodID string
	Limit    int64
	Settled  int64
	Held     int64 // leased by replicas: by requests in flight, not yet settled, or spare
}

// ErrUnavailable says that the ledger cannot answer (its Redis is out of reach).
// Nothing was reserved as far as the caller is concerned. Never fail open on it.
var ErrUnavailable = errors.New("quota ledger unavailable")

// DefaultTimeout bounds one Redis command of a replica. An exchange waits for a processor like everything
// else: with thousands of clients that ask all at once for 250 ms and longer, before the first
// is refused. It is short enough for the feed to be heard within a second although one reading, of one
// each 250 ms, hangs.
const DefaultTimeout = 600 * time.Millisecond

// Ledger is what the request path needs of the limit; Leases implements it. All methods
// are safe for concurrent use.
type Ledger interface {
	// TryReserve answers without I/O or blocking; Unknown when it cannot.
	TryReserve(acct Account, tokens int64) Answer
	// Reserve answers with a round trip or two, also where
	// tokens is 0, unless one has just been made. It never waits for tokens that others
	// hold. The error is ErrUnavailable (wrapped) or the context's.
	Reserve(ctx context.Context, acct Account, tokens int64) (Answer, error)
	// Release frees a hold of which nothing was used. A hold whose request was completed
	// in the journal must not be released.
	Release(h Hold)
	// Usage returns the counters of an account.
	Usage(ctx context.Context, acct Account) (Usage, error)
	// Changed returns a channel that is closed at the next settlement or release
	// that this process knows of for the customer, so that a waiter can try again.
	// A waiter must also poll: other replicas' settlements need not be seen.
	Changed(customer string) <-chan struct{}
}

// Journal is where Leases reads what was used; journal.Journal implements it.
type Journal interface {
	// Replica is the name of the journal's owner, minted with the journal.
	Replica() string
	// Life grows each time the journal is opened. It is at least 1.
	Life() uint64
	// Last is the number of the newest event, Forgotten that of the newest one that is gone.
	Last() int64
	Forgotten() int64
	// Next returns the events after number after, at most n, in the order of their numbers.
	Next(after int64, n int) ([]contract.Event, error)
	// Wait returns once there is an event after number after, or with an error.
	Wait(ctx context.Context, after int64) error
}

// RequestRate is the limit of requests per second of one customer over all replicas.
type RequestRate struct {
	PerSecond float64
	Burst     int
}

// RateLimiter admits requests per customer. Over all replicas and any 10 s it
// admits at most 1.1 × rate × 10 + burst × replicas, and at least 0.9 × rate when
// one replica gets all the traffic. Allow makes no round trip. A replica that is cut
// off from Redis keeps its share for Options.Grace, while the others take it over: for
// those seconds it may be twice the rate, so that an outage of Redis slows nobody down.
type RateLimiter interface {
	// Allow takes one request at time now. When it refuses, retry is how long to
	// wait before the next try makes sense; remaining is what the bucket still holds.
	Allow(customer string, r RequestRate, now time.Time) (ok bool, remaining int, retry time.Duration)
	// Remaining returns what Allow would find in the bucket.
	Remaining(customer string, r RequestRate, now time.Time) int
}
