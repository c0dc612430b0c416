package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// method is how someone showed who they are.
type method int

const (
	byNothing method = iota
	byCookie
	byBearer // an access token in the Authorization header
	byAPIKey
)

func (m method) String() string {
	switch m {
	case byCookie:
		return "cookie"
	case byBearer:
		return "bearer"
	case byAPIKey:
		return "api_key"
	}
	return ""
}

// principal is who calls. The zero value is nobody.
type principal struct {
	subject control.Subject
	role    control.Role // of an operator
	by      method
	session control.Session // unless byAPIKey
}

func (p principal) nobody() bool { return p.subject.ID == "" }

// authenticate finds out who calls. Credentials that are not good are an error even where
// none are needed only if they are in the Authorization header: cookies come along by themselves.
func (a *API) authenticate(s *side, r *http.Request) (principal, error) {
	switch headers := r.Header.Values("Authorization"); {
	case len(headers) > 1:
		return principal{}, fail(kindMalformed(), "There is more than one Authorization header.")
	case len(headers) == 1:
		scheme, token, _ := strings.Cut(headers[0], " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return principal{}, fail(kindUnauthenticated(), "Use Authorization: Bearer.")
		}
		return a.bearer(r.Context(), s, strings.TrimSpace(token))
	}
	cookie, err := r.Cookie(s.realm.access)
	if err != nil {
		return principal{}, nil
	}
	p, err := a.sessionOf(r.Context(), s, cookie.Value, byCookie)
	if f := (*failure)(nil); errors.As(err, &f) && f.kind.status == http.StatusUnauthorized {
		return principal{}, nil
	}
	return p, err
}

func (a *API) bearer(ctx context.Context, s *side, token string) (principal, error) {
	if s.realm.kind == control.SubjectCustomer && isSecret(token, apiKeyPrefix) {
		k, err := a.o.Store.UseAPIKey(ctx, a.digest(token), a.now())
		if errors.Is(err, control.ErrNotFound) {
			return principal{}, fail(kindUnauthenticated(), "The API key is not known, or was revoked.")
		}
		if err != nil {
			return principal{}, err
		}
		return principal{subject: control.Subject{Kind: control.SubjectCustomer, ID: k.CustomerID}, by: byAPIKey}, nil
	}
	if !s.realm.bearer {
		return principal{}, fail(kindUnauthenticated(), "This is not an API key.")
	}
	return a.sessionOf(ctx, s, token, byBearer)
}

// sessionOf checks an access token, and that the session it names is still there: a sign-out,
// a changed password, a deleted customer and a disabled operator count at once, not after an hour.
func (a *API) sessionOf(ctx context.Context, s *side, token string, by method) (principal, error) {
	ended := func(err error) (principal, error) {
		return principal{}, &failure{kind: kindUnauthenticated(), detail: "The session has ended.", cause: err}
	}
	c, err := a.signer.verify(s.realm, token)
	if err != nil {
		return ended(err)
	}
	session, err := a.o.Store.SessionLive(ctx, c.Session, a.now())
	if errors.Is(err, control.ErrNotFound) {
		return ended(err)
	}
	if err != nil {
		return principal{}, err
	}
	p := principal{subject: session.Subject, by: by, session: session}
	if session.Subject.ID != c.Subject || session.Subject.Kind != s.realm.kind {
		return ended(errToken)
	}
	if session.Subject.Kind == control.SubjectOperator {
		o, err := a.o.Store.Operator(ctx, session.Subject.ID)
		if err != nil && !errors.Is(err, control.ErrNotFound) {
			return principal{}, err
		}
		if err != nil || !o.DisabledAt.IsZero() {
			return ended(err)
		}
		p.role = o.Role
	}
	return p, nil
}

// forgeryHeader has to be on every request that changes something and does not carry its
// credentials in the Authorization header; its value does not matter.
const forgeryHeader = "X-OpenClaw-CSRF"

// forged says why a request may have been made by another site's page in someone's browser.
//
// Two things together, each of which would do: a header that no form can send and no script
// of another origin may, without our leave by CORS, which nobody gets; and the Origin that
// browsers put on such requests themselves. A token that is sent twice, the usual
// alternative, would need a cookie that scripts can read, and a place to keep it in; and what
// makes it safe, that others cannot set the cookie, already has to hold for the session's own.
func (s *side) forged(r *http.Request) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil
	}
	if r.Header.Get("Authorization") != "" {
		return nil // no browser adds it by itself
	}
	if r.Header.Get(forgeryHeader) == "" {
		return fail(kindForgery(), "Send the header "+forgeryHeader+": 1.")
	}
	if origins := r.Header.Values("Origin"); len(origins) > 0 {
		if len(origins) > 1 || !slices.Contains(s.origins, origins[0]) {
			return fail(kindForgery(), "The Origin is not one of ours.")
		}
		return nil
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none": // "": no browser
		return nil
	}
	return fail(kindForgery(), "The request comes from another site.")
}
