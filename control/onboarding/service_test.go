package onboarding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// From hello to an agent that runs, without a model, in both languages.
func TestConversationWithoutModel(t *testing.T) {
	t.Parallel()
	for language, answers := range map[string][]string{
		"en":    {"Research for my thesis", "only me", "it is " + botToken(), fmt.Sprint(person), "yes", address, "yes please"},
		"pt-BR": {"Pesquisa para a minha tese", "só eu", "é " + botToken(), fmt.Sprint(person), "sim", address, "pode ser"},
	} {
		e := newEnv(t, nil)
		first, key, err := e.Begin(t.Context(), Begin{Language: language, TimeZone: "America/Recife"})
		if err != nil || first.State != StateGreeting || first.Reply.Text == "" || len(first.Reply.Quick) != len(Uses()) {
			t.Fatalf("%+v, %v", first, err)
		}
		who := Who{Key: key}
		var c Conversation
		for _, a := range answers {
			if c = e.say(who, a); !checkWhole(c.Reply.Text) || c.Language != control.Language(language) {
				t.Errorf("%s, %q: %q", language, a, c.Reply.Text)
			}
		}
		if c.State != StateAwaitingPayment || !strings.HasPrefix(c.Reply.PayURL, payAt) || c.Customer == "" {
			t.Fatalf("%s: %+v", language, c)
		}
		if got := e.platform.signedUp[c.Customer]; got.Email != address || got.Tier != "pro" || got.Language != control.Language(language) || got.Name != "Ada" {
			t.Errorf("%s: signed up %+v", language, got)
		}
		if c := e.say(who, "I have paid!"); c.State != StateAwaitingPayment {
			t.Errorf("the client says that it has paid, and is %s", c.State)
		}
		e.platform.becomes(c.Customer, Standing{Paid: true}, "")
		if c := e.look(who); c.State != StateProvisioning {
			t.Errorf("paid, without a box: %s", c.State)
		}
		e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxProvisioning)
		if c := e.look(who); c.State != StateProvisioning || len(c.Progress) != 1 || c.Progress[0].Name != "gateway" {
			t.Errorf("%+v", c)
		}
		if e.platform.handed["b1"] != secret.Text(botToken()) || e.row(who).Sealed != nil {
			t.Error("the bot was not handed over, or is still kept")
		}
		want := control.BoxSettings{Language: control.Language(language), TimeZone: "America/Recife", TelegramUsers: []int64{person}}
		if got := e.platform.chosen["b1"]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the box has %+v", got)
		}
		e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxFailed)
		if c := e.look(who); c.State != StateFailed || c.Reply.Quick[0].ID != "retry" {
			t.Errorf("%+v", c)
		}
		if c := e.choose(who, "retry"); c.State != StateFailed || e.platform.retried != 1 {
			t.Errorf("%+v, retried %d times", c, e.platform.retried)
		}
		e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxActive)
		c = e.look(who)
		if c.State != StateComplete || !c.Final || !strings.Contains(c.Reply.Text, "@ada_agent_bot") {
			t.Errorf("%+v", c)
		}
		if again := e.look(who); again.State != StateComplete || again.Reply.Text != c.Reply.Text || len(again.History) != len(c.History) {
			t.Errorf("looked at again: %+v", again)
		}
		if all := e.memory.everything() + e.log.String(); strings.Contains(all, botSecret) {
			t.Error("the token is kept or logged")
		}
	}
}

