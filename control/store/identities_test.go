package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
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

// Whoever signs in by an address keeps it after its end: it may come back.
func TestAddressOfWhoMayComeBack(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	now := time.Now().UTC()
	a := control.Account{Customer: control.Customer{ID: "c-a", Name: "x", Email: "Ada@example.com", Tier: "pro", Status: control.CustomerPending, CreatedAt: now}, Language: control.English}
	if err := st.SignUp(t.Context(), a, control.Identity{ID: "i-a", CustomerID: a.ID, Provider: control.ProviderPassword, Subject: a.Email, SecretHash: "x", CreatedAt: now}); err != nil {
		t.Fatal(err)
	}
	pg.Query("UPDATE customers SET status = 'cancelled'")
	insert := func(id, email string) error {
		return st.InTx(t.Context(), func(tx *store.Tx) error {
			return tx.InsertCustomer(t.Context(), control.Customer{ID: id, Name: "x", Email: email, Tier: "pro", Status: control.CustomerActive, CreatedAt: now})
		})
	}
	if err := insert("c-b", "ada@EXAMPLE.com"); !errors.Is(err, control.ErrExists) {
		t.Errorf("the address of who may come back: %v", err)
	}
	for id, email := range map[string]string{"c-c": "other@example.com", "c-d": ""} {
		if err := insert(id, email); err != nil {
			t.Errorf("%q: %v", email, err)
		}
	}
}

// A customer has one password at most, and an address of another one is not to be had by it.
func TestAddPassword(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	ada := signUp(t, st, "ada@example.com")
	made, _, _ := addCustomer(t, st)
	add := func(customer, address string) error {
		return st.InTx(ctx, func(tx *store.Tx) error {
			return tx.AddPassword(ctx, "test", control.Identity{
				ID: control.NewID(control.IdentityID), CustomerID: customer, Provider: control.ProviderPassword, Subject: address, SecretHash: "new", CreatedAt: now,
			})
		})
	}
	if err := add(ada.ID, "other@example.com"); !errors.Is(err, control.ErrExists) {
		t.Errorf("a second password: %v", err)
	}
	if err := add(made.ID, "Ada@Example.com"); !errors.Is(err, control.ErrExists) {
		t.Errorf("somebody else's address: %v", err)
	}
	if err := add("c-none", "new@example.com"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("nobody's password: %v", err)
	}
	if err := add(made.ID, "New@Example.com"); err != nil {
		t.Fatal(err)
	}
	if i, err := st.Identity(ctx, control.ProviderPassword, "new@example.com"); err != nil || i.CustomerID != made.ID || i.SecretHash != "new" || !i.VerifiedAt.IsZero() {
		t.Errorf("%+v, %v", i, err)
	}
	if got := pg.Query("SELECT count(*) FROM audit_log WHERE action = 'customer.password' AND actor = 'test'"); strings.TrimSpace(got) != "1" {
		t.Errorf("%s entries in the audit log", got)
	}
	err := st.InTx(ctx, func(tx *store.Tx) error {
		return tx.AddPassword(ctx, "test", control.Identity{ID: "i-x", CustomerID: made.ID, Provider: "google", Subject: "1", CreatedAt: now})
	})
	if !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a password of another provider: %v", err)
	}
}
