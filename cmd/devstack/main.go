// Command devstack runs the whole system on this machine for development; `make
// up`, `make down` and `make status` call it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/andreabadesso/openclaw-cloud/internal/devstack"
	"github.com/andreabadesso/openclaw-cloud/internal/kubebox"
)

const usage = `devstack runs the whole system on this machine for development

Usage: devstack [flags] up|up-cluster|down|status|clean|ports|kubebox

  up          start what does not run, make a customer, and print a request that works
  up-cluster  up, and a Kubernetes control plane with the operator of the boxes; in a checkout, for that is built there if need be
  down        stop it; data stays
  status      say what runs
  clean       stop it and remove its data
  ports       print which ports it uses, as NAME=PORT with the name of the environment variable that sets it
  kubebox     build the program that is Kubernetes, if need be, and print its path

Environment:
  OPENCLAW_PROXY_PORT, OPENCLAW_ADMIN_PORT, OPENCLAW_BILLING_PORT, OPENCLAW_KIMISIM_PORT,
  OPENCLAW_REDIS_PORT, OPENCLAW_POSTGRES_PORT, OPENCLAW_API_PORT, OPENCLAW_OPERATORS_PORT,
  OPENCLAW_API_PROBES_PORT, OPENCLAW_WEB_PORT, OPENCLAW_CONSOLE_PORT, OPENCLAW_WEB_PROBES_PORT,
  OPENCLAW_ONBOARDING_PORT, OPENCLAW_STRIPESIM_PORT, OPENCLAW_TELEGRAMSIM_PORT
                            other ports than 8080, 9090, 8082, 9100, 16379, 15432, 8000, 8001, 8083, 3000, 3001, 8085,
                            8086, 9101 and 9102
  OPENCLAW_KUBERNETES_PORT, OPENCLAW_ETCD_PORT, OPENCLAW_ETCD_PEERS_PORT, OPENCLAW_CONTROLLERS_PORT,
  OPENCLAW_SCHEDULER_PORT, OPENCLAW_BOXES_PORT
                            other ports than 16443, 12379, 12380, 20257, 20259 and 8084
  OPENCLAW_RUN_DIR          another place for data, logs and secrets than .run
  KIMI_API_KEY              use the real Kimi instead of the simulator
  KIMI_BASE_URL             of the real Kimi, if not https://api.moonshot.ai/v1
  STRIPE_SECRET_KEY, STRIPE_WEBHOOK_SECRETS
                            use a real account of Stripe instead of the simulator
  TELEGRAM_BOT_TOKEN        use a real bot of Telegram instead of the simulator's
  REDIS_URL, DATABASE_URL   use these servers instead of starting some

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "devstack:", err)
		os.Exit(1)
	}
}

// kubeboxSource is where the module of Kubernetes is, from the top of a checkout.
const kubeboxSource = "test/kubebox"

// errUsage is a mistake on the command line that has been explained already.
var errUsage = errors.New("wrong usage")

func run(ctx context.Context) error {
	runDir := os.Getenv("OPENCLAW_RUN_DIR")
	if runDir == "" {
		runDir = ".run"
	}
	flag.StringVar(&runDir, "run-dir", runDir, "directory for data, logs and secrets")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	cfg := devstack.Config{
		Ports:                devstack.DefaultPorts(),
		RedisURL:             os.Getenv("REDIS_URL"),
		DatabaseURL:          os.Getenv("DATABASE_URL"),
		KimiAPIKey:           os.Getenv("KIMI_API_KEY"),
		KimiBaseURL:          os.Getenv("KIMI_BASE_URL"),
		StripeSecretKey:      os.Getenv("STRIPE_SECRET_KEY"),
		StripeWebhookSecrets: os.Getenv("STRIPE_WEBHOOK_SECRETS"),
		TelegramBotToken:     os.Getenv("TELEGRAM_BOT_TOKEN"),
		Out:                  os.Stdout,
	}
	if err := cfg.Ports.Override(os.LookupEnv); err != nil {
		return err
	}
	var err error
	if cfg.RunDir, err = filepath.Abs(runDir); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cfg.BinDir = filepath.Dir(program)
	switch flag.Arg(0) {
	case "up":
		return devstack.Up(ctx, cfg)
	case "up-cluster":
		if cfg.Kubebox, err = kubebox.Build(ctx, kubeboxSource, os.Stderr); err != nil {
			return err
		}
		return devstack.Up(ctx, cfg)
	case "kubebox":
		path, err := kubebox.Build(ctx, kubeboxSource, os.Stderr)
		if err == nil {
			fmt.Println(path)
		}
		return err
	case "ports":
		for _, port := range cfg.Ports.Environment() {
			fmt.Println(port)
		}
		return nil
	case "down":
		return devstack.Down(cfg)
	case "status":
		return devstack.Status(ctx, cfg)
	case "clean":
		return devstack.Clean(cfg)
	}
	flag.Usage()
	return errUsage
}
