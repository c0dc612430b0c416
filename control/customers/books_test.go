package customers_test

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The operator of the boxes registers what is in a Secret, as often as it likes, and ends it with or
// without an overlap.
func TestTokensOfBoxes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c, other := e.customer("pro"), e.customer("pro")
	l := later{map[string]time.Time{}}
	e.Later = l
	b, ctx := e.books(), t.Context()
	raw := func() contract.Token {
		k, err := contract.NewToken(nil)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	status := func(k control.ProxyToken) contract.Status {
		if g := e.grant(k.Digest); g != nil {
			return g.Status
		}
		return ""
	}
	first := raw()
	one, err := b.RegisterToken(ctx, c.Box.ID, first)
	if err != nil || one.BoxID != c.Box.ID || one.Hint != first.Hint() || status(one) != contract.StatusActive {
		t.Fatalf("%+v, %v", one, err)
	}
	if again, err := b.RegisterToken(ctx, c.Box.ID, first); err != nil || again.ID != one.ID || again.Version != 1 {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := b.RegisterToken(ctx, other.Box.ID, first); !errors.Is(err, control.ErrConflict) {
		t.Errorf("another box's: %v", err)
	}
	// While Redis is away it is not done, and then it is.
	second := raw()
	e.stopRedis()
	if _, err := b.RegisterToken(ctx, c.Box.ID, second); !errors.Is(err, customers.ErrUnpublished) {
		t.Errorf("without Redis: %v", err)
	}
	e.startRedis()
	two, err := b.RegisterToken(ctx, c.Box.ID, second)
	if err != nil || status(two) != contract.StatusActive || len(e.desired(c.Box.ID).Tokens) != 2 {
		t.Fatalf("%+v, %v", two, err)
	}

	// An overlap, which does not begin anew however often it is asked for.
	before := time.Now()
	for range 2 {
		if err := b.RevokeTokens(ctx, c.Box.ID, two.ID, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	end := l.at[one.ID]
	if len(l.at) != 1 || end.Before(before.Add(time.Hour)) || end.After(time.Now().Add(time.Hour)) || status(one) != contract.StatusActive {
		t.Errorf("ends %v", l.at)
	}
	if tokens := e.desired(c.Box.ID).Tokens; !tokens[0].EndsAt.Equal(end.Truncate(time.Microsecond)) || !tokens[1].EndsAt.IsZero() {
		t.Errorf("tokens %+v", tokens)
	}
	if n := e.row(`SELECT count(*) FROM audit_log WHERE action = 'token.end'`); n != "1" {
		t.Errorf("%s entries", n)
	}
	if err := b.RevokeTokens(ctx, c.Box.ID, two.ID, 2*time.Hour); err != nil || l.at[one.ID] != end {
		t.Errorf("it ends later: %v, %v", l.at, err)
	}
	if err := b.RevokeTokens(ctx, c.Box.ID, two.ID, time.Minute); err != nil || !l.at[one.ID].Before(end) {
		t.Errorf("it does not end earlier: %v, %v", l.at, err)
	}

	// At once; and what could not be published then is when it is asked for again.
	e.stopRedis()
	if err := b.RevokeTokens(ctx, c.Box.ID, "", 0); !errors.Is(err, customers.ErrUnpublished) {
		t.Errorf("without Redis: %v", err)
	}
	e.startRedis()
	if err := b.RevokeTokens(ctx, c.Box.ID, "", 0); err != nil || status(one) != contract.StatusRevoked || status(two) != contract.StatusRevoked {
		t.Errorf("%s, %s, %v", status(one), status(two), err)
	}
	if _, err := b.RegisterToken(ctx, c.Box.ID, second); !errors.Is(err, control.ErrConflict) {
		t.Errorf("one that is revoked: %v", err)
	}
	if n := e.row(`SELECT count(*) FROM audit_log WHERE action = 'token.revoke'`); n != "2" {
		t.Errorf("%s entries", n)
	}

	if _, err := e.DestroyBox(ctx, "test", customers.BoxRef{ID: c.Box.ID}, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.RegisterToken(ctx, c.Box.ID, raw()); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a box that is to be destroyed: %v", err)
	}
	e.pg.Query(`UPDATE customers SET status = 'cancelled' WHERE id = '` + other.Customer.ID + `'`)
	if _, err := b.RegisterToken(ctx, other.Box.ID, raw()); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a customer that was cancelled: %v", err)
	}
	if _, err := b.RegisterToken(ctx, "b-nobody", raw()); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("no box: %v", err)
	}
}

// Whoever ends the token that a box runs with, now or later, has the box get another one; of a token
// beside which the box has one that stays, the operator of the boxes is told.
func TestBoxesGetAnotherToken(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	l := later{map[string]time.Time{}}
	e.Later = l
	wakes := e.withJobs()
	b, ctx := e.books(), t.Context()
	// began makes a box with a token of its own, of which nobody is told any more.
	began := func() (string, contract.Token, control.ProxyToken) {
		t.Helper()
		c := e.customer("pro")
		raw, err := contract.NewToken(nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := b.RegisterToken(ctx, c.Box.ID, raw)
		if err != nil {
			t.Fatal(err)
		}
		e.pg.Query("DELETE FROM river_job")
		return c.Box.ID, raw, token
	}
	want := func(what, box, is string) {
		t.Helper()
		if got := e.row(`SELECT rotation || '/' || generation FROM boxes WHERE id = '%s'`, box); got != is || !wakes(box) {
			t.Errorf("%s: rotation and generation %s, want %s; told: %v", what, got, is, wakes(box))
		}
		e.pg.Query("DELETE FROM river_job")
	}
	revoke := func(token control.ProxyToken) {
		t.Helper()
		if _, err := e.RevokeToken(ctx, "test", token.ID); err != nil {
			t.Fatal(err)
		}
	}

	box, _, token := began()
	revoke(token)
	want("revoked", box, "1/2")
	revoke(token)
	if wakes(box) || e.row(`SELECT generation FROM boxes WHERE id = '%s'`, box) != "2" {
		t.Error("revoked again it has the box changed again")
	}

	box, raw, token := began()
	_, rotated, err := e.RotateToken(ctx, "test", token.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want("rotated", box, "1/2")
	if _, err := b.RegisterToken(ctx, box, raw); !errors.Is(err, control.ErrConflict) {
		t.Errorf("a token that ends is registered as one that stays: %v", err)
	}
	revoke(token) // as the job does when it is time
	want("revoked while another stays", box, "1/2")
	revoke(rotated.Token)
	want("the last one", box, "2/3")

	box, _, token = began()
	if _, err := e.DestroyBox(ctx, "test", customers.BoxRef{ID: box}, "x"); err != nil {
		t.Fatal(err)
	}
	e.pg.Query("DELETE FROM river_job")
	revoke(token)
	if wakes(box) || e.row(`SELECT generation FROM boxes WHERE id = '%s'`, box) != "2" {
		t.Error("of a box that is to be destroyed")
	}
}

// A customer hears once that its agent is there, and once a day that it is not well.
func TestReportsAreMailed(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	e.pg.Query("UPDATE customers SET email = 'a@example.com'")
	e.withJobs()
	b := e.books()
	b.Mails = e.Wake.(*jobs.Jobs)
	report := func(state control.BoxState) {
		t.Helper()
		if err := b.Report(t.Context(), control.BoxReport{BoxID: c.Box.ID, Generation: 1, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	e.Now = func() time.Time { return time.Date(2026, 3, 4, 23, 59, 59, 0, time.UTC) }
	for _, state := range []control.BoxState{
		control.BoxProvisioning, control.BoxActive, control.BoxActive, control.BoxUnhealthy, control.BoxActive, control.BoxUnhealthy, control.BoxActive,
	} {
		report(state)
	}
	mails := func(want string) {
		t.Helper()
		if got := e.row(`SELECT string_agg(kind || ' ' || cause || ' ' || (params->>'name'), ', ' ORDER BY id) FROM mails`); got != want {
			t.Errorf("mails: %s", got)
		}
	}
	told := "agent_live " + c.Box.ID + " Ada, agent_unhealthy " + c.Box.ID + "/2026-03-04 Ada"
	mails(told)
	if list, err := b.Unfinished(t.Context()); err != nil || len(list) != 1 || list[0].State != control.BoxActive || list[0].Observed != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	// What was under way when it was decided to stop the box is seen, and told to nobody.
	e.Now = func() time.Time { return time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC) }
	if _, err := e.SuspendBox(t.Context(), "test", customers.BoxRef{ID: c.Box.ID}, "x"); err != nil {
		t.Fatal(err)
	}
	report(control.BoxUnhealthy)
	mails(told)
	late := e.customer("pro")
	if _, err := e.DestroyBox(t.Context(), "test", customers.BoxRef{ID: late.Box.ID}, "x"); err != nil {
		t.Fatal(err)
	}
	if err := b.Report(t.Context(), control.BoxReport{BoxID: late.Box.ID, Generation: 1, State: control.BoxActive}); err != nil {
		t.Fatal(err)
	}
	if got := e.row(`SELECT state FROM boxes WHERE id = '%s'`, late.Box.ID); got != "active" {
		t.Errorf("it is %s", got)
	}
	mails(told)
}

// What the operator of the boxes does is told of as what anybody does.
func TestBooksAreAuditedAndTold(t *testing.T) {
	t.Parallel()
	served := changing()["RevokeToken"].before
	onBox := func(do func(e *env, b *customers.Boxes, box string) error) func(*env, string, string) error {
		return func(e *env, customer, _ string) error { return do(e, e.books(), e.boxOf(customer)) }
	}
	steps := map[string]step{
		"RegisterToken": {served, onBox(func(e *env, b *customers.Boxes, box string) error {
			raw, err := contract.NewToken(nil)
			if err == nil {
				_, err = b.RegisterToken(e.t.Context(), box, raw)
			}
			return err
		}), true},
		"RevokeTokens": {served, onBox(func(e *env, b *customers.Boxes, box string) error { return b.RevokeTokens(e.t.Context(), box, "", 0) }), true},
		"RevokeTokens, later": {served, onBox(func(e *env, b *customers.Boxes, box string) error {
			return b.RevokeTokens(e.t.Context(), box, "", time.Hour)
		}), true},
		"Report": {served, onBox(func(e *env, b *customers.Boxes, box string) error {
			b.Mails = e.Wake.(*jobs.Jobs)
			return b.Report(e.t.Context(), control.BoxReport{
				BoxID: box, Generation: 1, State: control.BoxActive, Operation: "provision", Took: time.Second, Steps: []control.BoxStep{{Name: "x", StartedAt: time.Now()}},
			})
		}), false},
		"Reseal": {func(e *env) (string, string) {
			customer, token := served(e)
			_, err := e.SetTelegramToken(e.t.Context(), "test", customers.BoxRef{ID: e.boxOf(customer)}, fakeBot)
			e.committed(err)
			e.Seals = keys(e.t, newestKey+","+fakeKey)
			return customer, token
		}, onBox(func(e *env, b *customers.Boxes, _ string) error {
			_, err := b.Reseal(e.t.Context(), "test")
			return err
		}), false},
	}
	allLookedAt(t, reflect.TypeFor[*customers.Boxes](), steps, map[string]bool{"Desired": true, "Lead": true, "Unfinished": true})
	walk(t, steps)
}

// A token that is registered while its customer ends does not outlive it.
func TestRegisterTokenOfWhoEnds(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for i := range 10 {
		c := e.customer("pro")
		e.committed(apply(e, c.Customer.ID, control.SubscriptionActive, "pro", 1))
		var both sync.WaitGroup
		var ended error
		both.Go(func() {
			for range 10 {
				raw, err := contract.NewToken(nil)
				if err == nil {
					_, err = e.books().RegisterToken(t.Context(), c.Box.ID, raw)
				}
				if err != nil && !errors.Is(err, control.ErrInvalid) {
					t.Error(err)
				}
			}
		})
		both.Go(func() { ended = apply(e, c.Customer.ID, control.SubscriptionCanceled, "pro", 2) })
		both.Wait()
		if got := e.row(`SELECT count(*) FROM proxy_tokens WHERE status <> 'revoked'`); ended != nil || got != "0" {
			t.Fatalf("round %d: %s tokens are good, %v", i, got, ended)
		}
	}
}

// Once another operator leads, the one before writes nothing of a box any more, and ends no token.
func TestOneOperatorWrites(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	e.Later = later{map[string]time.Time{}}
	ctx := t.Context()
	raw := func() contract.Token {
		k, err := contract.NewToken(nil)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	report := func(b *customers.Boxes, state control.BoxState) error {
		return b.Report(ctx, control.BoxReport{BoxID: c.Box.ID, Generation: 1, State: state})
	}
	first, err := e.books().Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	one, err := first.RegisterToken(ctx, c.Box.ID, raw())
	if err := errors.Join(err, report(first, control.BoxProvisioning)); err != nil {
		t.Fatal(err)
	}
	second, err := e.books().Lead(ctx)
	if err != nil {
		t.Fatal(err)
	}
	two, err := second.RegisterToken(ctx, c.Box.ID, raw())
	if err := errors.Join(err, report(second, control.BoxActive)); err != nil {
		t.Fatal(err)
	}
	_, registered := first.RegisterToken(ctx, c.Box.ID, raw())
	_, desired := first.Desired(ctx, c.Box.ID)
	for what, err := range map[string]error{
		"a report": report(first, control.BoxUnhealthy), "a token": registered, "what it shall be": desired,
		"tokens that end":     first.RevokeTokens(ctx, c.Box.ID, one.ID, time.Minute),
		"tokens that are out": first.RevokeTokens(ctx, c.Box.ID, one.ID, 0),
	} {
		if !errors.Is(err, control.ErrFenced) {
			t.Errorf("%s of the operator before: %v", what, err)
		}
	}
	d := e.desired(c.Box.ID)
	if d.State != control.BoxActive || len(d.Tokens) != 2 || !d.Tokens[1].EndsAt.IsZero() || d.Tokens[1].ID != two.ID {
		t.Errorf("%+v", d)
	}
	if err := errors.Join(second.RevokeTokens(ctx, c.Box.ID, two.ID, time.Minute), report(second, control.BoxUnhealthy)); err != nil {
		t.Error(err)
	}
}
