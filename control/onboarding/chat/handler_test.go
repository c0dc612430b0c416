package chat_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/callers"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding"
	"github.com/andreabadesso/openclaw-cloud/control/onboarding/chat"
)

const origin = "https://app.example.invalid"

// scripted is one conversation, of the key "k".
type scripted struct {
	mu    sync.Mutex
	now   onboarding.Conversation
	begun []onboarding.Begin
	said  []onboarding.Said
	left  int
	fail  error

	entered bool
}

func (s *scripted) Begin(_ context.Context, b onboarding.Begin) (onboarding.Conversation, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = append(s.begun, b)
	s.now.State = onboarding.StateGreeting
	return s.now, "k", s.fail
}

func (s *scripted) of(who onboarding.Who) (onboarding.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if who.Key != "k" || s.entered {
		return onboarding.Conversation{}, control.ErrNotFound
	}
	return s.now, s.fail
}

func (s *scripted) Say(_ context.Context, who onboarding.Who, said onboarding.Said) (onboarding.Conversation, error) {
	c, err := s.of(who)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, said)
	return c, err
}

func (s *scripted) Look(_ context.Context, who onboarding.Who) (onboarding.Conversation, error) {
	return s.of(who)
}

func (s *scripted) Leave(_ context.Context, who onboarding.Who) error {
	_, err := s.of(who)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.left++
	}
	return err
}

func (s *scripted) Entered(_ context.Context, who onboarding.Who) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entered = s.entered || who.Key == "k"
	return nil
}

