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
	CustomerActive    CustomerStatus = "active"
	CustomerSuspended CustomerStatus = "suspended" // requests are refused until reactivated
	CustomerCancelled CustomerStatus = "cancelled" // final
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

// BoxState is where a box is in its life.
type BoxState string

// The states of a box.
const (
	BoxPending      BoxState = "pending"
	BoxProvisioning BoxState = "provisioning"
	BoxActive       BoxState = "active"
	BoxUpdating     BoxState = "updating"
	BoxSuspended    BoxState = "suspended"
	BoxUnhealthy    BoxState = "unhealthy"
	BoxDestroying   BoxState = "destroying"
	BoxDestroyed    BoxState = "destroyed"
)

// Box is one OpenClaw gateway of a customer, in a Kubernetes namespace of its own.
type Box struct {
	ID         string    `json:"id"`
	CustomerID string    `json:"customer_id"`
	Namespace  string    `json:"namespace"`
	State      BoxState  `json:"state"`
	CreatedAt  time.Time `json:"created_at"`
}

// The first letter of each kind of identifier, for NewID.
const (
	CustomerID = "c"
	BoxID      = "b"
	TokenID    = "t"
)

// NewID returns kind followed by 80 random bits in lower-case base32: a DNS label
// that never collides and tells nothing.
func NewID(kind string) string {
	return kind + strings.ToLower(rand.Text()[:16])
}
