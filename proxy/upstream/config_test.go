package upstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestConfigJSON(t *testing.T) {
	t.Parallel()
	const text = `{"name":"kimi","base_url":"https://api.moonshot.ai/v1/","face":"openai",
		"keys":[{"name":"k","secret":"sk-fake-secret"}],"models":{"kimi-k2":"kimi-k2"},
		"idle_timeout":"90s","egress_proxy":"http://u:hunter2@10.0.0.1:3128","max_conns":7}`
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.IdleTimeout.Std() != 90*time.Second || c.BaseURL != "https://api.moonshot.ai/v1" || c.Keys[0].Weight != 1 || c.MaxConns != 7 ||
		c.CapField != "max_tokens" || c.Keys[0].Secret.Reveal() != "sk-fake-secret" {
		t.Errorf("%+v", c)
	}
	var plain Config
	plain.SetDefaults()
	if plain.MaxConns != 20_000 {
		t.Errorf("max_conns defaults to %d", plain.MaxConns)
	}
	if err := json.Unmarshal([]byte(`{"idle_timeout":"soon"}`), &c); err == nil {
		t.Error("bad duration accepted")
	}
	// However it is printed, no secret comes out.
	out, _ := json.Marshal(c)
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "config", c, "key", c.Keys[0], "secret", c.Keys[0].Secret)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "config", c, "key", c.Keys[0], "secret", c.Keys[0].Secret)
	for _, s := range []string{
		string(out), logged.String(), fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", &c),
		fmt.Sprintf("%s %q %x %v", c.Keys[0].Secret, c.Keys[0].Secret, c.Keys[0].Secret, c.Keys[0]), c.Keys[0].Secret.String(), c.Keys[0].Secret.GoString(),
	} {
		if strings.Contains(s, "sk-fake-secret") || strings.Contains(s, "hunter2") || strings.Contains(s, "736b2d") {
			t.Errorf("secret shown: %s", s)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Config){
		"name":               func(c *Config) { c.Name = "a\nb" },
		"face":               func(c *Config) { c.Face = "gemini" },
		"https, not":         func(c *Config) { c.BaseURL = "ftp://x" },
		"plain http":         func(c *Config) { c.BaseURL = "http://api.example.com" },
		"write it like http": func(c *Config) { c.BaseURL = "api.example.com" },
		"credentials":        func(c *Config) { c.BaseURL = "https://u:p@x/v1" },
		"query":              func(c *Config) { c.BaseURL = "https://x/v1?a=b" },
		"not a public":       func(c *Config) { c.BaseURL = "https://169.254.169.254/v1" },
		"localhost":          func(c *Config) { c.BaseURL = "https://localhost/v1" },
		"egress_proxy":       func(c *Config) { c.EgressProxy = "ftp://x:1" },
		"key_header":         func(c *Config) { c.KeyHeader = "cookie" },
		"cap_field":          func(c *Config) { c.CapField = "n" },
		"estimate_path":      func(c *Config) { c.EstimatePath = "no slash" },
		"default_user_agent": func(c *Config) { c.DefaultUserAgent = "a\r\nb" },
		"models":             func(c *Config) { c.Models = nil },
		"both names":         func(c *Config) { c.Models = map[string]string{"a": ""} },
		"at least one key":   func(c *Config) { c.Keys = nil },
		"secret is empty":    func(c *Config) { c.Keys[0].Secret = "a b" },
		"weight":             func(c *Config) { c.Keys[0].Weight = -1 },
		"name of its own":    func(c *Config) { c.Keys = append(c.Keys, c.Keys[0]) },
		"idle_timeout":       func(c *Config) { c.IdleTimeout = -1 },
		"max_conns":          func(c *Config) { c.MaxConns = -1 },
		"breaker_failures":   func(c *Config) { c.BreakerFailures = -1 },
		"on_client_gone":     func(c *Config) { c.OnClientGone = "wait" },
		"drain_time":         func(c *Config) { c.DrainTime = -1 },
		"max_drains":         func(c *Config) { c.MaxDrains = -1 },
	} {
		c := poolConfig("ok", 1)
		c.BaseURL, c.AllowPrivate = "https://api.example.com/v1", false
		c.SetDefaults()
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	// All problems at once, over all upstreams.
	a, b := poolConfig("same", 1), poolConfig("same", 1)
	c := Config{Name: "bad"}
	d := poolConfig("d", 1)
	d.CAFile = "testdata/missing.pem"
	d.BaseURL = "https://127.0.0.1/v1"
	_, err := NewPool([]Config{a, b, c, d}, Options{})
	for _, want := range []string{"used twice", "face", "base_url", "keys", "models", "ca_file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	if _, err := NewPool(nil, Options{}); err == nil {
		t.Error("empty pool accepted")
	}
}
