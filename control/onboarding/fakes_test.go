package onboarding

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/tiers"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Fakes that look like what they stand for. They are put together, so that nobody takes them for real.
const (
	botNumber = 7654321
	botSecret = "AAHfakefakefakefakefakefakefakefake"
	person    = 1234567890
	address   = "ada@example.com"
	payAt     = "https://pay.example.invalid/page-1"
)

func botToken() string { return fmt.Sprintf("%d:%s", botNumber, botSecret) }

// table is what is on sale.
func table(t testing.TB) control.Tiers {
	t.Helper()
	out, err := tiers.Default()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// memory keeps conversations as store.Store does.
type memory struct {
	mu   sync.Mutex
	rows map[string]control.OnboardingSession
	// before is called before each save, without the lock.
	before func()
}

func newMemory() *memory { return &memory{rows: make(map[string]control.OnboardingSession)} }

func (m *memory) InsertOnboarding(_ context.Context, v control.OnboardingSession) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		if v.TelegramUser != 0 && r.TelegramUser == v.TelegramUser && !State(r.State).Final() {
			return control.ErrExists
		}
	}
	v.Version = 1
	m.rows[v.ID] = v
	return nil
}

func (m *memory) find(now time.Time, ok func(control.OnboardingSession) bool) (control.OnboardingSession, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []control.OnboardingSession
	for _, r := range m.rows {
		if r.ExpiresAt.After(now) && ok(r) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return control.OnboardingSession{}, control.ErrNotFound
	}
	slices.SortFunc(found, func(a, b control.OnboardingSession) int {
		if f, g := State(a.State).Final(), State(b.State).Final(); f != g {
			return map[bool]int{true: 1, false: -1}[f]
		}
		return b.CreatedAt.Compare(a.CreatedAt)
	})
	return found[0], nil
}

func (m *memory) Onboarding(_ context.Context, id string, now time.Time) (control.OnboardingSession, error) {
	return m.find(now, func(r control.OnboardingSession) bool { return r.ID == id })
}

func (m *memory) ForgetOnboardingKey(context.Context, [32]byte) error { return nil }

func (m *memory) OnboardingByKey(_ context.Context, digest [32]byte, now time.Time) (control.OnboardingSession, error) {
	return m.find(now, func(r control.OnboardingSession) bool { return r.KeyDigest == digest })
}

func (m *memory) OnboardingOfTelegram(_ context.Context, user int64, now time.Time) (control.OnboardingSession, error) {
	return m.find(now, func(r control.OnboardingSession) bool {
		return r.TelegramUser == user && State(r.State) != StateAbandoned
	})
}

func (m *memory) SaveOnboarding(_ context.Context, v control.OnboardingSession) (control.OnboardingSession, error) {
	if m.before != nil {
		m.before()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, ok := m.rows[v.ID]
	switch {
	case !ok:
		return v, control.ErrNotFound
	case old.Version != v.Version:
		return v, control.ErrConflict
	}
	v.KeyDigest = old.KeyDigest
	v.Version++
	m.rows[v.ID] = v
	return v, nil
}

func (m *memory) WaitingOnboardings(_ context.Context, after string, now time.Time, limit int) ([]control.OnboardingSession, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []control.OnboardingSession
	for _, r := range m.rows {
		waits := State(r.State).waits() || State(r.State) == StateRecommending && r.CustomerID != ""
		if waits && r.ID > after && r.ExpiresAt.After(now) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b control.OnboardingSession) int { return strings.Compare(a.ID, b.ID) })
	return out[:min(limit, len(out))], nil
}

func (m *memory) ExpireOnboardings(_ context.Context, then time.Time, _ int) (n int64, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.rows {
		if !r.ExpiresAt.After(then) {
			delete(m.rows, id)
			n++
		}
	}
	return n, nil
}

// PaidLateOnboardings lists those that are abandoned and have a customer: what expires is gone here at once.
func (m *memory) PaidLateOnboardings(_ context.Context, after string, _ time.Time, limit int) ([]control.OnboardingSession, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []control.OnboardingSession
	for _, r := range m.rows {
		if State(r.State) == StateAbandoned && r.CustomerID != "" && r.ID > after {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b control.OnboardingSession) int { return strings.Compare(a.ID, b.ID) })
	return out[:min(limit, len(out))], nil
}

