package devstack

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// services returns the stack's processes in the order in which they start.
func (s *stack) services() []service {
	var all []service
	if s.cfg.RedisURL == "" {
		all = append(all, s.redis())
	}
	if s.cfg.DatabaseURL == "" {
		all = append(all, s.postgres())
	}
	all = append(all, s.simulators()...)
	return append(all, s.billingWorker(), s.api(), s.tokenProxy(), s.web())
}

// everyService returns all processes that any configuration may have started,
// for stopping them without knowing it.
func (s *stack) everyService() []service {
	all := []service{s.redis(), s.postgres(), s.kimisim(), s.stripesim(), s.telegramsim(), s.billingWorker(), s.api(), s.tokenProxy(), s.web(), s.onboardingAgent()}
	return append(append(all, s.kubernetes()...), s.boxOperator())
}

// startedServices are those of the stack as it was started, which may be with other keys than this command
// has: what its settings name, and whatever has a file that says it was started and not stopped in order.
func (s *stack) startedServices() []service {
	started := s.startedWith()
	not := map[string]bool{
		"redis": started.Redis != "own", "postgres": started.Database != "own",
		"kimisim": started.Kimi != "simulator", "stripesim": started.Stripe != "simulator", "telegramsim": started.Telegram != "simulator",
	}
	for _, svc := range append(s.kubernetes(), s.boxOperator()) {
		not[svc.name] = true // the settings do not say
	}
	return slices.DeleteFunc(s.everyService(), func(svc service) bool {
		_, err := os.Stat(s.pidFile(svc.name))
		return not[svc.name] && err != nil
	})
}

func (s *stack) redis() service {
	config, data := s.cfg.path("redis.conf"), s.cfg.path("redis")
	return service{
		name:  "redis",
		ports: []int{s.cfg.Ports.Redis},
		prepare: func(context.Context) error {
			if err := makeDir(data); err != nil {
				return err
			}
			// In a file, because arguments are visible to every account.
			return writePrivate(config, "requirepass "+s.secrets.RedisPassword+"\n")
		},
		command: func() (command, error) {
			program, err := localserver.FindRedis()
			args := append([]string{config}, localserver.RedisArgs(data, s.cfg.Ports.Redis)...)
			return command{program: program, args: args, env: s.cleanEnv(), dir: data}, err
		},
		ready: func(ctx context.Context) error {
			return pingRedis(ctx, address(s.cfg.Ports.Redis), s.secrets.RedisPassword)
		},
		stopWith: syscall.SIGTERM, stopLimit: 15 * time.Second,
	}
}

// pingRedis asks whether the server takes commands; it does not while it loads
// its data.
func pingRedis(ctx context.Context, addr, password string) error {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nPING\r\n", password); err != nil {
		return err
	}
	const want = "+OK\r\n+PONG\r\n"
	var answer []byte
	buf := make([]byte, 256)
	for len(answer) < len(want) {
		n, err := conn.Read(buf)
		answer = append(answer, buf[:n]...)
		if strings.HasPrefix(string(answer), "-") || err != nil {
			break
		}
	}
	if string(answer) != want {
		return fmt.Errorf("redis answers %q", answer)
	}
	return nil
}

// postgresDir is where the cluster lives: the run directory, or, where the
// account that Postgres has to run as cannot enter that, a directory of its own.
func (s *stack) postgresDir() (dir string, cred *syscall.Credential, err error) {
	cred, err = localserver.Unprivileged()
	if err != nil {
		return "", nil, err
	}
	if localserver.CanEnter(s.cfg.RunDir, cred) {
		return s.cfg.path("postgres"), cred, nil
	}
	return s.outsideDir(), cred, nil
}

func (s *stack) postgres() service {
	var dir string
	var cred *syscall.Credential
	var programs localserver.PostgresPrograms
	locate := func() (err error) {
		if dir, cred, err = s.postgresDir(); err != nil {
			return err
		}
		programs, err = localserver.FindPostgres()
		return err
	}
	admin := func() string {
		return localserver.PostgresURL(s.cfg.Ports.Postgres, s.secrets.PostgresPassword, "postgres")
	}
	return service{
		name:  "postgres",
		ports: []int{s.cfg.Ports.Postgres},
		prepare: func(ctx context.Context) error {
			if err := locate(); err != nil {
				return err
			}
			if err := os.MkdirAll(dir, 0o711); err != nil {
				return fmt.Errorf("devstack: %w", err)
			}
			data := filepath.Join(dir, "data")
			if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
				return nil
			}
			// What an interrupted first start left.
			if err := os.RemoveAll(data); err != nil {
				return fmt.Errorf("devstack: %w", err)
			}
			s.printf("  %-24s creating the database cluster\n", "postgres")
			next := filepath.Join(dir, "new")
			if err := os.RemoveAll(next); err != nil {
				return fmt.Errorf("devstack: %w", err)
			}
			if err := localserver.InitPostgres(ctx, programs, next, s.secrets.PostgresPassword, cred); err != nil {
				return err
			}
			if err := os.Rename(next, data); err != nil {
				return fmt.Errorf("devstack: %w", err)
			}
			return nil
		},
		command: func() (command, error) {
			data := filepath.Join(dir, "data")
			args := localserver.PostgresArgs(data, s.cfg.Ports.Postgres, "max_connections=100")
			return command{program: programs.Postgres, args: args, env: s.cleanEnv(), dir: data, cred: cred}, nil
		},
		ready: func(ctx context.Context) error {
			if err := locate(); err != nil {
				return err
			}
			_, err := localserver.Psql(ctx, programs, admin(), "SELECT 1")
			return err
		},
		after: func(ctx context.Context) error {
			found, err := localserver.Psql(ctx, programs, admin(), "SELECT 1 FROM pg_database WHERE datname = 'openclaw'")
			if err == nil && found == "" {
				_, err = localserver.Psql(ctx, programs, admin(), "CREATE DATABASE openclaw")
			}
			return err
		},
		// SIGINT asks for a fast shutdown: sessions are ended, data is written.
		stopWith: syscall.SIGINT, stopLimit: 30 * time.Second,
	}
}

