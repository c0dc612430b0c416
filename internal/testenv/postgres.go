package testenv

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// PostgresServer is an empty database on a private Postgres server.
type PostgresServer struct {
	URL string // postgres://…/NAME?sslmode=disable

	t       testing.TB
	admin   string   // URL of a database beside it
	cluster *cluster // nil when the server is an existing one
	own     bool     // the cluster is this test's own
}

// sharedCluster serves all tests of this process that ask for Postgres.
var sharedCluster = &cluster{}

// Postgres returns a fresh database on a server that all tests of this process
// share; it is started at the first call. When DATABASE_URL is set, that server
// is used (its user must be allowed to create databases). The database is
// dropped when the test ends, connections or not.
func Postgres(t testing.TB) *PostgresServer {
	t.Helper()
	s := &PostgresServer{t: t}
	admin := os.Getenv("DATABASE_URL")
	if admin == "" {
		if err := sharedCluster.start(); err != nil {
			t.Fatal(err)
		}
		s.cluster = sharedCluster
		admin = sharedCluster.url("postgres")
	}
	s.create(admin, "")
	return s
}

// PreparedPostgres is like Postgres, but the database is as prepare leaves an empty one whose URL
// it is given. prepare must do the same wherever a test process calls PreparedPostgres with this
// name: it is called once, and its database copied, which costs a tenth of a migration. So
// no connection to it may be left, and what belongs to the whole server, such as roles, is there
// for all. On a server that exists already it is called for each database.
func PreparedPostgres(t testing.TB, name string, prepare func(url string) error) *PostgresServer {
	t.Helper()
	if os.Getenv("DATABASE_URL") != "" {
		s := Postgres(t)
		if err := prepare(s.URL); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := sharedCluster.start(); err != nil {
		t.Fatal(err)
	}
	template, err := sharedCluster.template(name, prepare)
	if err != nil {
		t.Fatal(err)
	}
	s := &PostgresServer{t: t, cluster: sharedCluster}
	// By copies of files: these are few and small, and the other way writes each page to the log.
	s.create(sharedCluster.url("postgres"), " TEMPLATE "+template+" STRATEGY FILE_COPY")
	return s
}

// DedicatedPostgres returns a fresh database on a server of its own, which the
// test may stop, pause and start again. It takes about a second to create.
func DedicatedPostgres(t testing.TB) *PostgresServer {
	t.Helper()
	s := &PostgresServer{t: t, cluster: &cluster{}, own: true}
	t.Cleanup(s.cluster.stop)
	if err := s.cluster.start(); err != nil {
		t.Fatal(err)
	}
	s.create(s.cluster.url("postgres"), "")
	return s
}

// Stop ends a dedicated server at once, as a crash would: all connections break
// and the next Start goes through recovery. Committed data stays.
func (s *PostgresServer) Stop() {
	s.t.Helper()
	s.dedicated("Stop")
	s.cluster.halt()
}

// Start starts a dedicated server again on the same port and data. It does
// nothing while the server runs.
func (s *PostgresServer) Start() {
	s.t.Helper()
	s.dedicated("Start")
	if err := s.cluster.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Pause freezes a dedicated server and its sessions: connections stay open and
// nothing is answered.
func (s *PostgresServer) Pause() {
	s.t.Helper()
	s.dedicated("Pause")
	if err := s.cluster.signalAll(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
}

// Resume ends Pause.
func (s *PostgresServer) Resume() {
	s.t.Helper()
	s.dedicated("Resume")
	if err := s.cluster.signalAll(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
}

// Query runs one SQL statement through psql and returns its output: rows on
// lines, columns separated by "|". It fails the test on an error.
func (s *PostgresServer) Query(statement string) string {
	s.t.Helper()
	out, err := psql(s.URL, statement)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// Lose drops the database with all that is in it, connections or not.
func (s *PostgresServer) Lose() {
	s.t.Helper()
	s.administer("DROP DATABASE %s WITH (FORCE)")
}

// Empty makes it again after Lose, with nothing in it.
func (s *PostgresServer) Empty() {
	s.t.Helper()
	s.administer("CREATE DATABASE %s")
}

func (s *PostgresServer) administer(format string) {
	s.t.Helper()
	u, err := url.Parse(s.URL)
	if err == nil {
		_, err = psql(s.admin, fmt.Sprintf(format, strings.TrimPrefix(u.Path, "/")))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// PostgresBin returns the directory of the programs of the Postgres that tests use, such as pg_dump,
// which need not be on the PATH.
func PostgresBin(t testing.TB) string {
	t.Helper()
	programs, err := localserver.FindPostgres()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(programs.Postgres)
}

func (s *PostgresServer) dedicated(method string) {
	s.t.Helper()
	if !s.own {
		s.t.Fatalf("testenv: %s of a shared Postgres; use DedicatedPostgres", method)
	}
}

// create makes the database through the administrative URL, with options of CREATE DATABASE,
// and arranges that it is dropped.
func (s *PostgresServer) create(admin, options string) {
	s.t.Helper()
	u, err := url.Parse(admin)
	if err != nil || u.Scheme == "" {
		s.t.Fatal("testenv: DATABASE_URL is not a postgres:// URL")
	}
	name := "test_" + strings.ToLower(rand.Text())
	if _, err := psql(admin, "CREATE DATABASE "+name+options); err != nil {
		s.t.Fatal(err)
	}
	u.Path = "/" + name
	s.URL, s.admin = u.String(), admin
	if s.own {
		return // goes with its cluster
	}
	s.t.Cleanup(func() {
		if _, err := psql(admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			s.t.Error(err)
		}
	})
}

func psql(databaseURL, statement string) (string, error) {
	programs, err := localserver.FindPostgres()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return localserver.Psql(ctx, programs, databaseURL, statement)
}

// cluster is one Postgres server process and its data. The zero value has not
// been created yet.
type cluster struct {
	mu       sync.Mutex
	programs localserver.PostgresPrograms
	cred     *syscall.Credential
	dir      string // parent of the data directory, "" before the first start
	port     int
	password string
	process  *process // nil while stopped

	templates map[string]*template // by name
}

func (c *cluster) url(database string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return localserver.PostgresURL(c.port, c.password, database)
}

// start creates the cluster if need be, runs it, and waits until it answers.
func (c *cluster) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		return nil
	}
	if c.dir == "" {
		if err := c.create(); err != nil {
			return err
		}
	}
	for attempt := 1; ; attempt++ {
		moved := c.port == 0
		if moved {
			var err error
			if c.port, err = localserver.FreePort(); err != nil {
				return err
			}
		}
		err := c.run()
		if err == nil {
			return nil
		}
		// Only a cluster that nobody knows yet may change its port.
		if !moved || attempt == 3 {
			return err
		}
		c.port = 0
	}
}

func (c *cluster) create() error {
	var err error
	if c.programs, err = localserver.FindPostgres(); err != nil {
		return err
	}
	if c.cred, err = localserver.Unprivileged(); err != nil {
		return err
	}
	dir, err := workDir("postgres-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return fmt.Errorf("testenv: %w", err)
	}
	if !localserver.CanEnter(dir, c.cred) {
		return fmt.Errorf("testenv: the account that runs Postgres cannot enter %s; set TMPDIR to a directory that everybody may enter", os.TempDir())
	}
	c.password = rand.Text()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := localserver.InitPostgres(ctx, c.programs, filepath.Join(dir, "data"), c.password, c.cred); err != nil {
		_ = os.RemoveAll(dir)
		return err
	}
	c.dir = dir
	return nil
}

func (c *cluster) run() error {
	data := filepath.Join(c.dir, "data")
	// Nothing is forced to the disk: data has to survive the process, not the
	// machine. Commits still reach the kernel, so a crash loses none of them.
	args := localserver.PostgresArgs(data, c.port, "fsync=off", "full_page_writes=off", "max_connections=100")
	p, err := start(syscall.SIGQUIT, c.cred, data, filepath.Join(c.dir, "log"), c.programs.Postgres, args...)
	if err != nil {
		return err
	}
	admin := localserver.PostgresURL(c.port, c.password, "postgres")
	err = p.ready(time.Minute, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := localserver.Psql(ctx, c.programs, admin, "SELECT 1")
		return err
	})
	if err != nil {
		p.end(syscall.SIGQUIT)
		return err
	}
	c.process = p
	return nil
}

// halt ends the server at once and keeps the data.
func (c *cluster) halt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return
	}
	_ = c.signalChildren(syscall.SIGCONT)
	c.process.end(syscall.SIGQUIT)
	c.process = nil
}

// stop ends the server and removes the data.
func (c *cluster) stop() {
	c.halt()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dir != "" {
		_ = os.RemoveAll(c.dir)
		c.dir, c.port = "", 0
	}
}

// signalAll sends sig to the server and to its sessions, which are processes
// in sessions of their own.
func (c *cluster) signalAll(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return fmt.Errorf("testenv: %v for a stopped Postgres", sig)
	}
	// The parent first: once it stands still there are no new children.
	if err := c.process.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("testenv: %v for Postgres: %w", sig, err)
	}
	return c.signalChildren(sig)
}

func (c *cluster) signalChildren(sig syscall.Signal) error {
	pids, err := children(c.process.cmd.Process.Pid)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig) // it may have ended meanwhile
	}
	return nil
}
