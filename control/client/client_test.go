package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/client"
)

// What the client does with the api itself is tested with cmd/openclawctl, on a real one. Here
// is what no api of ours answers.

type token string

func (t token) Access(context.Context, string) (string, error) { return string(t), nil }

func serve(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := client.New(s.URL+"/", token("a fake token"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func problem(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func TestErrorsAreSentences(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, what, want string
		answer                 http.HandlerFunc
	}{
		{"a page", "/v1/x", "", "is not the operators' api (200 text/html): check OPENCLAW_API_URL", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		}},
		{"a redirection", "/v1/x", "", "is not the operators' api (302", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}},
		{"half an answer", "/v1/x", "", "is not the operators' api (200 application/json, unexpected end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":`)
		}},
		{"an error of a proxy between", "/v1/x", "", "is not the operators' api (404 text/plain)", http.NotFound},
		{"nothing of that name", "/v1/x", "customer c1", "customer c1: not found", func(w http.ResponseWriter, _ *http.Request) {
			problem(w, 404, `{"type":"urn:openclaw:problem:not-found","status":404}`)
		}},
		{"nothing, and said which", "/v1/x", "customer c1", "suspend: customer c1: not found", func(w http.ResponseWriter, _ *http.Request) {
			problem(w, 404, `{"type":"urn:openclaw:problem:not-found","status":404,"detail":"suspend: customer c1: not found"}`)
		}},
		{"a mistake of ours", "/v1/x", "", "something went wrong in the api, and its log says what (request req-7)", func(w http.ResponseWriter, _ *http.Request) {
			problem(w, 500, `{"type":"urn:openclaw:problem:internal","status":500,"request_id":"req-7"}`)
		}},
		{"a role", "/v1/x", "", "your role may not do this", func(w http.ResponseWriter, _ *http.Request) {
			problem(w, 403, `{"type":"urn:openclaw:problem:forbidden","status":403,"detail":"This is not for you."}`)
		}},
		{"no session", "/v1/x", "", `sign in with "openclawctl login"`, func(w http.ResponseWriter, _ *http.Request) {
			problem(w, 401, `{"type":"urn:openclaw:problem:unauthenticated","status":401}`)
		}},
		{"a field", "/v1/x", "", "tier: there is no such tier", func(w http.ResponseWriter, _ *http.Request) {
			problem(w, 422, `{"type":"urn:openclaw:problem:invalid","status":422,"detail":"tier: there is no such tier"}`)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out struct{ ID string }
			_, err := serve(t, c.answer).Do(t.Context(), client.Request{Method: http.MethodGet, Path: c.path, What: c.what}, &out)
			if refused := (*client.Error)(nil); !errors.As(err, &refused) || !strings.HasSuffix(err.Error(), c.want) && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a sentence: %q", err)
			}
		})
	}
}

// The token does not follow a redirection to where it does not belong.
func TestTokenStaysHere(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(other.Close)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	if _, err := c.Do(t.Context(), client.Request{Method: http.MethodPost, Path: "/v1/x", Body: "x"}, nil); err == nil || asked.Load() != 0 {
		t.Errorf("%v, and the other was asked %d times", err, asked.Load())
	}
}

// Who is interrupted while something is changed is told how to go on; each attempt had the
// same key.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	keys := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if keys <- r.Header.Get("Idempotency-Key"); len(keys) == 2 {
			cancel()
		}
		problem(w, 503, `{"type":"urn:openclaw:problem:unavailable","status":503}`)
	})
	_, err := c.Do(ctx, client.Request{Method: http.MethodPost, Path: "/v1/x", Body: 1}, nil)
	key := <-keys
	if again := <-keys; key == "" || again != key {
		t.Errorf("keys %q and %q", key, again)
	}
	if !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "--idempotency-key "+key) {
		t.Errorf("%v, key %s", err, key)
	}
}

// cancelled is a context in which nothing is sent.
func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "ops.example.com", "ftp://ops.example.com", "https://ada:hush@ops.example.com", "https://", "https://x/?a=b"} {
		if _, err := client.New(bad, nil); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for base, plain := range map[string]bool{
		"http://127.0.0.1:8001": false, "http://127.8.8.8": false, "http://[::1]:8001": false, "http://localhost:8001": false, "http://[::ffff:127.0.0.1]": false,
		"http://ops.example.com": true, "http://127.0.0.1.example.com": true, "http://127.example.com": true, "http://10.0.0.1:8001": true, "http://localhost.example.com": true, "http://[::2]": true,
	} {
		if _, err := client.New(base, nil); plain != (err != nil) || plain && !strings.Contains(err.Error(), "--plain-http") {
			t.Errorf("%s: %v", base, err)
		}
		if _, err := client.NewPlain(base, nil); err != nil {
			t.Errorf("%s, in so many words: %v", base, err)
		}
		s := &client.Sessions{URL: base}
		if _, err := s.SignIn(cancelled(t), "ada@example.com", "a fake password"); plain != strings.Contains(err.Error(), "--plain-http") {
			t.Errorf("sign in at %s: %v", base, err)
		}
	}
	if got := client.Path("v1", "customers", "c 1/../x?"); got != "/v1/customers/c%201%2F..%2Fx%3F" {
		t.Error(got)
	}
}

func TestBrokenSessionFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "session.json")
	for _, text := range []string{"", "{", "{}", "[]"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := client.ReadSession(file); !errors.Is(err, client.ErrSignIn) {
			t.Errorf("%q: %v", text, err)
		}
	}
	s := client.Sessions{URL: "http://127.0.0.1:1", File: file}
	if _, err := s.Access(t.Context(), ""); !errors.Is(err, client.ErrSignIn) {
		t.Error(err)
	}
}
