package control

import (
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ChangeKind says what a Change carries.
type ChangeKind string

// The kinds of change.
const (
	ChangeGrant ChangeKind = "grant" // a new version of one token's grant
	ChangeLimit ChangeKind = "limit" // a new limit of one customer and period
)

// Change is one row of the outbox: committed together with what it announces, and
// published afterwards, at least once. Publishing is idempotent, because readers
// compare versions.
type Change struct {
	ID         int64
	Kind       ChangeKind
	CustomerID string
	Digest     contract.Digest // with ChangeGrant
	Grant      contract.Grant  // with ChangeGrant
	Limit      Limit           // with ChangeLimit
	CreatedAt  time.Time
	// Newest is, for who publishes it, the highest number under which a change was published before.
	Newest int64
}

// Limit is the monthly limit of one customer and period.
type Limit struct {
	Period  contract.Period `json:"period"`
	Tokens  int64           `json:"tokens"` // weighted
	Version int64           `json:"version"`
}

// Audit is one entry of the audit log. Detail must not hold secrets.
type Audit struct {
	Actor      string         `json:"actor"`  // who: a person or a program
	Action     string         `json:"action"` // what, such as "token.revoke"
	CustomerID string         `json:"customer_id,omitempty"`
	Target     string         `json:"target"` // id of the thing that was changed
	Detail     map[string]any `json:"detail,omitempty"`
}
