package smoke

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Config says what to check. API is required; what has no address is not checked.
type Config struct {
	API         string // the customers' api, such as https://api.example.com
	APIProbes   string // where the api has /healthz and /readyz, which are not public
	Proxy       string // token-proxy, without /v1
	ProxyProbes string // where token-proxy has /healthz and /readyz

	// Revision is what the api must have been built from; "" takes any.
	Revision string
	// Token is a proxy token for one small completion; "" sends none. It needs Proxy.
	Token string
	// Model is whom the completion asks; "" is the first that the token may use.
	Model string
	// Plain lets the token go to http:// of another machine.
	Plain bool

	// Rounds is how often a check is tried that fails; 0: until the context ends.
	Rounds int
	// Pause is between two rounds. Default 2 s.
	Pause time.Duration
	// Metered is how long the usage of a completion may take to show. Default 10 s.
	Metered time.Duration
	// Failed, unless nil, is told of each attempt that fails.
	Failed func(Result)
}

// Result is what became of one check.
type Result struct {
	Check    string `json:"check"`
	OK       bool   `json:"ok"`
	Attempts int    `json:"attempts"`
	Millis   int64  `json:"milliseconds"` // of the last attempt
	Detail   string `json:"detail"`       // what was seen, or what is wrong
	Advice   string `json:"advice,omitempty"`
}

// ErrFailed says that checks failed; the results say which, and why.
var ErrFailed = errors.New("checks failed")

// ErrConfig says that a Config cannot be used.
var ErrConfig = errors.New("cannot check that")

// check is one thing that must hold.
type check struct {
	name   string
	advice string        // what to do when it does not
	within time.Duration // of one attempt
	try    func(context.Context) (detail string, err error)
}

// smoker has what the checks share.
type smoker struct {
	cfg  Config
	http *http.Client
	sent *completion // the completion that was answered; nil before

	paid  int   // completions whose answer began
	amiss error // what was wrong with the last of them
}

// Run tries all checks until each has passed once, ctx ends, or all rounds are over. It returns a result for each
// check, and ErrFailed if one did not pass.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Pause == 0 {
		cfg.Pause = 2 * time.Second
	}
	if cfg.Metered == 0 {
		cfg.Metered = 10 * time.Second
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // see the package's comment
	s := &smoker{cfg: cfg, http: &http.Client{
		Transport: transport,
		// A redirection would take the token along to where it does not belong.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	checks := append(s.apiChecks(), s.proxyChecks()...)
	results := make([]Result, len(checks))
	for i, c := range checks {
		results[i] = Result{Check: c.name, Detail: "no time was left to try it"}
	}
	for round := 1; ; round++ {
		left := 0
		for i, c := range checks {
			if results[i].OK {
				continue
			}
			s.attempt(ctx, c, &results[i])
			if !results[i].OK {
				left++
			}
		}
		if left == 0 {
			return results, nil
		}
		if round == cfg.Rounds || !pause(ctx, cfg.Pause) {
			return results, fmt.Errorf("%d of %d %w", left, len(checks), ErrFailed)
		}
	}
}

// attempt tries a check once.
func (s *smoker) attempt(ctx context.Context, c check, r *Result) {
	if ctx.Err() != nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	began := time.Now()
	detail, err := c.try(limited)
	if err != nil && ctx.Err() != nil && r.Attempts > 0 {
		return // it was cut off; what was wrong before says more
	}
	r.Attempts++
	r.Millis = time.Since(began).Milliseconds()
	r.OK, r.Advice = err == nil, ""
	if err != nil {
		detail, r.Advice = err.Error(), c.advice
	}
	r.Detail = contract.TokenPattern.ReplaceAllString(detail, "ocp_[redacted]")
	if err != nil && s.cfg.Failed != nil {
		s.cfg.Failed(*r)
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (c *Config) check() error {
	if c.API == "" {
		return fmt.Errorf("%w: the api's address is needed", ErrConfig)
	}
	for _, a := range []struct {
		name    string
		address *string
	}{{"api", &c.API}, {"probes of the api", &c.APIProbes}, {"token-proxy", &c.Proxy}, {"probes of token-proxy", &c.ProxyProbes}} {
		if *a.address == "" {
			continue
		}
		u, err := url.Parse(*a.address)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			// Not the address itself: it may hold a password.
			return fmt.Errorf("%w: the address of the %s must be like https://api.example.com", ErrConfig, a.name)
		}
		*a.address = strings.TrimRight(*a.address, "/")
		if a.address == &c.Proxy && c.Token != "" && u.Scheme == "http" && !c.Plain && !isLoopback(u.Hostname()) {
			return fmt.Errorf("%w: the proxy token would go to %s for everyone on the way to read: use https://, or allow http://", ErrConfig, u.Host)
		}
	}
	if c.Token != "" {
		if c.Proxy == "" {
			return fmt.Errorf("%w: a proxy token needs the address of a token-proxy", ErrConfig)
		}
		if !contract.PlausibleToken([]byte(c.Token)) {
			return fmt.Errorf("%w: what was given as proxy token is none", ErrConfig)
		}
	}
	if c.Revision != "" && len(c.Revision) < shortRevision {
		return fmt.Errorf("%w: %q is too short for a revision: give %d digits or more", ErrConfig, c.Revision, shortRevision)
	}
	return nil
}

// isLoopback reports whether what is sent to a host stays on this machine.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}
