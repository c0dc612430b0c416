package control

import (
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// QuotaEpoch is an epoch of the quota as Postgres has it: see package quota. The zero
// value stands for none.
type QuotaEpoch struct {
	Number int64
	// Based says that it is fixed which events the epoch's records contain, so that
	// records can be made.
	Based bool
}

// QuotaKey names a record in Redis.
type QuotaKey struct{ CustomerID, PeriodID string }

// QuotaRecord is what a record in Redis is made from. Period has no start and no end,
// and the limit is 0 with version 0, where Postgres does not know the period.
type QuotaRecord struct {
	CustomerID   string
	Period       contract.Period
	Limit        int64 // weighted tokens
	LimitVersion int64
	Settled      int64 // by the events that the epoch's records contain
}

// Key names the record.
func (r *QuotaRecord) Key() QuotaKey { return QuotaKey{r.CustomerID, r.Period.ID} }

// Member is a replica on the quota's register.
type Member struct {
	ID       string
	Lost     bool
	Retiring bool  // it is about to be taken off the register
	Acked    int64 // all of its events up to this number are in Postgres
	// InEpoch says that the epoch asked for has a base for it, which is Base.
	InEpoch bool
	Base    int64
	// Of a lost one: it was told, should it live in fact; what it leased may still be
	// usable; it is not for long, and nobody has freed it.
	Shut, Usable, Overdue bool
	// Life is the newest one of its journal that was noted, 0 if none was.
	Life int64
}

// Marks say how far a replica's events of one period have come.
type Marks struct {
	Replica string
	Acked   int64 // all of its events up to this number are in Postgres, or parked
	Highest int64 // number of the newest one of the period that is in Postgres; 0 if none is
	// Member says that it settles its events above Base itself; records contain the others.
	Member bool
	Base   int64
}

// Beat is the last sign of life of a replica.
type Beat struct {
	Replica string
	Life    int64
	At      time.Time // by the replica's clock
}

// Released says what was freed of one record when a replica was given up.
type Released struct {
	CustomerID string `json:"customer_id"`
	PeriodID   string `json:"period_id"`
	// Settled is what the replica had used, with rows in Postgres, and not settled.
	Settled int64 `json:"settled_tokens"`
	// Freed is what it leased beyond that.
	Freed int64 `json:"freed_tokens"`
}
