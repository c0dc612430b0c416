package customers_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c, other := e.customer("pro"), e.customer("pro")
	_, token := e.token(c.Customer.ID)
	_, revoked := e.token(c.Customer.ID)
	if _, err := e.RevokeToken(t.Context(), "test", revoked.ID); err != nil {
		t.Fatal(err)
	}
	_, others := e.token(other.Customer.ID)
	want := func(status contract.Status, version int64) {
		t.Helper()
		g := e.grant(token.Digest)
		if g.Status != status || g.Version != version || g.MonthlyLimit != 5_000_000 || g.Period.ID != c.Period.ID {
			t.Errorf("grant %+v, want %s, version %d", g, status, version)
		}
		if g := e.grant(revoked.Digest); g.Status != contract.StatusRevoked {
			t.Errorf("the revoked token became %s", g.Status)
		}
		if g := e.grant(others.Digest); g.Status != contract.StatusActive || g.Version != 1 {
			t.Errorf("another customer's grant became %+v", g)
		}
	}
	for round := range int64(2) {
		for i := range int64(2) { // the second one publishes again
			got, err := e.SuspendCustomer(t.Context(), "test", c.Customer.ID, "no payment")
			if err != nil || got.Status != control.CustomerSuspended || got.ID != c.Customer.ID {
				t.Fatalf("%+v, %v", got, err)
			}
			want(contract.StatusSuspended, 4*round+2+i)
		}
		for i := range int64(2) {
			got, err := e.ResumeCustomer(t.Context(), "test", c.Customer.ID, "")
			if err != nil || got.Status != control.CustomerActive {
				t.Fatalf("%+v, %v", got, err)
			}
			want(contract.StatusActive, 4*round+4+i)
		}
	}
	if got := strings.TrimSpace(e.pg.Query("SELECT string_agg(action || ' ' || coalesce(detail->>'reason', '-') || ' ' || (detail->>'before'), ',' ORDER BY id) FROM audit_log WHERE action LIKE 'customer.%e%d' OR action = 'customer.resume'")); !strings.HasPrefix(got, "customer.suspend no payment active,customer.suspend no payment suspended,customer.resume - suspended,customer.resume - active") {
		t.Errorf("audit log %q", got)
	}
	// A suspended customer's token and limit can be changed; both stay suspended.
	if _, err := e.SuspendCustomer(t.Context(), "test", c.Customer.ID, ""); err != nil {
		t.Fatal(err)
	}
	_, late := e.token(c.Customer.ID)
	if _, err := e.SetLimit(t.Context(), "test", c.Customer.ID, 7); err != nil {
		t.Fatal(err)
	}
	for _, d := range []contract.Digest{token.Digest, late.Digest} {
		if g := e.grant(d); g.Status != contract.StatusSuspended || g.MonthlyLimit != 7 {
			t.Errorf("grant %+v", g)
		}
	}
	if n := e.pending(); n != 0 {
		t.Errorf("%d changes are pending", n)
	}

	for name, do := range map[string]func(id string) error{
		"suspend": func(id string) error { _, err := e.SuspendCustomer(t.Context(), "test", id, ""); return err },
		"resume":  func(id string) error { _, err := e.ResumeCustomer(t.Context(), "test", id, ""); return err },
	} {
		if err := do("nobody"); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("%s nobody: %v", name, err)
		}
	}
	e.pg.Query("UPDATE customers SET status = 'cancelled' WHERE id = '" + c.Customer.ID + "'")
	if _, err := e.ResumeCustomer(t.Context(), "test", c.Customer.ID, ""); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a cancelled customer is resumed: %v", err)
	}
	if g := e.grant(token.Digest); g.Status != contract.StatusSuspended {
		t.Errorf("grant %+v", g)
	}
}

// A suspension that Redis does not hear of is committed, and published later.
func TestSuspendWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	_, token := e.token(c.Customer.ID)
	e.stopRedis()
	if _, err := e.SuspendCustomer(t.Context(), "test", c.Customer.ID, ""); !errors.Is(err, customers.ErrUnpublished) {
		t.Fatalf("got %v", err)
	}
	e.startRedis()
	for e.pending() > 0 {
		if _, err := e.PublishPending(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if g := e.grant(token.Digest); g.Status != contract.StatusSuspended {
		t.Errorf("grant %+v", g)
	}
}

// Boxes that a missing payment suspended come back once it is there and no operator holds the
// customer, in whichever order that comes about.
func TestBoxesComeBack(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string]string{
		"it pays":                              "unpaid suspend, active run",
		"an operator suspends, resumes later":  "unpaid suspend, suspend suspend, active suspend, resume run",
		"an operator resumes before it pays":   "unpaid suspend, suspend suspend, resume suspend, active run",
		"an operator resumes at once":          "unpaid suspend, resume suspend, active run",
		"an operator suspends whom it resumed": "unpaid suspend, resume suspend, suspend suspend, active suspend, resume run",
		"an operator suspends the box":         "hold suspend, active suspend, unpaid suspend, active suspend, resume suspend, release run",
		"an operator suspends it of who owes":  "unpaid suspend, hold suspend, active suspend, release run",
		"an operator releases it of who owes":  "hold suspend, unpaid suspend, release suspend, active run",
		"an operator resumes one that runs":    "suspend run, release run, resume run",
		"it and its customer are suspended":    "hold suspend, suspend suspend, release suspend, resume run",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			c := e.customer("pro")
			id, box := c.Customer.ID, c.Box.ID
			e.committed(apply(e, id, control.SubscriptionActive, "pro", 1))
			for i, step := range strings.Split(steps, ", ") {
				what, want, _ := strings.Cut(step, " ")
				var err error
				switch what {
				case "suspend":
					_, err = e.SuspendCustomer(t.Context(), "test", id, "")
				case "resume":
					_, err = e.ResumeCustomer(t.Context(), "test", id, "")
				case "hold":
					_, err = e.SuspendBox(t.Context(), "test", customers.BoxRef{ID: box}, "test")
				case "release":
					_, err = e.ResumeBox(t.Context(), "test", customers.BoxRef{ID: box}, "test")
				default:
					err = apply(e, id, control.SubscriptionStatus(what), "pro", 2+i)
				}
				e.committed(err)
				if got := e.row(`SELECT string_agg(wants, ' ') FROM boxes WHERE customer_id = '%s'`, id); got != want {
					t.Fatalf("%s: the box shall %s, want %s", what, got, want)
				}
			}
			if got := e.row(`SELECT status FROM customers WHERE id = '%s'`, id); got != "active" {
				t.Errorf("in the end it is %s", got)
			}
		})
	}
}
