package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// GrantFormat is the version of the Grant encoding that this build writes. It
// reads GrantFormat and GrantFormat-1.
const GrantFormat = 1

// Status is the state of a grant.
type Status string

// The states of a grant. Revoked is final.
const (
	StatusActive    Status = "active"
	StatusSuspended Status = "suspended"
	StatusRevoked   Status = "revoked"
)

// Weights say how many tokens of the monthly limit one token of each kind uses.
type Weights struct {
	Prompt     int64 `json:"prompt"`     // per prompt token that was not cached
	Cached     int64 `json:"cached"`     // per prompt token served from the upstream's cache
	Completion int64 `json:"completion"` // per completion token, reasoning included
}

// Period is one billing period of a customer: [Start, End).
type Period struct {
	ID    string    `json:"id"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// Grant is all that a proxy knows about one token. It is stored as JSON under
// GrantKey and is immutable once read; a change writes a new Grant with a higher
// Version.
type Grant struct {
	Format            int      `json:"format"`
	Version           int64    `json:"version"` // grows with every change of this token; never lowered
	TokenID           string   `json:"token_id"`
	CustomerID        string   `json:"customer_id"`
	BoxID             string   `json:"box_id"`
	Tier              string   `json:"tier"`
	Status            Status   `json:"status"`
	RequestsPerSecond float64  `json:"requests_per_second"` // of the customer, over all its tokens
	Burst             int      `json:"burst"`
	Concurrent        int      `json:"concurrent"`    // requests in flight, of the customer, per replica
	MonthlyLimit      int64    `json:"monthly_limit"` // weighted tokens per period
	LimitVersion      int64    `json:"limit_version"` // grows with every change of MonthlyLimit
	Period            Period   `json:"period"`
	Weights           Weights  `json:"weights"`
	Models            []string `json:"models"` // allowed model names as asked; empty allows every configured model
}

// Defaults of a grant, as in the tier table.
const (
	DefaultRequestsPerSecond = 10
	DefaultBurst             = 20
	DefaultConcurrent        = 4
)

// Validate reports what is wrong with g.
func (g *Grant) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(g.Format == GrantFormat || g.Format == GrantFormat-1, "format %d is not supported", g.Format)
	need(g.Version > 0, "version must be positive")
	need(g.TokenID != "" && g.CustomerID != "" && g.BoxID != "", "token_id, customer_id and box_id are required")
	need(g.Status == StatusActive || g.Status == StatusSuspended || g.Status == StatusRevoked, "unknown status %q", g.Status)
	need(g.RequestsPerSecond > 0, "requests_per_second must be positive")
	need(g.Burst > 0, "burst must be positive")
	need(g.Concurrent > 0, "concurrent must be positive")
	need(g.MonthlyLimit >= 0, "monthly_limit must not be negative")
	need(g.Period.ID != "" && g.Period.Start.Before(g.Period.End), "period must have an id, and start before it ends")
	need(g.Weights.Prompt >= 0 && g.Weights.Cached >= 0 && g.Weights.Completion >= 0, "weights must not be negative")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("grant of token %q: %w", g.TokenID, err)
	}
	return nil
}

// AllowsModel reports whether the grant allows the model name that a client asked for.
func (g *Grant) AllowsModel(name string) bool {
	if len(g.Models) == 0 {
		return true
	}
	for _, m := range g.Models {
		if m == name {
			return true
		}
	}
	return false
}

// EncodeGrant writes g in the current format.
func EncodeGrant(g Grant) ([]byte, error) {
	g.Format = GrantFormat
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return json.Marshal(g)
}

// DecodeGrant reads and validates a grant.
func DecodeGrant(b []byte) (*Grant, error) {
	var g Grant
	if err := json.Unmarshal(b, &g); err != nil {
		return nil, fmt.Errorf("decode grant: %w", err)
	}
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return &g, nil
}
