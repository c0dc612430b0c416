package control

import (
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ProviderPassword is the provider of identities whose subject is an e-mail address and
// that have a secret here. Any other provider vouches for its subjects itself.
const ProviderPassword = "password"

// Identity is one way in which a customer signs in.
type Identity struct {
	ID         string    `json:"id"`
	CustomerID string    `json:"customer_id"`
	Provider   string    `json:"provider"`
	Subject    string    `json:"subject"` // unique per provider; an e-mail address in lower case with ProviderPassword
	SecretHash string    `json:"-"`       // with ProviderPassword only; encoded with its parameters and salt
	CreatedAt  time.Time `json:"created_at"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
}

// Role is what an operator may do.
type Role string

// The roles of operators.
const (
	RoleOperator Role = "operator"
	RoleAdmin    Role = "admin"
	RoleSupport  Role = "support"
)

// Operator is a person who runs the platform.
type Operator struct {
	ID           string    `json:"id"`
	Email        string    `json:"email"` // in lower case
	Role         Role      `json:"role"`
	PasswordHash string    `json:"-"`
	CreatedAt    time.Time `json:"created_at"`
	DisabledAt   time.Time `json:"disabled_at,omitzero"`
}

// SubjectKind says who a Subject is.
type SubjectKind string

// The kinds of subject.
const (
	SubjectCustomer SubjectKind = "customer"
	SubjectOperator SubjectKind = "operator"
)

// Subject is who signed in.
type Subject struct {
	Kind SubjectKind `json:"kind"`
	ID   string      `json:"id"`
}

// Session is a sign-in: the family of refresh tokens that follow from it.
type Session struct {
	ID        string    `json:"id"`
	Subject   Subject   `json:"subject"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"` // of its newest token
}

// APIKey is what is kept of a customer's personal key: never the key itself.
type APIKey struct {
	ID         string          `json:"id"`
	CustomerID string          `json:"customer_id"`
	Digest     contract.Digest `json:"-"`
	Hint       string          `json:"hint"` // last four characters
	Name       string          `json:"name"` // the customer's, at most 100 characters
	CreatedAt  time.Time       `json:"created_at"`
	LastUsedAt time.Time       `json:"last_used_at,omitzero"` // to the minute
	RevokedAt  time.Time       `json:"revoked_at,omitzero"`
}

// IdempotentRequest is a request that must have its effect once.
type IdempotentRequest struct {
	Subject Subject
	Key     string   // the caller's, at most 255 bytes
	Digest  [32]byte // of method, path and body, with a secret as its key: bodies hold passwords
}

// Answer is what an idempotent request was answered.
type Answer struct {
	Status int
	Body   []byte
}

// PageKey is where a page of a list begins: behind the entry of that age and id. The zero
// value stands for the first page.
type PageKey struct {
	At time.Time
	ID string
}

// AuditEntry is one of the audit log as it is read.
type AuditEntry struct {
	ID int64     `json:"id"`
	At time.Time `json:"at"`
	Audit
}

// CustomerData is what a customer gets who asks for all that is known of it, without its
// usage events, which are many.
type CustomerData struct {
	Account       Account        `json:"account"`
	Identities    []Identity     `json:"identities"`
	Boxes         []BoxDetail    `json:"boxes"`
	Tokens        []ProxyToken   `json:"tokens"`
	APIKeys       []APIKey       `json:"api_keys"`
	Subscriptions []Subscription `json:"subscriptions"`
	Periods       []UsagePeriod  `json:"periods"`
	Mails         []Mail         `json:"mails"`
	Conversations []Conversation `json:"conversations"`
	Audit         []AuditEntry   `json:"audit"`
}
