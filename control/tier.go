package control

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Tier is what a customer can buy.
type Tier struct {
	Name                   string // as stored and in grants: lower case
	Title                  string // for people
	PriceCents             int64  // US cents per month
	MonthlyTokens          int64  // weighted tokens per period
	OverageCentsPerMillion int64  // US cents per million tokens above the limit, for who opted in
	RequestsPerSecond      float64
	Burst                  int
	Concurrent             int // requests in flight per replica
	Weights                contract.Weights
	Models                 []string // allowed model names; empty allows every configured one
	PodRequests            PodResources
	PodLimits              PodResources
	Thinking               string // the agent's default: low, medium or high
	TelegramUsers          int
	CustomSystemPrompt     bool
}

// TierTable is a tier table as it was put into effect.
type TierTable struct {
	Version     int64     `json:"version"`
	Content     string    `json:"content"` // as a file has it
	CreatedAt   time.Time `json:"created_at"`
	RolledOutAt time.Time `json:"rolled_out_at,omitzero"` // since then all grants are of it
}

// PodResources is a share of a node.
type PodResources struct {
	CPUMillis int64
	MemoryMiB int64
}

// Tiers is the tier table, in the order in which it is shown. Copies share it: what Replace
// does holds for all of them. It is safe for concurrent use. The zero value is empty, for
// good.
type Tiers struct{ table *atomic.Pointer[tierTable] }

// tierTable is one version of a tier table. It is never changed.
type tierTable struct {
	version int64
	list    []Tier
}

// NewTiers validates a tier table. Its version is 0.
func NewTiers(list []Tier) (Tiers, error) {
	if len(list) == 0 {
		return Tiers{}, errors.New("tiers: the table is empty")
	}
	var errs []error
	seen := make(map[string]bool)
	for i := range list {
		t := &list[i]
		if seen[t.Name] {
			errs = append(errs, fmt.Errorf("tier %q is there twice", t.Name))
		}
		seen[t.Name] = true
		if err := t.validate(); err != nil {
			errs = append(errs, fmt.Errorf("tier %q: %w", t.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Tiers{}, fmt.Errorf("tiers: %w", err)
	}
	return newTiers(&tierTable{list: append([]Tier(nil), list...)}), nil
}

func newTiers(table *tierTable) Tiers {
	t := Tiers{table: new(atomic.Pointer[tierTable])}
	t.table.Store(table)
	return t
}

func (t Tiers) current() *tierTable {
	if t.table == nil {
		return &tierTable{}
	}
	return t.table.Load()
}

// Version returns which version of the table it is: 0 for one that no process has put into
// Postgres.
func (t Tiers) Version() int64 { return t.current().version }

// Replace makes the table what with is now, as that version, in all copies of t, unless t has
// that version or a newer one.
func (t Tiers) Replace(with Tiers, version int64) {
	if t.table == nil {
		return
	}
	next := &tierTable{version: version, list: with.current().list}
	for {
		now := t.table.Load()
		if now.version >= version || t.table.CompareAndSwap(now, next) {
			return
		}
	}
}

// Fixed returns the table as it is now, which stays so.
func (t Tiers) Fixed() Tiers { return newTiers(t.current()) }

// All returns a copy of the table.
func (t Tiers) All() []Tier { return append([]Tier(nil), t.current().list...) }

// Get returns the tier called name; the error is ErrNotFound and names the choices.
func (t Tiers) Get(name string) (Tier, error) {
	var names []string
	for _, tier := range t.current().list {
		if tier.Name == name {
			return tier, nil
		}
		names = append(names, tier.Name)
	}
	return Tier{}, fmt.Errorf("tier %q: %w (there are %q)", name, ErrNotFound, names)
}

func (t *Tier) validate() error {
	var errs []error
	need := func(ok bool, msg string) {
		if !ok {
			errs = append(errs, errors.New(msg))
		}
	}
	need(t.Name != "" && t.Title != "", "name and title are required")
	need(t.PriceCents >= 0 && t.OverageCentsPerMillion >= 0, "prices must not be negative")
	need(t.MonthlyTokens > 0, "tokens per month must be positive")
	need(t.RequestsPerSecond > 0 && t.Burst > 0 && t.Concurrent > 0, "requests per second, burst and concurrent must be positive")
	need(t.Weights.Prompt >= 0 && t.Weights.Cached >= 0 && t.Weights.Completion >= 0, "weights must not be negative")
	need(t.Weights.Prompt+t.Weights.Cached+t.Weights.Completion > 0, "weights must not all be 0")
	for _, r := range []PodResources{t.PodRequests, t.PodLimits} {
		need(r.CPUMillis > 0 && r.MemoryMiB > 0, "pod requests and limits must be positive")
	}
	need(t.PodRequests.CPUMillis <= t.PodLimits.CPUMillis && t.PodRequests.MemoryMiB <= t.PodLimits.MemoryMiB,
		"pod requests must not exceed pod limits")
	need(t.Thinking == "low" || t.Thinking == "medium" || t.Thinking == "high", "thinking must be low, medium or high")
	need(t.TelegramUsers > 0, "telegram users must be positive")
	return errors.Join(errs...)
}
