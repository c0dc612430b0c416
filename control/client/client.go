package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/api"
)

const (
	// attempts is how often a request is sent at most, and patience for how long in all
	// another attempt is begun.
	attempts = 4
	patience = 8 * time.Second
	// answerWithin bounds one attempt: longer than the api's handlers may take.
	answerWithin = 20 * time.Second
	maxAnswer    = 64 << 20
)

// Tokens hands out access tokens. An error that is not about the network must be one of
// ErrSignIn.
type Tokens interface {
	// Access returns a token that the api should accept. rejected is one that it did not,
	// or "".
	Access(ctx context.Context, rejected string) (string, error)
}

// Client sends requests to one api. It is safe for concurrent use if its Tokens are.
type Client struct {
	base   string
	http   *http.Client
	tokens Tokens
	pause  func(context.Context, time.Duration) error
}

// New returns a client of the operators' api at base, such as https://ops.example.com. tokens
// may be nil for what needs no session. http:// is for this machine only: elsewhere everyone on
// the way would read passwords and tokens.
func New(base string, tokens Tokens) (*Client, error) {
	return newClient(base, tokens, false)
}

// NewPlain is New that takes http:// of other machines, too.
func NewPlain(base string, tokens Tokens) (*Client, error) {
	return newClient(base, tokens, true)
}

func newClient(base string, tokens Tokens, plain bool) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// Not the URL itself: it may hold a password.
		return nil, errors.New("the api's URL must be like https://ops.example.com or http://127.0.0.1:8001")
	}
	if u.Scheme == "http" && !plain && !isLoopback(u.Hostname()) {
		return nil, fmt.Errorf("the api's URL names %s without encryption, and passwords and tokens would go there for everyone to read: use https://, or --plain-http", u.Host)
	}
	return &Client{base: strings.TrimRight(base, "/"), http: &http.Client{
		// A redirection would take the token along to where it does not belong.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, tokens: tokens, pause: sleep}, nil
}

// isLoopback reports whether what is sent to a host stays on this machine.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// URL is where the api is.
func (c *Client) URL() string { return c.base }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Request is one call of the api.
type Request struct {
	Method string
	Path   string // from the slash on; parts that others wrote are escaped: see Path
	Query  url.Values
	Body   any    // becomes JSON; nil for none
	Key    string // of a POST: its idempotency key; "" makes one
	// What is what the request is about, such as "customer c1", for errors that do not say it.
	What string

	public bool // without a session
}

// Path makes a path of its parts.
func Path(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// Answer is how a request was answered.
type Answer struct {
	Status int
	// Replayed says that an earlier request with the same key had the effect, and this is
	// what was noted of its answer: without secrets.
	Replayed bool
	// Pending says that a change is saved, and that it is not known that all proxies know.
	Pending bool
}

// Do sends a request and decodes the answer into out, unless that is nil.
func (c *Client) Do(ctx context.Context, r Request, out any) (Answer, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return Answer{}, fmt.Errorf("%s %s: %w", r.Method, r.Path, err)
		}
	}
	if r.Method == http.MethodPost && r.Key == "" {
		r.Key = rand.Text()
	}
	access, began := "", time.Now()
	uncertain := false // some attempt may have had the effect
	for n := 1; ; n++ {
		var err error
		if c.tokens != nil && !r.public && access == "" {
			if access, err = c.tokens.Access(ctx, ""); err != nil {
				return Answer{}, err
			}
		}
		a, err := c.once(ctx, r, body, access, out)
		if err == nil {
			return a, nil
		}
		refused, wait := (*Error)(nil), time.Duration(n)*200*time.Millisecond
		switch {
		case ctx.Err() != nil:
			return a, c.lost(r, err, true)
		case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized && !r.public && c.tokens != nil && n == 1:
			if access, err = c.tokens.Access(ctx, access); err != nil {
				return a, err
			}
			continue
		case refused != nil && !refused.passing():
			refused.key = keyIf(uncertain || refused.Status >= http.StatusInternalServerError, r)
			return a, err
		case refused != nil:
			wait = max(wait, refused.RetryAfter)
			uncertain = uncertain || refused.Status >= http.StatusInternalServerError
		case errors.Is(err, syscall.ECONNREFUSED), isUnknownHost(err):
			return a, c.lost(r, err, uncertain)
		default:
			uncertain = true
		}
		if n == attempts || time.Since(began)+wait > patience {
			if refused != nil {
				refused.key = keyIf(uncertain, r)
				return a, err
			}
			return a, c.lost(r, err, uncertain)
		}
		if err := c.pause(ctx, wait); err != nil {
			return a, c.lost(r, err, uncertain)
		}
	}
}

