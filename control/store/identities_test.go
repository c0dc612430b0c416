package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Who comes from another provider with somebody's e-mail address is nobody that is known:
// accounts are never linked by what a provider says of an address.
func TestIdentitiesAreNotLinkedByAddress(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	ada := signUp(t, st, "ada@example.com")
	if _, err := st.Identity(ctx, "google", "ada@example.com"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("by another provider: %v", err)
	}
	account := control.Account{
		Customer: control.Customer{ID: control.NewID(control.CustomerID), Name: "Eve", Email: "Ada@Example.com", Tier: "pro", Status: control.CustomerPending, CreatedAt: now},
		Language: control.English,
	}
	identity := control.Identity{ID: control.NewID(control.IdentityID), CustomerID: account.ID, Provider: "google", Subject: "1234", CreatedAt: now}
	if err := st.SignUp(ctx, account, identity); !errors.Is(err, control.ErrExists) {
		t.Errorf("a second account of the address: %v", err)
	}
	identity.CustomerID = ada.ID
	if err := st.SignUp(ctx, account, identity); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("an identity for somebody else's account: %v", err)
	}
	if _, err := st.Identity(ctx, "google", "1234"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("the identity was kept: %v", err)
	}
}
