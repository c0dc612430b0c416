package localserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// ErrNotInstalled is wrapped by the errors of FindRedis and FindPostgres when
// the program is missing; the error's text says how to get it.
var ErrNotInstalled = errors.New("not installed")

// FindRedis returns the path of redis-server.
func FindRedis() (string, error) {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	for _, pattern := range []string{"/usr/bin/redis-server", "/opt/homebrew/bin/redis-server", "/usr/local/bin/redis-server"} {
		if executable(pattern) {
			return pattern, nil
		}
	}
	return "", fmt.Errorf("localserver: redis-server %w; run `make deps` (or install the package redis-server)", ErrNotInstalled)
}

// PostgresPrograms are the programs of one Postgres release.
type PostgresPrograms struct {
	Initdb   string // creates a data directory
	Postgres string // the server
	Psql     string // the client
}

// FindPostgres returns the programs of the newest Postgres installed here. It
// looks in PATH and in the places where Debian, Red Hat and Homebrew put server
// programs, which are not in PATH there.
func FindPostgres() (PostgresPrograms, error) {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		// A link in PATH often points into the directory with all programs.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		sort.Slice(found, func(i, j int) bool { return release(found[i]) > release(found[j]) })
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		p := PostgresPrograms{
			Initdb:   filepath.Join(dir, "initdb"),
			Postgres: filepath.Join(dir, "postgres"),
			Psql:     filepath.Join(dir, "psql"),
		}
		if !executable(p.Initdb) || !executable(p.Postgres) {
			continue
		}
		if !executable(p.Psql) {
			path, err := exec.LookPath("psql")
			if err != nil {
				continue
			}
			p.Psql = path
		}
		return p, nil
	}
	return PostgresPrograms{}, fmt.Errorf("localserver: the postgres server %w; run `make deps` (or install the package postgresql)", ErrNotInstalled)
}

// release returns the number in a directory such as /usr/lib/postgresql/15/bin,
// 0 when there is none.
func release(dir string) int {
	name := filepath.Base(filepath.Dir(dir)) // 15, pgsql-15 or postgresql@15
	n, err := strconv.Atoi(name[strings.LastIndexFunc(name, func(r rune) bool { return r < '0' || r > '9' })+1:])
	if err != nil {
		return 0
	}
	return n
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
