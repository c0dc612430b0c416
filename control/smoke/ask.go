package smoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// maxAnswer is how much of an answer is read.
const maxAnswer = 8 << 20

// quick is how long one attempt of a check may take that only asks.
const quick = 10 * time.Second

// answer is what came back.
type answer struct {
	from   string // the address that was asked
	status int
	media  string
	body   []byte
}

// request is what is asked.
type request struct {
	method, url, body string
	bearer            string // what the Authorization header holds; "" for none
}

// send sends a request. The caller closes the answer's body.
func (s *smoker) send(ctx context.Context, r request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, strings.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", r.url, err)
	}
	req.Header.Set("User-Agent", "openclawctl-smoke")
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+r.bearer)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return nil, noAnswer(r.url, err)
	}
	return res, nil
}

// ask sends a request and reads the whole answer.
func (s *smoker) ask(ctx context.Context, r request) (answer, error) {
	res, err := s.send(ctx, r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	return read(r.url, res)
}

func read(from string, res *http.Response) (answer, error) {
	a := answer{from: from, status: res.StatusCode}
	a.media, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type")) // none is as good as a wrong one
	var err error
	if a.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil {
		return a, noAnswer(from, err)
	}
	return a, nil
}

// get asks for what needs no rights, and wants 200.
func (s *smoker) get(ctx context.Context, address string) (answer, error) {
	a, err := s.ask(ctx, request{method: http.MethodGet, url: address})
	if err != nil {
		return a, err
	}
	if a.status != http.StatusOK {
		return a, fmt.Errorf("%s answers %s", address, a.said())
	}
	return a, nil
}

// said is the beginning of an answer, on one line, for people.
func (a answer) said() string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(a.body[:min(len(a.body), 1000)]), "")), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + " …"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.status, text))
}

// noAnswer says why there was no answer, in words that say where to look.
func noAnswer(address string, err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // the method and the address are said here
	}
	dns := (*net.DNSError)(nil)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no answer from %s: nothing listens there: %w", address, err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("no answer from %s: there is no such host: %w", address, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s in time: %w", address, err)
	}
	return fmt.Errorf("no answer from %s: %w", address, err)
}

// probes are the checks of a service's /healthz and /readyz.
func (s *smoker) probes(service, address string) []check {
	if address == "" {
		return nil
	}
	pods := "kubectl -n platform get pods -l app.kubernetes.io/name=" + service
	says := func(ctx context.Context, path string) (string, error) {
		a, err := s.get(ctx, address+path)
		if err != nil {
			return "", err
		}
		return a.said(), nil
	}
	return []check{
		{service + " is alive", "See whether it runs, and what its log ends with: " + pods, quick,
			func(ctx context.Context) (string, error) { return says(ctx, "/healthz") }},
		{service + " is ready", "The answer says what it waits for. If it waits for Postgres, Redis or a migration, look there; else at its log: " + pods, quick,
			func(ctx context.Context) (string, error) { return says(ctx, "/readyz") }},
	}
}
