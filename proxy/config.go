package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/proxy/journal"
	"github.com/andreabadesso/openclaw-cloud/proxy/upstream"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Duration is a time.Duration that JSON writes as "10s".
type Duration = upstream.Duration

// Config is everything that a token-proxy can be told. The zero value of each field
// means its default, which SetDefaults fills in; only RedisURL, TokenPepperFile and
// Upstreams have none. Times are durations such as "10s"; sizes are bytes.
type Config struct {
	Listen          string `json:"listen"`             // where clients connect (":8080")
	Admin           string `json:"admin"`              // health, metrics and pprof; never public ("127.0.0.1:9090")
	TokenPepperFile string `json:"token_pepper_file"`  // file with the pepper of token digests, shared with the control plane
	JournalDir      string `json:"journal_dir"`        // where usage is kept until Postgres has it ("/var/lib/openclaw/token-proxy")
	AllowUnsafe     bool   `json:"allow_unsafe_redis"` // start although Redis evicts keys or has no AOF (development only)

	// RedisURL is a secret, since it may hold a password: redis://host:port/0,
	// redis-cluster://host:port,host:port, or
	// redis-sentinel://sentinel:port,sentinel:port/0?master=name. See redisclient.Forms.
	RedisURL secret.Text `json:"redis_url"`

	Upstreams []upstream.Config `json:"upstreams"`

	Limits   Limits   `json:"limits"`
	Timeouts Timeouts `json:"timeouts"`

	TrustedProxies []string `json:"trusted_proxies"` // networks whose X-Forwarded-For is believed, e.g. "10.42.0.0/16"
	Hosts          []string `json:"hosts"`           // Host names that are answered, on any port; empty answers every one
	LogLevel       string   `json:"log_level"`       // debug, info, warn or error ("info")
	StreamDriver   string   `json:"stream_driver"`   // who moves the events of streams: "eventloop" (Linux only; the default there) or "goroutine", one per stream
}

// Limits bound what one process takes on.
type Limits struct {
	Connections      int   `json:"connections"`        // open client connections; one more is answered 503 and closed (20,000)
	PerAddress       int   `json:"per_address"`        // open client connections per address (1,000)
	HeaderBytes      int   `json:"header_bytes"`       // of a request's head (16 KiB)
	BodyBytes        int   `json:"body_bytes"`         // of a request (8 MiB)
	InFlightBytes    int64 `json:"in_flight_bytes"`    // of all request bodies that are arriving or being handled, at least body_bytes; a quarter for one token (1 GiB)
	AnswerBytes      int   `json:"answer_bytes"`       // of an answer that is not streamed (32 MiB)
	EventBytes       int   `json:"event_bytes"`        // of one event of a stream (1 MiB)
	DefaultOutputCap int64 `json:"default_output_cap"` // tokens inserted as max_tokens when a request has none (32,768)
	MinOutput        int64 `json:"min_output"`         // below this many tokens left after the prompt the limit counts as reached (256)
	ImageTokens      int64 `json:"image_tokens"`       // upper bound of one image (8,192)
	VideoTokens      int64 `json:"video_tokens"`       // upper bound of one video (131,072)
	AuthFailures     int   `json:"auth_failures"`      // failed authentications per address and minute (60)
	CachedTokens     int64 `json:"cached_tokens"`      // grants kept in memory (100,000)
	// SchedulingDelay is how long what has arrived may wait for a processor, for some 300 ms on
	// end, before some requests are refused, at least 10ms; negative: for ever (50ms).
	SchedulingDelay Duration `json:"scheduling_delay"`
	JournalSlots    int      `json:"journal_slots"` // forwarded requests in flight (16,384)
	JournalBytes    int64    `json:"journal_bytes"` // room for usage that Postgres does not have yet; then new work is refused (64 MiB)
}

// Timeouts bound how long things take.
type Timeouts struct {
	ReadRequest Duration `json:"read_request"`  // for a whole request to arrive (30s)
	Idle        Duration `json:"idle"`          // between requests of a connection (75s)
	Write       Duration `json:"write"`         // for a client to take what was written to it (30s)
	WaitForHold Duration `json:"wait_for_hold"` // for tokens that others hold (2s)
	Redis       Duration `json:"redis"`         // for one Redis command (600ms)
	Grace       Duration `json:"grace"`         // how long to serve without hearing from Redis, leases not longer than the billing-worker's --replica-grace says (10s)
	PreStop     Duration `json:"pre_stop"`      // on SIGTERM, how long to keep accepting after not being ready (5s)
	Drain       Duration `json:"drain"`         // then, how long streams may take to finish (10m)
	Flush       Duration `json:"flush"`         // then, how long usage events may take to reach Redis (30s)
}

