package devstack

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// simulatorKey is the key that the simulator takes; it is no secret.
const simulatorKey = "sk-fake-development-key"

// askedModel is the model of the printed requests.
const askedModel = "kimi-k2.6"

// models maps the names that clients may ask for to Kimi's own.
func models() map[string]string {
	served := map[string]string{"k2p5": askedModel} // the short name that pods are configured with
	for _, name := range []string{askedModel, "kimi-k2.5", "kimi-k2.7-code", "kimi-k2.7-code-highspeed", "kimi-k3"} {
		served[name] = name
	}
	return served
}

func modelNames() string { return strings.Join(slices.Sorted(maps.Keys(models())), ", ") }

// proxyFile is the part of token-proxy's configuration that this stack sets. It
// is written against the documented format rather than with the proxy's own
// types, as an operator would write it; token-proxy refuses unknown fields, so
// it cannot drift unseen.
type proxyFile struct {
	Listen          string            `json:"listen"`
	Admin           string            `json:"admin"`
	RedisURL        string            `json:"redis_url"`
	TokenPepperFile string            `json:"token_pepper_file"`
	JournalDir      string            `json:"journal_dir"`
	AllowUnsafe     bool              `json:"allow_unsafe_redis,omitempty"`
	Upstreams       []proxyUpstream   `json:"upstreams"`
	Timeouts        map[string]string `json:"timeouts"`
	Limits          map[string]string `json:"limits"`
}

type proxyUpstream struct {
	Name         string            `json:"name"`
	BaseURL      string            `json:"base_url"`
	Face         string            `json:"face"`
	Keys         []proxyKey        `json:"keys"`
	Models       map[string]string `json:"models"`
	KeyHeader    string            `json:"key_header,omitempty"`
	EstimatePath string            `json:"estimate_path,omitempty"`
	AllowPrivate bool              `json:"allow_private,omitempty"`
}

type proxyKey struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

// writeProxyConfig writes token-proxy.json, and the file with the real Kimi's
// key when there is one.
func (s *stack) writeProxyConfig() error {
	base, key := "http://"+address(s.cfg.Ports.Kimisim)+"/v1", simulatorKey
	if s.cfg.KimiAPIKey != "" {
		file := s.cfg.path("kimi-api-key")
		if err := writePrivate(file, s.cfg.KimiAPIKey+"\n"); err != nil {
			return err
		}
		base, key = s.cfg.KimiBaseURL, "file:"+file
	}
	anthropic, err := anthropicBase(base)
	if err != nil {
		return err
	}
	private := s.cfg.KimiAPIKey == "" || loopback(base)
	keys := []proxyKey{{Name: "development", Secret: key}}
	conf := proxyFile{
		Listen:          address(s.cfg.Ports.Proxy),
		Admin:           address(s.cfg.Ports.Admin),
		RedisURL:        s.redisURL(),
		TokenPepperFile: s.cfg.path("token-pepper"),
		JournalDir:      s.cfg.path("journal"),
		AllowUnsafe:     s.cfg.RedisURL != "",
		Upstreams: []proxyUpstream{
			{Name: "kimi", BaseURL: base, Face: "openai", Keys: keys, Models: models(), EstimatePath: "/tokenizers/estimate-token-count", AllowPrivate: private},
			{Name: "kimi-anthropic", BaseURL: anthropic, Face: "anthropic", Keys: keys, Models: models(), KeyHeader: "authorization", AllowPrivate: private},
		},
		// Nobody balances load here, and `make down` waits for the drain.
		Timeouts: map[string]string{"pre_stop": "1ms", "drain": "5s", "flush": "5s"},
		// Compilers and browsers may be at work beside it.
		Limits: map[string]string{"scheduling_delay": "-1ms"},
	}
	text, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return fmt.Errorf("devstack: token-proxy.json: %w", err)
	}
	return writePrivate(s.cfg.path("token-proxy.json"), string(text)+"\n")
}

// anthropicBase returns the base of the Anthropic face beside an OpenAI base:
// Kimi has it at /anthropic/v1 of the same host.
func anthropicBase(openAI string) (string, error) {
	u, err := url.Parse(openAI)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("the Kimi base URL must be like https://api.moonshot.ai/v1")
	}
	u.Path = "/anthropic/v1"
	return u.String(), nil
}

func loopback(base string) bool {
	u, err := url.Parse(base)
	return err == nil && (u.Hostname() == "127.0.0.1" || u.Hostname() == "localhost" || u.Hostname() == "::1")
}