func (s *scripted) Watch(ctx context.Context, who onboarding.Who, every time.Duration, send func(onboarding.Conversation) error) error {
	for {
		c, err := s.of(who)
		if err != nil {
			return err
		}
		if err := send(c); err != nil {
			return err
		}
		if c.Final {
			return nil
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *scripted) becomes(state onboarding.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.State, s.now.Final = state, state.Final()
}

func serve(t *testing.T, s *scripted, change func(*chat.Options)) *httptest.Server {
	t.Helper()
	o := chat.Options{Conversations: s, Origins: []string{origin}, Logger: slog.New(slog.DiscardHandler), Every: 5 * time.Millisecond}
	if change != nil {
		change(&o)
	}
	h, err := chat.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server
}

func ask(t *testing.T, server *httptest.Server, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", origin)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Del(headers[i])
		if headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(raw)
}

const withKey = chat.Cookie + "=k"

func TestConversation(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	server := serve(t, s, nil)
	resp, body := ask(t, server, "POST", "/onboarding/v1/conversation", `{"time_zone": "America/Recife", "tier": "team"}`, "Accept-Language", "pt-BR,en")
	if resp.StatusCode != http.StatusCreated || !strings.Contains(body, `"state":"greeting"`) || len(s.begun) != 1 || s.begun[0] != (onboarding.Begin{Language: "pt-BR,en", TimeZone: "America/Recife", Tier: "team"}) {
		t.Errorf("%d %s, %+v", resp.StatusCode, body, s.begun)
	}
	k := resp.Cookies()
	if len(k) != 1 || k[0].Name != chat.Cookie || k[0].Value != "k" || !k[0].Secure || !k[0].HttpOnly || k[0].SameSite != http.SameSiteLaxMode || k[0].Path != "/" || k[0].Domain != "" || strings.Contains(body, `"k"`) {
		t.Errorf("cookies %+v, %s", k, body)
	}
	if resp, _ := ask(t, server, "POST", "/onboarding/v1/conversation", `{}`, "Cookie", withKey); resp.StatusCode != http.StatusOK || len(s.begun) != 1 || len(resp.Cookies()) != 0 {
		t.Errorf("once more: %d, begun %d times", resp.StatusCode, len(s.begun))
	}
	if resp, _ := ask(t, server, "POST", "/onboarding/v1/conversation/messages", `{"text": "hello", "choice": "x"}`, "Cookie", withKey); resp.StatusCode != http.StatusOK || len(s.said) != 1 || s.said[0] != (onboarding.Said{Text: "hello", Choice: "x"}) {
		t.Errorf("%d, %+v", resp.StatusCode, s.said)
	}
	if resp, body := ask(t, server, "GET", "/onboarding/v1/conversation", "", "Cookie", withKey); resp.StatusCode != http.StatusOK || !strings.Contains(body, "greeting") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	s.becomes(onboarding.StateComplete)
	if resp, _ := ask(t, server, "POST", "/onboarding/v1/conversation", `{}`, "Cookie", withKey); resp.StatusCode != http.StatusCreated || len(s.begun) != 2 {
		t.Errorf("after the end: %d", resp.StatusCode)
	}
}

// Whoever leaves is forgotten, and so is its cookie, whatever it was.
func TestLeave(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	server := serve(t, s, nil)
	for _, cookie := range []string{withKey, chat.Cookie + "=x", ""} {
		resp, _ := ask(t, server, "DELETE", "/onboarding/v1/conversation", "", "Cookie", cookie)
		if k := resp.Cookies(); resp.StatusCode != http.StatusNoContent || len(k) != 1 || k[0].Name != chat.Cookie || k[0].Value != "" || k[0].MaxAge >= 0 || !k[0].Secure || k[0].Path != "/" {
			t.Errorf("%q: %d, %+v", cookie, resp.StatusCode, k)
		}
	}
	if s.left != 1 {
		t.Errorf("%d left", s.left)
	}
}

// Whoever has become a customer in a conversation is signed in by it, nobody else, and not before.
func TestSession(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	s.now.Customer = "c1"
	var signedIn []string
	fail := errors.New("Postgres is away")
	server := serve(t, s, func(o *chat.Options) {
		o.SignIn = func(_ context.Context, w http.ResponseWriter, id string) error {
			if fail != nil {
				return fail
			}
			signedIn = append(signedIn, id)
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "x"})
			return nil
		}
	})
	try := func(want, cookies int, headers ...string) {
		t.Helper()
		resp, body := ask(t, server, "POST", "/onboarding/v1/conversation/session", "", headers...)
		if resp.StatusCode != want || len(resp.Cookies()) != cookies || strings.Contains(body, "Postgres") {
			t.Errorf("%d %s, %d cookies; want %d", resp.StatusCode, body, len(resp.Cookies()), want)
		}
	}
	for _, state := range onboarding.States() {
		if s.becomes(state); state != onboarding.StateComplete {
			try(http.StatusConflict, 0, "Cookie", withKey)
		}
	}
	s.becomes(onboarding.StateComplete)
	try(http.StatusServiceUnavailable, 0, "Cookie", withKey)
	fail = nil
	try(http.StatusNotFound, 0, "Cookie", chat.Cookie+"=x")
	try(http.StatusForbidden, 0, "Cookie", withKey, "Origin", "https://evil.example.invalid")
	try(http.StatusNoContent, 2, "Cookie", withKey) // that of the session, and one that takes the key away
	try(http.StatusNotFound, 0, "Cookie", withKey)  // also a copy of it
	s.entered, s.now.Customer = false, ""
	try(http.StatusConflict, 0, "Cookie", withKey)
	if len(signedIn) != 1 || signedIn[0] != "c1" {
		t.Errorf("signed in %v", signedIn)
	}
	without := serve(t, s, nil)
	if resp, _ := ask(t, without, "POST", "/onboarding/v1/conversation/session", "", "Cookie", withKey); resp.StatusCode != http.StatusConflict {
		t.Errorf("by nobody: %d", resp.StatusCode)
	}
}

