package stripesim

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
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

func TestMonths(t *testing.T) {
	t.Parallel()
	anchor := time.Date(2031, 1, 31, 10, 0, 0, 0, time.UTC)
	for n, want := range []string{"2031-01-31", "2031-02-28", "2031-03-31", "2031-04-30"} {
		if got := monthsAfter(anchor, n).Format(time.DateOnly); got != want {
			t.Errorf("%d months: %s, want %s", n, got, want)
		}
	}
}
