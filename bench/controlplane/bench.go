package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/platform"
)

// Bench is one measurement. It is used once.
type Bench struct {
	Customers int
	Events    int
	Months    int           // over which the events are spread, the present one included
	Clients   int           // that ask at the same time
	Rate      float64       // requests per second, of all of them
	Duration  time.Duration // of each question
	Say       func(format string, args ...any)

	now          time.Time
	all, busiest []string // API keys
	operators    []string // access tokens
	api          platform.API
	cursors      map[string][]string // of pages in the middle, by status
}

// Result is how one question was answered.
type Result struct {
	Question  string         `json:"question"`
	Answers   int            `json:"answers"`
	Seconds   float64        `json:"seconds"`
	P50       time.Duration  `json:"p50_ns"`
	P99       time.Duration  `json:"p99_ns"`
	Max       time.Duration  `json:"max_ns"`
	Failures  map[string]int `json:"failures,omitempty"`
	MeanBytes int            `json:"mean_bytes"`
}

// MaxRate is the largest Rate: each of the operators that ask may do so 20 times per second.
const MaxRate = 1000

const operators = 60

func (b *Bench) months() []time.Time {
	present := time.Date(b.now.Year(), b.now.Month(), 1, 0, 0, 0, 0, time.UTC)
	list := make([]time.Time, b.Months)
	for i := range list {
		list[i] = present.AddDate(0, i-b.Months+1, 0)
	}
	return list
}

// Run fills the platform, which must be a new one of StartControl, and asks.
func (b *Bench) Run(ctx context.Context, p *platform.Platform) ([]Result, error) {
	b.now = time.Now().UTC().Truncate(time.Second)
	if err := b.fill(ctx, p); err != nil {
		return nil, err
	}
	size, err := p.SQL(ctx, `SELECT (SELECT count(*) FROM usage_events) || ' events, ' || (SELECT count(*) FROM usage_days) || ' sums by day, '
		|| (SELECT count(*) FROM usage_periods) || ' periods, ' || pg_size_pretty(pg_database_size(current_database()))`)
	if err != nil {
		return nil, err
	}
	b.Say("Postgres has %s", size)
	if b.api, err = p.StartAPI(ctx); err != nil {
		return nil, err
	}
	if err := b.signIn(ctx, p); err != nil {
		return nil, err
	}
	if err := b.walk(ctx); err != nil {
		return nil, err
	}
	var results []Result
	for _, q := range b.questions() {
		r, err := b.measure(ctx, q)
		if err != nil {
			return results, err
		}
		b.Say("%-44s %7.0f/s  p50 %6.2f ms  p99 %6.2f ms  failures %v", r.Question, float64(r.Answers)/r.Seconds, ms(r.P50), ms(r.P99), r.Failures)
		results = append(results, r)
	}
	return results, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Print writes results as a table.
func Print(w io.Writer, results []Result) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "| question | answers/s | p50 ms | p99 ms | most ms | bytes |\n|---|---|---|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&text, "| %s | %.0f | %.1f | %.1f | %.1f | %d |\n", r.Question, float64(r.Answers)/r.Seconds, ms(r.P50), ms(r.P99), ms(r.Max), r.MeanBytes)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// question is what clients ask, again and again, each time of someone else.
type question struct {
	name string
	ask  func() (url, token string)
}

func one[T any](list []T) T { return list[rand.IntN(len(list))] }

func (b *Bench) questions() []question {
	mine := func(keys []string, query func() string) func() (string, string) {
		return func() (string, string) { return b.api.Customers + "/v1/me/usage" + query(), one(keys) }
	}
	last := func(d time.Duration) func() string {
		return func() string {
			to := b.now.Add(-time.Duration(rand.Int64N(int64(24 * time.Hour))))
			return "?from=" + to.Add(-d).Format(time.RFC3339) + "&to=" + to.Format(time.RFC3339)
		}
	}
	list := func(path string, query func() url.Values) func() (string, string) {
		return func() (string, string) { return b.api.Operators + path + "?" + query().Encode(), one(b.operators) }
	}
	page := func(status string, limit string, later bool) func() url.Values {
		return func() url.Values {
			v := url.Values{}
			if status != "" {
				v.Set("status", status)
			}
			if limit != "" {
				v.Set("limit", limit)
			}
			if later {
				v.Set("cursor", one(b.cursors[status]))
			}
			return v
		}
	}
	some := func() string { return fmt.Sprintf("bench%d", 1+rand.IntN(b.Customers)) }
	return []question{
		// Without any table that grows: what the machine, and signing in, take of the rest.
		{"who is signed in", func() (string, string) { return b.api.Operators + "/v1/session", one(b.operators) }},
		{"/me/usage, the present period", mine(b.all, func() string { return "" })},
		{"/me/usage, 30 days", mine(b.all, last(30*24*time.Hour))},
		{"/me/usage, a year", mine(b.all, last(365*24*time.Hour))},
		{"/me/usage, a year of the busiest", mine(b.busiest, last(365*24*time.Hour))},
		{"customers, first page", list("/v1/customers", page("", "", false))},
		{"customers, any page", list("/v1/customers", page("", "", true))},
		{"customers, any page of 500", list("/v1/customers", page("", "500", true))},
		{"suspended customers, first page", list("/v1/customers", page("suspended", "", false))},
		{"cancelled customers, any page", list("/v1/customers", page("cancelled", "", true))},
		{"a customer", func() (string, string) { return b.api.Operators + "/v1/customers/" + some(), one(b.operators) }},
		{"usage of a customer", func() (string, string) {
			return b.api.Operators + "/v1/customers/" + some() + "/usage", one(b.operators)
		}},
		{"boxes of a customer", list("/v1/boxes", func() url.Values { return url.Values{"customer": {some()}} })},
		{"audit log of a customer", list("/v1/audit", func() url.Values { return url.Values{"customer": {some()}} })},
	}
}

// client keeps a connection for each who asks.
func (b *Bench) client() *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: b.Clients, DisableCompression: true}}
}

