package onboarding

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/feed"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/control/storetest"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/telegramsim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

const webhookSecret = "whsec_fake_one"

// nobody is the proxies, of which there are none here.
type nobody struct{}

func (nobody) PutGrantAfter(context.Context, contract.Digest, contract.Grant, int64) (int64, error) {
	return 1, nil
}
func (nobody) StoreGrants(_ context.Context, e []feed.Entry) ([]error, error) {
	return make([]error, len(e)), nil
}
func (nobody) Reload(context.Context) (int64, error)     { return 1, nil }
func (nobody) State(context.Context) (feed.State, error) { return feed.State{}, nil }
func (nobody) Rebuild(ctx context.Context, _ int64, do func(context.Context) error) error {
	return do(ctx)
}
func (nobody) Ensure(context.Context, string, string) error              { return nil }
func (nobody) SetLimit(context.Context, quota.Account) error             { return nil }
func (nobody) Usage(context.Context, quota.Account) (quota.Usage, error) { return quota.Usage{}, nil }

// mails puts mails into the outbox without a job that sends them.
type mails struct{}

func (mails) AddMail(ctx context.Context, tx *store.Tx, m control.Mail) (bool, error) {
	return tx.AddMail(ctx, m)
}

// wired is a service on Postgres, with a Stripe and a Telegram that are simulated.
type wired struct {
	*Service
	t         *testing.T
	pg        *testenv.PostgresServer
	store     *store.Store
	customers *customers.Service
	stripe    *stripesim.Server
	inbox     *stripe.Inbox
	processor *stripe.Processor
	telegram  *telegramsim.Server
	log       *bytes.Buffer
}

func newWired(t *testing.T, change func(*Options)) *wired {
	t.Helper()
	e := &wired{t: t, pg: storetest.Postgres(t), stripe: stripesim.New(time.Now().UTC().Truncate(time.Hour)), telegram: telegramsim.New(), log: &bytes.Buffer{}}
	t.Cleanup(e.stripe.Close)
	t.Cleanup(e.telegram.Close)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	e.store, err = store.Open(t.Context(), e.pg.URL)
	must(err)
	t.Cleanup(e.store.Close)
	hasher, err := contract.NewHasher([]byte("a pepper that is fake"))
	must(err)
	seals, err := secret.ParseKeys(strings.Repeat("0123456789abcdef", 4))
	must(err)
	e.customers = &customers.Service{Store: e.store, Tiers: table(t), Grants: nobody{}, Limits: nobody{}, Hasher: hasher, Seals: seals, Now: e.stripe.Now}
	account, err := stripe.NewAccount(stripesim.Key, e.stripe.URL())
	must(err)
	_, err = stripe.Bootstrap(t.Context(), account, table(t), "https://api.example.invalid/stripe")
	must(err)
	quiet := slog.New(slog.DiscardHandler)
	e.inbox, err = stripe.NewInbox(stripe.InboxOptions{Store: e.store, Secrets: []string{webhookSecret}, Logger: quiet, Registerer: prometheus.NewRegistry()})
	must(err)
	e.processor, err = stripe.NewProcessor(stripe.ProcessorOptions{Account: account, Customers: e.customers, Mails: mails{}, Logger: quiet, Registerer: prometheus.NewRegistry()})
	must(err)
	checkout, err := stripe.NewCheckout(stripe.CheckoutOptions{
		Account: account, Customers: e.customers,
		SuccessURL: "https://app.example.invalid/paid", CancelURL: "https://app.example.invalid/plans", ReturnURL: "https://app.example.invalid/",
	})
	must(err)
	o := Options{
		Sessions: e.store, Tiers: table(t), Seals: seals, Bots: &BotAPI{URL: e.telegram.URL()},
		Platform: &Control{Customers: e.customers, Checkout: checkout, Mails: mails{}, HashPassword: func(password string) string {
			return fmt.Sprintf("%x", sha256.Sum256([]byte(password))) // cheap
		}},
		Logger: slog.New(slog.NewTextHandler(e.log, nil)),
	}
	if change != nil {
		change(&o)
	}
	e.Service, err = New(o)
	must(err)
	return e
}

func (e *wired) say(who Who, text string) Conversation {
	e.t.Helper()
	c, err := e.Say(e.t.Context(), who, Said{Text: text})
	if err != nil {
		e.t.Fatalf("%q: %v", text, err)
	}
	return c
}

