package api

import (
	"context"
	"errors"
	"net/http"
	"net/mail"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/callers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// SignUp is what a new customer says.
type SignUp struct {
	Name     string           `json:"name" doc:"1 to 200 characters."`
	Email    string           `json:"email"`
	Password string           `json:"password" doc:"12 characters at least, 256 bytes at most."`
	Tier     string           `json:"tier,omitempty" doc:"What will be bought; the smallest one by default. It entitles to nothing before it is paid."`
	Language control.Language `json:"language,omitempty" doc:"English by default."`
}

// SignIn is who signs in.
type SignIn struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

// OperatorSignIn is who signs in, and how.
type OperatorSignIn struct {
	SignIn
	Tokens bool `json:"tokens,omitempty" doc:"For programs: answer with tokens instead of cookies."`
}

// Renewal is the refresh token of a program that has no cookies.
type Renewal struct {
	RefreshToken string `json:"refresh_token"`
}

// SignedIn says who is signed in until when.
type SignedIn struct {
	Subject control.Subject `json:"subject"`
	Role    control.Role    `json:"role,omitempty" doc:"Of an operator."`
	// ExpiresAt is when the access token ends, RenewableUntil when the refresh token does.
	ExpiresAt      time.Time `json:"expires_at,omitzero" doc:"When to renew the session at the latest."`
	RenewableUntil time.Time `json:"renewable_until,omitzero" doc:"When signing in again is needed, unless the session is renewed before."`
	AccessToken    string    `json:"access_token,omitempty" doc:"Only if tokens were asked for."`
	RefreshToken   string    `json:"refresh_token,omitempty" doc:"Only if tokens were asked for. It is good once."`
}

func (s signedIn) view(role control.Role) SignedIn {
	return SignedIn{Subject: s.session.Subject, Role: role, ExpiresAt: s.accessUntil, RenewableUntil: s.session.ExpiresAt}
}

// maxEmail is how many bytes an e-mail address may have (RFC 5321, with the brackets left out).
const maxEmail = 254

// email checks an address and returns it in lower case, as identities have it.
func email(s string) (string, error) {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Name != "" || a.Address != s || len(s) > maxEmail || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", invalid("email", "it is not an e-mail address")
	}
	return strings.ToLower(s), nil
}

func (a *API) serveSignUp(c *call) (any, error) {
	var in SignUp
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	name, err := text("name", in.Name, 200)
	if err != nil {
		return nil, err
	}
	address, err := email(in.Email)
	if err != nil {
		return nil, err
	}
	if err := CheckPassword(in.Password, address); err != nil {
		return nil, err
	}
	if in.Language == "" {
		in.Language = control.English
	}
	if in.Language != control.English && in.Language != control.Portuguese {
		return nil, invalid("language", "there are en and pt-BR")
	}
	tiers := a.o.Customers.Tiers
	if in.Tier == "" {
		in.Tier = tiers.All()[0].Name
	}
	if _, err := tiers.Get(in.Tier); err != nil {
		return nil, invalid("tier", "there is no such tier")
	}
	if wait, ok := a.signUp.Take(callers.Subnet(c.address), time.Now()); !ok {
		return nil, tooMany(wait, "Too many accounts are made from this address.")
	}
	// Counted apart from links that are asked for: otherwise those would run out sooner for an
	// address with an account, and tell that it has one.
	if a.o.Mails != nil {
		if wait, ok := a.mailsTo.Take("sign-up "+address, time.Now()); !ok {
			return nil, tooMany(wait, "Too many mails are asked for to this address.")
		}
	}
	hash, err := a.passwords.hash(c.ctx(), in.Password)
	if err != nil {
		return nil, err
	}
	now := a.now()
	id := control.NewID(control.CustomerID)
	account := control.Account{
		Customer: control.Customer{ID: id, Name: name, Email: address, Tier: in.Tier, Status: control.CustomerPending, CreatedAt: now},
		Language: in.Language,
	}
	identity := control.Identity{
		ID: control.NewID(control.IdentityID), CustomerID: id, Provider: control.ProviderPassword, Subject: address, SecretHash: hash, CreatedAt: now,
	}
	err = a.o.Store.SignUpWith(c.ctx(), account, identity, func(tx *store.Tx) error {
		return a.addMail(c.ctx(), tx, account.Customer, control.MailVerifyEmail, id)
	})
	if err != nil {
		if errors.Is(err, control.ErrExists) {
			return nil, &failure{kind: kindExists(), detail: "There is an account with this e-mail address.", cause: err}
		}
		return nil, err
	}
	s, err := a.openSession(c.ctx(), a.customers.realm, id)
	if err != nil {
		return nil, err
	}
	a.customers.realm.setCookies(c.w, s)
	return account, nil
}

