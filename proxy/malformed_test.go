package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// badRequest is what a client might send that must be refused. In raw, <token> stands
// for a valid proxy token, so that nothing but the named fault can be what refuses it.
type badRequest struct {
	name string
	raw  string
	want []int // statuses, one of which answers it; none means any 4xx or no answer
}

// noAnswer in badRequest.want allows a connection that closes without an answer: what
// is left of a large body makes the kernel reset it, and the answer may go with it.
const noAnswer = 0

// quick makes waiting for a client short, so that requests without an end can be tested,
// and its limits small.
func quick(c *proxy.Config) {
	c.Timeouts.ReadRequest = proxy.Duration(3 * time.Second)
	c.Timeouts.Idle = proxy.Duration(200 * time.Millisecond)
	c.Limits.BodyBytes = maxBody
	c.Limits.AuthFailures = 1_000_000 // 401 is what is tested, not the 429 of a flood
}

const maxBody = 128 << 10

// exchange sends raw bytes over a connection of its own and returns all that comes back
// until the proxy closes it. With end it says that nothing will follow.
func (r *replica) exchange(raw []byte, end bool) ([]byte, error) {
	conn, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = conn.Write(raw) // the proxy may close before it has read everything
		if end {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	got, err := io.ReadAll(conn)
	<-sent
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return got, errors.New("neither answered nor closed within 20 s")
	}
	return got, nil
}

// response is one answer of an exchange.
type response struct {
	status int
	header http.Header
	body   string
}

