package smoke

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const (
	// shortRevision is how many digits a revision has at least, so that few have the same ones.
	shortRevision = 12
	// replicasAsked is how many connections must tell the same revision: behind a load balancer
	// one answer is that of one pod.
	replicasAsked = 5
)

// document is what is read of the api's OpenAPI document.
type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct {
		Title    string `json:"title"`
		Revision string `json:"x-revision"`
	} `json:"info"`
	Paths map[string]json.RawMessage `json:"paths"`
}

func (s *smoker) apiChecks() []check {
	checks := append(s.probes("api", s.cfg.APIProbes),
		check{"api describes itself", "If something else answers, look at the Ingress api (kubectl -n platform describe ingress api) and at the name's DNS entry.", quick, s.describes},
		check{"api refuses strangers", "Do not let customers use this: who is not signed in must get nothing. Roll back.", quick, s.refusesStrangers},
		check{"api hides what is not public", "The operators' routes and the metrics must not be reachable here. Look at the paths of the Ingress, and at --listen-operators of the api.", quick, s.hides},
	)
	if s.cfg.Revision != "" {
		checks = append(checks, check{"api has the revision", "If the roll-out is not finished (kubectl -n platform rollout status deployment/api), give it more time with --timeout. Else the manifests name another image.", quick, s.hasRevision})
	}
	return checks
}

// describe fetches the document of the customers' side.
func (s *smoker) describe(ctx context.Context) (document, error) {
	var d document
	address := s.cfg.API + "/openapi.json"
	a, err := s.get(ctx, address)
	if err != nil {
		return d, err
	}
	if a.media != "application/json" || json.Unmarshal(a.body, &d) != nil || d.OpenAPI == "" {
		return d, fmt.Errorf("%s is no OpenAPI document: %s", address, a.said())
	}
	if d.Info.Title != "openclaw-cloud for customers" {
		return d, fmt.Errorf("%s is of another api: %q", address, d.Info.Title)
	}
	return d, nil
}

func (s *smoker) describes(ctx context.Context) (string, error) {
	d, err := s.describe(ctx)
	if err != nil {
		return "", err
	}
	if _, ok := d.Paths["/v1/session"]; !ok {
		return "", fmt.Errorf("%s/openapi.json has no /v1/session", s.cfg.API)
	}
	return fmt.Sprintf("OpenAPI %s with %d paths, built from %s", d.OpenAPI, len(d.Paths), or(d.Info.Revision, "an unknown revision")), nil
}

// hasRevision asks several times, for each of several pods may answer.
func (s *smoker) hasRevision(ctx context.Context) (string, error) {
	for range replicasAsked {
		d, err := s.describe(ctx)
		if err != nil {
			return "", err
		}
		if !sameRevision(d.Info.Revision, s.cfg.Revision) {
			return "", fmt.Errorf("it was built from %s, not from %s", or(d.Info.Revision, "an unknown revision"), s.cfg.Revision)
		}
	}
	return fmt.Sprintf("%s, on %d connections", s.cfg.Revision, replicasAsked), nil
}

// sameRevision reports whether one is the other, or its beginning. A build of a tree with changes
// says so behind its revision, and is not the revision.
func sameRevision(has, wanted string) bool {
	if len(has) < shortRevision || strings.Contains(has, "+") != strings.Contains(wanted, "+") {
		return false
	}
	return strings.HasPrefix(has, wanted) || strings.HasPrefix(wanted, has)
}

func (s *smoker) refusesStrangers(ctx context.Context) (string, error) {
	for _, r := range []request{
		{method: http.MethodGet, url: s.cfg.API + "/v1/session"},
		{method: http.MethodGet, url: s.cfg.API + "/v1/me", bearer: "made-up"},
	} {
		a, err := s.ask(ctx, r)
		if err != nil {
			return "", err
		}
		var problem struct {
			Type string `json:"type"`
		}
		if a.status != http.StatusUnauthorized {
			return "", fmt.Errorf("%s answers a stranger with %s, not with 401", r.url, a.said())
		}
		if a.media != "application/problem+json" || json.Unmarshal(a.body, &problem) != nil || !strings.HasSuffix(problem.Type, ":unauthenticated") {
			return "", fmt.Errorf("%s refuses a stranger in words that are not the api's: %s", r.url, a.said())
		}
	}
	return "401 without a session, and with a made-up key", nil
}

// hides looks for what only operators and the cluster may reach. A page of the customers' web
// application may answer instead of a 404.
func (s *smoker) hides(ctx context.Context) (string, error) {
	a, err := s.ask(ctx, request{method: http.MethodGet, url: s.cfg.API + "/v1/customers"})
	if err != nil {
		return "", err
	}
	if a.status != http.StatusNotFound {
		return "", fmt.Errorf("%s should not be there, and answers %s", a.from, a.said())
	}
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		a, err := s.ask(ctx, request{method: http.MethodGet, url: s.cfg.API + path})
		if err != nil {
			return "", err
		}
		if a.status/100 == 2 && (bytes.Contains(a.body, []byte("# HELP ")) || bytes.Contains(a.body, []byte("goroutine"))) {
			return "", errors.New(a.from + " is public")
		}
	}
	return "neither operators' routes nor metrics", nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
