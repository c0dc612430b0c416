package control

import "time"

// DeadLetter is something from the usage stream that could not be written. Operators
// see it, and replay or drop it; nothing else is done with it, and it is never
// removed. Index is -1 for a whole entry.
type DeadLetter struct {
	ID       int64  `json:"id"`
	StreamID string `json:"stream_id"`
	Index    int    `json:"index"`
	// Replica and Seq name the event; "" and 0 where that cannot be read from Payload.
	Replica string    `json:"replica,omitempty"`
	Seq     int64     `json:"seq,omitempty"`
	Payload []byte    `json:"payload"`
	Reason  string    `json:"reason"`
	SeenAt  time.Time `json:"seen_at"`
	// At most one of ReplayedAt and DroppedAt is set; with neither it waits.
	ReplayedAt time.Time `json:"replayed_at,omitzero"`
	DroppedAt  time.Time `json:"dropped_at,omitzero"`
}

// ReplicaStatus is the state of a replica.
type ReplicaStatus string

// The states of a replica.
const (
	ReplicaLive ReplicaStatus = "live"
	// ReplicaLost: an operator declared that its journal will not come back. Should
	// it send events all the same, they are recorded.
	ReplicaLost ReplicaStatus = "lost"
)

// Replica is a token-proxy, known by the id of its journal, as the ledger sees it.
type Replica struct {
	ID        string        `json:"id"`
	Status    ReplicaStatus `json:"status"`
	FirstSeen time.Time     `json:"first_seen"` // when its first event came
	LastSeen  time.Time     `json:"last_seen"`
	// Acked is the highest n such that all of its events 1…n are rows or parked, and
	// Highest the highest number of any. Where they differ for long, an event between
	// them has not come.
	Acked   int64 `json:"acked_seq"`
	Highest int64 `json:"highest_seq"`
	// RegisteredAt is zero unless it is on the quota's register, and LastBeat if no sign of
	// life of it was noted since.
	RegisteredAt time.Time `json:"registered_at,omitzero"`
	LastBeat     time.Time `json:"last_beat,omitzero"`
	LostAt       time.Time `json:"lost_at,omitzero"`
	LostReason   string    `json:"lost_reason,omitempty"`
}

// PeriodCheck compares the totals of one period with its events.
type PeriodCheck struct {
	CustomerID string    `json:"customer_id"`
	PeriodID   string    `json:"period_id"`
	Start      time.Time `json:"start,omitzero"` // zero if the period is not known
	End        time.Time `json:"end,omitzero"`
	// Kept is false if the period began before the months whose events are kept, so
	// that nothing can be said about its totals.
	Kept     bool        `json:"kept"`
	Recorded UsageTotals `json:"recorded"` // as in the period's row; zero if there is none
	Counted  UsageTotals `json:"counted"`  // summed up from the events
	// WrongDays is how many sums by day and model are not those of the events.
	WrongDays int64 `json:"wrong_days,omitempty"`
}

// TotalsDiffer reports whether the totals are known to be wrong.
func (c *PeriodCheck) TotalsDiffer() bool {
	return c.Kept && (c.Recorded != c.Counted || c.WrongDays != 0)
}
