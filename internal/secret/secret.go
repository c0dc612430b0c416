// Package secret has the type of what must not be shown: keys, and URLs that hold passwords. Keys
// seals such texts where they have to be kept.
package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Text is a secret. It prints, logs and marshals as "[redacted]"; only Reveal returns
// the secret itself. It is read from JSON as a plain string.
type Text string

var (
	_ fmt.Stringer   = Text("")
	_ fmt.GoStringer = Text("")
	_ fmt.Formatter  = Text("")
	_ slog.LogValuer = Text("")
)

// Reveal returns the secret.
func (s Text) Reveal() string { return string(s) }

// String returns "[redacted]", or "" for the empty secret.
func (s Text) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is what %#v prints: never the secret.
func (s Text) GoString() string { return `secret.Text("` + s.String() + `")` }

// Format redacts under every verb, %x and %q included.
func (s Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalJSON writes the redacted form.
func (s Text) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// MarshalText writes the redacted form.
func (s Text) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML writes the redacted form.
func (s Text) MarshalYAML() (any, error) { return s.String(), nil }

// LogValue redacts in structured logs.
func (s Text) LogValue() slog.Value { return slog.StringValue(s.String()) }
