package devstack

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// stack is one run directory, locked for one command.
type stack struct {
	cfg     Config
	lock    *os.File
	secrets secrets
	started []service // by this command, in order
}

// secrets are generated once per run directory, because the kept data needs them.
type secrets struct {
	RedisPassword    string `json:"redis_password"`
	PostgresPassword string `json:"postgres_password"`
}

// settings are what a running stack was started with. Another command with
// other settings must not mix with it.
type settings struct {
	Ports    Ports  `json:"ports"`
	Kimi     string `json:"kimi"`     // "simulator", or the base URL of the real one
	Stripe   string `json:"stripe"`   // "simulator", or a digest of the keys
	Telegram string `json:"telegram"` // "simulator", or a digest of the token
	Redis    string `json:"redis"`    // "own", or a digest of the URL
	Database string `json:"database"` // likewise
}

func (c *Config) settings() settings {
	s := settings{Ports: c.Ports, Kimi: "simulator", Stripe: "simulator", Telegram: "simulator", Redis: "own", Database: "own"}
	digest := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:8])
	}
	if c.KimiAPIKey != "" {
		s.Kimi = c.KimiBaseURL + " " + digest(c.KimiAPIKey)
	}
	if c.StripeSecretKey != "" {
		s.Stripe = digest(c.StripeSecretKey + " " + c.StripeWebhookSecrets)
	}
	if c.TelegramBotToken != "" {
		s.Telegram = digest(c.TelegramBotToken)
	}
	if c.RedisURL != "" {
		s.Redis = digest(c.RedisURL)
	}
	if c.DatabaseURL != "" {
		s.Database = digest(c.DatabaseURL)
	}
	return s
}

// ErrNotSetUp is returned by commands that need a run directory where there is none.
var ErrNotSetUp = errors.New("nothing was started here yet")

