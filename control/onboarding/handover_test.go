package onboarding

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// A box that cannot be given its bot just now is given it later; one that cannot have it is told of.
func TestHandOver(t *testing.T) {
	t.Parallel()
	e, who, c := newBuyer(t)
	e.platform.handOverErr = errors.New("Postgres is away")
	e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxPending)
	for range 5 { // whoever watches asks all the time
		if c := e.look(who); c.State != StateProvisioning || e.row(who).Sealed == nil {
			t.Fatalf("%+v", c)
		}
	}
	if e.platform.handOver != 1 {
		t.Errorf("tried %d times at once", e.platform.handOver)
	}
	e.now = e.now.Add(firstPause)
	e.platform.handOverErr = fmt.Errorf("x: %w", ErrBotRefused)
	if c := e.look(who); !strings.Contains(c.Reply.Text, "another bot") || e.row(who).Sealed != nil {
		t.Fatalf("%+v", c)
	}
	e.platform.handOverErr = nil
	if c := e.say(who, "why?"); !strings.Contains(c.Reply.Text, "another bot") {
		t.Errorf("it says %q", c.Reply.Text)
	}
	other := "7654322:" + strings.Repeat("fakeFAKE1", 4)
	if c := e.say(who, other); c.State != StateProvisioning || e.platform.handed["b1"] != secret.Text(other) {
		t.Errorf("%+v", c)
	}
	if strings.Contains(e.log.String(), botSecret) {
		t.Error("a token is logged")
	}
}

// What a box refuses of what was chosen is left out: its customer has an agent all the same.
func TestHandOverLeavesOut(t *testing.T) {
	t.Parallel()
	for name, refuses := range map[string]map[string]string{
		"language": {"language": "it is not spoken"}, "zone": {"time_zone": "it is no zone any more"}, "both": {"language": "no", "time_zone": "no"},
	} {
		e := newEnv(t, nil)
		who := e.begin("en")
		e.toOffer(who)
		c := e.say(who, "yes")
		e.platform.refuses = refuses
		e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxActive)
		e.look(who)
		if c := e.look(who); c.State != StateComplete || e.platform.handed["b1"] != secret.Text(botToken()) {
			t.Errorf("%s: it is %s; %s", name, c.State, e.log)
		}
		got := e.platform.chosen["b1"]
		for field, there := range map[string]bool{"language": got.Language != "", "time_zone": got.TimeZone != "", "telegram_users": len(got.TelegramUsers) > 0} {
			if there == (refuses[field] != "") {
				t.Errorf("%s: the box has %+v", name, got)
			}
			if refuses[field] != "" && !strings.Contains(e.log.String(), "field="+field) {
				t.Errorf("%s: nobody is told that it is left out", name)
			}
		}
	}
}

// Without somebody who may write to it a box does not run: another is asked for, whatever had become of the first.
func TestUserLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(e *env, v *Session){
		"refused": func(e *env, _ *Session) {
			e.platform.refuses = map[string]string{"telegram_users": "nobody has this number"}
		},
		"forgotten": func(_ *env, v *Session) { v.Facts.UserID = 0 },
	} {
		e := newEnv(t, nil)
		who := e.begin("en")
		e.toOffer(who)
		c := e.say(who, "yes")
		v := e.row(who)
		lose(e, &v)
		row, err := v.stored()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.memory.SaveOnboarding(t.Context(), row); err != nil {
			t.Fatal(err)
		}
		e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxActive)
		for range 3 {
			if c := e.look(who); c.State != StateProvisioning || !strings.Contains(c.Reply.Text, "your own Telegram number") {
				t.Fatalf("%s: %s says %q", name, c.State, c.Reply.Text)
			}
		}
		e.platform.refuses = nil
		if c := e.say(who, "me"); !strings.Contains(c.Reply.Text, "the number that @userinfobot shows") {
			t.Errorf("%s: %q", name, c.Reply.Text)
		}
		if c := e.say(who, fmt.Sprint(botNumber)); !strings.Contains(c.Reply.Text, "number of your bot") {
			t.Errorf("%s: %q", name, c.Reply.Text)
		}
		e.say(who, "987654321")
		if c := e.look(who); c.State != StateComplete || !slices.Equal(e.platform.chosen["b1"].TelegramUsers, []int64{987654321}) || e.platform.handed["b1"] == "" {
			t.Errorf("%s: %s, the box has %+v", name, c.State, e.platform.chosen["b1"])
		}
	}
}

