package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/andreabadesso/openclaw-cloud/control/client"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// app is what the commands share. Connections are opened by the command that needs
// them, so that --help works anywhere.
type app struct {
	getenv func(string) string
	output string
	actor  string

	apiURL   string
	plain    bool // the api may be http:// of another machine
	database string
	redisURL string
	direct   bool
	key      string // idempotency key of the command line
}

// setting is a flag's value, or else that of its environment variable.
func (a *app) setting(flag, variable string) string {
	if flag != "" {
		return flag
	}
	return a.getenv(variable)
}

func (a *app) databaseURL() string { return a.setting(a.database, "DATABASE_URL") }

// way says how a command that knows both ways works.
type way int

const (
	byAPI way = iota
	byDatabase
)

// chosen decides between the api and the databases. What the command line says wins; then
// the api, if anything names it, the kept session of "login" too: on the databases neither roles
// nor reasons are asked for, and nobody shall come to that by a variable that was set for another program.
func (a *app) chosen() (way, error) {
	directly := a.direct || a.database != "" || a.redisURL != ""
	switch {
	case directly && a.apiURL != "":
		return 0, usageError{errors.New("--api-url, and --direct, --database-url or --redis-url: which one?")}
	case directly && a.key != "":
		return 0, usageError{errors.New("--idempotency-key is for the api; databases are not asked twice")}
	case directly:
		return byDatabase, nil
	}
	_, err := a.address()
	if errors.As(err, new(usageError)) && !a.signedIn() && a.getenv("DATABASE_URL") != "" {
		return byDatabase, nil
	}
	return byAPI, err
}

// signedIn says whether there is a kept session, be it one that cannot be read.
func (a *app) signedIn() bool {
	_, err := os.Stat(a.sessionFile())
	return a.sessionFile() != "" && !errors.Is(err, fs.ErrNotExist)
}

// sessionFile is where "login" keeps the session; "" if there is no place for it.
func (a *app) sessionFile() string {
	if file := a.getenv("OPENCLAW_SESSION_FILE"); file != "" {
		return file
	}
	// Not os.UserConfigDir: it reads the process's own environment.
	if dir := a.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "openclaw", "session.json")
	}
	if dir := a.getenv("HOME"); dir != "" {
		return filepath.Join(dir, ".config", "openclaw", "session.json")
	}
	return ""
}

// address is the operators' api: of the command line, the environment, or the kept session.
func (a *app) address() (string, error) {
	if u := a.setting(a.apiURL, "OPENCLAW_API_URL"); u != "" {
		return u, nil
	}
	if file := a.sessionFile(); file != "" {
		v, err := client.ReadSession(file)
		if err == nil {
			return v.URL, nil
		}
		if !errors.Is(err, client.ErrSignIn) {
			return "", err
		}
	}
	return "", usageError{errors.New(`it is not known where the api is: sign in with "openclawctl login --api-url URL", or set OPENCLAW_API_URL` +
		" (to work on the databases themselves: DATABASE_URL and REDIS_URL)")}
}

// sessions are the operator's, at the api.
func (a *app) sessions() (*client.Sessions, error) {
	base, err := a.address()
	if err != nil {
		return nil, err
	}
	s := &client.Sessions{URL: base, Plain: a.plain, File: a.sessionFile(), Email: a.getenv("OPENCLAW_API_EMAIL")}
	if file := a.getenv("OPENCLAW_API_PASSWORD_FILE"); file != "" {
		if s.Email == "" {
			return nil, usageError{errors.New("OPENCLAW_API_PASSWORD_FILE needs OPENCLAW_API_EMAIL: whose password it is")}
		}
		s.Password = func() (string, error) { return passwordFile(file) }
	}
	return s, nil
}

func passwordFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", usageError{fmt.Errorf("the password: %w", err)}
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimRight(line, "\r"), nil
}

// client returns one for the api, which signs in when it first has to.
func (a *app) client() (*client.Client, error) {
	s, err := a.sessions()
	if err != nil {
		return nil, err
	}
	return a.clientOf(s.URL, s)
}

func (a *app) clientOf(base string, tokens client.Tokens) (*client.Client, error) {
	dial := client.New
	if a.plain {
		dial = client.NewPlain
	}
	c, err := dial(base, tokens)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// api runs what only the api can do.
func (a *app) api(cmd *cobra.Command, do func(context.Context, *client.Client) error) error {
	if a.direct || a.database != "" || a.redisURL != "" {
		return usageError{fmt.Errorf("%q goes by the api only", cmd.CommandPath())}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	return do(cmd.Context(), c)
}

// hasher reads the pepper. It says nothing of its content, in no error either.
func (a *app) hasher() (*contract.Hasher, error) {
	value, path := a.getenv("OPENCLAW_TOKEN_PEPPER"), a.getenv("OPENCLAW_TOKEN_PEPPER_FILE")
	if file, ok := strings.CutPrefix(value, "file:"); ok {
		value, path = "", file
	}
	switch {
	case value == "" && path == "":
		return nil, usageError{errors.New("the token pepper is needed: set OPENCLAW_TOKEN_PEPPER_FILE to the file that token-proxy uses")}
	case value == "":
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, usageError{fmt.Errorf("read the token pepper: %w", err)}
		}
		value = string(b)
	}
	h, err := contract.NewHasher([]byte(strings.TrimSpace(value)))
	if err != nil {
		return nil, usageError{err}
	}
	return h, nil
}

func isPostgres(database string) bool {
	u, err := url.Parse(database)
	return err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql")
}