// open locks the run directory. With create it makes what is missing.
func open(cfg Config, create bool) (*stack, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &stack{cfg: cfg}
	if create {
		// Others may pass through, because Postgres may run as another user; the
		// files in it are private one by one.
		if err := os.MkdirAll(cfg.RunDir, 0o711); err != nil {
			return nil, fmt.Errorf("devstack: %w", err)
		}
		if err := makeDir(cfg.path("logs")); err != nil {
			return nil, err
		}
	} else if _, err := os.Stat(cfg.path("logs")); err != nil {
		return nil, ErrNotSetUp
	}
	lock, err := os.OpenFile(cfg.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("devstack: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, errors.New("another command works on this stack right now; wait for it")
	}
	s.lock = lock
	if err := s.loadSecrets(create); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stack) close() { s.lock.Close() }

func (s *stack) loadSecrets(create bool) error {
	if err := errors.Join(s.makeText("jwt-secret", create), s.makeText("operator-key", create), s.makeBoxSecretsKey(create)); err != nil {
		return err
	}
	file := s.cfg.path("secrets.json")
	b, err := os.ReadFile(file)
	if err == nil {
		if err := json.Unmarshal(b, &s.secrets); err != nil {
			return fmt.Errorf("devstack: %s: %w", file, err)
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("devstack: %w", err)
	}
	if !create {
		return nil
	}
	s.secrets = secrets{RedisPassword: rand.Text(), PostgresPassword: rand.Text()}
	if b, err = json.Marshal(s.secrets); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	if err := writePrivate(s.cfg.path("token-pepper"), rand.Text()+rand.Text()+"\n"); err != nil {
		return err
	}
	return writePrivate(file, string(b)+"\n")
}

// makeText makes a secret that is any text, such as what the api signs with, also in an older run
// directory.
func (s *stack) makeText(name string, create bool) error {
	file := s.cfg.path(name)
	if _, err := os.Stat(file); !create || !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return writePrivate(file, rand.Text()+rand.Text()+"\n")
}

// makeBoxSecretsKey makes what secrets of boxes are sealed with, also in an older run directory.
func (s *stack) makeBoxSecretsKey(create bool) error {
	file := s.cfg.path("box-secrets-key")
	if _, err := os.Stat(file); !create || !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return writePrivate(file, hex.EncodeToString(key)+"\n")
}

// redisURL and databaseURL name the servers in use, passwords included.
func (s *stack) redisURL() string {
	if s.cfg.RedisURL != "" {
		return s.cfg.RedisURL
	}
	return "redis://:" + s.secrets.RedisPassword + "@" + address(s.cfg.Ports.Redis) + "/0"
}

func (s *stack) databaseURL() string {
	if s.cfg.DatabaseURL != "" {
		return s.cfg.DatabaseURL
	}
	return localserver.PostgresURL(s.cfg.Ports.Postgres, s.secrets.PostgresPassword, "openclaw")
}

// cleanEnv is the environment of programs that take their settings from files
// and flags. The real Kimi's key, which is in this process's own, is not in it.
func (s *stack) cleanEnv() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.cfg.RunDir, "LC_ALL=C", "TZ=UTC"}
	for _, name := range []string{"GODEBUG", "GOMAXPROCS", "GORACE", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// controlEnv is the environment of the control plane's programs.
func (s *stack) controlEnv() []string {
	return append(s.cleanEnv(),
		"DATABASE_URL="+s.databaseURL(),
		"REDIS_URL="+s.redisURL(),
		"OPENCLAW_TOKEN_PEPPER_FILE="+s.cfg.path("token-pepper"),
		"OPENCLAW_ACTOR=devstack")
}

// operatorEnv is the environment in which openclawctl goes by the api, and signs in by itself.
func (s *stack) operatorEnv(email string) []string {
	return append(s.cleanEnv(),
		"OPENCLAW_API_URL=http://"+address(s.cfg.Ports.Operators),
		"OPENCLAW_API_EMAIL="+email,
		"OPENCLAW_API_PASSWORD_FILE="+s.cfg.path("operator-password"),
		"OPENCLAW_SESSION_FILE="+s.cfg.path("operator-session.json"))
}

// checkSettings refuses to mix with processes that were started with other
// settings.
func (s *stack) checkSettings() error {
	file := s.cfg.path("settings.json")
	now, err := json.Marshal(s.cfg.settings())
	if err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("devstack: %w", err)
	}
	if err == nil && strings.TrimSpace(string(before)) != string(now) {
		if names, err := s.runningNames(); err != nil || len(names) > 0 {
			return errors.Join(err, fmt.Errorf("%s already run, but with other settings (ports, keys of Kimi, Stripe or Telegram, REDIS_URL or DATABASE_URL). Run `make down` first", strings.Join(names, ", ")))
		}
	}
	return writePrivate(file, string(now)+"\n")
}

// startedWith are the settings with which the stack was started, or would be if it never was: what is in the
// environment of this command may be something else.
func (s *stack) startedWith() settings {
	var before settings
	if b, err := os.ReadFile(s.cfg.path("settings.json")); err == nil && json.Unmarshal(b, &before) == nil && before.Ports.Proxy != 0 {
		return before
	}
	return s.cfg.settings()
}

// loadPorts takes the ports from the settings with which the stack was started.
func (s *stack) loadPorts() { s.cfg.Ports = s.startedWith().Ports }

func (s *stack) runningNames() ([]string, error) {
	var names []string
	for _, svc := range s.everyService() {
		_, running, err := readPID(s.pidFile(svc.name))
		if err != nil {
			return nil, err
		}
		if running {
			names = append(names, svc.name)
		}
	}
	return names, nil
}

// outsideDir is where data lives that cannot be in the run directory: one place
// per run directory. It is needed by root only, and only root can make it there.
func (s *stack) outsideDir() string {
	sum := sha256.Sum256([]byte(s.cfg.RunDir))
	return filepath.Join("/var/lib", "openclaw-cloud-dev-"+hex.EncodeToString(sum[:6]))
}

func (s *stack) printf(format string, args ...any) { fmt.Fprintf(s.cfg.Out, format, args...) }

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	return nil
}

func removeIfExists(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("devstack: %w", err)
	}
	return nil
}