// MakeLogin checks the password by which a customer is to sign in at its e-mail address, and hashes it.
// It does not store it: see store.Tx.AddPassword.
func MakeLogin(account control.Account, password string, at time.Time) (control.Identity, error) {
	address, err := email(account.Email)
	if err != nil {
		return control.Identity{}, err
	}
	if err := CheckPassword(password, address); err != nil {
		return control.Identity{}, err
	}
	return control.Identity{
		ID: control.NewID(control.IdentityID), CustomerID: account.ID, Provider: control.ProviderPassword, Subject: address, SecretHash: HashPassword(password), CreatedAt: at,
	}, nil
}

func (a *API) serveSignIn(c *call) (any, error) {
	var in SignIn
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	subject, err := a.prove(c, a.customers, in, func(ctx context.Context, address string) (control.Subject, string, error) {
		i, err := a.o.Store.Identity(ctx, control.ProviderPassword, address)
		return control.Subject{Kind: control.SubjectCustomer, ID: i.CustomerID}, i.SecretHash, err
	})
	if err != nil {
		return nil, err
	}
	s, err := a.openSession(c.ctx(), a.customers.realm, subject.ID)
	if err != nil {
		return nil, gone(err)
	}
	a.customers.realm.setCookies(c.w, s)
	return s.view(""), nil
}

// gone makes being deleted or disabled between the password and the session look like not
// being there.
func gone(err error) error {
	if errors.Is(err, control.ErrNotFound) {
		return wrong()
	}
	return err
}

func wrong() error {
	return fail(kindUnauthenticated(), "The e-mail address or the password is wrong.")
}

// prove checks a password. An address that nobody has takes as long, does as much, and is
// answered the same as a wrong password, so that nobody learns which addresses have accounts.
func (a *API) prove(c *call, s *side, in SignIn, find func(context.Context, string) (control.Subject, string, error)) (control.Subject, error) {
	address := strings.ToLower(in.Email)
	if len(address) > maxEmail || len(in.Password) > MaxPassword || strings.ContainsRune(address, 0) { // Postgres takes no NUL
		return control.Subject{}, wrong()
	}
	at, account, from := time.Now(), s.name+" "+address, callers.Subnet(c.address)
	pair := account + " " + from
	for _, l := range []struct {
		limiter *callers.Limiter
		key     string
	}{{a.guessPair, pair}, {a.guessAddress, from}, {a.guessAccount, account}} {
		if wait, ok := l.limiter.Take(l.key, at); !ok {
			return control.Subject{}, tooMany(wait, "Too many attempts to sign in.")
		}
	}
	subject, hash, err := find(c.ctx(), address)
	if err != nil && !errors.Is(err, control.ErrNotFound) {
		return control.Subject{}, err
	}
	ok, err := a.passwords.check(c.ctx(), in.Password, hash)
	if err != nil {
		return control.Subject{}, err
	}
	if !ok {
		return control.Subject{}, a.noteWrong(c, s, subject)
	}
	a.guessPair.Forget(pair)
	return subject, nil
}

// noteWrong notes in the audit log that someone was refused, whether the account is there
// or not: both must take as long.
func (a *API) noteWrong(c *call, s *side, subject control.Subject) error {
	if !a.mayNote("session.refused") {
		return wrong() // the access log has it
	}
	entry := c.refusal("session.refused", "unknown", map[string]any{"side": s.name})
	if subject.ID != "" {
		entry.Target = subject.ID
		if subject.Kind == control.SubjectCustomer {
			entry.CustomerID = subject.ID
		}
	}
	if err := a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error { return tx.AddAudit(c.ctx(), entry) }); err != nil {
		return err
	}
	return wrong()
}

func (a *API) serveOperatorSignIn(c *call) (any, error) {
	var in OperatorSignIn
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	var role control.Role
	subject, err := a.prove(c, a.operators, in.SignIn, func(ctx context.Context, address string) (control.Subject, string, error) {
		o, err := a.o.Store.OperatorByEmail(ctx, address)
		if err == nil && !o.DisabledAt.IsZero() {
			return control.Subject{}, "", control.ErrNotFound
		}
		role = o.Role
		return control.Subject{Kind: control.SubjectOperator, ID: o.ID}, o.PasswordHash, err
	})
	if err != nil {
		return nil, err
	}
	s, err := a.openSession(c.ctx(), a.operators.realm, subject.ID)
	if err != nil {
		return nil, gone(err)
	}
	out := s.view(role)
	if in.Tokens {
		out.AccessToken, out.RefreshToken = s.access, s.refresh
		return out, nil
	}
	a.operators.realm.setCookies(c.w, s)
	return out, nil
}

