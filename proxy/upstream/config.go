package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Secret is a key, or a URL with a password. It is never shown.
type Secret = secret.Text

// Duration is a time.Duration that is written as "10s" or "2m30s" in configuration.
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: write it like 10s or 2m30s", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Values of Config.KeyHeader.
const (
	KeyBearer = "authorization" // Authorization: Bearer KEY
	KeyAPIKey = "x-api-key"     // x-api-key: KEY
)

// Values of Config.Face.
const (
	FaceOpenAI    = "openai"
	FaceAnthropic = "anthropic"
)

// Values of Config.OnClientGone.
const (
	ClientGoneAbort = "abort"
	ClientGoneDrain = "drain"
)

// Key is one credential of an upstream.
type Key struct {
	Name   string `json:"name"`   // shown in logs and metrics; unique within the upstream
	Secret Secret `json:"secret"` // the credential; never shown
	Weight int    `json:"weight"` // share of the load, 1 to 1000; defaults to 1
}

// Config describes one upstream. Zero values are filled by SetDefaults.
type Config struct {
	Name    string `json:"name"`     // shown in logs and metrics; unique
	BaseURL string `json:"base_url"` // such as https://api.moonshot.ai/v1; the face's path is appended
	Face    string `json:"face"`     // "openai" (/chat/completions) or "anthropic" (/messages)
	Keys    []Key  `json:"keys"`

	// Models maps the name that clients ask for to the upstream's model id. Only
	// listed names are served; a name mapped to itself passes as it is.
	Models map[string]string `json:"models"`

	KeyHeader         string `json:"key_header"`          // "authorization" or "x-api-key"; defaults to what the face uses
	NeedsIncludeUsage bool   `json:"needs_include_usage"` // usage only comes with stream_options.include_usage
	CapField          string `json:"cap_field"`           // the output cap that the upstream obeys, sent with every request; defaults to max_tokens
	EstimatePath      string `json:"estimate_path"`       // below BaseURL, such as /tokenizers/estimate-token-count; "" when there is none
	DefaultUserAgent  string `json:"default_user_agent"`  // sent when the client sent none; defaults to openclaw-cloud

	// EgressProxy is a proxy through which the upstream is reached:
	// http://user:pass@host:port or socks5://user:pass@host:port. The proxy resolves
	// the name then, so that only literal addresses can be checked here.
	EgressProxy Secret `json:"egress_proxy"`

	CAFile       string `json:"ca_file"`       // PEM file with roots to trust beside the system's
	AllowPrivate bool   `json:"allow_private"` // permit private, loopback and link-local addresses, and plain http

	// OnClientGone is what becomes of a request whose client leaves: "abort" ends it, and
	// what was produced is estimated; "drain" reads the answer to its end for the exact
	// count, which may produce tokens that nobody reads. Defaults to abort.
	OnClientGone string   `json:"on_client_gone"`
	DrainTime    Duration `json:"drain_time"` // for one such answer, from when the client left; then it is ended; defaults to 1m
	MaxDrains    int      `json:"max_drains"` // such answers at a time; others are ended at once; defaults to 100

	ConnectTimeout   Duration `json:"connect_timeout"`    // resolving, connecting, egress proxy; defaults to 5s
	TLSTimeout       Duration `json:"tls_timeout"`        // handshake; defaults to 5s
	FirstByteTimeout Duration `json:"first_byte_timeout"` // from request written to response head complete; defaults to 5m
	IdleTimeout      Duration `json:"idle_timeout"`       // silence inside a body, no progress of a write; defaults to 2m
	TotalTimeout     Duration `json:"total_timeout"`      // the whole exchange; defaults to 30m
	PoolIdle         Duration `json:"pool_idle"`          // greatest age of an idle connection, below the upstream's keep-alive; defaults to 30s
	MaxConns         int      `json:"max_conns"`          // open connections, one for each request in progress; defaults to 20,000

	BreakerFailures int      `json:"breaker_failures"` // consecutive failures that open the breaker; defaults to 5
	BreakerOpen     Duration `json:"breaker_open"`     // time until one probe is let through; defaults to 10s
}

// SetDefaults fills what is zero.
func (c *Config) SetDefaults() {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	dur := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	if c.Face == FaceAnthropic {
		def(&c.KeyHeader, KeyAPIKey)
	}
	def(&c.KeyHeader, KeyBearer)
	def(&c.CapField, "max_tokens")
	def(&c.DefaultUserAgent, "openclaw-cloud")
	def(&c.OnClientGone, ClientGoneAbort)
	dur(&c.DrainTime, time.Minute)
	dur(&c.ConnectTimeout, 5*time.Second)
	dur(&c.TLSTimeout, 5*time.Second)
	dur(&c.FirstByteTimeout, 5*time.Minute)
	dur(&c.IdleTimeout, 2*time.Minute)
	dur(&c.TotalTimeout, 30*time.Minute)
	dur(&c.PoolIdle, 30*time.Second)
	dur(&c.BreakerOpen, 10*time.Second)
	if c.MaxConns == 0 {
		c.MaxConns = 20_000
	}
	if c.BreakerFailures == 0 {
		c.BreakerFailures = 5
	}
	if c.MaxDrains == 0 {
		c.MaxDrains = 100
	}
	for i := range c.Keys {
		if c.Keys[i].Weight == 0 {
			c.Keys[i].Weight = 1
		}
		def(&c.Keys[i].Name, fmt.Sprintf("key%d", i+1))
	}
}

