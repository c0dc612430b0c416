package api

import (
	"errors"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

func notHere(what string) error { return fail(kindUnavailable(), what+" cannot be reached from here.") }

func (a *API) serveDeadLetters(c *call) (any, error) {
	p, err := c.readPage()
	if err != nil {
		return nil, err
	}
	all := c.r.URL.Query().Get("all") == "true"
	list, err := a.o.Store.DeadLettersPage(c.ctx(), !all, p.before, p.limit+1)
	return listed(list, p, func(v control.DeadLetter) string { return cursorOfNumber(v.ID) }), err
}

func (a *API) serveDeadLetter(c *call) (any, error) {
	id, err := c.pathNumber("id")
	if err != nil {
		return nil, err
	}
	return answered(a.o.Store.DeadLetter(c.ctx(), id))
}

// answered makes an answer of what a method returns.
func answered[T any](v T, err error) (any, error) { return v, err }

// Replayed is what became of a dead letter.
type Replayed struct {
	Inserted   int `json:"inserted"`
	Duplicates int `json:"duplicates" doc:"They were recorded already."`
	Parked     int `json:"parked" doc:"They were refused again, and are dead letters of their own."`
}

func (a *API) serveReplay(c *call) (any, error) {
	id, err := c.pathNumber("id")
	if err != nil {
		return nil, err
	}
	if a.o.Books == nil {
		return nil, notHere("The ledger")
	}
	r, err := a.o.Books.Replay(c.ctx(), c.actor(), id)
	return Replayed{r.Inserted, r.Duplicates, len(r.Parked)}, err
}

func (a *API) serveDrop(c *call) (any, error) {
	id, err := c.pathNumber("id")
	if err != nil {
		return nil, err
	}
	reason, err := c.reason()
	if err != nil {
		return nil, err
	}
	if a.o.Books == nil {
		return nil, notHere("The ledger")
	}
	return nil, a.o.Books.Drop(c.ctx(), c.actor(), id, reason)
}

func (a *API) serveAudit(c *call) (any, error) {
	p, err := c.readPage()
	if err != nil {
		return nil, err
	}
	customer, err := c.ofCustomer()
	if err != nil {
		return nil, err
	}
	list, err := a.o.Store.AuditPage(c.ctx(), customer, p.before, p.limit+1)
	return listed(list, p, func(v control.AuditEntry) string { return cursorOfNumber(v.ID) }), err
}

// PlatformUsage is what is used in the present periods of all customers.
type PlatformUsage struct {
	At    time.Time           `json:"at"`
	Tiers []control.TierUsage `json:"tiers"`
}

func (a *API) servePlatformUsage(c *call) (any, error) {
	now := a.now()
	list, err := a.o.Store.PlatformUsage(c.ctx(), now)
	return PlatformUsage{now, some(list)}, err
}

func (a *API) serveReplicas(c *call) (any, error) {
	list, err := a.o.Store.Replicas(c.ctx(), maxPageLen)
	return List[control.Replica]{Items: some(list)}, err
}

func (a *API) serveStripeEvents(c *call) (any, error) {
	p, err := c.readPage()
	if err != nil {
		return nil, err
	}
	list, err := a.o.Store.StripeEventsPage(c.ctx(), p.after, p.limit+1)
	for i := range list {
		list[i].Payload = nil // it names people
	}
	return listed(list, p, func(v control.StripeEvent) string { return cursorOf(v.ReceivedAt, v.ID) }), err
}

// Again is whether what was done is to be done again.
type Again struct {
	Again bool `json:"again,omitempty" doc:"Also if the event was processed already: that changes nothing that is right."`
}

func (a *API) serveRetryStripeEvent(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	var in Again
	if len(c.body) > 0 {
		if err := c.decode(&in); err != nil {
			return nil, err
		}
	}
	return nil, a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
		if err := tx.RetryStripeEvent(c.ctx(), c.actor(), id, in.Again); err != nil {
			return err
		}
		return c.note(c.ctx(), tx, nil)
	})
}

func jobStates() []string {
	return []string{"available", "cancelled", "completed", "discarded", "pending", "retryable", "running", "scheduled"}
}

func (a *API) serveJobs(c *call) (any, error) {
	p, err := c.readPage()
	if err != nil {
		return nil, err
	}
	state, err := c.choice("state", jobStates())
	if err != nil {
		return nil, err
	}
	if a.o.Jobs == nil {
		return nil, notHere("Jobs")
	}
	list, err := a.o.Jobs.List(c.ctx(), state, p.before, p.limit+1)
	return listed(list, p, func(v control.Job) string { return cursorOfNumber(v.ID) }), err
}

// serveJob retries or cancels. The change is River's own, so the entry in the audit log comes
// before it: it says what was asked for.
func (a *API) serveJob(action string) func(*call) (any, error) {
	return func(c *call) (any, error) {
		id, err := c.pathNumber("id")
		if err != nil {
			return nil, err
		}
		if a.o.Jobs == nil {
			return nil, notHere("Jobs")
		}
		do := a.o.Jobs.Retry
		if action == "cancel" {
			do = a.o.Jobs.Cancel
		}
		err = a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
			return tx.AddAudit(c.ctx(), control.Audit{Actor: c.actor(), Action: "job." + action, Target: c.r.PathValue("id")})
		})
		if err != nil {
			return nil, err
		}
		return nil, do(c.ctx(), id)
	}
}

// NewOperator is an operator to be made.
type NewOperator struct {
	Email    string       `json:"email"`
	Role     control.Role `json:"role"`
	Password string       `json:"password" doc:"12 characters at least, 256 bytes at most."`
}

func (a *API) serveOperators(c *call) (any, error) {
	list, err := a.o.Store.Operators(c.ctx())
	return List[control.Operator]{Items: some(list)}, err
}

func (a *API) serveNewOperator(c *call) (any, error) {
	var in NewOperator
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	o, err := MakeOperator(in.Email, in.Role, in.Password, a.now())
	if err != nil {
		return nil, err
	}
	err = a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error {
		if err := tx.InsertOperator(c.ctx(), c.actor(), o); err != nil {
			return err
		}
		return c.note(c.ctx(), tx, o)
	})
	if errors.Is(err, control.ErrExists) {
		return nil, &failure{kind: kindExists(), detail: "There is an operator with this e-mail address.", cause: err}
	}
	return o, err
}

// MakeOperator checks what an operator is made of, and hashes its password. It does not
// store it: see store.Tx.InsertOperator.
func MakeOperator(address string, role control.Role, password string, at time.Time) (control.Operator, error) {
	address, err := email(address)
	if err != nil {
		return control.Operator{}, err
	}
	switch role {
	case control.RoleSupport, control.RoleOperator, control.RoleAdmin:
	default:
		return control.Operator{}, invalid("role", "there are support, operator and admin")
	}
	if err := CheckPassword(password, address); err != nil {
		return control.Operator{}, err
	}
	return control.Operator{ID: control.NewID(control.OperatorID), Email: address, Role: role, PasswordHash: HashPassword(password), CreatedAt: at}, nil
}

func (a *API) serveDisableOperator(c *call) (any, error) {
	id, err := c.pathID("id")
	if err != nil {
		return nil, err
	}
	if id == c.who.subject.ID {
		return nil, fail(kindConflict(), "You cannot disable yourself: another admin has to be left.")
	}
	return nil, a.o.Store.InTx(c.ctx(), func(tx *store.Tx) error { return tx.DisableOperator(c.ctx(), c.actor(), id, a.now()) })
}
