package onboarding

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Two who consent at once make one customer.
func TestConsentAtOnce(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	who := e.begin("en")
	e.toOffer(who)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := e.Say(t.Context(), who, Said{Text: "yes"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if v := e.row(who); len(e.platform.signedUp) != 1 || v.State != StateAwaitingPayment || !v.SignedUp {
		t.Errorf("%d customers, %s", len(e.platform.signedUp), v.State)
	}
}

// Whoever died between the consent and the page consents once more, and is the same customer.
func TestConsentAfterACrash(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	who := e.begin("en")
	e.toOffer(who)
	saves := 0
	e.memory.before = func() {
		if saves++; saves == 2 { // the consent is saved, and then the customer is there
			panic("killed")
		}
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = e.Say(t.Context(), who, Said{Text: "yes"})
	}()
	e.memory.before = nil
	if v := e.row(who); v.State != StateRecommending || v.SignedUp || len(e.platform.signedUp) != 1 {
		t.Fatalf("after the crash: %s, %d customers", v.State, len(e.platform.signedUp))
	}
	if c := e.say(who, "yes"); c.State != StateAwaitingPayment || len(e.platform.signedUp) != 1 {
		t.Errorf("%s, %d customers", c.State, len(e.platform.signedUp))
	}
}

// What was charged is not known before Stripe has told it, so nothing is said of that.
func TestPageAgain(t *testing.T) {
	t.Parallel()
	for text, claim := range map[string]string{"en": "charged", "pt-BR": "cobrado"} {
		for _, err := range []error{control.ErrConflict, control.ErrUnavailable, control.ErrInvalid} {
			e := newEnv(t, nil)
			who := e.begin("en")
			e.toOffer(who)
			e.say(who, "yes")
			e.memory.speaks(t, text)
			e.platform.checkoutErr = err
			if c := e.choose(who, "pay"); c.State != StateAwaitingPayment || c.Reply.Text == "" || strings.Contains(c.Reply.Text, claim) {
				t.Errorf("%s, %v: %s says %q", text, err, c.State, c.Reply.Text)
			}
		}
	}
}

// Who has paid late and cannot be mailed is mailed later, and keeps nobody else waiting.
func TestInvitedLater(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	for _, id := range []string{"c1", "c2"} {
		e.memory.rows["n"+id] = control.OnboardingSession{ID: "n" + id, CustomerID: id, State: string(StateAbandoned), Version: 1, ExpiresAt: e.now.Add(time.Hour)}
	}
	away := errors.New("Postgres is away")
	e.platform.uninvited = map[string]error{"c1": away}
	if n, err := e.Sweep(t.Context()); n != 2 || !errors.Is(err, away) || !slices.Equal(e.platform.invited, []string{"c2"}) || e.memory.rows["nc1"].CustomerID != "c1" {
		t.Errorf("%d, %v; invited %v, left %+v", n, err, e.platform.invited, e.memory.rows)
	}
	e.platform.uninvited = nil
	for range 2 {
		if _, err := e.Sweep(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(e.platform.invited, []string{"c2", "c1"}) || e.memory.rows["nc1"].CustomerID != "" {
		t.Errorf("invited %v, left %+v", e.platform.invited, e.memory.rows)
	}
}

func TestWhatCanGoWrongWithPaying(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signUp, checkout error
		state            State
		says             string
		quick            string
	}{
		"address taken":  {signUp: fmt.Errorf("x: %w", control.ErrExists), state: StatePreferences, says: "account with this address"},
		"no database":    {signUp: errors.New("away"), state: StateRecommending, says: "could not open the payment page", quick: "tier:pro"},
		"no Stripe":      {checkout: control.ErrUnavailable, state: StateRecommending, says: "could not open the payment page", quick: "tier:pro"},
		"cannot buy":     {checkout: control.ErrInvalid, state: StateRecommending, says: "nothing can be bought", quick: "tier:pro"},
		"paid already":   {checkout: control.ErrExists, state: StateAwaitingPayment, says: "waiting for your payment", quick: "pay"},
		"change at once": {checkout: control.ErrConflict, state: StateRecommending, says: "is being opened already", quick: "tier:pro"},
	} {
		e := newEnv(t, nil)
		who := e.begin("en")
		e.toOffer(who)
		e.platform.signUpErr, e.platform.checkoutErr = c.signUp, c.checkout
		got := e.say(who, "yes")
		if got.State != c.state || !strings.Contains(got.Reply.Text, c.says) || got.Reply.PayURL != "" {
			t.Errorf("%s: %s says %q", name, got.State, got.Reply.Text)
		}
		if c.quick != "" && !slices.ContainsFunc(got.Reply.Quick, func(q Quick) bool { return q.ID == c.quick }) {
			t.Errorf("%s: offers %+v", name, got.Reply.Quick)
		}
		e.platform.signUpErr, e.platform.checkoutErr = nil, nil
		if c.state == StatePreferences {
			e.say(who, "other@example.com")
		}
		if c.state != StateAwaitingPayment {
			if got := e.say(who, "yes"); got.State != StateAwaitingPayment || len(e.platform.signedUp) != 1 {
				t.Errorf("%s: then %s, %d customers", name, got.State, len(e.platform.signedUp))
			}
		}
	}
}

// Of two who choose a plan at once, whoever is slower: the page that is shown is of the plan whose price is said.
func TestTwoPlansAtOnce(t *testing.T) {
	t.Parallel()
	for _, slow := range []string{"pro", "team"} {
		e := newEnv(t, nil)
		who := e.begin("en")
		e.toOffer(who)
		opening, open := make(chan struct{}), make(chan struct{})
		var once sync.Once
		e.platform.opening = func(tier string) {
			if tier == slow {
				once.Do(func() { close(opening); <-open })
			}
		}
		slower := make(chan Conversation, 1)
		go func() {
			c, err := e.Say(t.Context(), who, Said{Choice: "tier:" + slow})
			if err != nil {
				t.Error(err)
			}
			slower <- c
		}()
		<-opening
		fast := map[string]string{"pro": "team", "team": "pro"}[slow]
		c := e.choose(who, "tier:"+fast)
		close(open)
		last := <-slower
		v := e.row(who)
		if v.State != StateAwaitingPayment || v.Facts.Tier != fast || v.PayURL != payAt+"?"+fast || c.Reply.PayURL != v.PayURL || last.Reply.PayURL != v.PayURL {
			t.Errorf("%s is slower: %s of %s has %s; shown are %s and %s", slow, v.State, v.Facts.Tier, v.PayURL, c.Reply.PayURL, last.Reply.PayURL)
		}
		price := map[string]string{"pro": "$49", "team": "$129"}[slow]
		if strings.Contains(last.Reply.Text, price) {
			t.Errorf("with the page of %s it says %q", fast, last.Reply.Text)
		}
	}
}

// Whoever pays from Telegram comes back to it.
func TestPagesLeadBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t, nil)
	web := e.begin("en")
	e.toOffer(web)
	e.say(web, "yes")
	if _, err := e.BeginTelegram(t.Context(), person, Begin{Language: "en"}); err != nil {
		t.Fatal(err)
	}
	who := Who{TelegramUser: person}
	for _, text := range []string{"my work", "just me", botToken(), "yes", "eve@example.com", "yes"} {
		e.say(who, text)
	}
	if want := []Channel{Web, Telegram}; !slices.Equal(e.platform.back, want) {
		t.Errorf("they lead back to %v, want %v", e.platform.back, want)
	}
	pages, chat := checkoutFunc(func(string) string { return "web" }), checkoutFunc(func(string) string { return "chat" })
	for _, c := range []struct {
		p    *Control
		back Channel
		want string
	}{
		{&Control{Checkout: pages, FromTelegram: chat}, Web, "web"}, {&Control{Checkout: pages, FromTelegram: chat}, Telegram, "chat"},
		{&Control{Checkout: pages}, Telegram, "web"}, {&Control{FromTelegram: chat}, Telegram, ""},
	} {
		if got, err := c.p.CheckoutURL(t.Context(), "c1", "pro", c.back); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("from %s: %q, %v, want %q", c.back, got, err, c.want)
		}
	}
}

// checkoutFunc is a Checkout.
type checkoutFunc func(tier string) string

func (f checkoutFunc) CheckoutURL(_ context.Context, _, tier string) (string, error) {
	return f(tier), nil
}
