package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"time"
)

const (
	// maxBody is how many bytes a request may bring; the api itself takes less.
	maxBody = 1 << 20
	// headWithin is how long a program of ours may take until it begins to answer: more than the api's 15 s and
	// the onboarding agent's 38 s, of which 8 are the language model's.
	headWithin = 45 * time.Second
	// writeWithin is how long a client may take nothing of an answer that is there.
	writeWithin = 30 * time.Second
	// via marks what a site of ours has passed on. One that gets it has been told that it is its own
	// api, or of an address that leads back to it, and would ask itself until it has no connection left.
	via = "1.1 openclaw-web"
)

// upstream is a program of ours that requests are passed on to.
type upstream struct {
	name, prefix string
	proxy        *httputil.ReverseProxy // nil: there is none
}

// newTransport returns a transport that asks our own programs and nobody else: no proxy of the
// environment, which would see cookies. Bodies stay as they are encoded.
func newTransport() http.RoundTripper {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ResponseHeaderTimeout: headWithin, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 64, DisableCompression: true,
	}
}

func (s *Site) passTo(name, prefix string, target *url.URL, transport http.RoundTripper) upstream {
	u := upstream{name: name, prefix: prefix}
	if target == nil {
		return u
	}
	u.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			// Whoever is in front of us says who asked it; the api believes those that it trusts. Our own word
			// comes last.
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
			r.Out.Header.Add("Via", via)
		},
		Transport:     transport,
		FlushInterval: -1, // each piece as it comes: events, and lines of a log
		ModifyResponse: func(res *http.Response) error {
			if lasts(res) {
				s.endWithUs(res)
			}
			return nil
		},
		ErrorHandler: s.unreachable(name),
		ErrorLog:     slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
	}
	return u
}

func (u *upstream) serve(s *Site, w http.ResponseWriter, r *http.Request) {
	switch {
	case path.Clean(r.URL.Path) != r.URL.Path, strings.HasPrefix(r.URL.Path, "/v1/webhooks/"):
		// Webhooks are for other programs, which come to the api by its own name.
		s.problem(w, http.StatusNotFound, "not-found", "There is no such thing", 0)
		return
	case passedOn(r):
		s.o.Logger.Error("a request came back that was passed on: the address of the program leads to web itself", "program", u.name)
		s.problem(w, http.StatusLoopDetected, "unavailable", "Not available just now", 0)
		return
	case u.proxy == nil:
		s.problem(w, http.StatusServiceUnavailable, "unavailable", "Not available just now", time.Minute)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	r = r.WithContext(context.WithValue(ctx, cancelKey{}, cancel))
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	out := http.NewResponseController(w)
	if r.ContentLength == 0 {
		// The server's limit is for reading a request. Kept, it would end a stream that lasts longer.
		if err := out.SetReadDeadline(time.Time{}); err != nil {
			s.o.Logger.Warn("a request has a limit of time that it should not have", "error", err)
		}
	}
	u.proxy.ServeHTTP(&patient{ResponseWriter: w, out: out}, r)
}

// passedOn reports whether a site of ours has passed a request on already.
func passedOn(r *http.Request) bool {
	for _, header := range r.Header.Values("Via") {
		for hop := range strings.SplitSeq(header, ",") {
			if strings.TrimSpace(hop) == via {
				return true
			}
		}
	}
	return false
}

// lasts reports whether an answer may go on for as long as both sides want.
func lasts(res *http.Response) bool {
	t, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return err == nil && t == "text/event-stream" || res.Header.Get("X-Accel-Buffering") == "no"
}

// cancelKey finds in a request's context what ends it.
type cancelKey struct{}

// endWithUs has an answer end when the process is to end: whole for the client, which connects anew.
func (s *Site) endWithUs(res *http.Response) {
	ctx := res.Request.Context()
	cancel, ok := ctx.Value(cancelKey{}).(context.CancelFunc)
	if !ok {
		return
	}
	s.metrics.streams.Inc()
	body := &lasting{ReadCloser: res.Body, draining: s.draining}
	res.Body = body
	go func() {
		defer s.metrics.streams.Dec()
		select {
		case <-s.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
}

// lasting is the body of an answer that ends in order when the process drains.
type lasting struct {
	io.ReadCloser
	draining <-chan struct{}
}

func (l *lasting) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		select {
		case <-l.draining:
			return n, io.EOF
		default:
		}
	}
	return n, err
}

// patient gives each write its own time: an answer may last for an hour, but a client that takes
// nothing of it must not keep it.
type patient struct {
	http.ResponseWriter
	out *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.out.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// unreachable answers for a program that does not.
func (s *Site) unreachable(name string) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			s.problem(w, http.StatusRequestEntityTooLarge, "too-large", "The body is too large", 0)
			return
		case r.Context().Err() == nil:
			s.o.Logger.Warn("a program of ours does not answer", "program", name, "error", err)
		}
		s.problem(w, http.StatusServiceUnavailable, "unavailable", "Not available just now", 2*time.Second)
	}
}

// problem answers as the api does (RFC 9457), for pages have one way to read errors.
func (s *Site) problem(w http.ResponseWriter, status int, kind, title string, retryAfter time.Duration) {
	body, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
	}{"urn:openclaw:problem:" + kind, title, status})
	if err != nil { // strings always can
		body = []byte("{}")
	}
	h := w.Header()
	s.secure(h)
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if retryAfter > 0 {
		h.Set("Retry-After", retrySeconds(retryAfter))
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