// speaks has all conversations go on in a language.
func (m *memory) speaks(t *testing.T, language string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.rows {
		v, err := restored(r)
		if err != nil {
			t.Fatal(err)
		}
		v.Language = control.Language(language)
		if m.rows[id], err = v.stored(); err != nil {
			t.Fatal(err)
		}
		r.Data = m.rows[id].Data
		m.rows[id] = r
	}
}

// everything is all that is kept, as one text.
func (m *memory) everything() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out strings.Builder
	for _, r := range m.rows {
		fmt.Fprintf(&out, "%+v %s %s\n", r, r.Data, r.SealedBot)
	}
	return out.String()
}

// platform stands in for customers, Stripe and boxes.
type platform struct {
	mu       sync.Mutex
	signedUp map[string]NewCustomer
	standing map[string]Standing
	handed   map[string]secret.Text
	chosen   map[string]control.BoxSettings
	pages    int
	retried  int
	handOver int               // how often it was tried
	refuses  map[string]string // of a box's settings, and why
	back     []Channel         // where pages lead to
	invited  []string
	// handing is called without the lock before something is handed over.
	handing func()
	// opening is called without the lock before a page is there.
	opening func(tier string)

	signUpErr, checkoutErr, handOverErr error
	uninvited                           map[string]error // whom no mail can be sent
	taken                               bool
}

func newPlatform() *platform {
	return &platform{
		signedUp: make(map[string]NewCustomer), standing: make(map[string]Standing), handed: make(map[string]secret.Text), chosen: make(map[string]control.BoxSettings),
	}
}

func (p *platform) SignUp(_ context.Context, c NewCustomer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signUpErr != nil {
		return p.signUpErr
	}
	for id, other := range p.signedUp {
		if id != c.ID && other.Email == c.Email {
			return control.ErrExists
		}
	}
	p.signedUp[c.ID] = c
	return nil
}

func (p *platform) CheckoutURL(_ context.Context, id, tier string, back Channel) (string, error) {
	if p.opening != nil {
		p.opening(tier)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.back = append(p.back, back)
	if p.checkoutErr != nil {
		return "", p.checkoutErr
	}
	if p.signedUp[id].ID == "" || tier == "" {
		return "", errors.New("no such customer or tier")
	}
	p.pages++
	return payAt + "?" + tier, nil
}

func (p *platform) Standing(_ context.Context, id string) (Standing, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.standing[id]
	if st.Box != nil { // a box that waits for its customer does not run
		box := *st.Box
		box.Settings, box.HasTelegramToken = p.chosen[box.ID], box.HasTelegramToken || p.handed[box.ID] != ""
		if box.WaitsFor = control.BoxWaitsFor(box.ID, box.HasTelegramToken, len(box.Settings.TelegramUsers)); box.WaitsFor != "" {
			box.State = control.BoxPending
		}
		st.Box = &box
	}
	return st, nil
}

func (p *platform) BotTaken(context.Context, secret.Text) (bool, error) { return p.taken, nil }

func (p *platform) HandOver(ctx context.Context, _, box string, chosen control.BoxSettings, token secret.Text) error {
	if p.handing != nil {
		p.handing()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handOver++
	for field, there := range map[string]bool{"language": chosen.Language != "", "time_zone": chosen.TimeZone != "", "telegram_users": len(chosen.TelegramUsers) > 0} {
		if reason := p.refuses[field]; reason != "" && there {
			return fmt.Errorf("hand over: %w", &customers.SettingsError{Field: field, Reason: reason})
		}
	}
	if p.handOverErr != nil {
		return p.handOverErr
	}
	p.handed[box], p.chosen[box] = token, chosen
	return nil
}

func (p *platform) Invite(_ context.Context, id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.uninvited[id]; err != nil {
		return err
	}
	p.invited = append(p.invited, id)
	return nil
}

func (p *platform) Retry(context.Context, string, string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retried++
	return nil
}

// becomes has a customer have a box in a state.
func (p *platform) becomes(id string, st Standing, state control.BoxState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state != "" {
		st.Box = &control.BoxDetail{
			Box:              control.Box{ID: "b1", CustomerID: id, State: state},
			HasTelegramToken: p.handed["b1"] != "",
			Steps:            []control.BoxStep{{Name: "gateway", Generation: 1}},
		}
	}
	p.standing[id] = st
}

// bots stands in for Telegram.
type bots struct{ err error }

func (b bots) Check(_ context.Context, token secret.Text) (Bot, error) {
	if b.err != nil {
		return Bot{}, b.err
	}
	number, _, _ := strings.Cut(token.Reveal(), ":")
	var id int64
	if _, err := fmt.Sscan(number, &id); err != nil {
		return Bot{}, ErrBotRefused
	}
	return Bot{ID: id, Name: "ada_agent_bot"}, nil
}

// modelFunc is a model.
type modelFunc func(ctx context.Context, p Prompt) (string, error)

func (f modelFunc) Complete(ctx context.Context, p Prompt) (string, error) { return f(ctx, p) }

// spy is a model that keeps what it was asked.
type spy struct {
	mu     sync.Mutex
	asked  []Prompt
	answer func(Prompt) (string, error)
}

func (s *spy) Complete(_ context.Context, p Prompt) (string, error) {
	s.mu.Lock()
	s.asked = append(s.asked, p)
	s.mu.Unlock()
	return s.answer(p)
}

func (s *spy) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.asked)
}

