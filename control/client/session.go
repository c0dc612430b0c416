package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
)

// renewBefore is how long before its end an access token is renewed.
const renewBefore = time.Minute

// Session is a sign-in as it is kept in a file. It is a secret.
type Session struct {
	URL     string       `json:"api_url"`
	Email   string       `json:"email"`
	ID      string       `json:"operator_id"`
	Role    control.Role `json:"role"`
	Access  string       `json:"access_token"`
	Refresh string       `json:"refresh_token"`
	// Expires is when the access token ends, Until when signing in again is needed.
	Expires time.Time `json:"expires_at"`
	Until   time.Time `json:"renewable_until"`
}

// Sessions keeps the session of one operator in a file that several processes may use. Within a
// process it is for one goroutine.
type Sessions struct {
	// URL is the api's; Plain says that it may be http:// of another machine.
	URL   string
	Plain bool
	// File keeps the session, with its lock beside it. "" keeps it in memory.
	File string
	// Email and Password are who signs in when there is no session; without them that is
	// ErrSignIn.
	Email    string
	Password func() (string, error)

	now *Session // without a file
}

// SignIn begins a session and keeps it in place of any other.
func (s *Sessions) SignIn(ctx context.Context, email, password string) (Session, error) {
	unlock, err := s.lock()
	if err != nil {
		return Session{}, err
	}
	defer unlock()
	return s.signIn(ctx, email, password)
}

func (s *Sessions) signIn(ctx context.Context, email, password string) (Session, error) {
	c, err := newClient(s.URL, nil, s.Plain)
	if err != nil {
		return Session{}, err
	}
	var in api.SignedIn
	_, err = c.Do(ctx, Request{
		Method: http.MethodPost, Path: "/v1/session", public: true,
		Body: api.OperatorSignIn{SignIn: api.SignIn{Email: email, Password: password}, Tokens: true},
	}, &in)
	if refused := (*Error)(nil); errors.As(err, &refused) {
		switch {
		case refused.Kind == "unauthenticated":
			return Session{}, fmt.Errorf("%w: the e-mail address or the password is wrong", ErrSignIn)
		case refused.Problem.Fields["tokens"] != "":
			return Session{}, fmt.Errorf("%s is the customers' address of the api: operators have one of their own", s.URL)
		}
	}
	if err != nil {
		return Session{}, err
	}
	v := Session{URL: c.base, Email: email, ID: in.Subject.ID, Role: in.Role}
	return v, s.keep(&v, in)
}

// keep notes what a sign-in or its renewal answered.
func (s *Sessions) keep(v *Session, in api.SignedIn) error {
	v.Access, v.Refresh, v.Expires, v.Until = in.AccessToken, in.RefreshToken, in.ExpiresAt, in.RenewableUntil
	if v.Access == "" || v.Refresh == "" {
		return errors.New("the api answered a sign-in without tokens")
	}
	if s.File == "" {
		s.now = v
		return nil
	}
	text, err := json.MarshalIndent(v, "", "  ") // #nosec G117 -- the file is there to keep it, and is its owner's alone
	if err != nil {
		return fmt.Errorf("keep the session: %w", err)
	}
	if err := writePrivate(s.File, append(text, '\n')); err != nil {
		return fmt.Errorf("keep the session: %w", err)
	}
	return nil
}

// writePrivate replaces a file by one that only its owner can read.
func writePrivate(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error matters
	}
	return err
}

// Kept returns the session of the file. One that is for another api, or of somebody else
// than Email, is none: ErrSignIn.
func (s *Sessions) Kept() (Session, error) {
	v, err := s.read()
	if err != nil {
		return v, err
	}
	c, err := newClient(s.URL, nil, s.Plain)
	if err != nil {
		return v, err
	}
	if v.URL != c.base || s.Email != "" && s.Email != v.Email {
		return Session{}, fmt.Errorf("%w: the kept session is of %s at %s", ErrSignIn, v.Email, v.URL)
	}
	return v, nil
}

func (s *Sessions) read() (Session, error) {
	if s.File == "" {
		if s.now == nil {
			return Session{}, ErrSignIn
		}
		return *s.now, nil
	}
	return ReadSession(s.File)
}

// ReadSession reads a kept session. Without one the error is ErrSignIn.
func ReadSession(file string) (Session, error) {
	var v Session
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return v, ErrSignIn
	}
	if err != nil {
		return v, fmt.Errorf("the kept session: %w", err)
	}
	if err := json.Unmarshal(text, &v); err != nil || v.URL == "" {
		return Session{}, fmt.Errorf("%w: %s holds no session", ErrSignIn, file)
	}
	return v, nil
}

// Forget removes the kept session. It does not end it: see DELETE /v1/session.
func (s *Sessions) Forget() error {
	s.now = nil
	if s.File == "" {
		return nil
	}
	if err := os.Remove(s.File); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the session: %w", err)
	}
	return nil
}

// Access returns an access token, and renews the session or signs in for it.
func (s *Sessions) Access(ctx context.Context, rejected string) (string, error) {
	good := func(v Session) bool { return v.Access != rejected && time.Until(v.Expires) > renewBefore }
	if v, err := s.Kept(); err == nil && good(v) {
		return v.Access, nil
	}
	// A refresh token is good once: of several processes one renews, and the others find
	// what it got.
	unlock, err := s.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	v, err := s.Kept()
	if err == nil && good(v) {
		return v.Access, nil
	}
	if err == nil {
		if v, err = s.renew(ctx, v); err == nil {
			return v.Access, nil
		}
	}
	if !errors.Is(err, ErrSignIn) || s.Email == "" || s.Password == nil {
		return "", err
	}
	password, err := s.Password()
	if err != nil {
		return "", err
	}
	v, err = s.signIn(ctx, s.Email, password)
	return v.Access, err
}

// Renew exchanges the kept session's tokens now.
func (s *Sessions) Renew(ctx context.Context) (Session, error) {
	unlock, err := s.lock()
	if err != nil {
		return Session{}, err
	}
	defer unlock()
	v, err := s.Kept()
	if err != nil {
		return v, err
	}
	return s.renew(ctx, v)
}

func (s *Sessions) renew(ctx context.Context, v Session) (Session, error) {
	c, err := newClient(s.URL, nil, s.Plain)
	if err != nil {
		return v, err
	}
	var in api.SignedIn
	_, err = c.Do(ctx, Request{
		Method: http.MethodPost, Path: "/v1/session/renew", public: true, Body: api.Renewal{RefreshToken: v.Refresh},
	}, &in)
	if refused := (*Error)(nil); errors.As(err, &refused) && refused.Kind == "unauthenticated" {
		return v, fmt.Errorf("%w: the session has ended", ErrSignIn)
	}
	if err != nil {
		return v, err
	}
	return v, s.keep(&v, in)
}

// lock keeps other processes from using the file's refresh token. The lock lies beside the
// file, which is replaced.
func (s *Sessions) lock() (unlock func(), err error) {
	if s.File == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(filepath.Dir(s.File), 0o700); err != nil {
		return nil, fmt.Errorf("keep the session: %w", err)
	}
	f, err := os.OpenFile(s.File+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep the session: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("keep the session: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
