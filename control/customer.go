package control

import (
	"crypto/rand"
	"strings"
	"time"
)

// CustomerStatus is the state of a customer.
type CustomerStatus string

// The states of a customer.
const (
	// CustomerPending signed up and has not paid: its Tier is what it asked for, and
	// entitles to nothing.
	CustomerPending   CustomerStatus = "pending"
	CustomerActive    CustomerStatus = "active"
	CustomerSuspended CustomerStatus = "suspended" // requests are refused until reactivated
	// CustomerCancelled has no tokens and boxes any more, for good. Unless it was deleted,
	// another subscription begins anew, with others.
	CustomerCancelled CustomerStatus = "cancelled"
)

// Customer is one paying party. Its ID is a DNS label of at most 54 characters,
// because it becomes part of a namespace name.
type Customer struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Email     string         `json:"email,omitempty"`
	Tier      string         `json:"tier"`
	Status    CustomerStatus `json:"status"`
	CreatedAt time.Time      `json:"created_at"`
}

// ListedCustomer is a customer in a list of customers.
type ListedCustomer struct {
	Customer
	// Period is nil without a present period.
	Period *LimitUse `json:"period,omitempty" doc:"The present period, as it was written: up to a few seconds old."`
}

// LimitUse is how much of the limit of a period is used. Weighted tokens.
type LimitUse struct {
	Used  int64 `json:"used_tokens"` // settled
	Limit int64 `json:"limit_tokens"`
	// Percent is rounded down, so that it is 100 when nothing is left, and not before. Of a
	// limit of 0 all is used.
	Percent int64 `json:"used_percent" doc:"Of the limit, rounded down; of a limit of 0 it is 100."`
}

// CustomersFilter says which customers a list has: those for which all of it holds.
type CustomersFilter struct {
	Prefix string         // the e-mail address or the name begins so, in any case; "" for any
	Status CustomerStatus // "" for any
	// UsedFrom is how much of the limit of the present period is used at least, in percent;
	// nil for any, also without a present period.
	UsedFrom *int
}

// Language is what a customer is written to in.
type Language string

// The languages.
const (
	English    Language = "en"
	Portuguese Language = "pt-BR"
)

// Account is what only the account pages and billing need of a customer.
type Account struct {
	Customer
	Language Language `json:"language"`
	// StripeID is "" before the first checkout.
	StripeID  string    `json:"stripe_customer_id,omitempty"`
	DeletedAt time.Time `json:"deleted_at,omitzero"` // its personal data is gone
}

// The first letter of each kind of identifier, for NewID.
const (
	CustomerID   = "c"
	BoxID        = "b"
	TokenID      = "t"
	IdentityID   = "i"
	OperatorID   = "o"
	SessionID    = "s"
	APIKeyID     = "k"
	MeterID      = "m"
	OnboardingID = "n"
)

// NewID returns kind followed by 80 random bits in lower-case base32: a DNS label
// that never collides and tells nothing.
func NewID(kind string) string {
	return kind + strings.ToLower(rand.Text()[:16])
}
