package customers_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// A bot is of one box, since two gateways would take each other's messages: whoever gives it to another
// one hears what to do instead. Who has it no more keeps it from nobody.
func TestOneBoxHasABot(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.Seals = keys(t, fakeKey)
	e.withJobs()
	ctx := t.Context()
	first, second := e.customer("pro"), e.customer("pro")
	more, err := e.AddBox(ctx, "test", first.Customer.ID, "one more")
	if err != nil {
		t.Fatal(err)
	}
	give := func(box string, token secret.Text, want string) {
		t.Helper()
		_, err := e.SetTelegramToken(ctx, "test", customers.BoxRef{ID: box}, token)
		var refused *customers.SettingsError
		switch {
		case want == "" && err != nil:
			t.Errorf("it is refused: %v", err)
		case want != "" && (!errors.As(err, &refused) || refused.Field != "token" || !strings.Contains(refused.Reason, want)):
			t.Errorf("it is not refused with %q: %v", want, err)
		case want != "" && strings.Contains(err.Error(), first.Customer.ID):
			t.Errorf("it names whose it is: %v", err)
		}
	}
	taken := func(want bool) {
		t.Helper()
		if got, err := e.BotTaken(ctx, fakeBot); got != want || err != nil {
			t.Errorf("taken %v, %v", got, err)
		}
	}
	taken(false)
	give(first.Box.ID, fakeBot, "")
	taken(true)
	give(first.Box.ID, fakeBot, "") // its own
	give(second.Box.ID, fakeBot, "another box has this bot")
	give(more.ID, fakeBot, "your box "+first.Box.ID+" has this bot")
	give(second.Box.ID, fakeBot[:len(fakeBot)-1]+"y", "") // its number is no secret, and proves nothing
	give(second.Box.ID, otherBot, "")
	if got := e.row(`SELECT count(*) FROM boxes WHERE has_telegram_token`); got != "2" {
		t.Errorf("%s boxes have a bot", got)
	}
	give(first.Box.ID, "", "")
	give(more.ID, fakeBot, "")
	if _, err := e.DestroyBox(ctx, "test", customers.BoxRef{ID: more.ID}, "test"); err != nil {
		t.Fatal(err)
	}
	give(second.Box.ID, fakeBot, "")

	// One that an earlier release has kept is recognised once the operator has looked at its box.
	e.pg.Query(`UPDATE boxes SET telegram_digest = NULL`)
	give(first.Box.ID, fakeBot, "")
	give(first.Box.ID, "", "")
	e.desired(second.Box.ID)
	give(first.Box.ID, fakeBot, "another box has this bot")
	// So is one whose digest is another token's, as an earlier release leaves it that replaces a token.
	e.pg.Query(`UPDATE boxes SET telegram_digest = decode(repeat('00', 32), 'hex') WHERE telegram_digest IS NOT NULL`)
	e.desired(second.Box.ID)
	give(first.Box.ID, fakeBot, "another box has this bot")
	// Nor does looking fail where two have one already.
	e.pg.Query(`UPDATE boxes SET telegram_digest = NULL`)
	give(first.Box.ID, fakeBot, "")
	if d := e.desired(second.Box.ID); d.TelegramToken != fakeBot {
		t.Errorf("the operator gets %d characters", len(d.TelegramToken))
	}
}

// Of those who save one bot at the same time, one gets it.
func TestOneBoxHasABotThatIsSavedTwiceAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.Seals = keys(t, fakeKey)
	var boxes []string
	for range 6 {
		boxes = append(boxes, e.customer("pro").Box.ID)
	}
	for round := range 5 {
		token := secret.Text(strings.Replace(fakeBot.Reveal(), "100000", "10000"+string(rune('1'+round)), 1))
		errs := make([]error, len(boxes))
		var all sync.WaitGroup
		for i, box := range boxes {
			all.Go(func() {
				_, errs[i] = e.SetTelegramToken(t.Context(), "test", customers.BoxRef{ID: box}, token)
			})
		}
		all.Wait()
		got := 0
		for _, err := range errs {
			if err == nil {
				got++
			} else if !errors.As(err, new(*customers.SettingsError)) || !strings.Contains(err.Error(), "@BotFather") {
				t.Errorf("it is refused with %v", err)
			}
		}
		if got != 1 {
			t.Errorf("%d boxes got one bot", got)
		}
	}
}
