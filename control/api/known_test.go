package api_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/api"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// A browser that another program signs in has a session as any other: it is the customer's, can be renewed
// and ended, and means nothing to an api with another secret.
func TestSignInOfAKnownCustomer(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	hasher, err := contract.NewHasher([]byte("a pepper that is fake"))
	if err != nil {
		t.Fatal(err)
	}
	id, _ := e.customer()
	signIn := func(secret string) (*client, error) {
		t.Helper()
		s, err := api.NewSignIns(e.store, hasher, []byte(secret), issuer)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		err = s.SignIn(t.Context(), w, id)
		c := newClient(t, e.customers)
		for _, k := range w.Result().Cookies() {
			if !k.Secure || !k.HttpOnly || k.Path != "/" || k.Domain != "" {
				t.Errorf("cookie %+v", k)
			}
			c.cookies[k.Name] = k.Value
		}
		return c, err
	}
	c, err := signIn(fakeSecret)
	if err != nil || len(c.cookies) != 2 {
		t.Fatalf("%d cookies, %v", len(c.cookies), err)
	}
	var now api.SignedIn
	c.want(http.StatusOK, "GET", "/v1/session", nil).into(t, &now)
	if now.Subject != (control.Subject{Kind: control.SubjectCustomer, ID: id}) {
		t.Errorf("signed in is %+v", now.Subject)
	}
	c.want(http.StatusOK, "POST", "/v1/session/renew", nil)
	c.want(http.StatusNoContent, "DELETE", "/v1/session", nil)
	c.want(http.StatusUnauthorized, "GET", "/v1/session", nil)

	if other, err := signIn("another " + fakeSecret); err != nil {
		t.Error(err)
	} else {
		other.want(http.StatusUnauthorized, "GET", "/v1/session", nil)
	}
	if err := e.service.DeleteCustomer(t.Context(), "test", id); err != nil {
		t.Fatal(err)
	}
	if c, err := signIn(fakeSecret); !errors.Is(err, control.ErrNotFound) || len(c.cookies) != 0 {
		t.Errorf("one that was deleted has %d cookies, %v", len(c.cookies), err)
	}
	if _, err := api.NewSignIns(e.store, hasher, []byte("short"), issuer); err == nil {
		t.Error("a short secret is taken")
	}
}
