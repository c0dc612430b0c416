package kimisim

import (
	"crypto/tls"
	"fmt"
)

// Config says what a Server serves. The zero value is a usable server: any key, default
// models, instant answers.
type Config struct {
	// Addr is the listening address. Defaults to 127.0.0.1:0, a free port.
	Addr string
	// Keys are the accepted API keys. Empty accepts any key, but still asks for one.
	Keys []string
	// Models are the served models. Defaults to DefaultModels.
	Models []Model
	// Defaults is the behaviour of every request that nothing else chose.
	Defaults Behavior
	// KeyLimits are the limits of single keys; a key that is not listed has none.
	KeyLimits map[string]KeyLimit
	// TokenizerRatio is the bytes of prompt text per token, 1 or more, not necessarily
	// whole. Defaults to 4.
	TokenizerRatio float64
	// TemplateTokensPerMessage is added for each message of a prompt. Defaults to 3;
	// negative means 0.
	TemplateTokensPerMessage int
	// MaxLedger is how many entries the ledger keeps before it drops the oldest. Totals
	// are kept for ever. Defaults to 50000.
	MaxLedger int
	// KeepBodies keeps each request body in its ledger entry.
	KeepBodies bool
	// TLS makes the server speak HTTPS. HTTP/1.1 only, as faults need the connection.
	TLS *tls.Config
	// RequireUserAgent turns on the User-Agent gate of the /coding paths.
	RequireUserAgent bool
}

// Model is one entry of GET /v1/models.
type Model struct {
	ID            string `json:"id"`
	Object        string `json:"object"`
	Created       int64  `json:"created"`
	OwnedBy       string `json:"owned_by"`
	ContextLength int    `json:"context_length"`
	ImageIn       bool   `json:"supports_image_in"`
	VideoIn       bool   `json:"supports_video_in"`
	Reasoning     bool   `json:"supports_reasoning"`
}

// KeyLimit is what Kimi allows one account. Zero fields are unlimited.
type KeyLimit struct {
	RPM         int `json:"rpm,omitempty"`         // requests in any 60 s
	Concurrency int `json:"concurrency,omitempty"` // requests at the same time
}

// DefaultModels returns the models of late 2026 and the ones clients still ask for.
func DefaultModels() []Model {
	var out []Model
	for i, m := range []struct {
		id  string
		ctx int
	}{
		{"kimi-k2.5", 262144}, {"kimi-k2.6", 262144}, {"kimi-k2.7-code", 262144},
		{"kimi-k2.7-code-highspeed", 262144}, {"kimi-k3", 1048576}, {"kimi-k2-turbo-preview", 262144},
		{"kimi-for-coding", 262144}, {"kimi-for-coding-highspeed", 262144},
		{"k3", 1048576}, {"k3-256k", 262144}, {"k2p5", 262144},
	} {
		out = append(out, Model{
			ID: m.id, Object: "model", Created: 1769000000 + int64(i), OwnedBy: "moonshot",
			ContextLength: m.ctx, ImageIn: true, VideoIn: true, Reasoning: true,
		})
	}
	return out
}

func (c *Config) setDefaults() error {
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	if len(c.Models) == 0 {
		c.Models = DefaultModels()
	}
	for i := range c.Models {
		m := &c.Models[i]
		if m.ID == "" {
			return fmt.Errorf("model %d has no id", i)
		}
		if m.Object == "" {
			m.Object, m.OwnedBy = "model", "moonshot"
		}
		if m.ContextLength == 0 {
			m.ContextLength = 262144
		}
	}
	if c.TokenizerRatio == 0 {
		c.TokenizerRatio = 4
	}
	if c.TokenizerRatio < 1 {
		return fmt.Errorf("tokenizer ratio %v is below 1 byte per token", c.TokenizerRatio)
	}
	switch {
	case c.TemplateTokensPerMessage == 0:
		c.TemplateTokensPerMessage = 3
	case c.TemplateTokensPerMessage < 0:
		c.TemplateTokensPerMessage = 0
	}
	if c.MaxLedger <= 0 {
		c.MaxLedger = 50000
	}
	return c.Defaults.validate()
}