// responses cuts what came back into answers. Interim ones (1xx) are left out.
func responses(got []byte, head bool) ([]response, error) {
	var out []response
	br := bufio.NewReader(bytes.NewReader(got))
	req := &http.Request{Method: "POST"}
	if head {
		req.Method = "HEAD"
	}
	for {
		if _, err := br.Peek(1); err != nil {
			return out, nil
		}
		resp, err := http.ReadResponse(br, req)
		if err != nil {
			return out, fmt.Errorf("not an HTTP answer: %w", err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return out, fmt.Errorf("answer cut short: %w", err)
		}
		if resp.StatusCode >= 200 {
			out = append(out, response{resp.StatusCode, resp.Header, string(body)})
		}
		req = &http.Request{Method: "POST"}
	}
}

// refusalError says what is wrong with the body of a refusal.
func refusalError(resp response, anthropic bool) error {
	if ct := resp.header.Get("Content-Type"); ct != "application/json" {
		return fmt.Errorf("Content-Type is %q", ct)
	}
	if resp.header.Get("X-Request-Id") == "" {
		return errors.New("no X-Request-Id")
	}
	var v struct {
		Type  string
		Error struct{ Type, Message, Code string }
	}
	if err := json.Unmarshal([]byte(resp.body), &v); err != nil {
		return fmt.Errorf("the body is no error: %w: %q", err, resp.body)
	}
	if v.Error.Type == "" || v.Error.Message == "" {
		return fmt.Errorf("the error has no type or message: %s", resp.body)
	}
	if anthropic && v.Type != "error" || !anthropic && v.Error.Code == "" {
		return fmt.Errorf("not of the face's shape: %s", resp.body)
	}
	return nil
}

// check sends a bad request and returns what is wrong with what came back.
func (r *replica) check(c badRequest, token string, end bool) error {
	raw := strings.ReplaceAll(c.raw, "<token>", token)
	got, err := r.exchange([]byte(raw), end)
	if err != nil {
		return err
	}
	if strings.Contains(string(got), token) {
		return errors.New("the answer holds the token")
	}
	answers, err := responses(got, strings.HasPrefix(raw, "HEAD "))
	if err != nil {
		return err
	}
	for i, a := range answers {
		if a.status < 400 || a.status > 499 {
			return fmt.Errorf("answer %d has status %d: %s", i+1, a.status, a.body)
		}
		if i == 0 && strings.HasPrefix(raw, "HEAD ") {
			continue
		}
		_, target, _ := strings.Cut(raw, " ")
		if err := refusalError(a, i == 0 && strings.HasPrefix(target, "/v1/messages")); err != nil {
			return fmt.Errorf("answer %d, status %d: %w", i+1, a.status, err)
		}
	}
	if len(c.want) == 0 || end {
		return nil
	}
	status := noAnswer
	if len(answers) > 0 {
		status = answers[0].status
	}
	if !slices.Contains(c.want, status) {
		return fmt.Errorf("status %d, want one of %v", status, c.want)
	}
	return nil
}

// checkAll checks the cases side by side: most of their time is waiting.
func (r *replica) checkAll(cases []badRequest, token string, end bool) {
	const width = 48
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for _, c := range cases {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.check(c, token, end); err != nil {
				r.w.t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	wg.Wait()
}

// noneForwarded fails for each completion that reached the simulator beyond those allowed.
func (w *world) noneForwarded(allowed int) {
	w.t.Helper()
	chats := w.chats()
	if len(chats) <= allowed {
		return
	}
	for _, e := range chats[allowed:] {
		w.t.Errorf("forwarded: %s %s, body %q", e.Method, e.Path, e.Body)
	}
}

// Every malformed request is refused or its connection closed; none is forwarded or
// charged, nothing secret appears, and nothing is left behind, not after many either.
func TestMalformedRequests(t *testing.T) {
	w := newWorldWith(t, kimisim.Config{KeepBodies: true})
	r := w.replica(quick)
	tok, g := w.token(nil)
	good := 0
	wantGood := func() {
		t.Helper()
		for _, f := range faces {
			if a := r.post(f, tok, chat(false, "hello")); a.status != 200 {
				t.Fatalf("a good request: status %d: %s", a.status, a.body)
			}
			good++
		}
		w.noneForwarded(good)
	}
	wantGood()

	cases := slices.Concat(requestLines(), headerLines(), credentials(), framings(), routesAndMethods(), bodies(), sizes(), hiddenRequests())
	names, raws := map[string]bool{}, map[string]bool{}
	for _, c := range cases {
		if names[c.name] {
			t.Errorf("two cases are named %s", c.name)
		}
		names[c.name], raws[c.raw] = true, true
	}
	if len(raws) < 220 {
		t.Errorf("%d distinct requests, want 220", len(raws))
	}
	t.Logf("%d distinct malformed requests", len(raws))

	r.checkAll(cases, tok, false)
	w.noneForwarded(good)
	wantGood()

	r.checkAll(cases, tok, true) // fills pools and caches that stay filled
	quiet := func() {
		t.Helper()
		eventually(t, "no connection is served any more", func() bool { return !strings.Contains(stacks(), "serveConn") })
		eventually(t, "nothing is held", func() bool { return w.usage(g.CustomerID).Held == 0 })
	}
	quiet()
	before, files, log := heap(), openFiles(), len(w.logs.String())
	sent := 0
	const rounds, parts = 20, 4 // a part of the cases each, so that all come up five times
	for round := range rounds {
		var some []badRequest
		for i := round % parts; i < len(cases); i += parts {
			some = append(some, cases[i])
		}
		r.checkAll(some, tok, true)
		sent += len(some)
	}
	quiet()
	eventually(t, "the files are closed", func() bool { return openFiles() <= files+10 })
	kept := uint64(2 * (len(w.logs.String()) - log)) // by this test's own buffer
	after := heap()
	runtime.KeepAlive(cases)
	t.Logf("heap %d KiB, after %d more requests %d KiB; log at most %d KiB", before>>10, sent, after>>10, kept>>10)
	const allowed = 2 << 20
	if after > before+kept+allowed {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, after>>10)
	}
	wantGood()

	if n := len(w.events(good)); n != good {
		t.Errorf("%d usage events for %d good requests", n, good)
	}
	if logs := w.logs.String(); strings.Contains(logs, tok) || strings.Contains(logs, upstreamKey) {
		t.Error("a secret is in the log")
	} else if strings.Contains(logs, "BUG") {
		t.Error("a handler panicked")
	}
}

// stacks returns the stacks of all goroutines.
func stacks() string {
	buf := make([]byte, 1<<20)
	for {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return string(buf[:n])
		}
		buf = make([]byte, 2*len(buf))
	}
}

// The requests that the bad ones are made of are good ones.
func TestMalformedControls(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, kimisim.Config{KeepBodies: true})
	r := w.replica(quick)
	tok, _ := w.token(nil)
	for _, c := range controls() {
		before := len(w.chats())
		got, err := r.exchange([]byte(strings.ReplaceAll(c.raw, "<token>", tok)), false)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		answers, err := responses(got, false)
		if err != nil || len(answers) != 1 || answers[0].status != 200 {
			t.Errorf("%s: not one answer with status 200: %v: %s", c.name, err, got)
			continue
		}
		chats := w.chats()
		if len(chats) != before+1 {
			t.Errorf("%s: forwarded %d times", c.name, len(chats)-before)
			continue
		}
		e := chats[before]
		if e.Body != goodBody {
			t.Errorf("%s: the upstream got the body %q", c.name, e.Body)
		}
		for name := range e.Header {
			switch name {
			case "Host", "Authorization", "X-Api-Key", "Content-Type", "Content-Length", "Accept", "Accept-Encoding", "User-Agent", "Anthropic-Version", "Connection":
			default:
				t.Errorf("%s: the upstream got the header %s", c.name, name)
			}
		}
	}
}