// A model that is away, slow, or answers with anything leaves the conversation as it is without one.
func TestBadModelChangesNothing(t *testing.T) {
	t.Parallel()
	plain := newEnv(t, nil)
	want := plain.toOffer(plain.begin("en"))
	for name, model := range map[string]modelFunc{
		"away":     func(context.Context, Prompt) (string, error) { return "", errors.New("away") },
		"slow":     func(ctx context.Context, _ Prompt) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		"no JSON":  func(context.Context, Prompt) (string, error) { return "Hello!", nil },
		"nothing":  func(context.Context, Prompt) (string, error) { return "{}", nil },
		"too much": func(context.Context, Prompt) (string, error) { return strings.Repeat("{", 1<<16), nil },
		"bad lead": func(context.Context, Prompt) (string, error) { return `{"lead": "NixOS is free?"}`, nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, func(o *Options) { o.Model, o.ModelWithin = model, 10*time.Millisecond })
			c := e.toOffer(e.begin("en"))
			if c.Reply.Text != want.Reply.Text || len(c.History) != len(want.History) {
				t.Errorf("it says %q, want %q", c.Reply.Text, want.Reply.Text)
			}
			for i := range c.History {
				if c.History[i].Text != want.History[i].Text {
					t.Errorf("turn %d: %q, want %q", i, c.History[i].Text, want.History[i].Text)
				}
			}
			if name != "nothing" && name != "bad lead" && !strings.Contains(e.log.String(), "without the model") {
				t.Error("nobody is told")
			}
		})
	}
}

// A model that fails is left alone for a while.
func TestFailingModelRests(t *testing.T) {
	t.Parallel()
	asked := 0
	e := newEnv(t, func(o *Options) {
		o.Model = modelFunc(func(context.Context, Prompt) (string, error) { asked++; return "", errors.New("away") })
	})
	who := e.begin("en")
	for range 10 {
		e.say(who, "hm?")
	}
	if asked != failuresAllowed {
		t.Errorf("asked %d times, want %d", asked, failuresAllowed)
	}
	e.now = e.now.Add(restFor)
	if e.say(who, "hm?"); asked != failuresAllowed+1 {
		t.Errorf("afterwards asked %d times", asked)
	}
}

// A model helps where words are not known, and its sentence goes before ours.
func TestModelHelps(t *testing.T) {
	t.Parallel()
	model := &spy{answer: func(p Prompt) (string, error) {
		return `{"lead": "Dragons are wonderful.", "fields": {"use": "research", "people": 3, "load": "light", "time_zone": "Asia/Tokyo"}}`, nil
	}}
	e := newEnv(t, func(o *Options) { o.Model = model })
	who := e.begin("en")
	c := e.say(who, "dragons, with my two friends, now in Kyoto; reach me at "+address+" or 1234567890")
	f := e.row(who).Facts
	if f.Use != UseResearch || f.People != 3 || f.TimeZone != "Asia/Tokyo" || f.Confirmed || f.Email != "" || f.UserID != 0 || c.State != StateTelegram {
		t.Errorf("%s with %+v", c.State, f)
	}
	if !strings.HasPrefix(c.Reply.Text, "Dragons are wonderful.\n\n") {
		t.Errorf("it says %q", c.Reply.Text)
	}
	var in struct {
		Language, Asked, Message string
		Earlier                  []string
	}
	if err := json.Unmarshal([]byte(model.asked[0].User), &in); err != nil || in.Asked != "use" || in.Language != "en" || len(in.Earlier) != 0 ||
		in.Message != "dragons, with my two friends, now in Kyoto; reach me at [e-mail] or [number]" {
		t.Errorf("asked %+v, %v", in, err)
	}
	n := len(model.asked)
	e.say(who, "my token is "+botToken())
	e.choose(who, "help:user")
	if len(model.asked) != n {
		t.Error("a model is asked about a token, or a quick reply")
	}
}

