package devstack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"strconv"
)

// Config says what to run and where. All fields are required unless they say
// otherwise.
type Config struct {
	BinDir string // absolute path of the directory with this module's built programs
	RunDir string // absolute path of the directory for data, logs and secrets; created when missing

	Ports Ports // of the servers on loopback

	RedisURL    string // an existing Redis to use; "" starts one
	DatabaseURL string // an existing Postgres database to use; "" starts a server

	// Kubebox is the path of the program that internal/kubebox builds: Up starts a Kubernetes control
	// plane too. With "" it starts none; the others know one that was started before by its files.
	Kubebox string

	KimiAPIKey  string // a key of the real Kimi; "" uses the simulator
	KimiBaseURL string // of the real Kimi; defaults to https://api.moonshot.ai/v1

	StripeSecretKey      string // of a real account of Stripe; "" uses the simulator
	StripeWebhookSecrets string // by which its events are known
	TelegramBotToken     string // of the platform's real bot; "" uses the simulator

	Out io.Writer // progress and the final instructions
}

// Ports are the TCP ports of the servers, all on 127.0.0.1. Each field's tag is
// the environment variable that sets it.
type Ports struct {
	Proxy      int `env:"OPENCLAW_PROXY_PORT"`      // token-proxy, for clients
	Admin      int `env:"OPENCLAW_ADMIN_PORT"`      // token-proxy, health and metrics
	Billing    int `env:"OPENCLAW_BILLING_PORT"`    // billing-worker, health and metrics
	API        int `env:"OPENCLAW_API_PORT"`        // api, for customers
	Operators  int `env:"OPENCLAW_OPERATORS_PORT"`  // api, for operators
	APIProbes  int `env:"OPENCLAW_API_PROBES_PORT"` // api, health and metrics
	Web        int `env:"OPENCLAW_WEB_PORT"`        // web, the customers' pages
	Console    int `env:"OPENCLAW_CONSOLE_PORT"`    // web, the operations console
	WebProbes  int `env:"OPENCLAW_WEB_PROBES_PORT"` // web, health and metrics
	Onboarding int `env:"OPENCLAW_ONBOARDING_PORT"` // onboarding-agent, conversations, health and metrics
	Kimisim    int `env:"OPENCLAW_KIMISIM_PORT"`    // the Kimi simulator
	Redis      int `env:"OPENCLAW_REDIS_PORT"`      // Redis
	Postgres   int `env:"OPENCLAW_POSTGRES_PORT"`   // Postgres

	// Those of a Kubernetes control plane, if there is one.
	Kubernetes  int `env:"OPENCLAW_KUBERNETES_PORT"`  // the API server
	Etcd        int `env:"OPENCLAW_ETCD_PORT"`        // etcd, for the API server
	EtcdPeers   int `env:"OPENCLAW_ETCD_PEERS_PORT"`  // etcd, for peers, of which there are none
	Controllers int `env:"OPENCLAW_CONTROLLERS_PORT"` // the controller manager, health and metrics
	Scheduler   int `env:"OPENCLAW_SCHEDULER_PORT"`   // the scheduler, health and metrics
	Boxes       int `env:"OPENCLAW_BOXES_PORT"`       // the operator of the boxes, health, metrics, logs and events

	Stripesim   int `env:"OPENCLAW_STRIPESIM_PORT"`   // the Stripe simulator
	Telegramsim int `env:"OPENCLAW_TELEGRAMSIM_PORT"` // the Telegram simulator
}

// DefaultPorts returns the ports that are used when nobody says otherwise.
func DefaultPorts() Ports {
	return Ports{
		Proxy: 8080, Admin: 9090, Billing: 8082, API: 8000, Operators: 8001, APIProbes: 8083, Web: 3000, Console: 3001, WebProbes: 8085, Onboarding: 8086, Kimisim: 9100, Redis: 16379, Postgres: 15432,
		Kubernetes: 16443, Etcd: 12379, EtcdPeers: 12380, Controllers: 20257, Scheduler: 20259, Boxes: 8084,
		Stripesim: 9101, Telegramsim: 9102,
	}
}

// Override replaces the ports whose environment variable lookup knows.
func (p *Ports) Override(lookup func(name string) (string, bool)) error {
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("env")
		text, ok := lookup(name)
		if !ok || text == "" {
			continue
		}
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("%s is %q: give a port number from 1 to 65535", name, text)
		}
		v.Field(i).SetInt(int64(port))
	}
	return nil
}

// Environment returns NAME=PORT for each port, with the name of the environment variable that sets it.
func (p Ports) Environment() (all []string) {
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		all = append(all, fmt.Sprintf("%s=%d", v.Type().Field(i).Tag.Get("env"), v.Field(i).Int()))
	}
	return all
}

// variable returns the name of the environment variable that sets port.
func (p Ports) variable(port int) string {
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if v.Field(i).Int() == int64(port) {
			return v.Type().Field(i).Tag.Get("env")
		}
	}
	return ""
}

func (p Ports) distinct() error {
	v := reflect.ValueOf(p)
	seen := make(map[int64]string)
	for i := range v.NumField() {
		port, name := v.Field(i).Int(), v.Type().Field(i).Tag.Get("env")
		if other, ok := seen[port]; ok {
			return fmt.Errorf("%s and %s are both %d", other, name, port)
		}
		seen[port] = name
	}
	return nil
}

func (c *Config) validate() error {
	if !filepath.IsAbs(c.RunDir) || !filepath.IsAbs(c.BinDir) {
		return errors.New("devstack: RunDir and BinDir must be absolute paths")
	}
	if c.KimiBaseURL == "" {
		c.KimiBaseURL = "https://api.moonshot.ai/v1"
	}
	return c.Ports.distinct()
}

// path returns the path of a file in the run directory.
func (c *Config) path(name ...string) string {
	return filepath.Join(append([]string{c.RunDir}, name...)...)
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
