package control

import (
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// ProxyToken is what the control plane keeps of a proxy token: never the token
// itself, only its digest and its last four characters.
type ProxyToken struct {
	ID         string          `json:"id"`
	CustomerID string          `json:"customer_id"`
	BoxID      string          `json:"box_id"`
	Digest     contract.Digest `json:"-"`
	Hint       string          `json:"hint"`    // last four characters
	Version    int64           `json:"version"` // of its grant; grows with every change
	Status     contract.Status `json:"status"`
	CreatedAt  time.Time       `json:"created_at"`
	RevokedAt  time.Time       `json:"revoked_at,omitzero"`
	EndsAt     time.Time       `json:"ends_at,omitzero"` // it is revoked then, because another one replaces it
}

// GrantFor builds what proxies shall know about token: the version, status and
// limits of this moment. A token of a customer that is not active is suspended at
// best; a revoked one stays revoked.
func GrantFor(c Customer, token ProxyToken, p UsagePeriod, tier Tier) (contract.Grant, error) {
	if token.CustomerID != c.ID || p.CustomerID != c.ID {
		return contract.Grant{}, fmt.Errorf("grant of token %s: token and period must belong to customer %s", token.ID, c.ID)
	}
	if tier.Name != c.Tier {
		return contract.Grant{}, fmt.Errorf("grant of token %s: customer %s is on tier %q, not %q", token.ID, c.ID, c.Tier, tier.Name)
	}
	status := token.Status
	if status == contract.StatusActive && c.Status != CustomerActive {
		status = contract.StatusSuspended
	}
	g := contract.Grant{
		Format:            contract.GrantFormat,
		Version:           token.Version,
		TokenID:           token.ID,
		CustomerID:        c.ID,
		BoxID:             token.BoxID,
		Tier:              tier.Name,
		Status:            status,
		RequestsPerSecond: tier.RequestsPerSecond,
		Burst:             tier.Burst,
		Concurrent:        tier.Concurrent,
		MonthlyLimit:      p.LimitTokens,
		LimitVersion:      p.LimitVersion,
		Period:            p.Period(),
		Weights:           tier.Weights,
		Models:            tier.Models,
	}
	if err := g.Validate(); err != nil {
		return contract.Grant{}, err
	}
	return g, nil
}

// RevokedGrant returns the grant of a revoked token. It needs neither the customer's
// tier nor a period, so that nothing can stand in the way of a revocation: what a
// grant must have beside its status is filled in with values that nobody uses.
func RevokedGrant(c Customer, token ProxyToken) (contract.Grant, error) {
	if token.CustomerID != c.ID || token.Status != contract.StatusRevoked {
		return contract.Grant{}, fmt.Errorf("grant of token %s: it must be customer %s's, and revoked", token.ID, c.ID)
	}
	g := contract.Grant{
		Format:            contract.GrantFormat,
		Version:           token.Version,
		TokenID:           token.ID,
		CustomerID:        c.ID,
		BoxID:             token.BoxID,
		Tier:              c.Tier,
		Status:            contract.StatusRevoked,
		RequestsPerSecond: contract.DefaultRequestsPerSecond,
		Burst:             contract.DefaultBurst,
		Concurrent:        contract.DefaultConcurrent,
		Period:            contract.Period{ID: "revoked", Start: token.CreatedAt, End: token.CreatedAt.Add(time.Second)},
	}
	if err := g.Validate(); err != nil {
		return contract.Grant{}, err
	}
	return g, nil
}