// Of messages that come at once none is lost, and none counts twice.
func TestMessagesAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	who := e.begin("en")
	const n = 24
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { _, errs[i] = e.Say(t.Context(), who, Said{Text: fmt.Sprintf("message %c?", 'a'+i)}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	v := e.row(who)
	var got []string
	for _, turn := range v.History {
		if !turn.Ours {
			got = append(got, turn.Text)
		}
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != n || v.Version != n+1 {
		t.Errorf("%d messages of %d are there, version %d", len(got), n, v.Version)
	}
}

// A bot is checked before it is kept.
func TestBots(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err   error
		taken bool
		says  string
	}{
		"unknown to Telegram": {err: ErrBotRefused, says: "does not know this token"},
		"Telegram away":       {err: errors.New("away"), says: "does not answer me"},
		"of another box":      {taken: true, says: "another agent already"},
	} {
		e := newEnv(t, func(o *Options) { o.Bots = bots{c.err} })
		e.platform.taken = c.taken
		who := e.begin("en")
		e.say(who, "my work")
		e.say(who, "just me")
		got := e.say(who, botToken())
		if v := e.row(who); got.State != StateTelegram || !strings.Contains(got.Reply.Text, c.says) || v.Sealed != nil || v.Facts.BotName != "" {
			t.Errorf("%s: %s says %q, keeps %d bytes", name, got.State, got.Reply.Text, len(v.Sealed))
		}
	}
	e := newEnv(t, nil)
	who := e.begin("en")
	c := e.say(who, botToken()+" and 1234567:"+strings.Repeat("xY1", 12))
	if !strings.Contains(c.Reply.Text, "more than one token") || e.row(who).Sealed != nil {
		t.Errorf("two at once: %q", c.Reply.Text)
	}
	c = e.say(who, botToken())
	if v := e.row(who); v.Sealed == nil || strings.Contains(string(v.Sealed), botSecret) || !strings.Contains(c.History[len(c.History)-2].Text+c.History[len(c.History)-3].Text, markBot) {
		t.Errorf("early: %+v", c.History)
	}
}

// A conversation is taken up again with the cookie, by nobody else, and not after a day.
func TestResume(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	who := e.begin("pt-BR")
	said := e.say(who, "meu trabalho")
	e.now = e.now.Add(23 * time.Hour)
	c := e.look(who)
	if c.State != StateUseCase || c.Reply.Text != said.Reply.Text || len(c.History) != 3 || len(c.Reply.Quick) != 2 {
		t.Errorf("%+v", c)
	}
	for _, other := range []Who{{}, {Key: "x"}, {Key: keyPrefix}, {Key: who.Key + "x"}, {TelegramUser: 7}, {Key: who.Key, TelegramUser: 7}, {TelegramUser: -1}} {
		if _, err := e.Look(t.Context(), other); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("%+v: %v", other, err)
		}
	}
	e.now = e.now.Add(2 * time.Hour)
	if _, err := e.Say(t.Context(), who, Said{Text: "oi"}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("after a day: %v", err)
	}
	if _, err := e.Sweep(t.Context()); err != nil || len(e.memory.rows) != 0 {
		t.Errorf("%d are kept, %v", len(e.memory.rows), err)
	}
}