// Values of Config.StreamDriver.
const (
	streamsByLoop      = "eventloop"
	streamsByGoroutine = "goroutine"
)

// minGrace is the least that timeouts.grace may be: the feed is asked every 250 ms.
const minGrace = time.Second

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// SetDefaults fills in what was left out.
func (c *Config) SetDefaults() {
	setDefault(&c.Listen, ":8080")
	setDefault(&c.Admin, "127.0.0.1:9090")
	setDefault(&c.JournalDir, "/var/lib/openclaw/token-proxy")
	setDefault(&c.LogLevel, "info")
	setDefault(&c.StreamDriver, defaultStreamDriver())
	l := &c.Limits
	setDefault(&l.Connections, 20_000)
	setDefault(&l.PerAddress, 1_000)
	setDefault(&l.HeaderBytes, 16<<10)
	setDefault(&l.BodyBytes, 8<<20)
	setDefault(&l.InFlightBytes, 1<<30)
	setDefault(&l.AnswerBytes, 32<<20)
	setDefault(&l.EventBytes, 1<<20)
	setDefault(&l.DefaultOutputCap, 32_768)
	setDefault(&l.MinOutput, 256)
	setDefault(&l.ImageTokens, 8_192)
	setDefault(&l.VideoTokens, 131_072)
	setDefault(&l.AuthFailures, 60)
	setDefault(&l.CachedTokens, 100_000)
	setDefault(&l.SchedulingDelay, Duration(50*time.Millisecond))
	setDefault(&l.JournalSlots, 16_384)
	setDefault(&l.JournalBytes, 64<<20)
	t := &c.Timeouts
	setDefault(&t.ReadRequest, Duration(30*time.Second))
	setDefault(&t.Idle, Duration(75*time.Second))
	setDefault(&t.Write, Duration(30*time.Second))
	setDefault(&t.WaitForHold, Duration(2*time.Second))
	setDefault(&t.Redis, Duration(quota.DefaultTimeout))
	setDefault(&t.Grace, Duration(10*time.Second))
	setDefault(&t.PreStop, Duration(5*time.Second))
	setDefault(&t.Drain, Duration(10*time.Minute))
	setDefault(&t.Flush, Duration(30*time.Second))
	for i := range c.Upstreams {
		c.Upstreams[i].SetDefaults()
	}
}

func defaultStreamDriver() string {
	if runtime.GOOS == "linux" {
		return streamsByLoop
	}
	return streamsByGoroutine
}