// serveRenew exchanges the refresh token of the cookie or, for programs, of the body.
func (a *API) serveRenew(s *side) func(*call) (any, error) {
	return func(c *call) (any, error) {
		shown, asTokens := "", false
		if len(c.body) > 0 && s.realm.bearer {
			var in Renewal
			if err := c.decode(&in); err != nil {
				return nil, err
			}
			shown, asTokens = in.RefreshToken, true
		} else if k, err := c.r.Cookie(s.realm.refresh); err == nil {
			shown = k.Value
		}
		ended := func(err error) (any, error) {
			if !asTokens {
				s.realm.clearCookies(c.w)
			}
			return nil, &failure{kind: kindUnauthenticated(), detail: "The session has ended.", cause: err}
		}
		if !isSecret(shown, refreshPrefix) {
			return ended(nil)
		}
		next, err := a.renewSession(c.ctx(), s.realm, shown)
		if errors.Is(err, control.ErrNotFound) || errors.Is(err, control.ErrReused) {
			return ended(err)
		}
		if err != nil {
			return nil, err
		}
		out := next.view("")
		if asTokens {
			out.AccessToken, out.RefreshToken = next.access, next.refresh
			return out, nil
		}
		s.realm.setCookies(c.w, next)
		return out, nil
	}
}

// serveSignOut ends the session of the refresh token, or of the access token. It succeeds
// whatever was shown: afterwards this browser is signed out.
func (a *API) serveSignOut(s *side) func(*call) (any, error) {
	return func(c *call) (any, error) {
		id := c.who.session.ID
		if k, err := c.r.Cookie(s.realm.refresh); id == "" && err == nil && isSecret(k.Value, refreshPrefix) {
			found, err := a.o.Store.SessionByToken(c.ctx(), a.digest(k.Value))
			if err != nil && !errors.Is(err, control.ErrNotFound) {
				return nil, err
			}
			id = found
		}
		if id != "" {
			actor := string(s.realm.kind)
			if !c.who.nobody() {
				actor = c.actor()
			}
			err := a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
				return tx.RevokeSession(c.ctx(), actor, id, "signed out", a.now())
			})
			if err != nil {
				return nil, err
			}
		}
		s.realm.clearCookies(c.w)
		return nil, nil
	}
}

func (a *API) serveSession(c *call) (any, error) {
	return SignedIn{Subject: c.who.subject, Role: c.who.role, RenewableUntil: c.who.session.ExpiresAt}, nil
}

// sessionRoutes are what both sides have.
func (a *API) sessionRoutes(s *side, signIn func(*call) (any, error), body, renewal any, mine who) []route {
	return []route{
		{method: http.MethodGet, path: "/openapi.json", who: anyone(), serve: a.serveSpec(s),
			op: operation{id: "getSpecification", tag: "session", summary: "This document", status: http.StatusOK, answer: map[string]any{}}},
		{method: http.MethodPost, path: "/v1/session", who: anyone(), serve: signIn,
			op: operation{id: "signIn", tag: "session", summary: "Sign in", body: body, status: http.StatusOK, answer: SignedIn{},
				about: "Sets two cookies that scripts cannot read: one for an hour, and one to renew it with. Guessing is limited per account, per address and per both."}},
		{method: http.MethodGet, path: "/v1/session", who: mine, serve: a.serveSession,
			op: operation{id: "getSession", tag: "session", summary: "Who is signed in", status: http.StatusOK, answer: SignedIn{}}},
		{method: http.MethodDelete, path: "/v1/session", who: anyone(), serve: a.serveSignOut(s),
			op: operation{id: "signOut", tag: "session", summary: "Sign out", status: http.StatusNoContent, about: "Ends the session at once, on all devices that share it."}},
		{method: http.MethodPost, path: "/v1/session/renew", who: anyone(), serve: a.serveRenew(s),
			op: operation{id: "renewSession", tag: "session", summary: "Exchange the refresh token", body: renewal, optional: true, status: http.StatusOK, answer: SignedIn{},
				about: "A refresh token is good once. One that is shown again ends the session, since a copy of it may be in wrong hands: let one page renew at a time."}},
	}
}