// On Telegram there is one conversation of a person at a time, and another one after its end.
func TestTelegramChannel(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	ctx := t.Context()
	who := Who{TelegramUser: person}
	first, err := e.BeginTelegram(ctx, person, Begin{Language: "pt-br", Name: "Ada L."})
	if err != nil || first.Language != control.Portuguese {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := e.BeginTelegram(ctx, person, Begin{}); err != nil || len(e.memory.rows) != 1 || again.Reply.Text != first.Reply.Text {
		t.Errorf("%d conversations, %q, %v", len(e.memory.rows), again.Reply.Text, err)
	}
	for _, text := range []string{"meu trabalho", "só eu", botToken(), "sim", address} {
		e.say(who, text)
	}
	c := e.choose(who, "tier:team")
	if c.State != StateAwaitingPayment || e.row(who).Facts.UserID != person || e.platform.signedUp[c.Customer].Name != "Ada L." {
		t.Fatalf("%+v", c)
	}
	// The person is gone; the payment comes.
	for _, state := range []control.BoxState{"", control.BoxPending, control.BoxActive, control.BoxActive} {
		e.platform.becomes(c.Customer, Standing{Paid: true}, state)
		if _, err := e.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.told) != 2 || e.told[0].State != StateProvisioning || e.told[1].State != StateComplete {
		t.Errorf("told %+v", e.told)
	}
	if next, err := e.BeginTelegram(ctx, person, Begin{}); err != nil || next.State != StateGreeting || len(e.memory.rows) != 2 {
		t.Errorf("after the end: %+v, %v", next, err)
	}
	if _, err := e.BeginTelegram(ctx, 0, Begin{}); !errors.Is(err, control.ErrInvalid) {
		t.Error(err)
	}
}

// Whoever waits is told of each change, and the waiting ends with the conversation.
func TestWatch(t *testing.T) {
	t.Parallel()
	e, who, c := newBuyer(t)
	var seen []State
	err := e.Watch(t.Context(), who, time.Millisecond, func(now Conversation) error {
		seen = append(seen, now.State)
		switch len(seen) {
		case 1:
			e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxPending)
		case 2:
			e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxActive)
		}
		return nil
	})
	if want := []State{StateAwaitingPayment, StateProvisioning, StateComplete}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("%v, %v", seen, err)
	}
	stop := errors.New("gone")
	if err := e.Watch(t.Context(), who, time.Millisecond, func(Conversation) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	other := e.begin("en")
	ctx, cancel := context.WithCancel(t.Context())
	if err := e.Watch(ctx, other, time.Hour, func(Conversation) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Whoever leaves is forgotten at once, if there is nothing that was or can be paid for.
func TestLeave(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	who := e.begin("en")
	e.toOffer(who)
	if err := e.Leave(t.Context(), who); err != nil {
		t.Fatal(err)
	}
	if v := e.row(who); v.State != StateAbandoned || v.Sealed != nil || strings.Contains(e.memory.everything(), address) {
		t.Errorf("%+v", v)
	}
	if err := e.Leave(t.Context(), Who{Key: keyPrefix + "x"}); !errors.Is(err, control.ErrNotFound) {
		t.Error(err)
	}
	paying := e.begin("en")
	e.toOffer(paying)
	c := e.say(paying, "yes")
	if err := e.Leave(t.Context(), paying); err != nil {
		t.Fatal(err)
	}
	e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxPending)
	if _, err := e.Sweep(t.Context()); err != nil || e.platform.handed["b1"] == "" {
		t.Errorf("what was paid for has no bot, %v", err)
	}
}

// Whoever ended a conversation on Telegram, or let it expire, begins another one by writing.
func TestTelegramBeginsAgain(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	ctx, who := t.Context(), Who{TelegramUser: person}
	begin := func() {
		t.Helper()
		if c, err := e.BeginTelegram(ctx, person, Begin{Language: "en"}); err != nil || c.State != StateGreeting {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	begin()
	if c := e.say(who, "/cancel"); c.State != StateAbandoned || c.Reply.Text == "" {
		t.Errorf("%+v", c)
	}
	if _, err := e.Say(ctx, who, Said{Text: "hi"}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("it goes on with what was ended: %v", err)
	}
	begin()
	e.now = e.now.Add(25 * time.Hour) // and nobody has swept
	begin()
}

// Whom others wait for is answered without a model.
func TestHurried(t *testing.T) {
	t.Parallel()
	model := &spy{answer: func(Prompt) (string, error) { return "{}", nil }}
	e := newEnv(t, func(o *Options) { o.Model = model })
	who := e.begin("en")
	for _, hurried := range []bool{true, false} {
		if c, err := e.Say(t.Context(), who, Said{Text: "hm?", Hurried: hurried}); err != nil || c.Reply.Text == "" {
			t.Errorf("%+v, %v", c, err)
		}
	}
	if len(model.asked) != 1 {
		t.Errorf("the model is asked %d times", len(model.asked))
	}
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{}); err == nil {
		t.Error("a service of nothing")
	}
}
