package stripesim

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hasten makes the pauses between attempts short, of endpoints that are made afterwards.
func (p *people) hasten() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.site.pauses = pauses{first: time.Millisecond, away: 2 * time.Millisecond, refused: 2 * time.Millisecond}
}

// await waits for what a test wants to see.
func (p *people) await(what string, seen func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !seen(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("not in 30 s: %s", what)
		}
	}
}

// waiting is how many events the first endpoint has not taken.
func (p *people) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.endpoints[0].waits)
}

// counter counts what comes, by the event's type.
type counter struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *counter) serve(refuse string, status int) http.HandlerFunc {
	c.counts = make(map[string]int)
	return func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		// The last one is the event's own: keys are in order.
		const key = `"type":"`
		kind, _, _ := strings.Cut(string(b[strings.LastIndex(string(b), key)+len(key):]), `"`)
		if c.counts[kind]++; refuse == "*" || kind == refuse {
			w.WriteHeader(status)
		}
	}
}

func (c *counter) of(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[kind]
}

// An event that is always refused is given up, for good, and holds up the others no longer.
func TestRefusedEventIsGivenUp(t *testing.T) {
	t.Parallel()
	state, c := filepath.Join(t.TempDir(), "journal"), newClock()
	p := openTest(t, state, c)
	p.hasten()
	var got counter
	p.hook(got.serve("customer.subscription.created", http.StatusBadRequest))
	_, session, page := p.sell("Plan")
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	p.await("all is taken or given up", func() bool { return p.waiting() == 0 })
	if n := got.of("customer.subscription.created"); n != leastTries {
		t.Errorf("what is refused was sent %d times", n)
	}
	if n := got.of("checkout.session.completed"); n != 1 {
		t.Errorf("what came behind it was sent %d times", n)
	}
	if p.endpoints[0].status != "enabled" {
		t.Error("an endpoint that is there is disabled")
	}
	p.stop()
	p = openTest(t, state, c)
	if n := p.waiting(); n != 0 {
		t.Errorf("%d events are sent again by the next process", n)
	}
}

// An endpoint that is away for days is disabled, and nothing is kept for it; for hours, it is not.
func TestGoneEndpointIsDisabled(t *testing.T) {
	t.Parallel()
	state, c := filepath.Join(t.TempDir(), "journal"), newClock()
	p := openTest(t, state, c)
	p.hasten()
	var got counter
	p.hook(got.serve("*", http.StatusServiceUnavailable))
	_, session, page := p.sell("Plan")
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	p.await("the first attempt", func() bool { return got.of("invoice.payment_succeeded") > 0 })
	c.forward(waitFor - time.Hour)
	tried := got.of("invoice.payment_succeeded")
	p.await("many attempts", func() bool { return got.of("invoice.payment_succeeded") > tried+2*leastTries })
	if p.waiting() != 4 {
		t.Errorf("%d events wait for who is away for hours", p.waiting())
	}
	status := func() any { return p.get("webhook_endpoints")["data"].([]any)[0].(map[string]any)["status"] }
	if s := status(); s != "enabled" {
		t.Errorf("after hours the endpoint is %v", s)
	}
	c.forward(2 * time.Hour)
	p.await("the end of the endpoint", func() bool { return status() == "disabled" })
	if p.waiting() != 0 || got.of("customer.subscription.created") != 0 {
		t.Errorf("%d events wait for who is gone", p.waiting())
	}
	p.stop()
	p = openTest(t, state, c)
	if s := status(); s != "disabled" || p.waiting() != 0 {
		t.Errorf("in the next process it is %v, and %d events wait", s, p.waiting())
	}
}

// What happened days ago may be told only now, and an endpoint that is away for half a minute then stays.
func TestOldEventDoesNotDisable(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := openTest(t, "", c)
	p.hasten()
	var away atomic.Bool
	var missed atomic.Int64
	p.hook(func(w http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			missed.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	_, session, page := p.sell("Plan")
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	p.await("all is taken", func() bool { return p.waiting() == 0 })
	away.Store(true)
	c.forward(45 * 24 * time.Hour) // there was a renewal, two weeks ago
	status := func() any { return p.get("webhook_endpoints")["data"].([]any)[0].(map[string]any)["status"] }
	for range 2 {
		tried := missed.Load()
		p.await("many attempts", func() bool { return status() != "enabled" || missed.Load() > tried+2*leastTries })
		c.forward(30 * time.Second)
	}
	if s, n := status(), p.waiting(); s != "enabled" || n == 0 {
		t.Errorf("after half a minute the endpoint is %v, and %d events wait", s, n)
	}
	away.Store(false)
	p.await("all is taken", func() bool { return p.waiting() == 0 })
	if s := status(); s != "enabled" {
		t.Errorf("the endpoint that is back is %v", s)
	}
}

// What was delivered leaves no trace but where each endpoint is; all else is kept.
func TestJournalIsShortened(t *testing.T) {
	t.Parallel()
	state, c := filepath.Join(t.TempDir(), "journal"), newClock()
	p := openTest(t, state, c)
	var got counter
	p.hook(got.serve("", 0))
	customer, session, page := p.sell("Plan")
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	c.forward(100 * 24 * time.Hour)
	sub := p.get("checkout/sessions/" + session)["subscription"].(string) // which moves the clock
	p.await("all is taken", func() bool { return p.waiting() == 0 })
	renewals := got.of("invoice.payment_succeeded")
	p.stop()
	lines := func() (all, taken int) {
		text, err := os.ReadFile(state)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n"), strings.Count(string(text), `{"endpoint":`)
	}
	all, taken := lines()
	for range 2 {
		p = openTest(t, state, c)
		if _, err := Open(Options{URL: "http://127.0.0.1:1", State: state}); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("opened twice: %v", err)
		}
		p.make("customers", "name", "b")
		all++
		p.stop()
		if less, one := lines(); taken < 4 || one != 1 || less != all-taken+1 {
			t.Errorf("%d lines and %d of deliveries, before there were %d and %d", less, one, all, taken)
		}
	}
	p = openTest(t, state, c)
	if n := len(p.get("invoices?customer=" + customer)["data"].([]any)); n != renewals || p.get("subscriptions/" + sub)["status"] != "active" || p.Customers() != 3 {
		t.Errorf("%d invoices, %d were paid; %d customers", n, renewals, p.Customers())
	}
	if p.waiting() != 0 || got.of("checkout.session.completed") != 1 {
		t.Errorf("%d events wait", p.waiting())
	}
	if files, err := os.ReadDir(filepath.Dir(state)); err != nil || len(files) != 1 {
		t.Errorf("beside the file there is more: %v, %v", files, err)
	}
	p.stop()
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
