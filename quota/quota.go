// Package quota keeps the promise of the monthly limit: settled tokens of a
// period never exceed max(limit, what was settled and held when the limit was
// lowered), over all replicas and under any concurrency.
//
// Vocabulary: a request reserves an upper bound of what it can use (a Hold) before
// anything is sent to the upstream, and settles what it really used, never more
// than it reserved. free = limit − settled − held.
//
// Ledger is the interface that the proxy uses. RedisLedger keeps all counters in
// Redis and asks one script per reservation; a ledger that leases tokens to each
// replica answers TryReserve from memory.
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
	// HoldID names the hold that this reservation makes, so that whoever finds the
	// request in a journal can settle it after a crash. It must be unique for ever;
	// a reservation that failed may be repeated under it. Empty: the ledger makes one up.
	HoldID string
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

// Hold is a reservation. The zero Hold reserves nothing. It is settled or released
// exactly once, by one owner; a repeated settlement changes nothing.
type Hold struct {
	ID       string // unique for ever; empty in the zero Hold
	Customer string
	PeriodID string // of admission; settlement goes there whatever the clock says by then
	Tokens   int64
}

// Answer is what a reservation came to. The counters are as of the decision.
type Answer struct {
	Verdict Verdict
	Hold    Hold // with Granted
	Limit   int64
	Settled int64
	Held    int64 // over all replicas, this hold included
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
	Held     int64
}

// ErrUnavailable says that the ledger cannot answer (its Redis is out of reach).
// Nothing was reserved as far as the caller is concerned. Never fail open on it.
var ErrUnavailable = errors.New("quota ledger unavailable")

// Ledger reserves and settles tokens. All methods are safe for concurrent use.
type Ledger interface {
	// TryReserve answers without I/O or blocking; Unknown when it cannot.
	TryReserve(acct Account, tokens int64) Answer
	// Reserve answers with at most one round trip. It never waits for tokens that
	// others hold. The error is ErrUnavailable (wrapped) or the context's.
	Reserve(ctx context.Context, acct Account, tokens int64) (Answer, error)
	// Settle charges used tokens (clamped to [0, h.Tokens]) and frees the rest. It
	// does not block on I/O; what could not be written yet is kept and retried.
	Settle(h Hold, used int64)
	// Release frees a hold of which nothing was used.
	Release(h Hold)
	// SetLimit changes the limit of an account if version is newer than the one known.
	SetLimit(ctx context.Context, acct Account) error
	// Usage returns the counters of an account.
	Usage(ctx context.Context, acct Account) (Usage, error)
	// Flush waits until every settlement so far is written, or the context ends.
	Flush(ctx context.Context) error
	// Changed returns a channel that is closed at the next settlement or release
	// that this process knows of for the customer, so that a waiter can try again.
	// A waiter must also poll: other replicas' settlements need not be seen.
	Changed(customer string) <-chan struct{}
}

// RequestRate is the limit of requests per second of one customer over all replicas.
type RequestRate struct {
	PerSecond float64
	Burst     int
}

// RateLimiter admits requests per customer. Over all replicas and any 10 s it
// admits at most 1.1 × rate × 10 + burst × replicas, and at least 0.9 × rate when
// one replica gets all the traffic. Allow makes no round trip.
type RateLimiter interface {
	// Allow takes one request at time now. When it refuses, retry is how long to
	// wait before the next try makes sense; remaining is what the bucket still holds.
	Allow(customer string, r RequestRate, now time.Time) (ok bool, remaining int, retry time.Duration)
	// Remaining returns what Allow would find in the bucket.
	Remaining(customer string, r RequestRate, now time.Time) int
}
