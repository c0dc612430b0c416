package platform

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/proc"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// StartControl runs what the api of the control plane needs: Redis, and a Postgres that is
// set up to hold much, with the newest schema and nothing in it. There are no customers and
// no billing-worker. When it fails it has ended what it began.
func StartControl(ctx context.Context, o Options) (p *Platform, err error) {
	p = &Platform{o: o, PepperFile: filepath.Join(o.Dir, "pepper")}
	defer func() {
		if err != nil {
			p.Close()
			p = nil
		}
	}()
	if err := p.begin(ctx); err != nil {
		return p, err
	}
	// What is loaded in bulk is vacuumed once, by who loads it.
	if err := p.startPostgres(ctx, false, "shared_buffers=1GB", "maintenance_work_mem=512MB", "work_mem=32MB", "max_wal_size=8GB",
		"wal_level=minimal", "max_wal_senders=0", "autovacuum=off"); err != nil {
		return p, err
	}
	return p, p.migrate(ctx)
}

// SQL runs statements in one transaction and returns what they print, with columns
// separated by "|".
func (p *Platform) SQL(ctx context.Context, statements string) (string, error) {
	return localserver.Psql(ctx, p.programs, p.database, statements)
}

// Digest is what Postgres knows secrets of customers by.
func (p *Platform) Digest(raw string) (contract.Digest, error) {
	h, err := contract.NewHasher([]byte(pepper))
	if err != nil {
		return contract.Digest{}, fmt.Errorf("platform: %w", err)
	}
	return h.Digest([]byte(raw)), nil
}

// OperatorPassword is that of all operators that AddOperator makes.
const OperatorPassword = "for measurements only"

// AddOperator makes an operator.
func (p *Platform) AddOperator(ctx context.Context, email string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Program("control"), "add-operator", "--email", email, "--role", "admin")
	cmd.Env, cmd.Dir, cmd.Stdin = p.env(), p.o.Dir, strings.NewReader(OperatorPassword+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("control add-operator: %w: %s", err, out)
	}
	return nil
}

// API is where a running api answers, as URLs.
type API struct{ Customers, Operators string }

// StartAPI runs the api, which believes what clients on this machine say of their address.
func (p *Platform) StartAPI(ctx context.Context) (API, error) {
	var ports [3]string
	for i := range ports {
		port, err := localserver.FreePort()
		if err != nil {
			return API{}, err
		}
		ports[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	secret := filepath.Join(p.o.Dir, "jwt-secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("for measurements only ", 3)), 0o600); err != nil {
		return API{}, fmt.Errorf("platform: %w", err)
	}
	one, err := p.start(proc.Command{
		Name: "api", Path: p.Program("control"), Env: p.env(), Dir: p.o.Dir,
		Args: []string{
			"api", "--listen", ports[0], "--listen-operators", ports[1], "--listen-probes", ports[2], "--public-url", "http://" + ports[0],
			"--trusted-proxies", "127.0.0.0/8", "--jwt-secret-file", secret, "--log-level", "warn",
		},
	})
	if err != nil {
		return API{}, err
	}
	if err := one.Await(ctx, time.Minute, Answers("http://"+ports[2]+"/readyz")); err != nil {
		return API{}, err
	}
	return API{Customers: "http://" + ports[0], Operators: "http://" + ports[1]}, nil
}