// Whoever was given elsewhere does, too.
func TestUserGivenElsewhere(t *testing.T) {
	t.Parallel()
	v := sessionIn(StateProvisioning)
	v.Facts.UserID, v.HandedOver, v.Asking, v.Sealed = 0, false, AskUser, []byte("sealed")
	look := Observed{Paid: true, Box: "b1", State: control.BoxPending, HasUsers: true}
	if out := Step(table(t).All(), v, look, noon); !slices.Equal(out.Effects, []Effect{HandOver}) || out.Session.Asking != AskNothing {
		t.Errorf("%+v", out)
	}
	look.HasUsers = false
	if out := Step(table(t).All(), v, look, noon); len(out.Effects) > 0 || out.Changed {
		t.Errorf("without anybody: %+v", out)
	}
}

// A bot that has the number that was given for its customer shows that this is not the customer's.
func TestBotHasTheUsersNumber(t *testing.T) {
	t.Parallel()
	v := sessionIn(StateProvisioning)
	v.BotLost, v.HandedOver, v.Sealed, v.Asking = true, false, nil, AskBot
	out := Step(table(t).All(), v, BotChecked{Verdict: BotGood, ID: person, Name: "other_bot", Sealed: []byte("new")}, noon)
	if len(out.Effects) > 0 || out.Session.Asking != AskUser || !strings.Contains(out.Reply.Text, "number of your bot") {
		t.Fatalf("%+v", out)
	}
	out = Step(table(t).All(), out.Session, Message{Text: "987654321"}, noon)
	if !slices.Equal(out.Effects, []Effect{HandOver}) || out.Session.Facts.UserID != 987654321 || string(out.Session.Sealed) != "new" {
		t.Errorf("%+v", out)
	}
}

// What comes of a hand-over counts for what was handed over only: meanwhile there may be another bot, or box.
func TestLateHandOver(t *testing.T) {
	t.Parallel()
	v := sessionIn(StateProvisioning)
	v.Box, v.HandedOver, v.Sealed = "b1", false, []byte("sealed")
	for name, h := range map[string]Handing{"another box": {"b0", string(v.Sealed)}, "another bot": {"b1", "older"}, "none": {}} {
		for _, in := range []Input{HandedOver{h}, BotRefused{h}, UserRefused{h, person}} {
			if out := Step(table(t).All(), v, in, noon); out.Changed || out.Session.HandedOver || out.Session.BotLost || out.Session.Facts.UserID != person || out.Reply.Text != "" {
				t.Errorf("%s, %T: %+v", name, in, out)
			}
		}
	}
	if out := Step(table(t).All(), v, UserRefused{v.handing(), person + 1}, noon); out.Changed {
		t.Errorf("another user: %+v", out)
	}
	if firstPause < handOverWithin {
		t.Error("a second hand-over may begin before the first one is over")
	}
}

// Whoever has looked may go away while its box is given what it needs.
func TestLookerGoesAway(t *testing.T) {
	t.Parallel()
	e, who, c := newBuyer(t)
	e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxPending)
	ctx, leave := context.WithCancel(t.Context())
	e.platform.handing = leave
	if _, err := e.Look(ctx, who); err != nil {
		t.Error(err)
	}
	if e.platform.handed["b1"] == "" || !e.row(who).HandedOver {
		t.Errorf("the box is left without its bot: %s", e.log)
	}
}

// A box may run while it has not all of what was chosen, nor its customer the mail that says how to sign in.
func TestNotCompleteBeforeTheHandOver(t *testing.T) {
	t.Parallel()
	e, who, c := newBuyer(t)
	e.platform.handed["b1"] = secret.Text(botToken())
	e.platform.handOverErr = errors.New("the mail cannot be added")
	e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxActive)
	for range 3 {
		if c := e.look(who); c.State != StateProvisioning {
			t.Fatalf("without settings it is %s", c.State)
		}
		e.now = e.now.Add(longestPause)
	}
	e.platform.handOverErr = nil
	e.look(who)
	if c := e.look(who); c.State != StateComplete || e.platform.chosen["b1"].TimeZone == "" {
		t.Errorf("%s, the box has %+v", c.State, e.platform.chosen["b1"])
	}
}
