package customers_test

import (
	"errors"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestDeleteCustomer(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c, other := e.customer("pro"), e.customer("pro")
	_, token := e.token(c.Customer.ID)
	_, others := e.token(other.Customer.ID)
	e.Seals = keys(t, fakeKey)
	ref := customers.BoxRef{ID: c.Box.ID}
	_, err1 := e.SetTelegramToken(t.Context(), "test", ref, fakeBot)
	_, err2 := e.UpdateBoxSettings(t.Context(), "test", ref, customers.BoxSettingsChange{SystemPrompt: pointer("private")})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time publishes it again
		if err := e.DeleteCustomer(t.Context(), "test", c.Customer.ID); err != nil {
			t.Fatal(err)
		}
		if g := e.grant(token.Digest); g.Status != contract.StatusRevoked {
			t.Errorf("the deleted one's grant is %s", g.Status)
		}
	}
	if g := e.grant(others.Digest); g.Status != contract.StatusActive {
		t.Errorf("the other one's grant is %s", g.Status)
	}
	if got := e.row(`SELECT wants || ' ' || settings || ' ' || has_telegram_token FROM boxes WHERE id = '%s'`, c.Box.ID); got != "destroy {} false" {
		t.Errorf("its box: %s", got)
	}
	if err := e.DeleteCustomer(t.Context(), "test", "nobody"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
}

// Who has not paid gets no token, and is not made active by way of a suspension.
func TestPendingCustomerIsNotServed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	_, token := e.token(c.Customer.ID)
	e.pg.Query("UPDATE customers SET status = 'pending'")
	if _, err := e.SuspendCustomer(t.Context(), "test", c.Customer.ID, ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("suspended: %v", err)
	}
	if _, err := e.ResumeCustomer(t.Context(), "test", c.Customer.ID, ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("resumed: %v", err)
	}
	if _, _, err := e.CreateToken(t.Context(), "test", c.Customer.ID, ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("got a token: %v", err)
	}
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 5); err != nil {
		t.Fatal(err)
	}
	if g := e.grant(token.Digest); g.Status != contract.StatusSuspended {
		t.Errorf("its grant is %s", g.Status)
	}
}