// Validate reports everything that is wrong with c, after SetDefaults.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.RedisURL == "" {
		bad(`redis_url is missing: give the address of the platform's Redis, e.g. "redis://127.0.0.1:6379/0"`)
	} else if _, err := redisclient.Parse(c.RedisURL.Reveal()); err != nil {
		bad("redis_url: %w", err)
	}
	if c.TokenPepperFile == "" {
		bad("token_pepper_file is missing: give the file that the control plane hashes tokens with")
	}
	if len(c.Upstreams) == 0 {
		bad("upstreams is empty: give at least one, with name, base_url, face, keys and models")
	}
	names := map[string]bool{}
	for i, u := range c.Upstreams {
		if err := u.Validate(); err != nil {
			bad("upstreams[%d]: %w", i, err)
		}
		if names[u.Name] {
			bad("upstreams[%d]: the name %q is used twice: metrics and events could not tell them apart", i, u.Name)
		}
		names[u.Name] = true
	}
	if _, err := c.trustedProxies(); err != nil {
		errs = append(errs, err)
	}
	for _, h := range c.Hosts {
		if !plainHost(h) {
			bad("hosts: %q is not a host name or address such as proxy.example.com: write it without scheme, port, path and brackets; any port is answered", h)
		}
	}
	for _, v := range []struct {
		name string
		n    int64
	}{
		{"connections", int64(c.Limits.Connections)}, {"per_address", int64(c.Limits.PerAddress)},
		{"header_bytes", int64(c.Limits.HeaderBytes)}, {"body_bytes", int64(c.Limits.BodyBytes)},
		{"in_flight_bytes", c.Limits.InFlightBytes}, {"answer_bytes", int64(c.Limits.AnswerBytes)},
		{"event_bytes", int64(c.Limits.EventBytes)}, {"default_output_cap", c.Limits.DefaultOutputCap},
		{"min_output", c.Limits.MinOutput}, {"image_tokens", c.Limits.ImageTokens},
		{"video_tokens", c.Limits.VideoTokens}, {"auth_failures", int64(c.Limits.AuthFailures)},
		{"cached_tokens", c.Limits.CachedTokens}, {"journal_slots", int64(c.Limits.JournalSlots)}, {"journal_bytes", c.Limits.JournalBytes},
	} {
		if v.n <= 0 {
			bad("limits.%s is %d: it must be positive, or left out for its default", v.name, v.n)
		}
	}
	if c.Limits.InFlightBytes > 0 && c.Limits.InFlightBytes < int64(c.Limits.BodyBytes) {
		bad("limits.in_flight_bytes is %d: with less than limits.body_bytes (%d) no body of unknown length could be served", c.Limits.InFlightBytes, c.Limits.BodyBytes)
	}
	if c.Limits.HeaderBytes > 0 && c.Limits.HeaderBytes < 4<<10 {
		bad("limits.header_bytes is %d: real clients need at least 4096", c.Limits.HeaderBytes)
	}
	for _, v := range []struct {
		name string
		d    Duration
	}{
		{"read_request", c.Timeouts.ReadRequest}, {"idle", c.Timeouts.Idle}, {"write", c.Timeouts.Write},
		{"wait_for_hold", c.Timeouts.WaitForHold}, {"redis", c.Timeouts.Redis}, {"grace", c.Timeouts.Grace},
		{"pre_stop", c.Timeouts.PreStop}, {"drain", c.Timeouts.Drain}, {"flush", c.Timeouts.Flush},
	} {
		if v.d < 0 {
			bad("timeouts.%s is negative", v.name)
		}
	}
	if d := c.Limits.SchedulingDelay; d > 0 && d < Duration(minSchedulingDelay) {
		bad("limits.scheduling_delay is %s: what has arrived waits for some milliseconds now and then on any machine; make it 10ms or more, leave it out for its default, or make it negative to refuse nothing", d)
	}
	if c.Timeouts.Grace > 0 && c.Timeouts.Grace < Duration(minGrace) {
		bad("timeouts.grace is %s: below %s every small delay of Redis would refuse requests", c.Timeouts.Grace, minGrace)
	}
	for _, v := range []struct{ name, addr, example string }{{"listen", c.Listen, ":8080"}, {"admin", c.Admin, "127.0.0.1:9090"}} {
		if _, port, err := net.SplitHostPort(v.addr); err != nil || port == "" {
			bad("%s is %q: write it with a port, like %s", v.name, v.addr, v.example)
		}
	}
	if _, port, err := net.SplitHostPort(c.Listen); err == nil && port != "0" && c.Admin != "" {
		if _, admin, err := net.SplitHostPort(c.Admin); err == nil && port == admin {
			bad("listen is %q and admin %q: give them different ports, for admin must not be public", c.Listen, c.Admin)
		}
	}
	if c.Limits.JournalSlots < 0 || c.Limits.JournalBytes < 0 {
		// said above
	} else if err := (journal.Options{Slots: c.Limits.JournalSlots, LogBytes: c.Limits.JournalBytes}).Validate(); err != nil {
		bad("limits.journal_slots, limits.journal_bytes: %v", err)
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		bad("log_level is %q: use debug, info, warn or error", c.LogLevel)
	}
	switch {
	case c.StreamDriver == streamsByGoroutine:
	case c.StreamDriver != streamsByLoop:
		bad("stream_driver is %q: use eventloop or goroutine", c.StreamDriver)
	case runtime.GOOS != "linux":
		bad("stream_driver is eventloop, which only Linux has: use goroutine, or leave it out")
	}
	return errors.Join(errs...)
}

// plainHost reports whether h is a name or an address as hostAllowed compares it.
func plainHost(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	for _, c := range h {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return h != ""
}

func (c *Config) trustedProxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range c.TrustedProxies {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("trusted_proxies: %q is not a network such as 10.42.0.0/16; one address is written as 10.42.0.7/32", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// LoadConfig reads the configuration file, refuses fields it does not know, fills in
// the defaults and validates. resolve turns what stands for a secret into the secret.
func LoadConfig(path string, resolve func(string) (string, error)) (Config, error) {
	var c Config
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, explain(err, text, &c))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return c, fmt.Errorf("read configuration %s: it holds more than one JSON value", path)
	}
	redisURL, err := resolve(c.RedisURL.Reveal())
	if err != nil {
		return c, fmt.Errorf("configuration %s: redis_url: %w", path, err)
	}
	c.RedisURL = secret.Text(redisURL)
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		for k := range u.Keys {
			v, err := resolve(u.Keys[k].Secret.Reveal())
			if err != nil {
				return c, fmt.Errorf("configuration %s: upstream %q, key %d: %w", path, u.Name, k+1, err)
			}
			u.Keys[k].Secret = upstream.Secret(v)
		}
		v, err := resolve(u.EgressProxy.Reveal())
		if err != nil {
			return c, fmt.Errorf("configuration %s: upstream %q: egress_proxy: %w", path, u.Name, err)
		}
		u.EgressProxy = upstream.Secret(v)
	}
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return c, nil
}
