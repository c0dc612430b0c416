package control

import (
	"encoding/json"
	"time"
)

// SubscriptionStatus is the state of a subscription, in Stripe's words.
type SubscriptionStatus string

// The states of a subscription.
const (
	SubscriptionIncomplete        SubscriptionStatus = "incomplete" // the first payment is not there yet
	SubscriptionIncompleteExpired SubscriptionStatus = "incomplete_expired"
	SubscriptionTrialing          SubscriptionStatus = "trialing"
	SubscriptionActive            SubscriptionStatus = "active"
	SubscriptionPastDue           SubscriptionStatus = "past_due"
	SubscriptionCanceled          SubscriptionStatus = "canceled"
	SubscriptionUnpaid            SubscriptionStatus = "unpaid"
	SubscriptionPaused            SubscriptionStatus = "paused"
)

// Live reports whether it is one of those of which a customer can have only one.
func (s SubscriptionStatus) Live() bool {
	switch s {
	case SubscriptionTrialing, SubscriptionActive, SubscriptionPastDue, SubscriptionUnpaid, SubscriptionPaused:
		return true
	}
	return false
}

// Final reports whether Stripe never changes this state any more.
func (s SubscriptionStatus) Final() bool {
	return s == SubscriptionCanceled || s == SubscriptionIncompleteExpired
}

// StripeSubscription is what Stripe says of a subscription.
type StripeSubscription struct {
	ID                string             `json:"id"` // Stripe's
	CustomerID        string             `json:"customer_id"`
	Status            SubscriptionStatus `json:"status"`
	Tier              string             `json:"tier"`
	PeriodStart       time.Time          `json:"period_start"`
	PeriodEnd         time.Time          `json:"period_end"`
	CancelAtPeriodEnd bool               `json:"cancel_at_period_end"`
	FailedPayments    int                `json:"failed_payments"` // most attempts of an invoice that is open; 0 once all are paid
	// UpgradedAt is from when on the tier was billed last within the period; zero if Stripe does
	// not say. It is not kept.
	UpgradedAt time.Time `json:"-"`
}

// Subscription is one with what only we know of it.
type Subscription struct {
	StripeSubscription
	// ReadAt is when Stripe was asked; an answer that is not newer changes nothing.
	ReadAt time.Time `json:"read_at"`
	// PendingTier holds from PendingFrom on; "" if none is to follow.
	PendingTier string    `json:"pending_tier,omitempty"`
	PendingFrom time.Time `json:"pending_from,omitzero"`
	// OverageCapCents is how much more than the price a period may cost; 0 means that
	// the customer did not ask for more than the limit.
	OverageCapCents int64 `json:"overage_cap_cents,omitempty"`
	// ReplacedBy is the customer's other subscription that counts instead of this one, which
	// entitles to nothing and is to be cancelled; "" if this one counts.
	ReplacedBy string    `json:"replaced_by,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
}

// StripeEvent is one of the inbox.
type StripeEvent struct {
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	APIVersion  string          `json:"api_version"`
	CreatedAt   time.Time       `json:"created_at"` // by Stripe's clock
	Payload     json.RawMessage `json:"payload,omitempty"`
	ReceivedAt  time.Time       `json:"received_at"`
	ProcessedAt time.Time       `json:"processed_at,omitzero"`
	Attempts    int             `json:"attempts"`
	NextAttempt time.Time       `json:"next_attempt_at"`
	Error       string          `json:"error,omitempty"` // of the last attempt that failed
}

// Mail is one that a customer gets once per kind and cause.
type Mail struct {
	ID         int64          `json:"id"`
	CustomerID string         `json:"customer_id"`
	Kind       string         `json:"kind"`  // names the template
	Cause      string         `json:"cause"` // what it is sent for, such as a period's id
	Language   Language       `json:"language"`
	Params     map[string]any `json:"params,omitempty"`
	CreatedAt  time.Time      `json:"created_at"`
	Attempts   int            `json:"attempts"`
	SentAt     time.Time      `json:"sent_at,omitzero"`
	Error      string         `json:"error,omitempty"`
	To         string         `json:"-"` // the customer's address when it was claimed

	// Unconfirmed is whether nobody has shown that the address is the customer's: then the
	// mail may say nothing that the customer has written.
	Unconfirmed bool `json:"-"`
}

// MeterReport tells Stripe of the tokens above the limit of one period from From on up
// to To: weighted, counted from the limit.
type MeterReport struct {
	ID             string `json:"id"` // our own: within a day Stripe counts it once
	CustomerID     string `json:"customer_id"`
	SubscriptionID string `json:"subscription_id"`
	PeriodID       string `json:"period_id"`
	From           int64  `json:"tokens_from"`
	To             int64  `json:"tokens_to"`
	// CentsPerMillion is what a million of them cost when they were used.
	CentsPerMillion int64     `json:"cents_per_million"`
	CreatedAt       time.Time `json:"created_at"`
	Attempts        int       `json:"attempts"`
	ReportedAt      time.Time `json:"reported_at,omitzero"`
	// SentAt is when it was first sent, zero if Stripe is known not to have it: without
	// ReportedAt it may have it. EventAt is when it happened, as Stripe was told.
	SentAt  time.Time `json:"sent_at,omitzero"`
	EventAt time.Time `json:"event_at,omitzero"`
	Error   string    `json:"error,omitempty"` // of the last attempt
}

// Microcents is what a report's tokens cost, in millionths of a cent: that is exact.
func (m *MeterReport) Microcents() int64 { return (m.To - m.From) * m.CentsPerMillion }