// follow opens an event stream.
func follow(t *testing.T, url string, headers ...string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/onboarding/v1/conversation/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", withKey)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// One address does not take all streams, and one that ends makes room.
func TestStreamsAreLimited(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	s.becomes(onboarding.StateAwaitingPayment)
	server := serve(t, s, func(o *chat.Options) {
		o.Streams, o.StreamsFrom, o.Proxies = 3, 2, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	open := func(from string, want int) *http.Response {
		t.Helper()
		resp := follow(t, server.URL, callers.Forwarded, from)
		if resp.StatusCode != want || want != http.StatusOK && resp.Header.Get("Retry-After") == "" {
			t.Fatalf("from %s: %d, want %d", from, resp.StatusCode, want)
		}
		return resp
	}
	open("192.0.2.1", 200)
	second := open("192.0.2.1", 200)
	open("192.0.2.1", 429)
	open("198.51.100.1", 200)
	open("203.0.113.1", 503)
	second.Body.Close()
	for deadline := time.Now().Add(60 * time.Second); ; {
		if resp := follow(t, server.URL, callers.Forwarded, "192.0.2.1"); resp.StatusCode == http.StatusOK {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after one has ended: %d", resp.StatusCode)
		}
	}
}

// A stream lasts longer than a request may take to be read.
func TestStreamOutlivesTheServersLimit(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	s.becomes(onboarding.StateAwaitingPayment)
	h, err := chat.New(chat.Options{Conversations: s, Origins: []string{origin}, Logger: slog.New(slog.DiscardHandler), Every: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	const limit = 3 * time.Second
	server.Config.ReadTimeout, server.Config.WriteTimeout = limit, limit
	server.Start()
	t.Cleanup(server.Close)
	resp := follow(t, server.URL)
	began := time.Now()
	lines := bufio.NewScanner(resp.Body)
	for time.Since(began) < limit+limit/3 {
		if !lines.Scan() {
			t.Fatalf("it ended after %s: %v", time.Since(began), lines.Err())
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	server := serve(t, s, func(o *chat.Options) {
		o.Messages, o.Begins = callers.Rate{PerSecond: 1000, Burst: 1000}, callers.Rate{PerSecond: 1000, Burst: 1000}
	})
	for _, c := range []struct {
		name, method, path, body string
		headers                  []string
		want                     int
	}{
		{"no cookie", "GET", "/onboarding/v1/conversation", "", nil, 404},
		{"another cookie", "GET", "/onboarding/v1/conversation", "", []string{"Cookie", chat.Cookie + "=x"}, 404},
		{"another's events", "GET", "/onboarding/v1/conversation/events", "", []string{"Cookie", chat.Cookie + "=x"}, 404},
		{"says without", "POST", "/onboarding/v1/conversation/messages", `{}`, nil, 404},
		{"no origin", "POST", "/onboarding/v1/conversation/messages", `{}`, []string{"Origin", "", "Cookie", withKey}, 403},
		{"another origin", "POST", "/onboarding/v1/conversation", `{}`, []string{"Origin", "https://evil.example.invalid"}, 403},
		{"null origin", "POST", "/onboarding/v1/conversation", `{}`, []string{"Origin", "null"}, 403},
		{"a form", "POST", "/onboarding/v1/conversation/messages", `text=x`, []string{"Content-Type", "application/x-www-form-urlencoded", "Cookie", withKey}, 415},
		{"no JSON", "POST", "/onboarding/v1/conversation/messages", `{`, []string{"Cookie", withKey}, 400},
		{"two", "POST", "/onboarding/v1/conversation/messages", `{}{}`, []string{"Cookie", withKey}, 400},
		{"more fields", "POST", "/onboarding/v1/conversation/messages", `{"state": "complete"}`, []string{"Cookie", withKey}, 400},
		{"too large", "POST", "/onboarding/v1/conversation/messages", `{"text": "` + strings.Repeat("a", 40<<10) + `"}`, []string{"Cookie", withKey}, 413},
		{"unknown", "GET", "/onboarding/v1/conversation/x", "", []string{"Cookie", withKey}, 404},
		{"method", "PUT", "/onboarding/v1/conversation", "", []string{"Cookie", withKey}, 405},
		{"forgets from elsewhere", "DELETE", "/onboarding/v1/conversation", "", []string{"Origin", "https://evil.example.invalid", "Cookie", withKey}, 403},
	} {
		if resp, body := ask(t, server, c.method, c.path, c.body, c.headers...); resp.StatusCode != c.want || strings.Contains(body, "aaaa") {
			t.Errorf("%s: %d %s, want %d", c.name, resp.StatusCode, body, c.want)
		}
	}
	if len(s.begun) != 0 || s.left != 0 {
		t.Error("something was begun, or forgotten")
	}
	if _, body := ask(t, server, "GET", "/onboarding/v1/conversation", ""); !strings.Contains(body, `"type":"urn:openclaw:problem:not-found"`) {
		t.Errorf("not as the api says it: %s", body)
	}
	s.fail = errors.New("the password of Postgres is x")
	for _, r := range [][2]string{{"GET", "/onboarding/v1/conversation"}, {"POST", "/onboarding/v1/conversation/messages"}, {"POST", "/onboarding/v1/conversation"}, {"GET", "/onboarding/v1/conversation/events"}, {"DELETE", "/onboarding/v1/conversation"}} {
		if resp, body := ask(t, server, r[0], r[1], `{}`, "Cookie", withKey); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || strings.Contains(body, "Postgres") {
			t.Errorf("%v: %d %s", r, resp.StatusCode, body)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	server := serve(t, s, func(o *chat.Options) {
		o.Messages, o.Begins = callers.Rate{PerSecond: 0.001, Burst: 3}, callers.Rate{PerSecond: 0.001, Burst: 2}
	})
	count := func(path string, headers ...string) (ok, refused int) {
		for range 5 {
			resp, _ := ask(t, server, "POST", path, `{}`, headers...)
			switch {
			case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "":
				refused++
			case resp.StatusCode < 300:
				ok++
			}
		}
		return ok, refused
	}
	if ok, refused := count("/onboarding/v1/conversation"); ok != 2 || refused != 3 {
		t.Errorf("%d conversations, %d refused", ok, refused)
	}
	if ok, refused := count("/onboarding/v1/conversation/messages", "Cookie", withKey); ok != 3 || refused != 2 {
		t.Errorf("%d messages, %d refused", ok, refused)
	}
}

// Whoever drains is left by the streams at once.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	s.becomes(onboarding.StateAwaitingPayment)
	h, err := chat.New(chat.Options{Conversations: s, Origins: []string{origin}, Logger: slog.New(slog.DiscardHandler), Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/onboarding/v1/conversation/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", withKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	h.Drain()
	h.Drain()
	if raw, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(raw), "awaiting_payment") {
		t.Errorf("%q, %v", raw, err)
	}
}

// Whoever is behind a proxy of ours has a limit of its own, and nobody else's word on it counts.
func TestLimitsBehindAProxy(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	server := serve(t, s, func(o *chat.Options) {
		o.Begins, o.Proxies = callers.Rate{PerSecond: 0.001, Burst: 1}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for _, c := range []struct {
		from string
		want int
	}{{"198.51.100.1", 201}, {"198.51.100.1", 429}, {"203.0.113.9, 198.51.100.1", 429}, {"198.51.100.2", 201}} {
		if resp, _ := ask(t, server, "POST", "/onboarding/v1/conversation", `{}`, callers.Forwarded, c.from); resp.StatusCode != c.want {
			t.Errorf("from %s: %d, want %d", c.from, resp.StatusCode, c.want)
		}
	}
}

// An event stream tells of each change, and ends with the conversation.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := &scripted{}
	s.becomes(onboarding.StateAwaitingPayment)
	server := serve(t, s, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/onboarding/v1/conversation/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", withKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("headers %v", resp.Header)
	}
	var seen []string
	ended, patient := false, false
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		patient = patient || lines.Text() == "retry: 30000"
		if lines.Text() == "event: end" {
			ended = true
		}
		raw, ok := strings.CutPrefix(lines.Text(), "data: ")
		var c onboarding.Conversation
		if !ok || ended {
			continue
		}
		if err := json.Unmarshal([]byte(raw), &c); err != nil {
			t.Fatal(err)
		}
		if len(seen) == 0 || seen[len(seen)-1] != string(c.State) {
			seen = append(seen, string(c.State))
			if next := map[int]onboarding.State{1: onboarding.StateProvisioning, 2: onboarding.StateComplete}[len(seen)]; next != "" {
				s.becomes(next)
			}
		}
	}
	if want := "awaiting_payment provisioning complete"; strings.Join(seen, " ") != want || !ended || !patient || lines.Err() != nil {
		t.Errorf("seen %v, ended %v, to come again later %v, %v", seen, ended, patient, lines.Err())
	}
}
