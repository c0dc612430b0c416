package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

// A conversation is kept as it was given, is found by who has it, and is changed by one at a time.
func TestOnboardingIsKept(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	c := signUp(t, st, "ada@example.com")
	now := time.Now().UTC().Truncate(time.Microsecond)
	key := sha256.Sum256([]byte("key"))
	web := control.OnboardingSession{ID: "n1", KeyDigest: key, State: "greeting", Version: 1, Data: []byte(`{"a": "ção"}`), CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Hour)}
	chat := control.OnboardingSession{ID: "n2", TelegramUser: 7, State: "provisioning", CustomerID: c.ID, Version: 1, Data: []byte(`{}`), SealedBot: []byte("sealed"), CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Hour)}
	for _, v := range []control.OnboardingSession{web, chat} {
		if err := st.InsertOnboarding(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	second := chat
	second.ID = "n3"
	if err := st.InsertOnboarding(ctx, second); !errors.Is(err, control.ErrExists) {
		t.Errorf("a second one of the same person: %v", err)
	}
	want := func(what string, got control.OnboardingSession, err error, v control.OnboardingSession) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%s: %v\n%+v\n%+v", what, err, got, v)
		}
	}
	got, err := st.Onboarding(ctx, "n1", now)
	want("by id", got, err, web)
	got, err = st.OnboardingByKey(ctx, key, now)
	want("by key", got, err, web)
	got, err = st.OnboardingOfTelegram(ctx, 7, now)
	want("by person", got, err, chat)
	for what, err := range map[string]error{
		"another id":     second1(st.Onboarding(ctx, "n9", now)),
		"another key":    second1(st.OnboardingByKey(ctx, sha256.Sum256([]byte("other")), now)),
		"no key":         second1(st.OnboardingByKey(ctx, [32]byte{}, now)),
		"another person": second1(st.OnboardingOfTelegram(ctx, 8, now)),
		"expired":        second1(st.Onboarding(ctx, "n1", now.Add(time.Hour))),
		"expired key":    second1(st.OnboardingByKey(ctx, key, now.Add(time.Hour))),
		"expired person": second1(st.OnboardingOfTelegram(ctx, 7, now.Add(time.Hour))),
	} {
		if !errors.Is(err, control.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}

	next := chat
	next.State, next.Data, next.SealedBot, next.UpdatedAt, next.ExpiresAt = "complete", []byte(`{"b": 1}`), nil, now.Add(time.Minute), now.Add(2*time.Hour)
	got, err = st.SaveOnboarding(ctx, next)
	next.Version = 2
	want("saved", got, err, next)
	if _, err := st.SaveOnboarding(ctx, chat); !errors.Is(err, control.ErrConflict) {
		t.Errorf("of an older version: %v", err)
	}
	gone := next
	gone.ID = "n9"
	if _, err := st.SaveOnboarding(ctx, gone); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	bad := next
	bad.SealedBot = []byte("sealed")
	if _, err := st.SaveOnboarding(ctx, bad); err == nil {
		t.Error("a token is kept at the end")
	}
	// After its end there may be another one, and that is the one that counts.
	second.CreatedAt = now.Add(time.Second)
	second.UpdatedAt = second.CreatedAt
	if err := st.InsertOnboarding(ctx, second); err != nil {
		t.Fatal(err)
	}
	got, err = st.OnboardingOfTelegram(ctx, 7, now)
	want("the newest", got, err, second)
	second.Version, second.State, second.SealedBot = 1, "abandoned", nil
	if _, err = st.SaveOnboarding(ctx, second); err != nil {
		t.Fatal(err)
	}
	got, err = st.OnboardingOfTelegram(ctx, 7, now)
	want("not the one that was given up", got, err, next)
}

func second1(_ control.OnboardingSession, err error) error { return err }

