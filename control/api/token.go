package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const (
	// MinSecret is the least length of the secret that access tokens are signed with, in bytes:
	// that of the hash, below which HS256 is weaker than it looks (RFC 7518, 3.2).
	MinSecret = 32
	// accessFor is how long an access token is good for.
	accessFor = time.Hour
	// leeway is by how much clocks of the api's processes may differ.
	leeway = 5 * time.Second

	refreshPrefix = "ocr_"
	apiKeyPrefix  = "oca_"
	// secretLen is the length of what follows the prefix: two times 130 random bits in base32.
	secretLen = 52
)

// realm is what sessions of one side are known by. Tokens of one side mean nothing on the
// other: the audience differs, and so do the names of the cookies.
type realm struct {
	kind            control.SubjectKind
	audience        string
	access, refresh string // cookies
	refreshFor      time.Duration
	// bearer allows an access token in the Authorization header, for programs that sign in.
	bearer bool
}

// The prefix __Host- has browsers take a cookie only with Secure, for "/" and without a
// domain: no other host, a sibling or one without TLS, can set or see it.
func customerRealm() realm {
	return realm{
		kind: control.SubjectCustomer, audience: "openclaw-customers",
		access: "__Host-openclaw_session", refresh: "__Host-openclaw_refresh", refreshFor: 7 * 24 * time.Hour,
	}
}

func operatorRealm() realm {
	return realm{
		kind: control.SubjectOperator, audience: "openclaw-operators",
		access: "__Host-openclaw_operator", refresh: "__Host-openclaw_operator_refresh", refreshFor: 12 * time.Hour,
		bearer: true,
	}
}

// claims is what an access token says.
type claims struct {
	jwt.RegisteredClaims
	Session string `json:"sid"`
}

// signer makes and checks access tokens.
type signer struct {
	secret []byte
	issuer string
	now    func() time.Time
}

func (s *signer) sign(r realm, subject, session string, expires time.Time) (string, error) {
	now := s.now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: s.issuer, Subject: subject, Audience: jwt.ClaimStrings{r.audience},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires), ID: rand.Text(),
		},
		Session: session,
	}).SignedString(s.secret)
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	return token, nil
}

var errToken = errors.New("the access token is not valid")

// verify checks a token of a realm: signature, algorithm, issuer, audience and times.
func (s *signer) verify(r realm, token string) (claims, error) {
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return s.secret, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithIssuer(s.issuer), jwt.WithAudience(r.audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(s.now), jwt.WithStrictDecoding())
	if err != nil {
		return c, fmt.Errorf("%w: %w", errToken, err)
	}
	if c.Subject == "" || c.Session == "" {
		return c, fmt.Errorf("%w: it names nobody", errToken)
	}
	return c, nil
}

// newSecret returns a secret for whoever signs in. Only its digest is kept.
func newSecret(prefix string) string { return prefix + rand.Text() + rand.Text() }

// isSecret reports whether s has the shape of a secret with that prefix.
func isSecret(s, prefix string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) == secretLen
}

func (a *API) digest(secret string) contract.Digest { return a.o.Hasher.Digest([]byte(secret)) }

// signedIn is what a sign-in or its renewal hands out.
type signedIn struct {
	session         control.Session
	access, refresh string
	accessUntil     time.Time
}

// openSession begins a session. Nothing of what the caller showed before goes into it, so
// nobody can have someone sign in to a session that is known already.
func (a *API) openSession(ctx context.Context, r realm, id string) (signedIn, error) {
	now := a.now()
	s := signedIn{refresh: newSecret(refreshPrefix), session: control.Session{
		ID: control.NewID(control.SessionID), Subject: control.Subject{Kind: r.kind, ID: id}, CreatedAt: now, ExpiresAt: now.Add(r.refreshFor),
	}}
	if err := a.o.Store.CreateSession(ctx, s.session, a.digest(s.refresh)); err != nil {
		return s, err
	}
	return s, a.signAccess(r, &s)
}

// renewSession exchanges a refresh token.
func (a *API) renewSession(ctx context.Context, r realm, shown string) (signedIn, error) {
	now := a.now()
	s := signedIn{refresh: newSecret(refreshPrefix)}
	var err error
	if s.session, err = a.o.Store.RotateSession(ctx, a.digest(shown), a.digest(s.refresh), now, now.Add(r.refreshFor)); err != nil {
		return s, err
	}
	if s.session.Subject.Kind != r.kind { // a token of the other side
		return s, fmt.Errorf("renew session: %w", control.ErrNotFound)
	}
	return s, a.signAccess(r, &s)
}

func (a *API) signAccess(r realm, s *signedIn) (err error) {
	s.accessUntil = a.now().Add(accessFor)
	s.access, err = a.signer.sign(r, s.session.Subject.ID, s.session.ID, s.accessUntil)
	return err
}

// setCookies hands the tokens to a browser. The access token comes along when someone follows
// a link to the dashboard, such as back from a payment; the refresh token only on requests
// that our own pages make.
func (r realm) setCookies(w http.ResponseWriter, s signedIn) {
	cookie(w, r.access, s.access, int(accessFor/time.Second), http.SameSiteLaxMode)
	cookie(w, r.refresh, s.refresh, int(r.refreshFor/time.Second), http.SameSiteStrictMode)
}

func (r realm) clearCookies(w http.ResponseWriter) {
	cookie(w, r.access, "", -1, http.SameSiteLaxMode)
	cookie(w, r.refresh, "", -1, http.SameSiteStrictMode)
}

func cookie(w http.ResponseWriter, name, value string, maxAge int, same http.SameSite) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: maxAge, Secure: true, HttpOnly: true, SameSite: same}) // #nosec G124 -- Secure, HttpOnly and SameSite are set: the rule does not follow a variable
}
