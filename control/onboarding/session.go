package onboarding

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// State is how far a conversation is.
type State string

// The states. From the first to the last question nothing but the answers moves them; the payment and
// the box move the others.
const (
	StateNew             State = "new"              // nobody has said anything
	StateGreeting        State = "greeting"         // we said hello
	StateUseCase         State = "use_case"         // what the agent is for, and for how many
	StateTelegram        State = "telegram"         // the bot, and who may write to it
	StatePreferences     State = "preferences"      // language, time zone, address
	StateRecommending    State = "recommending"     // a tier is offered
	StateAwaitingPayment State = "awaiting_payment" // there is a page to pay on
	StateProvisioning    State = "provisioning"     // paid; the box is being made
	StateComplete        State = "complete"         // the box runs
	StateFailed          State = "failed"           // the box could not be made yet; it is tried again
	StateAbandoned       State = "abandoned"        // ended without a customer
)

// States lists all states.
func States() []State {
	return []State{
		StateNew, StateGreeting, StateUseCase, StateTelegram, StatePreferences, StateRecommending, StateAwaitingPayment,
		StateProvisioning, StateComplete, StateFailed, StateAbandoned,
	}
}

// Final reports whether nothing follows.
func (s State) Final() bool { return s == StateComplete || s == StateAbandoned }

// waits reports whether the payment or the box, and not an answer, moves it on.
func (s State) waits() bool {
	return s == StateAwaitingPayment || s == StateProvisioning || s == StateFailed
}

// keptFor is for how long a conversation can be taken up again after something has happened in it. A page
// to pay on is open for a day; a box is looked after until it runs.
func (s State) keptFor() time.Duration {
	switch s {
	case StateAwaitingPayment:
		return 26 * time.Hour
	case StateProvisioning, StateFailed:
		return 7 * 24 * time.Hour
	}
	return 24 * time.Hour
}

// Channel is where a conversation takes place.
type Channel string

// The channels.
const (
	Web      Channel = "web"
	Telegram Channel = "telegram"
)

// Question is what we ask for: seven of them, and six on Telegram, which tells who writes.
type Question string

// The questions, in their order.
const (
	AskNothing     Question = ""
	AskUse         Question = "use"
	AskPeople      Question = "people"
	AskBot         Question = "bot"
	AskUser        Question = "user"
	AskPreferences Question = "preferences"
	AskEmail       Question = "email"
	AskTier        Question = "tier"
)

// Facts are what the conversation has found out. The bot's token is none of them.
type Facts struct {
	Use           Use              `json:"use,omitempty"`
	People        int              `json:"people,omitempty"`
	Load          Load             `json:"load,omitempty"` // "" if nothing was said
	BotID         int64            `json:"bot_id,omitempty"`
	BotName       string           `json:"bot_name,omitempty"` // as Telegram says it, without @
	UserID        int64            `json:"user_id,omitempty"`  // who may write to the agent
	AgentLanguage control.Language `json:"agent_language,omitempty"`
	TimeZone      string           `json:"time_zone,omitempty"`
	Confirmed     bool             `json:"confirmed,omitempty"` // language and time zone
	Email         string           `json:"email,omitempty"`
	Name          string           `json:"name,omitempty"`
	Offer         string           `json:"offer,omitempty"` // the tier that is on offer
	Tier          string           `json:"tier,omitempty"`  // the tier that was taken
}

// Turn is something that was said.
type Turn struct {
	At   time.Time `json:"at"`
	Ours bool      `json:"ours,omitempty"`
	Text string    `json:"text"`
}

const (
	// keptTurns is how many turns are kept, and keptText how long what the customer wrote is, in characters.
	keptTurns = 80
	keptText  = 2000
)