func (s *stack) kimisim() service {
	base := "http://" + address(s.cfg.Ports.Kimisim)
	return service{
		name:  "kimisim",
		ports: []int{s.cfg.Ports.Kimisim},
		command: func() (command, error) {
			// Slow enough to be seen streaming, quick enough to wait for.
			args := []string{"-addr", address(s.cfg.Ports.Kimisim), "-keys", simulatorKey, "-ttft", "200ms", "-tps", "60", "-output-tokens", "60"}
			return command{program: s.binary("kimisim"), args: args, env: s.cleanEnv(), dir: s.cfg.RunDir}, nil
		},
		ready:    answers(base + "/sim/ledger"),
		stopWith: syscall.SIGTERM, stopLimit: 10 * time.Second,
	}
}

func (s *stack) billingWorker() service {
	return service{
		name:  "billing-worker",
		ports: []int{s.cfg.Ports.Billing},
		command: func() (command, error) {
			args := append([]string{"billing-worker", "--listen", address(s.cfg.Ports.Billing)}, s.stripeArgs()...)
			if s.cfg.RedisURL != "" {
				args = append(args, "--allow-unsafe-redis")
			}
			return command{program: s.binary("control"), args: args, env: s.controlEnv(), dir: s.cfg.RunDir}, nil
		},
		ready:    answers("http://" + address(s.cfg.Ports.Billing) + "/readyz"),
		stopWith: syscall.SIGTERM, stopLimit: 15 * time.Second,
	}
}

func (s *stack) api() service {
	customers, pages := "http://"+address(s.cfg.Ports.API), "http://"+address(s.cfg.Ports.Web)
	return service{
		name:    "api",
		ports:   []int{s.cfg.Ports.API, s.cfg.Ports.Operators, s.cfg.Ports.APIProbes},
		prepare: s.sell,
		command: func() (command, error) {
			args := []string{
				"api", "--listen", address(s.cfg.Ports.API), "--listen-operators", address(s.cfg.Ports.Operators),
				"--listen-probes", address(s.cfg.Ports.APIProbes), "--public-url", customers,
				"--origins", customers + "," + pages, "--dashboard-url", pages, "--trusted-proxies", "127.0.0.0/8",
				"--operator-origins", "http://" + address(s.cfg.Ports.Operators) + ",http://" + address(s.cfg.Ports.Console), "--jwt-secret-file", s.cfg.path("jwt-secret"),
				"--box-secrets-key-file", s.cfg.path("box-secrets-key"),
				// It runs with a cluster only.
				"--operator-url", "http://" + address(s.cfg.Ports.Boxes), "--operator-key-file", s.cfg.path("operator-key"),
			}
			if s.cfg.TelegramBotToken == "" {
				args = append(args, "--telegram-bot-page", "http://"+address(s.cfg.Ports.Telegramsim)+"/"+onboardingBot)
			}
			args = append(append(args, s.stripeArgs()...), "--stripe-webhook-secrets-file", s.webhookSecretsFile())
			if s.cfg.RedisURL != "" {
				args = append(args, "--allow-unsafe-redis")
			}
			return command{program: s.binary("control"), args: args, env: s.controlEnv(), dir: s.cfg.RunDir}, nil
		},
		ready:    answers("http://" + address(s.cfg.Ports.APIProbes) + "/readyz"),
		stopWith: syscall.SIGTERM, stopLimit: 25 * time.Second,
	}
}

func (s *stack) web() service {
	return service{
		name:  "web",
		ports: []int{s.cfg.Ports.Web, s.cfg.Ports.Console, s.cfg.Ports.WebProbes},
		command: func() (command, error) {
			args := []string{
				"web", "--listen", address(s.cfg.Ports.Web), "--listen-operators", address(s.cfg.Ports.Console), "--listen-probes", address(s.cfg.Ports.WebProbes),
				"--public-url", "http://" + address(s.cfg.Ports.Web),
				"--api-url", "http://" + address(s.cfg.Ports.API), "--operators-api-url", "http://" + address(s.cfg.Ports.Operators),
				"--onboarding-url", "http://" + address(s.cfg.Ports.Onboarding),
			}
			return command{program: s.binary("control"), args: args, env: s.cleanEnv(), dir: s.cfg.RunDir}, nil
		},
		// Not /readyz: without Node it runs without pages, and says so to whoever opens them.
		ready:    answers("http://" + address(s.cfg.Ports.WebProbes) + "/healthz"),
		stopWith: syscall.SIGTERM, stopLimit: 25 * time.Second,
	}
}

func (s *stack) tokenProxy() service {
	return service{
		name:    "token-proxy",
		ports:   []int{s.cfg.Ports.Proxy, s.cfg.Ports.Admin},
		prepare: func(context.Context) error { return s.writeProxyConfig() },
		command: func() (command, error) {
			return command{program: s.binary("token-proxy"), args: []string{"-config", s.cfg.path("token-proxy.json")}, env: s.cleanEnv(), dir: s.cfg.RunDir}, nil
		},
		ready:    answers("http://" + address(s.cfg.Ports.Admin) + "/readyz"),
		stopWith: syscall.SIGTERM, stopLimit: 20 * time.Second,
	}
}

func (s *stack) binary(name string) string { return filepath.Join(s.cfg.BinDir, name) }
