package web

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are what a Site is made of. API and Logger are required.
type Options struct {
	// Name tells sites apart in metrics: CustomerSite or Console.
	Name string
	// Pages are what is shown; nil in a program that was built without them, which then says so.
	Pages *Pages
	// API is the listener of the api that the pages are for, such as http://api:8000. The console's is the
	// one for operators.
	API *url.URL
	// Onboarding is where the onboarding agent is; nil: there is none, and its paths answer 503.
	Onboarding *url.URL
	// HTTPS says that the pages are reached by HTTPS, which browsers are then told to keep to.
	HTTPS  bool
	Logger *slog.Logger

	Registerer prometheus.Registerer // nil: no metrics
}

// Site serves the pages of one audience and passes on what they ask the api for. It is safe for
// concurrent use.
type Site struct {
	o        Options
	upstream []upstream
	metrics  *metrics
	draining chan struct{}
	drain    sync.Once
}

// New makes a Site.
func New(o Options) (*Site, error) {
	if o.Logger == nil || o.API == nil {
		return nil, errors.New("web: an api and a logger are required")
	}
	s := &Site{o: o, draining: make(chan struct{})}
	var err error
	if s.metrics, err = newMetrics(o.Registerer, o.Name); err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	transport := newTransport()
	s.upstream = []upstream{
		s.passTo("api", "/v1/", o.API, transport),
		s.passTo("onboarding", "/onboarding/", o.Onboarding, transport),
	}
	return s, nil
}

// Drain ends the event streams, which http.Server.Shutdown would wait for.
func (s *Site) Drain() { s.drain.Do(func() { close(s.draining) }) }

// ServeHTTP implements http.Handler.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	kind := "page"
	defer func() { s.metrics.count(kind, rec.status) }() // also when a broken answer is cut off by a panic
	for i := range s.upstream {
		if u := &s.upstream[i]; strings.HasPrefix(r.URL.Path, u.prefix) {
			kind = u.name
			u.serve(s, rec, r)
			return
		}
	}
	s.servePage(rec, r)
}

// policy is what a page of ours may load and do: files of our own, requests to our own origin.
// Trusted Types keep strings from becoming markup or scripts, also by a mistake of ours.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// secure sets what browsers are told with everything that is ours. What is passed on has the
// headers of whoever made it.
func (s *Site) secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	if s.o.HTTPS {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// servePage sends a file, or the page that shows what belongs at a path.
func (s *Site) servePage(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	s.secure(h)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		plain(w, http.StatusMethodNotAllowed, "There are only pages here.")
		return
	}
	if s.o.Pages == nil {
		s.notBuilt(w)
		return
	}
	clean := path.Clean("/" + r.URL.Path)
	if clean != r.URL.Path {
		// One address for each page. The path has one slash at its beginning, so this leads nowhere else.
		to := url.URL{Path: clean, RawQuery: r.URL.RawQuery}
		h.Set("Cache-Control", "no-cache")
		http.Redirect(w, r, to.String(), http.StatusPermanentRedirect)
		return
	}
	name := strings.TrimPrefix(clean, "/")
	switch f := s.o.Pages.files[name]; {
	case f != nil && name != indexName:
		f.send(w, r, http.StatusOK)
	case strings.HasPrefix(name, assets):
		// A page of another release asks for it. Were this kept, it would be missing when that release is back.
		plain(w, http.StatusNotFound, "There is no such file. Load the page again.")
	case s.o.Pages.hasPage(clean):
		s.o.Pages.files[indexName].send(w, r, http.StatusOK)
	default:
		// The page says that there is nothing, in the reader's language.
		s.o.Pages.files[indexName].send(w, r, http.StatusNotFound)
	}
}

// send writes a file in the smallest form that the client takes.
func (f *file) send(w http.ResponseWriter, r *http.Request, status int) {
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("Etag", f.etag)
	h.Set("Vary", "Accept-Encoding")
	if f.immutable {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		h.Set("Cache-Control", "no-cache") // kept, and asked for whether it is still the same
	}
	if status == http.StatusOK && knows(r, f.etag) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body, coding := f.encodedFor(r.Header.Values("Accept-Encoding"))
	if coding != "" {
		h.Set("Content-Encoding", coding)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // who went away is not told
	}
}

// knows reports whether the client has what has this tag.
func knows(r *http.Request, etag string) bool {
	for tag := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// notBuilt answers in place of pages that are not there.
func (s *Site) notBuilt(w http.ResponseWriter) {
	text, err := dist.ReadFile("dist/placeholder.html")
	if err != nil {
		plain(w, http.StatusServiceUnavailable, ErrNotBuilt.Error())
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write(text)
}

func plain(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text)
}

// recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status, but not of an answer that is still to come.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
