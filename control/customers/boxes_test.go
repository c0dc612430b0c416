package customers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

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
		{large.Box, "time_zone", customers.BoxSettingsChange{TimeZone: pointer("right/UTC")}, "IANA"},
		{large.Box, "time_zone", customers.BoxSettingsChange{TimeZone: pointer("posix/Europe/Lisbon")}, "IANA"},
		{large.Box, "time_zone", customers.BoxSettingsChange{TimeZone: pointer("localtime")}, "IANA"},
		{large.Box, "time_zone", customers.BoxSettingsChange{TimeZone: pointer("Factory")}, "IANA"},
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
	if d := e.desired(other.Box.ID); !errors.Is(d.TelegramTokenError, secret.ErrSealed) || d.TelegramToken != "" {
		t.Errorf("another box's: %v", d.TelegramTokenError)
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
	// That is known of no more than the token: what else is decided can be done.
	if _, err := e.ResizeBox(ctx, "test", ref, "team", "x"); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*secret.Keys{e.Seals, nil} {
		e.Seals = k
		if got := e.desired(c.Box.ID); !errors.Is(got.TelegramTokenError, secret.ErrSealed) || strings.Contains(got.TelegramTokenError.Error(), fakeKey) ||
			got.TelegramToken != "" || strings.Contains(got.WaitsFor, "bot") || got.Generation != 3 || got.Tier.PodLimits.MemoryMiB == 0 || got.Settings.TimeZone != "UTC" {
			t.Errorf("with a key that did not seal it: %+v", got)
		}
	}
	e.Seals = keys(t, fakeKey)
	if d, err := e.SetTelegramToken(ctx, "test", ref, otherBot); err != nil || d.Generation != 4 || e.desired(c.Box.ID).TelegramToken != otherBot {
		t.Errorf("one that cannot be opened is not replaced: %+v, %v", d, err)
	}
	if d, err := e.SetTelegramToken(ctx, "test", ref, ""); err != nil || d.HasTelegramToken || d.Generation != 5 {
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

// A secret that no key opens holds up no other, and is told of.
func TestResealGoesOn(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.Seals = keys(t, fakeKey)
	c := e.customer("pro")
	if _, err := e.SetTelegramToken(t.Context(), "test", customers.BoxRef{ID: c.Box.ID}, fakeBot); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a-first", "z-last"} {
		e.pg.Query(fmt.Sprintf(`INSERT INTO boxes (id, customer_id, namespace, telegram_token) VALUES ('%[1]s', '%[2]s', '%[1]s', '\x00')`, id, c.Customer.ID))
	}
	e.Seals = keys(t, newestKey+","+fakeKey)
	for _, want := range []int{1, 0} {
		n, err := e.books().Reseal(t.Context(), "test")
		if n != want || !errors.Is(err, secret.ErrSealed) || !strings.Contains(err.Error(), "a-first") || !strings.Contains(err.Error(), "z-last") || !strings.Contains(err.Error(), "2 secrets") {
			t.Errorf("resealed %d, %v", n, err)
		}
	}
	e.Seals = keys(t, newestKey)
	if got := e.desired(c.Box.ID); got.TelegramToken != fakeBot {
		t.Error(got.TelegramTokenError)
	}
}

// A box that nobody could write to waits, and says what for, until its customer has given it.
func TestBoxesWaitForTheirCustomer(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.Seals = keys(t, fakeKey)
	c := e.customer("pro")
	ref, ctx := customers.BoxRef{ID: c.Box.ID, CustomerID: c.Customer.ID}, t.Context()
	const bot, users = "waiting for a Telegram bot token: set it with PUT /v1/me/boxes/", "waiting for Telegram users who may write to it: set telegram_users with PATCH /v1/me/boxes/"
	want := func(parts ...string) {
		t.Helper()
		got := e.desired(c.Box.ID).WaitsFor
		var d control.BoxDetail
		if err := e.Store.InTx(ctx, func(tx *store.Tx) (err error) { d, err = tx.BoxDetail(ctx, c.Box.ID); return err }); err != nil {
			t.Fatal(err)
		}
		if got != d.WaitsFor || strings.Count(got, "waiting") != len(parts) {
			t.Errorf("the operator of the boxes is told %q, and people %q", got, d.WaitsFor)
		}
		for _, part := range parts {
			if !strings.Contains(got, part+c.Box.ID) {
				t.Errorf("no %q in %q", part, got)
			}
		}
	}
	want(bot, users)
	if _, err := e.SetTelegramToken(ctx, "test", ref, fakeBot); err != nil {
		t.Fatal(err)
	}
	want(users)
	if _, err := e.UpdateBoxSettings(ctx, "test", ref, customers.BoxSettingsChange{TelegramUsers: &[]int64{7}}); err != nil {
		t.Fatal(err)
	}
	want()
	if _, err := e.SetTelegramToken(ctx, "test", ref, ""); err != nil {
		t.Fatal(err)
	}
	want(bot)
	// One that is not to run waits for nothing.
	if _, err := e.SuspendBox(ctx, "test", ref, "x"); err != nil {
		t.Fatal(err)
	}
	want()
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
	if got := e.desired(c.Box.ID); got.Tier.Name != "pro" || got.Tier.PodLimits.MemoryMiB != 3072 || got.Restart != 1 || got.Rotation != 1 || len(got.Tokens) != 1 || got.Tokens[0].ID != token.ID {
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
