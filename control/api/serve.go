package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/callers"
)

const (
	// handleWithin bounds a handler, but not an event stream.
	handleWithin = 15 * time.Second
	requestID    = "X-Request-Id"
	// clientGone is logged, and counted, for requests whose client did not wait.
	clientGone = 499
)

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// callKey finds the call in a request's context.
type callKey struct{}

func (a *API) handler(s *side) http.Handler {
	mux := http.NewServeMux()
	for i := range s.table {
		rt := &s.table[i]
		mux.HandleFunc(rt.pattern(), func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(callKey{}).(*call)
			c.w, c.r, c.route = w, r, rt
			if err := a.run(s, c); err != nil {
				a.refuse(s, c, err)
			}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(s, mux, w, r) })
}

// serve does what every request gets, whatever becomes of it: an id, headers, the limit of
// its address, a line in the log.
func (a *API) serve(s *side, mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	rec := &recorder{ResponseWriter: w}
	c := &call{a: a, w: rec, id: idOf(r), address: a.addressOf(r)}
	c.r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				a.log(s, c, rec, time.Since(began))
				panic(p)
			}
			a.o.Logger.Error("BUG: a handler panicked", "request_id", c.id, "route", c.pattern(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if rec.status != 0 {
				panic(http.ErrAbortHandler) // half an answer must not look whole
			}
			a.refuse(s, c, fail(kindInternal(), ""))
		}
		a.log(s, c, rec, time.Since(began))
	}()
	secure(rec.Header())
	rec.Header().Set(requestID, c.id)
	_, pattern := mux.Handler(c.r)
	limit := a.perAddress
	if s.signed(pattern) {
		limit = a.webhooks
	}
	if wait, ok := limit.Take(callers.Subnet(c.address), began); !ok {
		a.refuse(s, c, tooMany(wait, "Too many requests come from this address."))
		return
	}
	if pattern == "" || path.Clean(r.URL.Path) != r.URL.Path {
		a.refuse(s, c, s.nothing(mux, rec, r))
		return
	}
	mux.ServeHTTP(rec, c.r)
}

// signed reports whether a pattern is of a route that proves by its content who calls it.
func (s *side) signed(pattern string) bool {
	return slices.ContainsFunc(s.table, func(r route) bool { return r.who.signed && r.pattern() == pattern })
}

// secure sets what browsers are told. The api answers data only: no page may frame it, load
// it as something else, or keep it.
func secure(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// nothing says that there is no such path, or which methods it has.
func (s *side) nothing(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) error {
	var allowed []string
	if path.Clean(r.URL.Path) == r.URL.Path {
		for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete} {
			if _, pattern := mux.Handler(&http.Request{Method: m, URL: r.URL, Host: r.Host}); pattern != "" {
				allowed = append(allowed, m)
			}
		}
	}
	if len(allowed) == 0 || slices.Contains(allowed, r.Method) {
		return fail(kindNotFound(), "There is no such path. GET /openapi.json says which there are.")
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return fail(kindMethod(), "It takes "+strings.Join(allowed, ", ")+".")
}

// run judges a request and serves it.
func (a *API) run(s *side, c *call) error {
	if !c.route.who.signed {
		if err := a.admit(s, c); err != nil {
			a.noteDenied(c, err)
			return err
		}
	}
	if err := c.readBody(); err != nil {
		return err
	}
	if c.route.stream != nil {
		return c.route.stream(c)
	}
	ctx, cancel := context.WithTimeout(c.ctx(), handleWithin)
	defer cancel()
	c.r = c.r.WithContext(ctx)
	answer, err := c.beginIdempotent()
	if err != nil {
		return err
	}
	if answer != nil {
		c.w.Header().Set(replayedHeader, "true")
		c.write(answer.Status, answer.Body)
		return nil
	}
	out, err := c.route.serve(c)
	if err = c.endIdempotent(out, err); err != nil {
		return err
	}
	status := c.route.op.status
	if c.status != 0 {
		status = c.status
	}
	var body []byte
	if raw, ok := out.(json.RawMessage); ok {
		body = raw
	} else if out != nil {
		if body, err = json.Marshal(out); err != nil {
			return fmt.Errorf("write answer: %w", err)
		}
	}
	c.write(status, body)
	return nil
}

// admit decides whether a request may be served: who it is, whether that one may, whether it
// is meant, and whether there were too many. What is not allowed stops here.
func (a *API) admit(s *side, c *call) error {
	// Also of an event stream this much is soon over, or Postgres is away.
	limited, cancel := context.WithTimeout(c.ctx(), handleWithin)
	defer cancel()
	p, err := a.authenticate(s, c.r.WithContext(limited))
	if err != nil {
		return err
	}
	c.who = p
	if !c.route.who.may(p) {
		if p.nobody() {
			return fail(kindUnauthenticated(), "This needs a session or an API key.")
		}
		return fail(kindForbidden(), "This is not for you.")
	}
	if err := s.forged(c.r); err != nil {
		return err
	}
	if !p.nobody() {
		if wait, ok := a.perAccount.Take(c.actor(), time.Now()); !ok {
			return tooMany(wait, "Too many requests come from this account.")
		}
	}
	return nil
}

func (c *call) write(status int, body []byte) {
	if len(body) > 0 {
		c.w.Header().Set("Content-Type", "application/json")
	}
	c.w.WriteHeader(status)
	if len(body) > 0 {
		_, _ = c.w.Write(append(slices.Clip(body), '\n')) // who went away is not told
	}
}

// refuse answers an error, unless an answer has begun.
func (a *API) refuse(s *side, c *call, err error) {
	rec := c.recorder()
	if c.r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		if rec.status == 0 {
			rec.status = clientGone
		}
		return
	}
	f := judge(err, s.frank)
	c.problem = f
	if rec.status != 0 {
		a.o.Logger.Error("an answer broke off", "request_id", c.id, "route", c.pattern(), "error", err)
		panic(http.ErrAbortHandler) // half an answer must not look whole
	}
	f.problem(rec, c.id)
}

