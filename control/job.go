package control

import "time"

// Job is one that waits, runs or ran, as operators see it. Its arguments are not shown.
type Job struct {
	ID          int64     `json:"id"`
	Kind        string    `json:"kind"`
	State       string    `json:"state"` // River's: available, scheduled, pending, running, retryable, completed, cancelled, discarded
	Attempt     int       `json:"attempt"`
	MaxAttempts int       `json:"max_attempts"`
	CreatedAt   time.Time `json:"created_at"`
	ScheduledAt time.Time `json:"scheduled_at"`
	FinishedAt  time.Time `json:"finished_at,omitzero"`
	Error       string    `json:"error,omitempty"` // of the last attempt that failed
}

// Invoice is one of Stripe's, as its customer sees it.
type Invoice struct {
	ID          string    `json:"id"`
	Number      string    `json:"number,omitempty"` // "" for a draft
	Status      string    `json:"status"`           // Stripe's: draft, open, paid, uncollectible, void
	AmountCents int64     `json:"amount_cents"`     // due, in Currency
	Currency    string    `json:"currency"`         // ISO 4217, lower case
	CreatedAt   time.Time `json:"created_at"`
	URL         string    `json:"url,omitempty"` // where it is shown and paid
	PDF         string    `json:"pdf,omitempty"`
}

// Acknowledgement says that a replica has applied what was published.
type Acknowledgement struct {
	Replica string `json:"replica"`
	// Applied is false for one that lives and has not said so in time.
	Applied bool `json:"applied"`
	// AfterMS is how long after the change was saved that was, in milliseconds; 0 unless applied.
	AfterMS float64 `json:"after_ms,omitempty"`
}
