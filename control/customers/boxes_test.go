package customers_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/jobs"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

const (
	fakeBot   secret.Text = "100000:a-fake-token-of-no-bot-at-all-x"
	otherBot  secret.Text = "200000:another-fake-token-of-no-bot-x"
	fakeKey               = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	newestKey             = "1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100"
)

func keys(t *testing.T, text string) *secret.Keys {
	t.Helper()
	k, err := secret.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// boxOf is the customer's first box.
func (e *env) boxOf(customer string) string {
	return e.row(`SELECT id FROM boxes WHERE customer_id = '%s' ORDER BY created_at, id LIMIT 1`, customer)
}

// withJobs has changes wake the operator of the boxes from now on, by real jobs, and returns
// whether one waits for a box.
func (e *env) withJobs() (wakes func(box string) bool) {
	e.t.Helper()
	log := slog.New(slog.DiscardHandler)
	if _, err := jobs.Migrate(e.t.Context(), e.Store, log); err != nil {
		e.t.Fatal(err)
	}
	j, err := jobs.New(e.t.Context(), e.Store, log, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(j.Close)
	e.Wake = j
	return func(box string) bool {
		return e.row(`SELECT count(*) FROM river_job WHERE kind = 'box' AND queue = 'boxes' AND args->>'box_id' = '%s'`, box) == "1"
	}
}

func (e *env) books() *customers.Boxes { return &customers.Boxes{Service: e.Service} }

func (e *env) desired(box string) control.DesiredBox {
	e.t.Helper()
	d, err := e.books().Desired(e.t.Context(), box)
	if err != nil {
		e.t.Fatal(err)
	}
	return d
}

func pointer[T any](v T) *T { return &v }

// What a customer has not chosen is filled in, and what its tier does not allow is left out, also
// of what a larger one allowed.
func TestDesiredSettings(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("team")
	ref := customers.BoxRef{ID: c.Box.ID, CustomerID: c.Customer.ID}
	d := e.desired(c.Box.ID)
	want := control.BoxSettings{Language: control.English, TimeZone: "UTC", Thinking: "high"}
	if !reflect.DeepEqual(d.Settings, want) || d.Tier.Name != "team" || d.Generation != 1 || d.Wants != control.BoxRun || d.TelegramToken != "" || len(d.Tokens) != 0 {
		t.Errorf("%+v", d)
	}
	e.pg.Query("UPDATE customers SET language = 'pt-BR'")
	chosen := control.BoxSettings{TimeZone: "America/Sao_Paulo", Thinking: "low", SystemPrompt: "Be kind.\n", TelegramUsers: []int64{7, 8, 9}}
	got, err := e.UpdateBoxSettings(t.Context(), "test", ref, customers.BoxSettingsChange{
		TimeZone: &chosen.TimeZone, Thinking: &chosen.Thinking, SystemPrompt: pointer("Be kind.\r\n"), TelegramUsers: &chosen.TelegramUsers,
	})
	if err != nil || !reflect.DeepEqual(got.Settings, chosen) || got.Generation != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	chosen.Language = control.Portuguese
	if d := e.desired(c.Box.ID); !reflect.DeepEqual(d.Settings, chosen) {
		t.Errorf("%+v", d.Settings)
	}
	e.pg.Query("UPDATE customers SET tier = 'starter'")
	chosen.SystemPrompt, chosen.TelegramUsers = "", []int64{7}
	if d := e.desired(c.Box.ID); !reflect.DeepEqual(d.Settings, chosen) {
		t.Errorf("of a smaller tier: %+v", d.Settings)
	}
	// The same once more is no change.
	if again, err := e.UpdateBoxSettings(t.Context(), "test", ref, customers.BoxSettingsChange{TimeZone: &chosen.TimeZone}); err != nil || again.Generation != 2 {
		t.Errorf("%+v, %v", again, err)
	}
	if audit := e.row(`SELECT detail FROM audit_log WHERE action = 'box.settings'`); strings.Contains(audit, "kind") || !strings.Contains(audit, "system_prompt") {
		t.Errorf("the audit log says %s", audit)
	}
}

func TestSettingsThatCannotBe(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	small, large := e.customer("starter"), e.customer("pro")
	for _, tc := range []struct {
		box   control.Box
		field string
		ch    customers.BoxSettingsChange
		says  string
	}{
		{large.Box, "language", customers.BoxSettingsChange{Language: pointer(control.Language("fr"))}, "pt-BR"},
		{large.Box, "time_zone", customers.BoxSettingsChange{TimeZone: pointer("Mars/Olympus")}, "IANA"},
		{large.Box, "time_zone", customers.BoxSettingsChange{TimeZone: pointer("Local")}, "IANA"},
		{large.Box, "time_zone", customers.BoxSettingsChange{TimeZone: pointer("../etc/passwd")}, "IANA"},
		{large.Box, "thinking", customers.BoxSettingsChange{Thinking: pointer("max")}, "medium"},
		{small.Box, "system_prompt", customers.BoxSettingsChange{SystemPrompt: pointer("x")}, "plan"},
		{large.Box, "system_prompt", customers.BoxSettingsChange{SystemPrompt: pointer(strings.Repeat("ã", customers.MaxSystemPrompt+1))}, "8001"},
		{large.Box, "system_prompt", customers.BoxSettingsChange{SystemPrompt: pointer("a\x00b")}, "no text"},
		{large.Box, "system_prompt", customers.BoxSettingsChange{SystemPrompt: pointer("a\xff")}, "no text"},
		{small.Box, "telegram_users", customers.BoxSettingsChange{TelegramUsers: &[]int64{1, 2}}, "allows 1"},
		{small.Box, "telegram_users", customers.BoxSettingsChange{TelegramUsers: &[]int64{-5}}, "number"},
		{small.Box, "telegram_users", customers.BoxSettingsChange{TelegramUsers: &[]int64{1 << 60}}, "number"},
	} {
		_, err := e.UpdateBoxSettings(t.Context(), "test", customers.BoxRef{ID: tc.box.ID}, tc.ch)
		wrong := (*customers.SettingsError)(nil)
		if !errors.As(err, &wrong) || !errors.Is(err, control.ErrInvalid) || wrong.Field != tc.field || !strings.Contains(wrong.Reason, tc.says) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
	for _, ch := range []customers.BoxSettingsChange{
		{SystemPrompt: pointer(strings.Repeat("ã", customers.MaxSystemPrompt))}, {SystemPrompt: pointer("")}, {TimeZone: pointer("")}, {TelegramUsers: &[]int64{}},
	} {
		if _, err := e.UpdateBoxSettings(t.Context(), "test", customers.BoxRef{ID: large.Box.ID}, ch); err != nil {
			t.Error(err)
		}
	}
	if _, err := e.UpdateBoxSettings(t.Context(), "test", customers.BoxRef{ID: large.Box.ID, CustomerID: small.Customer.ID}, customers.BoxSettingsChange{}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("another's box: %v", err)
	}
}

// A bot's token is in Postgres sealed only, for this box only, and comes out for the operator of
// the boxes; it is gone once the box is to be destroyed.
func TestTelegramToken(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	ref := customers.BoxRef{ID: c.Box.ID, CustomerID: c.Customer.ID}
	ctx := t.Context()
	if _, err := e.SetTelegramToken(ctx, "test", ref, fakeBot); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("without a key: %v", err)
	}
	e.Seals = keys(t, fakeKey)
	e.withJobs()
	for _, bad := range []secret.Text{"x", "12345:" + "a234567890123456789012345678901", "1000000:short", fakeBot + "\n", "x" + fakeBot} {
		if _, err := e.SetTelegramToken(ctx, "test", ref, bad); !errors.As(err, new(*customers.SettingsError)) || strings.Contains(err.Error(), bad.Reveal()) && len(bad) > 1 {
			t.Errorf("%d characters: %v", len(bad), err)
		}
	}
	d, err := e.SetTelegramToken(ctx, "test", ref, fakeBot)
	if err != nil || !d.HasTelegramToken || d.Generation != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	if again, err := e.SetTelegramToken(ctx, "test", ref, fakeBot); err != nil || again.Generation != 2 {
		t.Errorf("the same: %+v, %v", again, err)
	}
	if got := e.desired(c.Box.ID).TelegramToken; got != fakeBot {
		t.Errorf("the operator gets %d characters", len(got))
	}
	if dump := e.dump(); strings.Contains(dump, fakeBot.Reveal()) || strings.Contains(dump, fakeBot.Reveal()[7:]) || !strings.Contains(dump, "box.telegram_token") {
		t.Error("a dump of Postgres has the token, or is none")
	}
	// Sealed for one box it does not open for another.
	other := e.customer("pro")
	e.pg.Query(`UPDATE boxes SET telegram_token = (SELECT telegram_token FROM boxes WHERE id = '` + c.Box.ID + `') WHERE id = '` + other.Box.ID + `'`)
	if _, err := e.books().Desired(ctx, other.Box.ID); !errors.Is(err, secret.ErrSealed) {
		t.Errorf("another box's: %v", err)
	}
	e.pg.Query(`UPDATE boxes SET telegram_token = NULL WHERE id = '` + other.Box.ID + `'`)

	// A new key in front: the old one opens until all is sealed anew.
	e.Seals = keys(t, newestKey+","+fakeKey)
	if got := e.desired(c.Box.ID).TelegramToken; got != fakeBot {
		t.Error("the older key does not open")
	}
	for _, want := range []int{1, 0} {
		if n, err := e.books().Reseal(ctx, "test"); err != nil || n != want {
			t.Errorf("resealed %d, %v; want %d", n, err, want)
		}
	}
	e.Seals = keys(t, newestKey)
	if got := e.desired(c.Box.ID); got.TelegramToken != fakeBot || got.Generation != 2 {
		t.Error("the newest key alone does not open, or something was decided")
	}
	e.Seals = keys(t, fakeKey)
	if _, err := e.books().Desired(ctx, c.Box.ID); !errors.Is(err, secret.ErrSealed) || strings.Contains(err.Error(), fakeKey) {
		t.Errorf("with a key that did not seal it: %v", err)
	}
	if d, err := e.SetTelegramToken(ctx, "test", ref, otherBot); err != nil || d.Generation != 3 || e.desired(c.Box.ID).TelegramToken != otherBot {
		t.Errorf("one that cannot be opened is not replaced: %+v, %v", d, err)
	}
	if d, err := e.SetTelegramToken(ctx, "test", ref, ""); err != nil || d.HasTelegramToken || d.Generation != 4 {
		t.Errorf("taken away: %+v, %v", d, err)
	}
	if _, err := e.SetTelegramToken(ctx, "test", ref, otherBot); err != nil {
		t.Fatal(err)
	}
	if _, err := e.DestroyBox(ctx, "test", ref, "test"); err != nil {
		t.Fatal(err)
	}
	if got := e.row(`SELECT count(*) FROM boxes WHERE telegram_token IS NOT NULL`); got != "0" {
		t.Errorf("%s tokens are kept of what is to be destroyed", got)
	}
	if _, err := e.SetTelegramToken(ctx, "test", ref, otherBot); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("of a box that is to be destroyed: %v", err)
	}
}

// dump is all that is in all tables.
func (e *env) dump() string {
	e.t.Helper()
	var b strings.Builder
	for name := range strings.FieldsSeq(e.pg.Query(`SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname = 'public' AND relkind = 'r'`)) {
		b.WriteString(e.pg.Query("SELECT x::text FROM " + name + " x"))
		// Bytes are shown in hex: what they would be as text, too.
		if name == "boxes" {
			b.WriteString(e.pg.Query("SELECT encode(telegram_token, 'escape') FROM boxes WHERE telegram_token IS NOT NULL"))
		}
	}
	return b.String()
}

// What an operator decides comes with a generation and a wake of its own; nothing follows after a
// box is to be destroyed, whose tokens are revoked by then.
func TestDecisions(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	wakes := e.withJobs()
	_, token := e.token(c.Customer.ID)
	ref, ctx := customers.BoxRef{ID: c.Box.ID}, t.Context()
	d, err := e.RestartBox(ctx, "test", ref, "stuck")
	if err != nil || d.Restart != 1 || d.Generation != 2 || !wakes(c.Box.ID) {
		t.Fatalf("restart: %+v, %v", d, err)
	}
	if d, err = e.RotateBoxToken(ctx, "test", ref, "seen"); err != nil || d.Rotation != 1 || d.Generation != 3 || !wakes(c.Box.ID) {
		t.Errorf("rotate: %+v, %v", d, err)
	}
	for _, want := range []int64{4, 4} {
		if d, err = e.SuspendBox(ctx, "test", ref, "abuse"); err != nil || !d.Held || d.Wants != control.BoxSuspend || d.Generation != want {
			t.Errorf("suspend: %+v, %v", d, err)
		}
	}
	if _, err := e.RestartBox(ctx, "test", ref, "x"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("restart what is suspended: %v", err)
	}
	if d, err = e.ResumeBox(ctx, "test", ref, "fine"); err != nil || d.Held || d.Wants != control.BoxRun || d.Generation != 5 {
		t.Errorf("resume: %+v, %v", d, err)
	}
	if d, err = e.ResizeBox(ctx, "test", ref, "team", "needs it"); err != nil || d.Size != "team" || d.Generation != 6 {
		t.Errorf("resize: %+v, %v", d, err)
	}
	if got := e.desired(c.Box.ID); got.Tier.Name != "pro" || got.Tier.PodLimits.MemoryMiB != 2048 || got.Restart != 1 || got.Rotation != 1 || len(got.Tokens) != 1 || got.Tokens[0].ID != token.ID {
		t.Errorf("desired %+v", got)
	}
	if _, err := e.ResizeBox(ctx, "test", ref, "huge", "x"); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("a size that there is not: %v", err)
	}
	// Another tier is another size.
	e.committed(apply(e, c.Customer.ID, control.SubscriptionActive, "pro", 1))
	if got := e.row(`SELECT size || generation FROM boxes WHERE id = '%s'`, c.Box.ID); got != "team6" {
		t.Errorf("without another tier: %s", got)
	}
	e.committed(apply(e, c.Customer.ID, control.SubscriptionActive, "team", 2))
	if got := e.row(`SELECT coalesce(size, 'own') || generation FROM boxes WHERE id = '%s'`, c.Box.ID); got != "own7" {
		t.Errorf("with another tier: %s", got)
	}
	if got := e.row(`SELECT detail->>'reason' FROM audit_log WHERE action = 'box.restart'`); got != "stuck" {
		t.Errorf("the reason %q", got)
	}

	if d, err = e.DestroyBox(ctx, "test", ref, "gone"); err != nil || d.Wants != control.BoxDestroy || d.Generation != 8 || d.State != control.BoxPending {
		t.Errorf("destroy: %+v, %v", d, err)
	}
	if g := e.grant(token.Digest); g == nil || g.Status != contract.StatusRevoked {
		t.Errorf("grant %+v", g)
	}
	if again, err := e.DestroyBox(ctx, "test", ref, "gone"); err != nil || again.Generation != 8 {
		t.Errorf("destroy again: %+v, %v", again, err)
	}
	_, err1 := e.RestartBox(ctx, "test", ref, "x")
	_, err2 := e.RotateBoxToken(ctx, "test", ref, "x")
	_, err3 := e.SuspendBox(ctx, "test", ref, "x")
	_, err4 := e.ResumeBox(ctx, "test", ref, "x")
	_, err5 := e.ResizeBox(ctx, "test", ref, "starter", "x")
	_, err6 := e.UpdateBoxSettings(ctx, "test", ref, customers.BoxSettingsChange{Thinking: pointer("low")})
	for i, err := range []error{err1, err2, err3, err4, err5, err6} {
		if !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if got := e.desired(c.Box.ID); got.Wants != control.BoxDestroy || len(got.Tokens) != 0 {
		t.Errorf("desired %+v", got)
	}
}

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
	e.redis.Stop()
	if _, err := b.RegisterToken(ctx, c.Box.ID, second); !errors.Is(err, customers.ErrUnpublished) {
		t.Errorf("without Redis: %v", err)
	}
	e.redis.Start()
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
	e.redis.Stop()
	if err := b.RevokeTokens(ctx, c.Box.ID, "", 0); !errors.Is(err, customers.ErrUnpublished) {
		t.Errorf("without Redis: %v", err)
	}
	e.redis.Start()
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
	for _, state := range []control.BoxState{
		control.BoxProvisioning, control.BoxActive, control.BoxActive, control.BoxUnhealthy, control.BoxActive, control.BoxUnhealthy, control.BoxActive,
	} {
		report(state)
	}
	today := time.Now().UTC().Format(time.DateOnly)
	if got := e.row(`SELECT string_agg(kind || ' ' || cause || ' ' || (params->>'name'), ', ' ORDER BY id) FROM mails`); got != "agent_live "+c.Box.ID+" Ada, agent_unhealthy "+c.Box.ID+"/"+today+" Ada" {
		t.Errorf("mails: %s", got)
	}
	if list, err := b.Unfinished(t.Context()); err != nil || len(list) != 1 || list[0].State != control.BoxActive || list[0].Observed != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Who asks for the operator of the boxes gets nothing that was rolled back.
func TestWakesComeWithTheirChange(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	c := e.customer("pro")
	wakes := e.withJobs()
	gone := errors.New("rolled back")
	refuse := e.WithNote(func(context.Context, *store.Tx, any) error { return gone })
	if _, err := refuse.RestartBox(t.Context(), "test", customers.BoxRef{ID: c.Box.ID}, "x"); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if wakes(c.Box.ID) || e.row(`SELECT generation FROM boxes`) != "1" {
		t.Error("something of it is left")
	}
}