// get asks, as if from an address of its own.
func get(ctx context.Context, c *http.Client, url, token string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Forwarded-For", address())
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func address() string {
	return fmt.Sprintf("10.%d.%d.%d", rand.IntN(256), rand.IntN(256), rand.IntN(256))
}

func (b *Bench) measure(ctx context.Context, q question) (Result, error) {
	c := b.client()
	defer c.CloseIdleConnections()
	r := Result{Question: q.name, Failures: map[string]int{}}
	var mu sync.Mutex
	var took []time.Duration
	total := 0
	every := time.Duration(float64(b.Clients) / b.Rate * float64(time.Second))
	start := time.Now()
	warm := start.Add(time.Second)
	end := warm.Add(b.Duration)
	var clients sync.WaitGroup
	for i := range b.Clients {
		clients.Go(func() {
			// An answer's time begins when the request was to be sent, so that none is left
			// out because another one was slow.
			for due := start.Add(every * time.Duration(i) / time.Duration(b.Clients)); due.Before(end) && ctx.Err() == nil; due = due.Add(every) {
				time.Sleep(time.Until(due))
				url, token := q.ask()
				status, body, err := get(ctx, c, url, token)
				d := time.Since(due)
				if due.Before(warm) {
					continue
				}
				mu.Lock()
				switch {
				case err != nil:
					r.Failures["no answer"]++
				case status != http.StatusOK:
					r.Failures[fmt.Sprint(status)]++
				default:
					took, total = append(took, d), total+len(body)
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if len(took) == 0 {
		return r, fmt.Errorf("%s: no answers; failures %v", q.name, r.Failures)
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))] }
	r.Answers, r.Seconds, r.P50, r.P99, r.Max, r.MeanBytes = len(took), b.Duration.Seconds(), at(0.5), at(0.99), at(1), total/len(took)
	return r, nil
}

// signIn makes operators and signs them in, as a program does.
func (b *Bench) signIn(ctx context.Context, p *platform.Platform) error {
	if err := p.AddOperator(ctx, "bench0@example.com"); err != nil {
		return err
	}
	if _, err := p.SQL(ctx, fmt.Sprintf(`INSERT INTO operators (id, email, role, password_hash)
		SELECT 'bench' || n, 'bench' || n || '@example.com', role, password_hash FROM operators, generate_series(1, %d) n`, operators-1)); err != nil {
		return err
	}
	c := b.client()
	defer c.CloseIdleConnections()
	for n := range operators {
		body, err := json.Marshal(map[string]any{"email": fmt.Sprintf("bench%d@example.com", n), "password": platform.OperatorPassword, "tokens": true})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.api.Operators+"/v1/session", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-OpenClaw-CSRF", "1")
		req.Header.Set("X-Forwarded-For", address())
		resp, err := c.Do(req)
		if err != nil {
			return fmt.Errorf("sign in: %w", err)
		}
		var session struct {
			AccessToken string `json:"access_token"`
		}
		err = json.NewDecoder(resp.Body).Decode(&session)
		_ = resp.Body.Close() // it was read
		if err != nil || session.AccessToken == "" {
			return fmt.Errorf("sign in: %s, %v", resp.Status, err)
		}
		b.operators = append(b.operators, session.AccessToken)
	}
	return nil
}

// walk reads the lists of customers from the first page to the last, for the places where
// later pages begin.
func (b *Bench) walk(ctx context.Context) error {
	c := b.client()
	defer c.CloseIdleConnections()
	b.cursors = map[string][]string{}
	for status, want := range map[string]int{"": b.Customers, "cancelled": b.Customers / 50} {
		seen := map[string]bool{}
		for cursor, more := "", true; more; {
			code, body, err := get(ctx, c, b.api.Operators+"/v1/customers?"+url.Values{"status": {status}, "limit": {"500"}, "cursor": {cursor}}.Encode(), one(b.operators))
			var page struct {
				Items []struct {
					ID string `json:"id"`
				} `json:"items"`
				Next string `json:"next"`
			}
			if err == nil {
				err = json.Unmarshal(body, &page)
			}
			if err != nil || code != http.StatusOK {
				return fmt.Errorf("walk through the customers: %d, %w", code, errors.Join(err, fmt.Errorf("%.200s", body)))
			}
			for _, v := range page.Items {
				seen[v.ID] = true
			}
			b.cursors[status] = append(b.cursors[status], cursor)
			cursor, more = page.Next, page.Next != ""
		}
		if len(seen) < want {
			return fmt.Errorf("walk through the customers: %d of status %q are listed, and there are %d", len(seen), status, want)
		}
		b.cursors[status] = b.cursors[status][len(b.cursors[status])/2:] // later ones
	}
	return nil
}