// pay has the customer pay, and Stripe's events worked.
func (e *wired) pay(url string) {
	e.t.Helper()
	if _, err := e.stripe.Complete(url); err != nil {
		e.t.Fatal(err)
	}
	for _, ev := range e.stripe.Events() {
		if err := e.inbox.Receive(e.t.Context(), ev.Body, stripesim.Sign(ev.Body, webhookSecret, time.Now())); err != nil {
			e.t.Fatal(err)
		}
	}
	if _, err := e.processor.ProcessDue(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

// box is the one box of a customer.
func (e *wired) box(customer string) control.BoxDetail {
	e.t.Helper()
	var list []control.BoxDetail
	err := e.store.InTx(e.t.Context(), func(tx *store.Tx) (err error) {
		list, err = tx.BoxDetails(e.t.Context(), customer)
		return err
	})
	if err != nil || len(list) != 1 {
		e.t.Fatalf("%d boxes, %v", len(list), err)
	}
	return list[0]
}

func (e *wired) reports(box control.BoxDetail, state control.BoxState) {
	e.t.Helper()
	err := (&customers.Boxes{Service: e.customers}).Report(e.t.Context(), control.BoxReport{
		BoxID: box.ID, Generation: box.Generation, State: state, Steps: []control.BoxStep{{Name: "gateway", Generation: box.Generation, StartedAt: time.Now()}},
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

func (e *wired) sweep() {
	e.t.Helper()
	if _, err := e.Sweep(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

// A conversation makes a customer that pays and has a box with its bot, whatever the client says and also
// if it is away from the payment on.
func TestBecomesACustomer(t *testing.T) {
	t.Parallel()
	e := newWired(t, nil)
	ctx := t.Context()
	bot := e.telegram.NewBot("ada_agent_bot")
	_, key, err := e.Begin(ctx, Begin{Language: "pt-BR", TimeZone: "America/Recife"})
	if err != nil {
		t.Fatal(err)
	}
	who := Who{Key: key}
	for _, text := range []string{"meu trabalho", "só eu", bot.Token(), fmt.Sprint(person), "sim", "Ada@Example.com"} {
		e.say(who, text)
	}
	c := e.say(who, "sim")
	if c.State != StateAwaitingPayment || c.Reply.PayURL == "" {
		t.Fatalf("%+v; %s", c, e.log)
	}
	account, err := e.store.Account(ctx, c.Customer)
	if err != nil || account.Status != control.CustomerPending || account.Tier != "pro" || account.Email != "ada@example.com" || account.Language != control.Portuguese {
		t.Errorf("%+v, %v", account, err)
	}
	if again := e.say(who, "já paguei, pode continuar"); again.State != StateAwaitingPayment {
		t.Errorf("unpaid, it is %s", again.State)
	}
	if sealed := e.pg.Query(`SELECT octet_length(bot_token) > 40 FROM onboarding_sessions`); strings.TrimSpace(sealed) != "t" {
		t.Errorf("the bot is kept: %s", sealed)
	}
	e.pay(c.Reply.PayURL)
	e.sweep()
	box := e.box(c.Customer)
	if !box.HasTelegramToken || box.WaitsFor != "" || fmt.Sprint(box.Settings) != fmt.Sprint(control.BoxSettings{
		Language: control.Portuguese, TimeZone: "America/Recife", TelegramUsers: []int64{person},
	}) {
		t.Errorf("the box: %+v", box)
	}
	desired, err := (&customers.Boxes{Service: e.customers}).Desired(ctx, box.ID)
	if err != nil || desired.TelegramToken != secret.Text(bot.Token()) {
		t.Errorf("the operator gets another bot, %v", err)
	}
	if got, err := e.Look(ctx, who); err != nil || got.State != StateProvisioning {
		t.Errorf("%+v, %v", got, err)
	}
	e.reports(box, control.BoxFailed)
	if got, err := e.Look(ctx, who); err != nil || got.State != StateFailed || len(got.Progress) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := e.Say(ctx, who, Said{Choice: "retry"}); err != nil {
		t.Fatal(err)
	}
	again := e.box(c.Customer)
	if again.Restart != box.Restart+1 {
		t.Errorf("restarted %d times", again.Restart-box.Restart)
	}
	e.reports(again, control.BoxActive)
	e.sweep()
	got, err := e.Look(ctx, who)
	if err != nil || got.State != StateComplete || !strings.Contains(got.Reply.Text, "@ada_agent_bot") {
		t.Errorf("%+v, %v", got, err)
	}
	if kinds := strings.TrimSpace(e.pg.Query(`SELECT string_agg(kind, ' ' ORDER BY kind) FROM mails`)); !strings.Contains(kinds, "reset_password") {
		t.Errorf("mails: %s", kinds)
	}
	_, half, _ := strings.Cut(bot.Token(), ":")
	for _, tbl := range strings.Fields(e.pg.Query(`SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE n.nspname = 'public' AND relkind IN ('r', 'p')`)) {
		if n := strings.TrimSpace(e.pg.Query(fmt.Sprintf(`SELECT count(*) FROM %s x WHERE x::text LIKE '%%%s%%'`, tbl, half))); n != "0" {
			t.Errorf("the bot's token is in %s rows of %s", n, tbl)
		}
	}
	if strings.Contains(e.log.String(), half) {
		t.Error("the bot's token is logged")
	}
}

// Whoever has named somebody else's address in a conversation has nothing of the account once its owner has set
// a password: neither a bot in its box, nor a way in.
func TestPasswordEndsTheConversation(t *testing.T) {
	t.Parallel()
	e := newWired(t, nil)
	ctx := t.Context()
	bot := e.telegram.NewBot("eve_agent_bot")
	_, key, err := e.Begin(ctx, Begin{Language: "en", TimeZone: "America/Recife"})
	if err != nil {
		t.Fatal(err)
	}
	who := Who{Key: key}
	var c Conversation
	for _, text := range []string{"Research for my thesis", "only me", "it is " + bot.Token(), fmt.Sprint(person), "yes", "ada@example.com", "yes please"} {
		if c, err = e.Say(ctx, who, Said{Text: text}); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	}
	if c.State != StateAwaitingPayment {
		t.Fatalf("%+v", c)
	}
	if err := e.store.InTx(ctx, func(tx *store.Tx) error { return tx.SetPassword(ctx, "test", c.Customer, "hash", time.Now()) }); err != nil {
		t.Fatal(err)
	}
	e.pay(c.Reply.PayURL)
	e.sweep()
	if box := e.box(c.Customer); box.HasTelegramToken || len(box.Settings.TelegramUsers) != 0 {
		t.Errorf("the box: %+v", box)
	}
	if got, err := e.Look(ctx, who); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("the conversation goes on: %+v, %v", got, err)
	}
}

// Whoever pays on a page that was open for longer than its conversation has a box, without a bot, and is mailed how
// to sign in: once, also days later.
func TestPaysAfterTheConversation(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		var later time.Duration
		e := newWired(t, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(later) } })
		ctx := t.Context()
		bot := e.telegram.NewBot("ada_agent_bot")
		if _, err := e.BeginTelegram(ctx, person, Begin{Language: "en"}); err != nil {
			t.Fatal(err)
		}
		who := Who{TelegramUser: person}
		var c Conversation
		for _, text := range []string{"my work", "just me", bot.Token(), "yes", address, "yes"} {
			c = e.say(who, text)
		}
		url := c.Reply.PayURL
		if again { // it thinks of another plan, and pays for the first one
			if _, err := e.Say(ctx, who, Said{Choice: "plan"}); err != nil {
				t.Fatal(err)
			}
		}
		later = 27 * time.Hour
		e.sweep()
		if _, err := e.Look(ctx, who); !errors.Is(err, control.ErrNotFound) {
			t.Fatalf("the conversation goes on: %v", err)
		}
		invited := func(want string) {
			t.Helper()
			e.sweep()
			if n := strings.TrimSpace(e.pg.Query(`SELECT count(*) FROM mails WHERE kind = 'reset_password'`)); n != want {
				t.Errorf("invited %s times, want %s; %s", n, want, e.log)
			}
		}
		invited("0")
		later = 5 * 24 * time.Hour // Stripe could not reach us
		invited("0")
		e.pay(url)
		if box := e.box(c.Customer); box.HasTelegramToken || box.WaitsFor == "" || box.Wants == control.BoxDestroy {
			t.Errorf("the box: %+v", box)
		}
		invited("1")
		invited("1")
		if left := strings.TrimSpace(e.pg.Query(`SELECT state || ' ' || count(customer_id) || ' ' || count(telegram_user) || ' ' || count(bot_token) FROM onboarding_sessions GROUP BY state`)); left != "abandoned 0 0 0" {
			t.Errorf("left is %q", left)
		}
	}
}

// A key that was exchanged for a session opens nothing any more.
func TestEnteredOnce(t *testing.T) {
	t.Parallel()
	e := newWired(t, nil)
	_, key, err := e.Begin(t.Context(), Begin{Language: "en"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Look(t.Context(), Who{Key: key}); err != nil {
		t.Fatal(err)
	}
	if err := e.Entered(t.Context(), Who{Key: key}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Look(t.Context(), Who{Key: key}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("the key is still good: %v", err)
	}
}

// An address or a bot that somebody else has is refused before anything is paid.
func TestTakenAddressAndBot(t *testing.T) {
	t.Parallel()
	e := newWired(t, nil)
	ctx := t.Context()
	bot, other := e.telegram.NewBot("ada_agent_bot"), e.telegram.NewBot("eve_agent_bot")
	first, err := e.customers.CreateCustomer(ctx, "test", customers.NewCustomer{Name: "Ada", Email: "ada@example.com", Tier: "pro"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.customers.SetTelegramToken(ctx, "test", customers.BoxRef{ID: first.Box.ID}, secret.Text(bot.Token())); err != nil {
		t.Fatal(err)
	}
	c, err := e.BeginTelegram(ctx, person, Begin{Language: "en"})
	if err != nil {
		t.Fatal(err)
	}
	who := Who{TelegramUser: person}
	e.say(who, "my work")
	e.say(who, "just me")
	if c = e.say(who, bot.Token()); c.State != StateTelegram || !strings.Contains(c.Reply.Text, "another agent already") || strings.Contains(c.Reply.Text, first.Customer.ID) {
		t.Errorf("%+v", c)
	}
	if c = e.say(who, "1234567:"+strings.Repeat("fakeFAKE1", 4)); !strings.Contains(c.Reply.Text, "does not know this token") {
		t.Errorf("%+v", c)
	}
	e.say(who, other.Token())
	e.say(who, "yes")
	e.say(who, "ADA@example.com")
	if c = e.say(who, "yes"); c.State != StatePreferences || c.Customer != "" || !strings.Contains(c.Reply.Text, "account with this address") {
		t.Errorf("%+v", c)
	}
	e.say(who, "eve@example.com")
	if c = e.say(who, "yes"); c.State != StateAwaitingPayment {
		t.Errorf("%+v", c)
	}
	// Between the check and the payment somebody else's box gets the bot.
	if _, err := e.customers.SetTelegramToken(ctx, "test", customers.BoxRef{ID: first.Box.ID}, secret.Text(other.Token())); err != nil {
		t.Fatal(err)
	}
	e.pay(c.Reply.PayURL)
	e.sweep()
	if c, err = e.Look(ctx, who); err != nil || c.State != StateProvisioning || !strings.Contains(c.Reply.Text, "another bot") {
		t.Fatalf("%+v, %v", c, err)
	}
	if c = e.say(who, bot.Token()); c.State != StateProvisioning || !e.box(c.Customer).HasTelegramToken {
		t.Errorf("%+v", c)
	}
}

// The rows of a customer that is deleted are gone, and with them its conversation.
func TestDeletedCustomersConversation(t *testing.T) {
	t.Parallel()
	e := newWired(t, nil)
	ctx := t.Context()
	bot := e.telegram.NewBot("ada_agent_bot")
	if _, err := e.BeginTelegram(ctx, person, Begin{Language: "en"}); err != nil {
		t.Fatal(err)
	}
	who := Who{TelegramUser: person}
	for _, text := range []string{"my work", "just me", bot.Token(), "yes", address} {
		e.say(who, text)
	}
	c := e.say(who, "yes")
	if err := e.customers.DeleteCustomer(ctx, "test", c.Customer); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Look(ctx, who); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if n := strings.TrimSpace(e.pg.Query(`SELECT count(*) FROM onboarding_sessions`)); n != "0" {
		t.Errorf("%s conversations are left", n)
	}
}

// On Postgres, too, no message is lost of those that come at once to several processes.
func TestMessagesAtOnceOnPostgres(t *testing.T) {
	t.Parallel()
	e := newWired(t, nil)
	_, key, err := e.Begin(t.Context(), Begin{Language: "en"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(e.o)
	if err != nil {
		t.Fatal(err)
	}
	const n = 16
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := []*Service{e.Service, other}[i%2]
			if _, err := s.Say(t.Context(), Who{Key: key}, Said{Text: fmt.Sprintf("message %c?", 'a'+i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := e.Look(t.Context(), Who{Key: key})
	seen := map[string]bool{}
	for _, turn := range c.History {
		if !turn.Ours {
			seen[turn.Text] = true
		}
	}
	if err != nil || len(seen) != n || len(c.History) != 2*n+1 {
		t.Errorf("%d messages in %d turns, %v", len(seen), len(c.History), err)
	}
}