func isUnknownHost(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// keyIf is the key with which a request can be repeated by hand; "" if nothing was done or
// repeating it does no harm.
func keyIf(uncertain bool, r Request) string {
	if !uncertain || r.public {
		return ""
	}
	return r.Key
}

// Stream sends a GET once and returns what it is answered with, as it comes, until ctx ends.
// The caller closes it.
func (c *Client) Stream(ctx context.Context, r Request) (io.ReadCloser, error) {
	access := ""
	for n := 1; ; n++ {
		var err error
		if c.tokens != nil && !r.public {
			if access, err = c.tokens.Access(ctx, access); err != nil {
				return nil, err
			}
		}
		res, err := c.send(ctx, r, nil, access)
		if err != nil {
			return nil, c.lost(r, plain(err), false)
		}
		if res.StatusCode == http.StatusOK {
			return res.Body, nil
		}
		text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		_ = res.Body.Close()
		if err != nil {
			return nil, c.lost(r, plain(err), false)
		}
		if res.StatusCode != http.StatusUnauthorized || c.tokens == nil || n > 1 {
			return nil, c.refusal(r, res, text)
		}
	}
}

// once is one attempt.
func (c *Client) once(ctx context.Context, r Request, body []byte, access string, out any) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	res, err := c.send(ctx, r, body, access)
	if err != nil {
		return Answer{}, plain(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return Answer{}, plain(err)
	case len(text) > maxAnswer:
		return Answer{}, c.foreign(res, "its answer is too long")
	}
	if res.StatusCode/100 != 2 {
		return Answer{Status: res.StatusCode}, c.refusal(r, res, text)
	}
	a := Answer{
		Status: res.StatusCode, Replayed: res.Header.Get("Idempotency-Replayed") == "true",
		Pending: res.StatusCode == http.StatusAccepted,
	}
	if out == nil || res.StatusCode == http.StatusNoContent || len(text) == 0 && a.Replayed {
		return a, nil
	}
	if media(res) != "application/json" {
		return a, c.foreign(res, "")
	}
	if err := json.Unmarshal(text, out); err != nil {
		return a, c.foreign(res, err.Error())
	}
	return a, nil
}

// send sends a request.
func (c *Client) send(ctx context.Context, r Request, body []byte, access string) (*http.Response, error) {
	address := c.base + r.Path
	if len(r.Query) > 0 {
		address += "?" + r.Query.Encode()
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, address, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, application/problem+json, text/plain")
	req.Header.Set("X-OpenClaw-CSRF", "1") // for routes without a session; the api asks for it of everyone
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if access != "" {
		req.Header.Set("Authorization", "Bearer "+access)
	}
	if r.Key != "" {
		req.Header.Set("Idempotency-Key", r.Key)
	}
	return c.http.Do(req)
}

func media(res *http.Response) string {
	m, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return m
}

// plain takes the method and the URL off what net/http says.
func plain(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal reads a problem.
func (c *Client) refusal(r Request, res *http.Response, text []byte) error {
	var p api.Problem
	if media(res) != "application/problem+json" || json.Unmarshal(text, &p) != nil || p.Type == "" {
		return c.foreign(res, "")
	}
	e := &Error{Status: res.StatusCode, Kind: p.Type[strings.LastIndexByte(p.Type, ':')+1:], Problem: p, what: r.What}
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && n > 0 {
		e.RetryAfter = time.Duration(n) * time.Second
	}
	return e
}

// foreign says that what answers is no api of ours.
func (c *Client) foreign(res *http.Response, more string) error {
	e := &Error{Status: res.StatusCode, Kind: kindForeign, base: c.base}
	e.Problem.Detail = strings.TrimSpace(strconv.Itoa(res.StatusCode) + " " + media(res))
	if more != "" {
		e.Problem.Detail += ", " + more
	}
	return e
}

// Every returns all entries of a list, or the first most ones unless that is 0.
func Every[T any](ctx context.Context, c *Client, path string, query url.Values, most int) ([]T, error) {
	const page = 500 // what the api gives at most
	out, cursor := []T{}, ""
	for {
		q := url.Values{}
		for k, v := range query {
			q[k] = v
		}
		n := page
		if most > 0 {
			n = min(page, most-len(out))
		}
		q.Set("limit", strconv.Itoa(n))
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		var l api.List[T]
		if _, err := c.Do(ctx, Request{Method: http.MethodGet, Path: path, Query: q}, &l); err != nil {
			return out, err
		}
		out = append(out, l.Items...)
		if cursor = l.Next; cursor == "" || most > 0 && len(out) >= most {
			return out, nil
		}
	}
}