// env is a service on fakes.
type env struct {
	*Service
	t        *testing.T
	memory   *memory
	platform *platform
	log      *bytes.Buffer
	now      time.Time
	told     []Conversation
}

func newEnv(t *testing.T, change func(*Options)) *env {
	t.Helper()
	seals, err := secret.ParseKeys(strings.Repeat("0123456789abcdef", 4))
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: t, memory: newMemory(), platform: newPlatform(), log: &bytes.Buffer{}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	o := Options{
		Sessions: e.memory, Platform: e.platform, Tiers: table(t), Seals: seals, Bots: bots{},
		Logger: slog.New(slog.NewTextHandler(e.log, nil)), Now: func() time.Time { return e.now },
		Notify: func(_ context.Context, _ int64, c Conversation) { e.told = append(e.told, c) },
	}
	if change != nil {
		change(&o)
	}
	if e.Service, err = New(o); err != nil {
		t.Fatal(err)
	}
	return e
}

// begin opens a conversation on the web.
func (e *env) begin(language string) Who {
	e.t.Helper()
	_, key, err := e.Begin(e.t.Context(), Begin{Language: language})
	if err != nil {
		e.t.Fatal(err)
	}
	return Who{Key: key}
}

func (e *env) say(who Who, text string) Conversation {
	e.t.Helper()
	c, err := e.Say(e.t.Context(), who, Said{Text: text})
	if err != nil {
		e.t.Fatalf("%q: %v", text, err)
	}
	return c
}

func (e *env) choose(who Who, choice string) Conversation {
	e.t.Helper()
	c, err := e.Say(e.t.Context(), who, Said{Choice: choice})
	if err != nil {
		e.t.Fatalf("%q: %v", choice, err)
	}
	return c
}

func (e *env) look(who Who) Conversation {
	e.t.Helper()
	c, err := e.Look(e.t.Context(), who)
	if err != nil {
		e.t.Fatal(err)
	}
	return c
}

// row is a conversation as it is kept.
func (e *env) row(who Who) Session {
	e.t.Helper()
	v, err := e.find(e.t.Context(), who)
	if err != nil {
		e.t.Fatal(err)
	}
	return v
}

// newBuyer is somebody who has taken the offer, in English, and has not paid yet.
func newBuyer(t *testing.T) (e *env, who Who, c Conversation) {
	t.Helper()
	e = newEnv(t, nil)
	who = e.begin("en")
	e.toOffer(who)
	return e, who, e.say(who, "yes")
}

// toOffer answers all questions before the offer, in English.
func (e *env) toOffer(who Who) Conversation {
	e.t.Helper()
	var c Conversation
	for _, text := range []string{"I want help with my work", "just me", botToken(), fmt.Sprint(person), "yes", address} {
		c = e.say(who, text)
	}
	if c.State != StateRecommending {
		e.t.Fatalf("after all answers it is %s: %s", c.State, c.Reply.Text)
	}
	return c
}
