package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
)

// postgres is the system's Postgres and its data.
type postgres struct {
	programs localserver.PostgresPrograms
	cred     *syscall.Credential
	dir      string
	port     int
	password string

	mu      sync.Mutex
	process *process
}

// database is where the system keeps its books.
const database = "openclaw"

func newPostgres(dir string) (*postgres, error) {
	p := &postgres{dir: filepath.Join(dir, "postgres"), password: rand.Text()}
	var err error
	if p.programs, err = localserver.FindPostgres(); err != nil {
		return nil, err
	}
	if p.cred, err = localserver.Unprivileged(); err != nil {
		return nil, err
	}
	if p.port, err = localserver.FreePort(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(p.dir, 0o711); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if !localserver.CanEnter(p.dir, p.cred) {
		return nil, fmt.Errorf("the account that runs Postgres cannot enter %s; set TMPDIR to a directory that everybody may enter", dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := localserver.InitPostgres(ctx, p.programs, p.data(), p.password, p.cred); err != nil {
		return nil, err
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	_, err = localserver.Psql(ctx, p.programs, localserver.PostgresURL(p.port, p.password, "postgres"), "CREATE DATABASE "+database)
	return p, err
}

func (p *postgres) data() string { return filepath.Join(p.dir, "data") }

// url is where Postgres is reached through a port: its own or a link's.
func (p *postgres) url(port int) string { return localserver.PostgresURL(port, p.password, database) }

// start starts Postgres if it is down and waits until it has recovered.
func (p *postgres) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil && !p.process.ended() {
		return nil
	}
	// Commits reach the kernel, so they survive every death of the process.
	args := localserver.PostgresArgs(p.data(), p.port, "fsync=off", "full_page_writes=off", "max_connections=100")
	// After kill -9 the last of the old children may need a moment to go.
	return poll(30*time.Second, func() error {
		proc, err := start(spec{
			name: "postgres", path: p.programs.Postgres, args: args, cred: p.cred, dir: p.data(),
			env: []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}, log: filepath.Join(p.dir, "..", "postgres.log"),
		})
		if err != nil {
			return err
		}
		p.process = proc
		err = poll(30*time.Second, func() error {
			if proc.ended() {
				return nil
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := localserver.Psql(ctx, p.programs, localserver.PostgresURL(p.port, p.password, "postgres"), "SELECT 1")
			return err
		})
		if proc.ended() {
			return fmt.Errorf("postgres ended at its start: %v", proc.err)
		}
		return err
	})
}

// crash ends Postgres at once: all connections break, and the next start recovers.
func (p *postgres) crash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.process.stop(syscall.SIGQUIT, 5*time.Second)
}

// kill9 kills Postgres and all its sessions with SIGKILL.
func (p *postgres) kill9() {
	p.mu.Lock()
	defer p.mu.Unlock()
	sessions, _ := children(p.process.cmd.Process.Pid) // those that are missed end when they see that their parent has
	p.process.kill()
	for _, pid := range sessions {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// freeze stops Postgres and its sessions, thaw lets them go on.
func (p *postgres) freeze() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The parent first: once it stands still there are no new children.
	p.process.freeze()
	return p.signal(syscall.SIGSTOP)
}

func (p *postgres) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil {
		_ = p.signal(syscall.SIGCONT) // they may have ended
		p.process.thaw()
	}
}

func (p *postgres) signal(sig syscall.Signal) error {
	sessions, err := children(p.process.cmd.Process.Pid)
	for _, pid := range sessions {
		_ = syscall.Kill(pid, sig) // it may have ended meanwhile
	}
	return err
}

func (p *postgres) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return
	}
	_ = p.signal(syscall.SIGCONT)
	if err := p.process.stop(syscall.SIGQUIT, 5*time.Second); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.process.kill()
	}
}