// Session is one conversation. Step copies it before it changes anything.
type Session struct {
	ID           string
	Version      int64
	State        State
	Channel      Channel
	TelegramUser int64
	Language     control.Language
	Facts        Facts
	Asking       Question         // what we asked for last
	Asked        map[Question]int // how often
	History      []Turn
	// Customer is the id that the customer has or will have: it is chosen before there is one, so that
	// signing up twice makes one.
	Customer   string
	SignedUp   bool // there is such a customer
	Box        string
	PayURL     string
	HandedOver bool // the box has the settings and the bot
	BotLost    bool // the box cannot have the bot: another one is needed
	Sealed     []byte
	// Tried is how often the box could not be given them, and TryAt when that may be tried again.
	Tried int
	TryAt time.Time

	CreatedAt, UpdatedAt, ExpiresAt time.Time
}

// data is what of a session is kept in one column.
type data struct {
	Channel    Channel          `json:"channel"`
	Language   control.Language `json:"language"`
	Facts      Facts            `json:"facts"`
	Asking     Question         `json:"asking,omitempty"`
	Asked      map[Question]int `json:"asked,omitempty"`
	History    []Turn           `json:"history,omitempty"`
	Customer   string           `json:"customer,omitempty"`
	Box        string           `json:"box,omitempty"`
	PayURL     string           `json:"pay_url,omitempty"`
	HandedOver bool             `json:"handed_over,omitempty"`
	BotLost    bool             `json:"bot_lost,omitempty"`
	Tried      int              `json:"tried,omitempty"`
	TryAt      time.Time        `json:"try_at,omitzero"`
}

// stored returns how a session is kept.
func (s Session) stored() (control.OnboardingSession, error) {
	raw, err := json.Marshal(data{
		s.Channel, s.Language, s.Facts, s.Asking, s.Asked, s.History, s.Customer, s.Box, s.PayURL, s.HandedOver, s.BotLost,
		s.Tried, s.TryAt,
	})
	if err != nil {
		return control.OnboardingSession{}, fmt.Errorf("store conversation %s: %w", s.ID, err)
	}
	v := control.OnboardingSession{
		ID: s.ID, TelegramUser: s.TelegramUser, State: string(s.State), Version: s.Version, Data: raw, SealedBot: s.Sealed,
		CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt, ExpiresAt: s.ExpiresAt,
	}
	if s.SignedUp {
		v.CustomerID = s.Customer
	}
	return v, nil
}

// restored is the way back.
func restored(v control.OnboardingSession) (Session, error) {
	var d data
	if err := json.Unmarshal(v.Data, &d); err != nil {
		return Session{}, fmt.Errorf("read conversation %s: %w", v.ID, err)
	}
	if !slices.Contains(States(), State(v.State)) {
		return Session{}, fmt.Errorf("read conversation %s: %w: state %q", v.ID, control.ErrInvalid, v.State)
	}
	return Session{
		ID: v.ID, Version: v.Version, State: State(v.State), Channel: d.Channel, TelegramUser: v.TelegramUser, Language: d.Language,
		Facts: d.Facts, Asking: d.Asking, Asked: d.Asked, History: d.History, Customer: d.Customer, SignedUp: v.CustomerID != "",
		Box: d.Box, PayURL: d.PayURL, HandedOver: d.HandedOver, BotLost: d.BotLost, Tried: d.Tried, TryAt: d.TryAt, Sealed: v.SealedBot,
		CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt, ExpiresAt: v.ExpiresAt,
	}, nil
}

// handing is what a hand-over hands over.
func (s Session) handing() Handing { return Handing{s.Box, string(s.Sealed)} }

// clone returns a copy that shares nothing that is changed.
func (s Session) clone() Session {
	s.Asked = maps.Clone(s.Asked)
	if s.Asked == nil {
		s.Asked = make(map[Question]int)
	}
	s.History = slices.Clone(s.History)
	return s
}

// note adds a turn.
func (s *Session) note(ours bool, text string, at time.Time) {
	if text == "" {
		return
	}
	s.History = append(s.History, Turn{At: at, Ours: ours, Text: text})
	if n := len(s.History) - keptTurns; n > 0 {
		s.History = slices.Delete(s.History, 0, n)
	}
}