// What was said is part of what a customer gets who asks for all that is known of it, and of nobody else.
func TestOnboardingIsExported(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	ada, eve := signUp(t, st, "ada@example.com"), signUp(t, st, "eve@example.com")
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i, data := range []string{`{"history": [{"at": "2026-03-01T12:00:00Z", "ours": true, "text": "hello"}, {"at": "2026-03-01T12:00:01Z", "text": "hi"}], "facts": {}}`, `{}`} {
		v := control.OnboardingSession{
			ID: fmt.Sprintf("n%d", i), CustomerID: ada.ID, State: "provisioning", Data: []byte(data), CreatedAt: now.Add(time.Duration(i)), ExpiresAt: now.Add(time.Hour),
		}
		if err := st.InsertOnboarding(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	export := func(id string) (d control.CustomerData) {
		t.Helper()
		if err := st.ForCustomer(ctx, id, func(tx *store.Tx) (err error) { d, err = tx.Export(ctx, id); return err }); err != nil {
			t.Fatal(err)
		}
		return d
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := []control.Conversation{
		{ID: "n0", State: "provisioning", CreatedAt: now, ExpiresAt: now.Add(time.Hour), Turns: []control.ConversationTurn{{At: at, Ours: true, Text: "hello"}, {At: at.Add(time.Second), Text: "hi"}}},
		{ID: "n1", State: "provisioning", CreatedAt: now, ExpiresAt: now.Add(time.Hour), Turns: []control.ConversationTurn{}},
	}
	if got := export(ada.ID).Conversations; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := export(eve.ID).Conversations; got == nil || len(got) != 0 {
		t.Errorf("the other one gets %+v", got)
	}
}

// Of many who save the same version one does, each time.
func TestOnboardingSavedAtOnce(t *testing.T) {
	t.Parallel()
	st, _ := migrated(t)
	ctx := t.Context()
	now := time.Now().UTC().Truncate(time.Microsecond)
	v := control.OnboardingSession{ID: "n1", State: "greeting", Version: 1, Data: []byte(`{}`), CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Hour)}
	if err := st.InsertOnboarding(ctx, v); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		saved := 0
		for i := range 8 {
			wg.Go(func() {
				mine := v
				mine.Data = fmt.Appendf(nil, `{"by": %d}`, i)
				_, err := st.SaveOnboarding(ctx, mine)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					saved++
				case !errors.Is(err, control.ErrConflict):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if v.Version++; saved != 1 {
			t.Fatalf("round %d: %d saved", round, saved)
		}
	}
}

// What waits is found page by page; what expired is forgotten.
func TestOnboardingsWaitAndExpire(t *testing.T) {
	t.Parallel()
	st, pg := migrated(t)
	ctx := t.Context()
	c := signUp(t, st, "ada@example.com")
	now := time.Now().UTC().Truncate(time.Microsecond)
	states := strings.Fields("new greeting use_case telegram preferences recommending awaiting_payment provisioning complete failed abandoned")
	for i, state := range states {
		key := sha256.Sum256([]byte(state))
		v := control.OnboardingSession{ID: fmt.Sprintf("n%02d", i), KeyDigest: key, State: state, Data: []byte(`{"history": "personal"}`), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
		switch state {
		case "provisioning":
			v.CustomerID, v.SealedBot = c.ID, []byte("sealed")
		case "awaiting_payment":
			v.CustomerID = c.ID
		}
		if err := st.InsertOnboarding(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	recommending := control.OnboardingSession{ID: "n99", CustomerID: c.ID, State: "recommending", Data: []byte(`{}`), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}
	if err := st.InsertOnboarding(ctx, recommending); err != nil {
		t.Fatal(err)
	}
	waiting := func(what, want string) {
		t.Helper()
		var got []string
		for after := ""; ; {
			list, err := st.WaitingOnboardings(ctx, after, now, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				got, after = append(got, v.ID+" "+v.State), v.ID
			}
			if len(list) < 2 {
				break
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: there wait %q, want %q", what, got, want)
		}
	}
	waiting("nobody has paid", "n07 provisioning, n09 failed")
	pg.Query(`UPDATE customers SET status = 'active'`)
	waiting("paid", "n06 awaiting_payment, n07 provisioning, n09 failed, n99 recommending")
	pg.Query(`UPDATE customers SET status = 'cancelled', email = NULL, deleted_at = now()`)
	waiting("gone", "n06 awaiting_payment, n07 provisioning, n09 failed, n99 recommending")
	if list, err := st.WaitingOnboardings(ctx, "", now.Add(time.Hour), 10); err != nil || len(list) != 0 {
		t.Errorf("of those that expired: %v, %v", list, err)
	}
	expire := func(at time.Time, limit int, want int64) {
		t.Helper()
		if n, err := st.ExpireOnboardings(ctx, at, limit); err != nil || n != want {
			t.Errorf("%d expired, %v; want %d", n, err, want)
		}
	}
	expire(now, 100, 0)
	expire(now.Add(time.Hour), 4, 4+2) // of each sort at most four
	expire(now.Add(time.Hour), 100, 6)
	if left := strings.TrimSpace(pg.Query(`SELECT count(*) || ' ' || string_agg(DISTINCT state, ',') || ' ' || count(*) FILTER (WHERE data ? 'left') || ' ' ||
		count(key_digest) + count(telegram_user) + count(bot_token) || ' ' || count(*) FILTER (WHERE data::text ~ 'personal') || ' ' || count(customer_id) FROM onboarding_sessions`)); left != "10 abandoned 10 0 0 3" {
		t.Errorf("left is %q", left)
	}
	late := func(what, want string) {
		t.Helper()
		var got []string
		for after := ""; ; {
			list, err := st.PaidLateOnboardings(ctx, after, now.Add(2*time.Hour), 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range list {
				got, after = append(got, v.ID), v.ID
			}
			if len(list) < 2 {
				break
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: paid late are %q, want %q", what, got, want)
		}
	}
	late("gone", "")
	pg.Query(`UPDATE customers SET status = 'active', deleted_at = NULL`)
	late("paid", "n06 n07 n99")
	expire(now.Add(2*time.Hour), 100, 0)
	expire(now.Add(26*time.Hour), 100, 7)
	late("after a day", "n06 n07 n99")
	expire(now.Add(8*24*time.Hour), 100, 3)
	if left := strings.TrimSpace(pg.Query(`SELECT count(*) FROM onboarding_sessions`)); left != "0" {
		t.Errorf("%s are left", left)
	}
}
