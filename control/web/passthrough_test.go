package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/web"
)

func TestPassThrough(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Add("Set-Cookie", "__Host-openclaw_session=fake; Path=/; Secure; HttpOnly; SameSite=Lax")
		w.Header().Add("Set-Cookie", "__Host-openclaw_refresh=fake; Path=/; Secure; HttpOnly; SameSite=Strict")
		w.Header().Set("Content-Security-Policy", "default-src 'none'")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s body=%s cookie=%s csrf=%s origin=%s for=%s", r.Method, r.URL.RequestURI(), body,
			r.Header.Get("Cookie"), r.Header.Get("X-OpenClaw-CSRF"), r.Header.Get("Origin"), strings.Join(r.Header.Values("X-Forwarded-For"), "|"))
	}), nil)
	res, text := ask(t, "PATCH", base+"/v1/me?a=b%20c", strings.NewReader(`{"name":"x"}`),
		"Cookie", "__Host-openclaw_session=fake", "X-OpenClaw-CSRF", "1", "Origin", "https://app.example.com", "X-Forwarded-For", "203.0.113.7")
	want := `PATCH /v1/me?a=b%20c body={"name":"x"} cookie=__Host-openclaw_session=fake csrf=1 origin=https://app.example.com for=203.0.113.7, 127.0.0.1`
	if res.StatusCode != http.StatusTeapot || text != want {
		t.Errorf("%d\n%s\nwant\n%s", res.StatusCode, text, want)
	}
	if cookies := res.Header.Values("Set-Cookie"); len(cookies) != 2 || !strings.HasPrefix(cookies[0], "__Host-openclaw_session=") {
		t.Errorf("cookies %q", cookies)
	}
	// It is the api that says what browsers may do with its answers.
	if got := res.Header.Values("Content-Security-Policy"); len(got) != 1 || got[0] != "default-src 'none'" {
		t.Errorf("policies %q", got)
	}
}

func TestNotPassedOn(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, noAPI(t), nil)
	for _, path := range []string{"/v1/webhooks/stripe", "/v1/webhooks%2Fstripe", "/v1/./webhooks/stripe", "/v1/../openapi.json", "/v1//me"} {
		res, text := ask(t, "POST", base+path, strings.NewReader("{}"))
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		problemOf(t, res, text, "not-found")
	}
	res, text := ask(t, "POST", base+"/onboarding/v1/messages", strings.NewReader("{}"))
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "60" {
		t.Errorf("an onboarding agent that is not there: %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	problemOf(t, res, text, "unavailable")
}

// Whose api is itself says so at once, and does not ask itself on and on.
func TestNoLoop(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	var itself http.Handler
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 3 {
			t.Error("it asks itself on and on")
			http.Error(w, "enough", http.StatusInternalServerError)
			return
		}
		itself.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	target, err := url.Parse(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	itself, _ = newSite(t, noAPI(t), func(o *web.Options) { o.API = target })
	res, text := ask(t, "GET", front.URL+"/v1/me", nil, "Via", "1.1 cdn.example.com")
	if res.StatusCode != http.StatusLoopDetected || asked.Load() != 2 {
		t.Errorf("%d after %d requests", res.StatusCode, asked.Load())
	}
	problemOf(t, res, text, "unavailable")
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	target, err := url.Parse(gone.URL)
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	_, base := newSite(t, noAPI(t), func(o *web.Options) { o.API = target })
	res, text := ask(t, "GET", base+"/v1/me", nil)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "2" {
		t.Errorf("%d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	problemOf(t, res, text, "unavailable")
	checkPolicy(t, "/v1/me", res.Header.Get("Content-Security-Policy"))
}

func TestLargeBody(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }), nil)
	// Of unknown length: it is only found while it is passed on.
	res, text := ask(t, "POST", base+"/v1/session", io.MultiReader(strings.NewReader(strings.Repeat("x", 2<<20))))
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", res.StatusCode)
	}
	problemOf(t, res, text, "too-large")
}

// events is an api that sends one event when it is told to, and then waits for the stream's end.
type events struct {
	send  chan string
	ended chan struct{}
}

func (e *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer close(e.ended)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush()
	for {
		select {
		case one := <-e.send:
			fmt.Fprintf(w, "event: usage\ndata: %s\n\n", one)
			_ = out.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func openStream(t *testing.T, base string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", base+"/v1/me/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip")
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// next reads an event, which must not take until the stream's end.
func next(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	got := make(chan string, 1)
	go func() {
		var event strings.Builder
		for {
			line, err := in.ReadString('\n')
			event.WriteString(line)
			if err != nil || line == "\n" {
				got <- event.String()
				return
			}
		}
	}()
	select {
	case s := <-got:
		return s
	case <-time.After(20 * time.Second):
		t.Fatal("an event was held back")
		return ""
	}
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: not within 20 s", what)
	}
}

func TestEventsPassAsTheyCome(t *testing.T) {
	t.Parallel()
	api := &events{send: make(chan string), ended: make(chan struct{})}
	_, base := newSite(t, api, nil)
	res := openStream(t, base)
	if res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Content-Encoding") != "" {
		t.Errorf("headers %v", res.Header)
	}
	in := bufio.NewReader(res.Body)
	for _, data := range []string{"1", "2"} {
		api.send <- data
		if got := next(t, in); got != "event: usage\ndata: "+data+"\n\n" {
			t.Fatalf("event %q", got)
		}
	}
	// A page that is closed ends the stream at the api, which counts how many a customer has.
	res.Body.Close()
	within(t, "the api's side of a stream whose page is closed", api.ended)
}

func TestDrainEndsStreamsInOrder(t *testing.T) {
	t.Parallel()
	api := &events{send: make(chan string), ended: make(chan struct{})}
	site, base := newSite(t, api, nil)
	res := openStream(t, base)
	in := bufio.NewReader(res.Body)
	api.send <- "1"
	next(t, in)
	site.Drain()
	rest, err := io.ReadAll(in)
	if err != nil || len(rest) > 0 {
		t.Errorf("the stream ends with %q, %v; want it whole", rest, err)
	}
	within(t, "the api's side of a drained stream", api.ended)
}

// Drain does not touch what ends by itself.
func TestDrainLeavesRequests(t *testing.T) {
	t.Parallel()
	begun, answer := make(chan struct{}), make(chan struct{})
	site, base := newSite(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-answer
		fmt.Fprint(w, `{"items":[]}`)
	}), nil)
	got := make(chan string, 1)
	go func() {
		res, err := http.Get(base + "/v1/tiers")
		if err != nil {
			got <- err.Error()
			return
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		got <- fmt.Sprint(string(text), err)
	}()
	within(t, "a request", begun)
	site.Drain()
	close(answer)
	if s := <-got; s != `{"items":[]}<nil>` {
		t.Error(s)
	}
}
