package store_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

func digestOf(n byte) contract.Digest { return contract.Digest{n, 1} }

// signUp makes a pending customer that signs in by password.
func signUp(t *testing.T, st *store.Store, email string) control.Customer {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	a := control.Account{
		Customer: control.Customer{ID: control.NewID(control.CustomerID), Name: "Ada", Email: email, Tier: "pro", Status: control.CustomerPending, CreatedAt: now},
		Language: control.Portuguese,
	}
	if err := st.SignUp(t.Context(), a, control.Identity{
		ID: control.NewID(control.IdentityID), CustomerID: a.ID, Provider: control.ProviderPassword, Subject: email, SecretHash: "hash", CreatedAt: now,
	}); err != nil {
		t.Fatal(err)
	}
	return a.Customer
}

func signIn(t *testing.T, st *store.Store, who control.Subject, n byte, now time.Time) control.Session {
	t.Helper()
	v := control.Session{ID: control.NewID(control.SessionID), Subject: who, CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	if err := st.CreateSession(t.Context(), v, digestOf(n)); err != nil {
		t.Fatal(err)
	}
	return v
}

func customerSubject(id string) control.Subject {
	return control.Subject{Kind: control.SubjectCustomer, ID: id}
}

func TestSignUp(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx := t.Context()
	c := signUp(t, st, "Ada@Example.com")
	i, err := st.Identity(ctx, control.ProviderPassword, "ADA@example.COM")
	if err != nil || i.CustomerID != c.ID || i.SecretHash != "hash" || i.Subject != "ada@example.com" {
		t.Fatalf("identity %+v, %v", i, err)
	}
	a, err := st.Account(ctx, c.ID)
	if err != nil || a.Customer != c || a.Language != control.Portuguese || a.StripeID != "" {
		t.Fatalf("account %+v, %v", a, err)
	}
	again := control.Account{Customer: c, Language: control.English}
	again.ID, again.Email = "another", ""
	err = st.SignUp(ctx, again, control.Identity{ID: "i2", CustomerID: again.ID, Provider: control.ProviderPassword, Subject: "ADA@example.com", SecretHash: "x", CreatedAt: c.CreatedAt})
	if !errors.Is(err, control.ErrExists) {
		t.Errorf("the same address again: %v", err)
	}
	if _, err := st.Account(ctx, "another"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("half a sign-up is left: %v", err)
	}
	again.Status = control.CustomerActive
	if err := st.SignUp(ctx, again, control.Identity{ID: "i3", CustomerID: again.ID, Provider: "google", Subject: "7"}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("signed up as active: %v", err)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT string_agg(action, ' ') FROM audit_log WHERE customer_id = '` + c.ID + `'`)); got != "customer.signup" {
		t.Errorf("audit log %q", got)
	}
}

func TestRotateSession(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	c := signUp(t, st, "ada@example.com")
	v := signIn(t, st, customerSubject(c.ID), 1, now)
	later := now.Add(2 * time.Hour)
	if got, err := st.RotateSession(ctx, digestOf(1), digestOf(2), now, later); err != nil || got.ID != v.ID || got.Subject != v.Subject || !got.ExpiresAt.Equal(later) {
		t.Fatalf("rotated %+v, %v", got, err)
	}
	if live, err := st.SessionLive(ctx, v.ID, now); err != nil || !live.ExpiresAt.Equal(later) {
		t.Fatalf("session %+v, %v", live, err)
	}
	if _, err := st.RotateSession(ctx, digestOf(9), digestOf(3), now, later); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("unknown token: %v", err)
	}
	if _, err := st.RotateSession(ctx, digestOf(2), digestOf(3), later, later.Add(1)); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("expired token: %v", err)
	}
	// The old one again: someone has a copy, so nobody stays signed in.
	if _, err := st.RotateSession(ctx, digestOf(1), digestOf(3), now, later); !errors.Is(err, control.ErrReused) {
		t.Errorf("used token: %v", err)
	}
	if _, err := st.RotateSession(ctx, digestOf(2), digestOf(3), now, later); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("the newest token after a reuse: %v", err)
	}
	if _, err := st.SessionLive(ctx, v.ID, now); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("session after a reuse: %v", err)
	}
	if got := strings.TrimSpace(pg.Query(`SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log WHERE target = '` + v.ID + `'`)); got != "session.create session.revoke" {
		t.Errorf("audit log %q", got)
	}
}

// Many show the same token at once: one gets the successor, and as the others are reuses
// the session is over.
func TestRotateSessionAtOnce(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	v := signIn(t, st, customerSubject(signUp(t, st, "ada@example.com").ID), 1, now)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = st.RotateSession(t.Context(), digestOf(1), digestOf(byte(10+i)), now, now.Add(time.Hour))
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, control.ErrReused) && !errors.Is(err, control.ErrNotFound):
			t.Error(err)
		}
	}
	if got := strings.TrimSpace(pg.Query(`SELECT count(*) FROM refresh_tokens`)); won != 1 || got != "2" {
		t.Errorf("%d got a successor, %s tokens", won, got)
	}
	if _, err := st.SessionLive(t.Context(), v.ID, now); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("the session lives: %v", err)
	}
}

func TestRevokeSessions(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	a, b := signUp(t, st, "a@example.com"), signUp(t, st, "b@example.com")
	op := control.Operator{ID: control.NewID(control.OperatorID), Email: "Op@Example.com", Role: control.RoleAdmin, PasswordHash: "hash", CreatedAt: now}
	if err := st.InTx(ctx, func(tx *store.Tx) error { return tx.InsertOperator(ctx, "x", op) }); err != nil {
		t.Fatal(err)
	}
	opSubject := control.Subject{Kind: control.SubjectOperator, ID: op.ID}
	a1, a2 := signIn(t, st, customerSubject(a.ID), 1, now), signIn(t, st, customerSubject(a.ID), 2, now)
	b1, o1 := signIn(t, st, customerSubject(b.ID), 3, now), signIn(t, st, opSubject, 4, now)
	live := func(ids ...string) (alive int) {
		for _, id := range ids {
			if _, err := st.SessionLive(ctx, id, now); err == nil {
				alive++
			}
		}
		return alive
	}
	if err := st.InTx(ctx, func(tx *store.Tx) error { return tx.SetPassword(ctx, "x", a.ID, "new", now) }); err != nil {
		t.Fatal(err)
	}
	if live(a1.ID, a2.ID) != 0 || live(b1.ID, o1.ID) != 2 {
		t.Errorf("after a new password %d and %d live", live(a1.ID, a2.ID), live(b1.ID, o1.ID))
	}
	if err := st.InTx(ctx, func(tx *store.Tx) error { return tx.DisableOperator(ctx, "x", op.ID, now) }); err != nil {
		t.Fatal(err)
	}
	if live(o1.ID) != 0 || live(b1.ID) != 1 {
		t.Error("a disabled operator's session lives, or another one's does not")
	}
	err := st.CreateSession(ctx, control.Session{ID: "s9", Subject: opSubject, CreatedAt: now, ExpiresAt: now.Add(1e9)}, digestOf(9))
	if !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a disabled operator signs in: %v", err)
	}
	got, err := st.OperatorByEmail(ctx, "OP@example.com")
	if err != nil || got.ID != op.ID || got.DisabledAt.IsZero() || got.Email != "op@example.com" {
		t.Errorf("operator %+v, %v", got, err)
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	a, b := signUp(t, st, "a@example.com"), signUp(t, st, "b@example.com")
	k := control.APIKey{ID: control.NewID(control.APIKeyID), CustomerID: a.ID, Digest: digestOf(1), Hint: "abcd", Name: "laptop", CreatedAt: now}
	if err := st.ForCustomer(ctx, a.ID, func(tx *store.Tx) error { return tx.InsertAPIKey(ctx, "x", k) }); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{now, now.Add(time.Second), now.Add(2 * time.Minute)} {
		if got, err := st.UseAPIKey(ctx, digestOf(1), at); err != nil || got.CustomerID != a.ID {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if err := st.ForCustomer(ctx, a.ID, func(tx *store.Tx) error {
		list, err := tx.APIKeys(ctx, a.ID)
		if len(list) != 1 || !list[0].LastUsedAt.Equal(now.Add(2*time.Minute)) || list[0].Digest != k.Digest {
			t.Errorf("keys %+v", list)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	revoke := func(customer string) error {
		return st.ForCustomer(ctx, customer, func(tx *store.Tx) error { return tx.RevokeAPIKey(ctx, "x", customer, k.ID, now) })
	}
	if err := revoke(b.ID); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("another one's key: %v", err)
	}
	if err := revoke(a.ID); err != nil {
		t.Error(err)
	}
	if _, err := st.UseAPIKey(ctx, digestOf(1), now); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a revoked key: %v", err)
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx, now := t.Context(), time.Now().UTC().Truncate(time.Microsecond)
	a, b := signUp(t, st, "a@example.com"), signUp(t, st, "b@example.com")
	r := control.IdempotentRequest{Subject: customerSubject(a.ID), Key: "k", Digest: digestOf(1)}
	begin := func(r control.IdempotentRequest, now time.Time) (int64, *control.Answer, error) {
		return st.BeginIdempotent(ctx, r, now, time.Minute, now.Add(time.Hour))
	}
	finish := func(attempt int64, a control.Answer) error {
		return st.InTx(ctx, func(tx *store.Tx) error { return tx.FinishIdempotent(ctx, r, attempt, a) })
	}
	// Many at once: one has it.
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, _, errs[i] = begin(r, now) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, control.ErrConflict) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Fatalf("%d have it in hand", won)
	}
	other := r
	other.Digest = digestOf(2)
	if _, _, err := begin(other, now.Add(2*time.Minute)); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("another request: %v", err)
	}
	theirs := r
	theirs.Subject.ID = b.ID
	if n, _, err := begin(theirs, now); err != nil || n != 1 {
		t.Errorf("the same key of another customer: %d, %v", n, err)
	}
	// The one that had it is taken for dead, and must not finish behind the next one's back.
	n, _, err := begin(r, now.Add(time.Minute))
	if err != nil || n != 2 {
		t.Fatalf("taken over: %d, %v", n, err)
	}
	if err := finish(1, control.Answer{Status: 200}); !errors.Is(err, control.ErrConflict) {
		t.Errorf("the first one finishes: %v", err)
	}
	if err := finish(2, control.Answer{Status: 201, Body: []byte("made")}); err != nil {
		t.Fatal(err)
	}
	n, answer, err := begin(r, now.Add(2*time.Minute))
	if err != nil || n != 0 || answer == nil || answer.Status != 201 || string(answer.Body) != "made" {
		t.Errorf("again: %d, %+v, %v", n, answer, err)
	}
	if n, answer, err := begin(other, now.Add(2*time.Hour)); err != nil || n != 3 || answer != nil {
		t.Errorf("after it expired: %d, %+v, %v", n, answer, err)
	}
	if err := st.AbandonIdempotent(ctx, other, 3); err != nil {
		t.Fatal(err)
	}
	if n, _, err := begin(other, now); err != nil || n != 1 {
		t.Errorf("after it was abandoned: %d, %v", n, err)
	}
}