func (a *API) log(s *side, c *call, rec *recorder, took time.Duration) {
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("side", s.name), slog.String("request_id", c.id), slog.String("method", methodName(c.r.Method)), slog.String("route", c.pattern()),
		slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes), slog.Int64("duration_us", took.Microseconds()),
		slog.String("address", c.address.String()),
	}
	if !c.who.nobody() {
		attrs = append(attrs, slog.String("subject", c.actor()), slog.String("by", c.who.by.String()))
	}
	if f := c.problem; f != nil {
		attrs = append(attrs, slog.String("problem", f.kind.name))
		if f.kind.status >= http.StatusInternalServerError {
			level = slog.LevelError
		}
		if f.cause != nil {
			attrs = append(attrs, slog.String("error", f.cause.Error()))
		}
	}
	a.o.Logger.LogAttrs(context.WithoutCancel(c.ctx()), level, "request", attrs...)
	a.metrics.observe(s.name, c.pattern(), rec.status, took)
}

// pattern is the route as the log and the metrics have it: never the path, which is the
// caller's.
func (c *call) pattern() string {
	if c.route == nil {
		return ""
	}
	return c.route.path
}

func (c *call) recorder() *recorder {
	rec, ok := c.w.(*recorder)
	if !ok {
		panic("BUG: the response writer was replaced")
	}
	return rec
}

// methodName keeps methods that nobody has heard of out of the log.
func methodName(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// idOf is the request's id: the caller's, if it is a plain one.
func idOf(r *http.Request) string {
	if id := r.Header.Get(requestID); len(id) >= 8 && len(id) <= 64 && plausibleID(id) {
		return id
	}
	return rand.Text()
}

// addressOf is who is at the other end, behind our proxies.
func (a *API) addressOf(r *http.Request) netip.Addr {
	if len(a.o.TrustedProxies) == 0 && r.Header.Get(callers.Forwarded) != "" {
		a.forwarded.Do(func() {
			a.o.Logger.Warn("a request comes with X-Forwarded-For, and no proxies are trusted: behind one, all callers count as one address, with one rate limit for all; set --trusted-proxies", "peer", callers.Peer(r))
		})
	}
	return callers.Address(r, a.o.TrustedProxies)
}

// serveSpec serves the OpenAPI document.
func (a *API) serveSpec(s *side) func(*call) (any, error) {
	return func(*call) (any, error) { return json.RawMessage(s.spec), nil }
}

// ofCustomer is which customer a list is asked for; "" for all.
func (c *call) ofCustomer() (string, error) {
	id := c.r.URL.Query().Get("customer")
	if id != "" && !plausibleID(id) {
		return "", invalid("customer", "it is not an id")
	}
	return id, nil
}
