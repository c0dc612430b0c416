package stripesim

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// ask sends one request and returns its status and answer.
func ask(t *testing.T, s *Server, method, path string, form url.Values, key string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+Key)
	r.Header.Set("Stripe-Version", APIVersion)
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, out
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := New(time.Now())
	t.Cleanup(s.Close)
	for name, c := range map[string]struct {
		method, path string
		form         url.Values
		status       int
	}{
		"an unknown parameter": {"POST", "/v1/customers", url.Values{"emale": {"x"}}, 400},
		"nobody":               {"GET", "/v1/customers/cus_none", nil, 404},
		"an unknown route":     {"GET", "/v1/charges", nil, 404},
		"no name":              {"POST", "/v1/products", url.Values{"id": {"a"}}, 400},
		"a price of nothing":   {"POST", "/v1/prices", url.Values{"product": {"none"}, "currency": {"usd"}}, 404},
	} {
		if status, body := ask(t, s, c.method, c.path, c.form, ""); status != c.status {
			t.Errorf("%s: %d %v", name, status, body)
		}
	}
}

func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	s := New(time.Now())
	t.Cleanup(s.Close)
	_, first := ask(t, s, "POST", "/v1/customers", url.Values{"name": {"a"}}, "k")
	_, again := ask(t, s, "POST", "/v1/customers", url.Values{"name": {"a"}}, "k")
	status, _ := ask(t, s, "POST", "/v1/customers", url.Values{"name": {"b"}}, "k")
	if first["id"] != again["id"] || status != 400 || s.Customers() != 1 {
		t.Errorf("%v, %v, %d, %d customers", first, again, status, s.Customers())
	}
	s.Fail(1)
	if status, _ := ask(t, s, "POST", "/v1/customers", nil, "l"); status != 500 {
		t.Errorf("status %d", status)
	}
	if status, _ := ask(t, s, "POST", "/v1/customers", nil, "l"); status != 500 {
		t.Errorf("the key of an outage: %d", status)
	}
	if status, _ := ask(t, s, "POST", "/v1/customers", nil, "m"); status != 200 || s.Customers() != 2 {
		t.Errorf("after an outage: %d", status)
	}
}

// An identifier counts once within a day, and once more after it.
func TestMeterIdentifiersAreForgotten(t *testing.T) {
	t.Parallel()
	begin := time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)
	s := New(begin)
	t.Cleanup(s.Close)
	_, customer := ask(t, s, "POST", "/v1/customers", nil, "")
	id := customer["id"].(string)
	ask(t, s, "POST", "/v1/billing/meters", url.Values{"display_name": {"M"}, "event_name": {"m"}, "default_aggregation[formula]": {"sum"}}, "")
	for _, step := range []struct {
		after   time.Duration
		status  int
		metered int64
	}{{0, 200, 5}, {0, 400, 5}, {24*time.Hour - time.Second, 400, 5}, {24 * time.Hour, 200, 10}, {47 * time.Hour, 400, 10}} {
		s.Advance(begin.Add(step.after))
		status, body := ask(t, s, "POST", "/v1/billing/meter_events", url.Values{
			"event_name": {"m"}, "identifier": {"one"}, "payload[stripe_customer_id]": {id}, "payload[value]": {"5"},
		}, "")
		if status != step.status || s.Metered(id) != step.metered {
			t.Errorf("after %s: %d %v, %d metered", step.after, status, body, s.Metered(id))
		}
	}
	if got := strings.Join(s.MeterIdentifiers(), " "); got != "one one" {
		t.Errorf("identifiers %s", got)
	}
}

func TestMonths(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2031, 1, 31, 10, 0, 0, 0, time.UTC)
	for n, want := range []string{"2031-01-31", "2031-02-28", "2031-03-31", "2031-04-30"} {
		if got := monthsAfter(anchor, n).Format(time.DateOnly); got != want {
			t.Errorf("%d months: %s, want %s", n, got, want)
		}
	}
}

// slowBody is what somebody sends who stops in the middle.
type slowBody struct {
	begun, end chan struct{}
	once       sync.Once
}

func (b *slowBody) Read([]byte) (int, error) {
	b.once.Do(func() { close(b.begun) })
	<-b.end
	return 0, io.ErrUnexpectedEOF
}

// Who sends slowly holds up nobody, and what is not sent to its end changes nothing.
func TestSlowSenders(t *testing.T) {
	t.Parallel()
	p := openTest(t, "", newClock())
	_, session, page := p.sell("Plan")
	visit := p.make("billing_portal/sessions", "customer", p.make("customers"), "return_url", "http://127.0.0.1:3000/back",
		"configuration", p.make("billing_portal/configurations", "features[invoice_history][enabled]", "true"))
	before := p.Customers()
	for _, path := range []string{"/v1/customers", strings.TrimPrefix(page, p.URL()), "/portal/" + visit} {
		body := &slowBody{begun: make(chan struct{}), end: make(chan struct{})}
		r := httptest.NewRequestWithContext(t.Context(), "POST", path, body)
		r.Header.Set("Authorization", "Bearer "+Key)
		r.Header.Set("Stripe-Version", APIVersion)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w, answered, free := httptest.NewRecorder(), make(chan struct{}), make(chan struct{})
		go func() {
			p.Handler().ServeHTTP(w, r)
			close(answered)
		}()
		<-body.begun
		go func() {
			p.Now()
			close(free)
		}()
		select {
		case <-free:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: all others wait for who sends slowly", path)
		}
		close(body.end)
		<-answered
		<-free
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "cannot be read") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if n := p.Customers(); n != before || p.get("checkout/sessions/" + session)["status"] != "open" {
		t.Errorf("%d customers, there were %d", n, before)
	}
}

func TestLargeRequests(t *testing.T) {
	t.Parallel()
	p := openTest(t, "", newClock())
	_, _, page := p.sell("Plan")
	before := p.Customers()
	if status, body := ask(t, p.Server, "POST", "/v1/customers", url.Values{"name": {strings.Repeat("a", maxBody)}}, ""); status != 413 ||
		!strings.Contains(body["error"].(map[string]any)["message"].(string), "1048576 bytes") {
		t.Errorf("%d %v", status, body)
	}
	if status, _, text, _ := p.browse(page, strings.Repeat("a", maxBody)); status != 413 || !strings.Contains(text, "1048576 bytes") {
		t.Errorf("on a page: %d %s", status, text)
	}
	if n := p.Customers(); n != before {
		t.Errorf("%d customers, there were %d", n, before)
	}
}
