package control

import (
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// UsagePeriod is one billing period of a customer with its totals. Start and End
// are zero, and LimitVersion is 0, in a row that the ledger opened because events
// came before the period was known.
type UsagePeriod struct {
	CustomerID   string      `json:"customer_id"`
	ID           string      `json:"period_id"`
	Start        time.Time   `json:"start,omitzero"`
	End          time.Time   `json:"end,omitzero"`
	LimitTokens  int64       `json:"limit_tokens"`  // weighted tokens
	LimitVersion int64       `json:"limit_version"` // grows with every change of LimitTokens
	Totals       UsageTotals `json:"totals"`
}

// PeriodOverage says how the tokens of a period are paid for. Weighted tokens.
type PeriodOverage struct {
	// Tokens of the period's limit are paid for one by one, on top of the price.
	Tokens int64
	// Included are those that the price pays for: whatever an operator makes of the limit, none
	// of them is billed again.
	Included int64
	// Ceiling is the most that the limit may be since an operator lowered it; nil without.
	Ceiling *int64
	// Used is what is to be billed. It may be more than Tokens: of a limit that was lowered
	// while requests were under way, for one.
	Used int64
}

// UsageTotals are sums over the usage events of a period.
type UsageTotals struct {
	Requests   int64 `json:"requests"`
	Prompt     int64 `json:"prompt_tokens"` // cached included
	Cached     int64 `json:"cached_tokens"`
	Completion int64 `json:"completion_tokens"` // reasoning included
	Reasoning  int64 `json:"reasoning_tokens"`
	Settled    int64 `json:"settled_tokens"`  // weighted, charged to the limit
	Unbilled   int64 `json:"unbilled_tokens"` // weighted, counted by the upstream above what was reserved
}

// Period returns the contract's view of p.
func (p UsagePeriod) Period() contract.Period {
	return contract.Period{ID: p.ID, Start: p.Start, End: p.End}
}

// Contains reports whether t lies in [Start, End).
func (p UsagePeriod) Contains(t time.Time) bool {
	return !t.Before(p.Start) && t.Before(p.End)
}

// FirstPeriod returns the period of one month that starts at start. Periods are
// anchored to the day that a customer began, like a subscription's, not to the
// calendar; their id is the start in UTC, so ids of one customer sort by time.
func FirstPeriod(customer string, start time.Time, limit int64) UsagePeriod {
	start = start.UTC().Truncate(time.Second)
	return UsagePeriod{
		CustomerID: customer, ID: periodID(start),
		Start: start, End: MonthsAfter(start, 1),
		LimitTokens: limit, LimitVersion: 1,
	}
}

// PeriodAt returns the period that contains now in the chain that anchor began,
// which must not be after now. The chain counts months from the anchor, so that a
// customer of the 31st is renewed on the last day of short months and on the 31st
// of the others.
func PeriodAt(customer string, anchor, now time.Time, limit int64) UsagePeriod {
	anchor = anchor.UTC().Truncate(time.Second)
	now = now.UTC()
	n := max((now.Year()-anchor.Year())*12+int(now.Month()-anchor.Month())-1, 0)
	for !now.Before(MonthsAfter(anchor, n+1)) {
		n++
	}
	start := MonthsAfter(anchor, n)
	return UsagePeriod{
		CustomerID: customer, ID: periodID(start),
		Start: start, End: MonthsAfter(anchor, n+1),
		LimitTokens: limit, LimitVersion: 1,
	}
}

// MonthsAfter adds n months to t and stays within the month: one month after
// January 31st is February 28th (or 29th), not March 3rd.
func MonthsAfter(t time.Time, n int) time.Time {
	first := time.Date(t.Year(), t.Month(), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), t.Location())
	first = first.AddDate(0, n, 0)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1)
}

func periodID(start time.Time) string { return start.Format("20060102T150405Z") }

// Delivery is one usage event as it was read from the usage stream.
type Delivery struct {
	StreamID string // of the stream's entry
	Index    int    // within the entry's batch
	Payload  []byte // the encoded event, kept to park what cannot be written
	Event    contract.Event
}

// Recorded says what became of a number of deliveries. Inserted, Duplicates and the
// length of Parked sum up to the number of deliveries and of dead letters that were
// handed over.
type Recorded struct {
	Inserted   int
	Duplicates int // were there already, with the same content
	Parked     []DeadLetter
	// Acked holds, for each replica that something was from, the highest n such that
	// all of its events 1…n are rows or parked.
	Acked map[string]int64
}

// UsageShare is what a customer used of one model on one day, by admission.
type UsageShare struct {
	Day        time.Time `json:"day"`   // its beginning, UTC
	Model      string    `json:"model"` // as served
	Requests   int64     `json:"requests"`
	Prompt     int64     `json:"prompt_tokens"` // cached included
	Cached     int64     `json:"cached_tokens"`
	Completion int64     `json:"completion_tokens"` // reasoning included
	Reasoning  int64     `json:"reasoning_tokens"`
	Settled    int64     `json:"settled_tokens"` // weighted, charged to the limit
}

// TierUsage sums up the periods of all customers of one tier.
type TierUsage struct {
	Tier      string      `json:"tier"`
	Customers int64       `json:"customers"`
	Limit     int64       `json:"limit_tokens"` // weighted
	Totals    UsageTotals `json:"totals"`
}