// Validate returns all problems of a configuration that SetDefaults has filled, joined
// into one error; each says what to do. No secret appears in them.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("upstream %q: "+format, append([]any{c.Name}, a...)...))
	}
	if c.Name == "" || !plain(c.Name) {
		bad("name: give it a short printable name")
	}
	if _, ok := c.face(); !ok {
		bad("face %q: use %q or %q", c.Face, FaceOpenAI, FaceAnthropic)
	}
	c.validateURL(bad)
	if c.KeyHeader != KeyBearer && c.KeyHeader != KeyAPIKey {
		bad("key_header %q: use %q or %q", c.KeyHeader, KeyBearer, KeyAPIKey)
	}
	if c.CapField != "max_tokens" && c.CapField != "max_completion_tokens" {
		bad("cap_field %q: use max_tokens or max_completion_tokens", c.CapField)
	}
	if c.EstimatePath != "" && !validPath(c.EstimatePath) {
		bad("estimate_path %q: start it with / and use no spaces, control characters or fragments", c.EstimatePath)
	}
	if c.OnClientGone != ClientGoneAbort && c.OnClientGone != ClientGoneDrain {
		bad("on_client_gone %q: use %q or %q", c.OnClientGone, ClientGoneAbort, ClientGoneDrain)
	}
	if !plain(c.DefaultUserAgent) {
		bad("default_user_agent: remove control characters")
	}
	if len(c.Models) == 0 {
		bad("models: list at least one model name, mapped to the upstream's model id")
	}
	for asked, id := range c.Models {
		if asked == "" || id == "" || !plain(asked) || !plain(id) {
			bad("models: %q → %q: both names must be printable and not empty", asked, id)
		}
	}
	c.validateKeys(bad)
	c.validateLimits(bad)
	return errors.Join(errs...)
}

func (c Config) validateURL(bad func(string, ...any)) {
	u, err := url.Parse(c.BaseURL)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		bad("base_url: write it like https://api.example.com/v1")
		return
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		bad("base_url: use https, not %q", u.Scheme)
	case u.Scheme == "http" && !c.AllowPrivate:
		bad("base_url: use https; plain http is only for private upstreams (allow_private)")
	}
	for _, path := range []string{"/chat/completions", "/messages"} {
		if base, ok := strings.CutSuffix(u.Path, path); ok {
			bad("base_url: leave out %s: it is appended by the face; write %s", path, u.Scheme+"://"+u.Host+base)
		}
	}
	if u.User != nil {
		bad("base_url: put credentials into keys, not into the URL")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		bad("base_url: remove the query and the fragment")
	}
	if u.Path != "" && !validPath(u.EscapedPath()) {
		bad("base_url: the path may not hold spaces or control characters")
	}
	if !plain(u.Host) || strings.ContainsAny(u.Host, " \t") {
		bad("base_url: the host may not hold spaces or control characters")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !c.AllowPrivate && !publicAddr(ip) {
		bad("base_url: %s is not a public address; set allow_private if it is meant", ip)
	}
	if strings.EqualFold(u.Hostname(), "localhost") && !c.AllowPrivate {
		bad("base_url: localhost is not a public address; set allow_private if it is meant")
	}
	if c.EgressProxy != "" {
		p, err := url.Parse(c.EgressProxy.Reveal())
		if err != nil || p.Hostname() == "" || p.Port() == "" || (p.Scheme != "http" && p.Scheme != "socks5" && p.Scheme != "socks5h") {
			bad("egress_proxy: write it like http://user:pass@host:port or socks5://host:port")
		}
	}
}

func (c Config) validateKeys(bad func(string, ...any)) {
	if len(c.Keys) == 0 {
		bad("keys: give at least one key")
	}
	var names []string
	for i, k := range c.Keys {
		if k.Secret == "" || !plain(k.Secret.Reveal()) || strings.ContainsAny(k.Secret.Reveal(), " \t") {
			bad("keys[%d]: secret is empty or holds spaces or control characters", i)
		}
		if k.Weight < 1 || k.Weight > 1000 {
			bad("keys[%d]: weight %d: use 1 to 1000", i, k.Weight)
		}
		if k.Name == "" || !plain(k.Name) || slices.Contains(names, k.Name) {
			bad("keys[%d]: name %q: give each key a printable name of its own", i, k.Name)
		}
		names = append(names, k.Name)
	}
}

func (c Config) validateLimits(bad func(string, ...any)) {
	for _, d := range []struct {
		name string
		v    Duration
	}{
		{"connect_timeout", c.ConnectTimeout}, {"tls_timeout", c.TLSTimeout},
		{"first_byte_timeout", c.FirstByteTimeout}, {"idle_timeout", c.IdleTimeout},
		{"total_timeout", c.TotalTimeout}, {"pool_idle", c.PoolIdle}, {"breaker_open", c.BreakerOpen},
		{"drain_time", c.DrainTime},
	} {
		if d.v <= 0 {
			bad("%s %s: must be above zero", d.name, d.v)
		}
	}
	if c.MaxConns < 1 {
		bad("max_conns %d: must be at least 1", c.MaxConns)
	}
	if c.MaxDrains < 1 {
		bad("max_drains %d: must be at least 1", c.MaxDrains)
	}
	if c.BreakerFailures < 1 {
		bad("breaker_failures %d: must be at least 1", c.BreakerFailures)
	}
}

// face returns the typed face.
func (c *Config) face() (kimi.Face, bool) {
	switch c.Face {
	case FaceOpenAI:
		return kimi.OpenAI, true
	case FaceAnthropic:
		return kimi.Anthropic, true
	}
	return 0, false
}

// plain reports whether s can stand in a header value or a log line.
func plain(s string) bool {
	for i := range len(s) {
		if !valueByte(s[i]) {
			return false
		}
	}
	return true
}

// validPath reports whether p can stand in a request line.
func validPath[T string | []byte](p T) bool {
	if len(p) == 0 || p[0] != '/' {
		return false
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] >= 0x7f || p[i] == '#' {
			return false
		}
	}
	return true
}
