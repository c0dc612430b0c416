package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// SignIns signs customers in whom another program of ours knows: by the rules and with the cookies of the
// api, for pages of the same origin.
type SignIns struct{ api *API }

// NewSignIns makes one for an api that has the same store, hasher, secret and issuer.
func NewSignIns(st *store.Store, hasher *contract.Hasher, secret []byte, issuer string) (*SignIns, error) {
	if st == nil || hasher == nil || issuer == "" || len(secret) < MinSecret {
		return nil, fmt.Errorf("sign-ins: a store, a hasher, an issuer and a secret of %d bytes are required", MinSecret)
	}
	a := &API{o: Options{Store: st, Hasher: hasher, Now: time.Now}}
	a.signer = &signer{secret: append([]byte(nil), secret...), issuer: issuer, now: a.now}
	return &SignIns{a}, nil
}

// SignIn begins a session of a customer and hands its cookies to a browser. The caller has made sure that the
// browser is the customer's, and that the request is from a page of ours. A customer that was deleted is
// control.ErrNotFound.
func (s *SignIns) SignIn(ctx context.Context, w http.ResponseWriter, customerID string) error {
	if customerID == "" {
		return errors.New("sign in: no customer is named")
	}
	realm := customerRealm()
	session, err := s.api.openSession(ctx, realm, customerID)
	if err != nil {
		return fmt.Errorf("sign in customer %s: %w", customerID, err)
	}
	realm.setCookies(w, session)
	return nil
}
