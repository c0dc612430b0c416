package contract

import (
	"encoding/json"
	"fmt"
)

// ChangeFormat is the version of the Change encoding that this build writes.
const ChangeFormat = 1

// ChangeKind says what a Change is about.
type ChangeKind string

// The kinds of change.
const (
	// ChangeGrant carries a new version of one token's grant.
	ChangeGrant ChangeKind = "grant"
	// ChangeReload asks every reader to forget all that it knows and read anew.
	ChangeReload ChangeKind = "reload"
)

// Change is one message of the configuration feed. Seq is given by the script
// that publishes it: one more than the change before.
type Change struct {
	Format int        `json:"format"`
	Seq    int64      `json:"seq"`
	Kind   ChangeKind `json:"kind"`
	Digest string     `json:"digest,omitempty"` // hex, with ChangeGrant
	Grant  *Grant     `json:"grant,omitempty"`  // with ChangeGrant
}

// EncodeChange writes c in the current format.
func EncodeChange(c Change) ([]byte, error) {
	c.Format = ChangeFormat
	return json.Marshal(c)
}

// DecodeChange reads and validates a change.
func DecodeChange(b []byte) (Change, error) {
	var c Change
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("decode change: %w", err)
	}
	if c.Format != ChangeFormat && c.Format != ChangeFormat-1 {
		return c, fmt.Errorf("decode change: format %d is not supported", c.Format)
	}
	switch c.Kind {
	case ChangeReload:
	case ChangeGrant:
		if _, err := ParseDigest(c.Digest); err != nil {
			return c, fmt.Errorf("decode change %d: %w", c.Seq, err)
		}
		if c.Grant == nil {
			return c, fmt.Errorf("decode change %d: no grant", c.Seq)
		}
		if err := c.Grant.Validate(); err != nil {
			return c, fmt.Errorf("decode change %d: %w", c.Seq, err)
		}
	default:
		return c, fmt.Errorf("decode change %d: unknown kind %q", c.Seq, c.Kind)
	}
	return c, nil
}