// repeatSeed, set to a seed that a failure printed, repeats its mutations.
const repeatSeed = 0

// A request that random damage has changed is forwarded only if it is still one by the
// strict reading of the standard library.
func TestMutatedRequests(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, kimisim.Config{KeepBodies: true})
	r := w.replica(quick)
	tok, _ := w.token(nil)
	seed := uint64(repeatSeed)
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	bases := controls()
	const rounds = 300
	var mutants [rounds][]byte
	for i := range mutants {
		raw := []byte(strings.ReplaceAll(bases[rng.IntN(len(bases))].raw, "<token>", tok))
		for range 1 + rng.IntN(3) {
			raw = mutate(rng, raw)
		}
		mutants[i] = raw
	}

	const width = 32
	var mu sync.Mutex
	forwarded := 0
	var wg sync.WaitGroup
	slots := make(chan struct{}, width)
	for i, raw := range mutants {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			got, err := r.exchange(raw, false)
			if err != nil {
				t.Errorf("round %d: %v: %q", i, err, raw)
				return
			}
			answers, err := responses(got, bytes.HasPrefix(raw, []byte("HEAD ")))
			if err != nil {
				t.Errorf("round %d: %v: %q", i, err, raw)
			}
			for n, a := range answers {
				if a.status >= 500 {
					t.Errorf("round %d: status %d for %q", i, a.status, raw)
				}
				if a.header.Get("Msh-Request-Id") == "" {
					continue
				}
				mu.Lock()
				forwarded++
				mu.Unlock()
				if err := strictly(raw); n > 0 || err != nil {
					t.Errorf("round %d: answer %d was forwarded (%v): %q", i, n+1, err, raw)
				}
			}
		})
	}
	wg.Wait()
	if n := len(w.chats()); n != forwarded {
		t.Errorf("%d answers of the upstream, but it saw %d requests", forwarded, n)
	}
	if strings.Contains(w.logs.String(), tok) {
		t.Error("the token is in the log")
	}
	t.Logf("%d of %d mutants were forwarded", forwarded, rounds)
}

// mutate damages raw in one place.
func mutate(rng *rand.Rand, raw []byte) []byte {
	special := []byte("\r\n\x00\t :;,.0189aAfF{}[]\"\\%-_+\x7f\x80\xff")
	at := rng.IntN(len(raw))
	end := min(at+1+rng.IntN(12), len(raw))
	switch rng.IntN(6) {
	case 0: // another byte
		raw = bytes.Clone(raw)
		raw[at] = byte(rng.UintN(256))
	case 1: // one bit
		raw = bytes.Clone(raw)
		raw[at] ^= 1 << rng.UintN(8)
	case 2: // one byte more
		raw = slices.Insert(bytes.Clone(raw), at, special[rng.IntN(len(special))])
	case 3: // some bytes less
		raw = slices.Delete(bytes.Clone(raw), at, end)
	case 4: // some bytes twice
		raw = slices.Concat(raw[:end], raw[at:])
	case 5: // a line twice
		lines := bytes.SplitAfter(raw, []byte("\n"))
		n := rng.IntN(len(lines))
		raw = bytes.Join(slices.Insert(lines, n, lines[n]), nil)
	}
	if len(raw) == 0 {
		return []byte("x")
	}
	return raw
}

// strictly returns why raw does not begin with a request that has a JSON body. Empty
// lines before a request are allowed (RFC 9112 §2.2).
func strictly(raw []byte) error {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(raw, "\r\n"))))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	if !json.Valid(body) {
		return errors.New("the body is not JSON")
	}
	return nil
}
