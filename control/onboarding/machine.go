package onboarding

import (
	"slices"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
)

// Input is something that happens to a conversation.
type Input interface{ happens() }

// Begin opens a conversation. What it says of the customer are guesses of where the conversation takes
// place, and may be anything.
type Begin struct {
	Language string // as a browser or Telegram says it, such as "pt-BR,en;q=0.5"
	TimeZone string
	Name     string
	Tier     string // that it has looked at; offered first if it is on sale
}

// Message is something that the customer wrote, or a quick reply that it took.
type Message struct {
	Text   string // without secrets; see cut
	Choice string // id of one of the quick replies; "" if it wrote
	Bots   int    // how many tokens of bots it had
	Broken bool   // something in it was like a token
	// Heard and Lead are the model's; both were checked. NewID is for a customer, if there is to be one.
	Heard Heard
	Lead  string
	NewID string
}

// Verdict is what became of a bot's token.
type Verdict int

// The verdicts.
const (
	BotGood    Verdict = iota
	BotBad             // Telegram does not know it
	BotTaken           // another box has it
	BotUnknown         // it could not be checked
)

// BotChecked is what Effect CheckBot found out.
type BotChecked struct {
	Verdict Verdict
	ID      int64
	Name    string
	Sealed  []byte
}

// Purchase is what a page to pay on is for. While it is opened the customer may choose another tier, or name
// another address: then what came of it is not what the customer is to see.
type Purchase struct{ Customer, Tier, Email string }

// Opened says that there is a page to pay on, and a customer.
type Opened struct {
	URL string
	For Purchase
}

// Trouble is why there is no page to pay on.
type Trouble int

// The troubles.
const (
	PayAway      Trouble = iota // payments cannot be taken just now
	EmailTaken                  // another customer has the address
	PaidAlready                 // there is a subscription
	CannotBeSold                // the customer cannot buy
	BeingOpened                 // somebody else is at it: a message that came at the same time, as a rule
)

// NotOpened says that there is no page to pay on.
type NotOpened struct {
	Why      Trouble
	SignedUp bool // there is a customer all the same
	For      Purchase
}

// Observed is what Postgres says of the customer and its box.
type Observed struct {
	Gone   bool // it was deleted
	Paid   bool
	Box    string // "" if there is none yet
	State  control.BoxState
	HasBot bool
	// HasUsers says that somebody may write to it.
	HasUsers bool
}

// Left says that the customer wants to be forgotten. What it has paid for, or may still pay for, goes on.
type Left struct{}

// Handing is what was handed over: to which box, and which bot, by its token as it is sealed. What comes of it may
// come late, when another box or bot is at issue.
type Handing struct{ Box, Bot string }

// HandedOver says that the box has the settings and the bot.
type HandedOver struct{ Handing }

// BotRefused says that the box cannot have the bot.
type BotRefused struct{ Handing }

// UserRefused says that the box cannot have this user.
type UserRefused struct {
	Handing
	User int64
}

func (Begin) happens()       {}
func (Message) happens()     {}
func (BotChecked) happens()  {}
func (Opened) happens()      {}
func (NotOpened) happens()   {}
func (Observed) happens()    {}
func (Left) happens()        {}
func (HandedOver) happens()  {}
func (BotRefused) happens()  {}
func (UserRefused) happens() {}

// Effect is something to be done after the session was saved. What comes of it is another input.
type Effect int

// The effects. Each may be done again.
const (
	CheckBot     Effect = iota // ask Telegram about the token of the message: BotChecked
	SignUpAndPay               // make the customer and the page: Opened or NotOpened
	HandOver                   // give the box its settings and its bot: HandedOver, BotRefused or UserRefused
	RetryBox                   // have the box tried again: nothing
)

// Outcome is what follows of an input.
type Outcome struct {
	Session Session
	Changed bool // false: there is nothing to save
	Effects []Effect
	Reply   Reply
}

// Reply is what is said to the customer.
type Reply struct {
	Text   string  `json:"text,omitempty"` // "" for nothing
	Quick  []Quick `json:"quick,omitempty"`
	PayURL string  `json:"pay_url,omitempty"`
}

// Quick is an answer that can be taken instead of written.
type Quick struct {
	ID    string `json:"id"`
	Label string `json:"label"`
}

// machine is one step.
type machine struct {
	tiers   []control.Tier
	s       Session
	now     time.Time
	lead    string
	lines   []sentence
	effects []Effect
	changed bool
	quiet   bool // what has changed is of no interest to the customer, and keeps the conversation for no longer
}

// Step is what a conversation becomes by an input. It does nothing but compute; the tiers are those on sale,
// of which there is one at least.
func Step(tiers []control.Tier, s Session, in Input, now time.Time) Outcome {
	m := &machine{tiers: tiers, s: s.clone(), now: now, changed: true}
	switch in := in.(type) {
	case Begin:
		m.begin(in)
	case Message:
		m.message(in)
	case BotChecked:
		m.botChecked(in)
	case Opened:
		m.opened(in)
	case NotOpened:
		m.notOpened(in)
	case Observed:
		m.observed(in)
	case Left:
		m.leave()
	case HandedOver:
		if m.changed = m.handing(in.Handing); m.changed {
			m.s.HandedOver, m.s.Sealed, m.s.Tried, m.s.TryAt = true, nil, 0, time.Time{}
		}
	case BotRefused:
		if m.changed = m.handing(in.Handing); m.changed {
			m.loseBot()
		}
	case UserRefused:
		if m.changed = m.handing(in.Handing) && in.User == m.s.Facts.UserID; m.changed {
			m.loseUser()
		}
	}
	if m.s.State.Final() {
		m.s.Sealed, m.s.PayURL = nil, ""
	}
	if m.changed && m.s.State == StateAbandoned { // as it says
		m.s.Facts, m.s.History, m.s.Asked = Facts{}, nil, nil
		m.s.Customer, m.s.SignedUp, m.s.Box = "", false, ""
	}
	reply := m.reply()
	if m.changed && (!m.quiet || reply.Text != "") {
		m.s.note(true, reply.Text, now)
		m.s.UpdatedAt, m.s.ExpiresAt = now, now.Add(m.s.State.keptFor())
	}
	return Outcome{Session: m.s, Changed: m.changed, Effects: m.effects, Reply: reply}
}

func (m *machine) say(lines ...sentence) { m.lines = append(m.lines, lines...) }

func (m *machine) begin(in Begin) {
	if m.s.State != StateNew {
		m.changed = false
		return
	}
	f := &m.s.Facts
	m.s.Language = languageOf(in.Language)
	f.AgentLanguage, f.TimeZone, f.Name = m.s.Language, in.TimeZone, nameOf(in.Name)
	if !openclaw.ValidTimeZone(f.TimeZone) {
		f.TimeZone = zoneFor(m.s.Language)
	}
	if m.s.Channel == Telegram {
		f.UserID = m.s.TelegramUser
	}
	if m.sold(in.Tier) {
		f.Offer = in.Tier
	}
	m.s.State = StateGreeting
	m.say(sayHello)
	m.ask(AskUse)
}

// languageOf reads the first language that a browser or Telegram names and that we speak.
func languageOf(names string) control.Language {
	for name := range strings.SplitSeq(strings.ToLower(names), ",") {
		name, _, _ = strings.Cut(strings.TrimSpace(name), ";")
		switch {
		case name == "pt" || strings.HasPrefix(name, "pt-") || strings.HasPrefix(name, "pt_"):
			return control.Portuguese
		case name == "en" || strings.HasPrefix(name, "en-") || strings.HasPrefix(name, "en_"):
			return control.English
		}
	}
	return control.English
}

func (m *machine) message(in Message) {
	if m.s.State.Final() {
		m.changed = false
		m.say(map[State]sentence{StateComplete: sayComplete, StateAbandoned: sayAbandoned}[m.s.State])
		return
	}
	if in.Choice != "" {
		in = m.chosen(in)
	}
	m.s.note(false, in.Text, m.now)
	if m.s.State == StateNew {
		m.begin(Begin{Language: string(spoken(in.Text))})
		m.lines, m.s.Asked[AskUse] = []sentence{sayHello}, 0
	}
	m.speak(in)
	if m.s.State.waits() {
		m.waiting(in)
		return
	}
	if stop(in.Text) && !m.s.SignedUp { // a page that is open can still be paid on
		m.leave()
		return
	}
	answered := m.take(in)
	if in.Bots == 1 {
		m.effects = append(m.effects, CheckBot)
		return
	}
	m.lead = in.Lead
	switch {
	case in.Bots > 1:
		m.say(sayOneBot)
	case in.Broken && m.s.Facts.BotName == "":
		m.say(sayBotBroken)
	}
	if m.s.State == StateRecommending {
		m.decide(in)
		return
	}
	m.goOn(answered)
}

// leave ends a conversation in which nothing can be paid for.
func (m *machine) leave() {
	if m.s.State.Final() || m.s.State.waits() || m.s.SignedUp {
		m.changed = false
		return
	}
	m.s.State, m.s.Asking = StateAbandoned, AskNothing
	m.say(sayAbandoned)
}

// chosen reads a quick reply: only one that was offered counts, and nothing that was written beside it.
func (m *machine) chosen(in Message) Message {
	in.Text, in.Bots, in.Broken, in.Heard, in.Lead = "", 0, false, Heard{}, ""
	for _, q := range m.quick() {
		if q.ID == in.Choice {
			in.Text = q.Label
			return in
		}
	}
	in.Choice = ""
	return in
}

// speak follows the customer into its language.
func (m *machine) speak(in Message) {
	if in.Choice != "" {
		return
	}
	l := spoken(in.Text)
	if l == "" {
		l = in.Heard.Language
	}
	if l == "" || l == m.s.Language {
		return
	}
	m.s.Language = l
	if f := &m.s.Facts; !f.Confirmed {
		if f.AgentLanguage = l; f.TimeZone == zoneFor(control.English) || f.TimeZone == zoneFor(control.Portuguese) {
			f.TimeZone = zoneFor(l)
		}
	}
}

// next returns what is to be found out next, in the order of the questions.
func (m *machine) next() (State, Question) {
	f := &m.s.Facts
	switch {
	case f.Use == "":
		return StateUseCase, AskUse
	case f.People == 0:
		return StateUseCase, AskPeople
	case f.BotName == "":
		return StateTelegram, AskBot
	case f.UserID == 0:
		return StateTelegram, AskUser
	case !f.Confirmed:
		return StatePreferences, AskPreferences
	case f.Email == "":
		return StatePreferences, AskEmail
	}
	return StateRecommending, AskTier
}

// goOn asks what is missing. What has been asked twice, and has a default, is not asked again.
func (m *machine) goOn(answered bool) {
	state, q := m.next()
	if !answered && q == m.s.Asking && m.s.Asked[q] >= 2 {
		f := &m.s.Facts
		switch q {
		case AskUse:
			f.Use = UseOther
		case AskPeople:
			f.People = 1
		case AskPreferences:
			f.Confirmed = true
			m.say(sayPreferencesSet)
		}
		state, q = m.next()
	}
	m.s.State = state
	m.ask(q)
}

// ask asks a question, in other words if it was asked before.
func (m *machine) ask(q Question) {
	again := m.s.Asked[q] > 0
	m.s.Asked[q]++
	m.s.Asking = q
	first := map[Question]sentence{
		AskUse: sayUse, AskPeople: sayPeople, AskBot: sayBot, AskUser: sayUser, AskPreferences: sayPreferences, AskEmail: sayEmail, AskTier: sayOffer,
	}
	second := map[Question]sentence{AskUse: sayUseAgain, AskPeople: sayPeopleAgain, AskBot: sayBotAgain, AskUser: sayUserAgain, AskEmail: sayEmailAgain, AskTier: sayOfferAgain}
	if q == AskTier {
		m.offer()
	}
	if line, ok := second[q]; ok && again {
		m.say(line)
		return
	}
	m.say(first[q])
}

// offer sees to it that a tier is on offer that is on sale.
func (m *machine) offer() {
	if !m.sold(m.s.Facts.Offer) {
		m.s.Facts.Offer = Suggest(m.tiers, m.s.Facts).Name
	}
}

func (m *machine) sold(name string) bool {
	return slices.ContainsFunc(m.tiers, func(t control.Tier) bool { return t.Name == name })
}

// decide reads the answer to an offer. Only a yes and nothing else, or the reply that bears the price,
// takes it; whoever names another tier is told its price first.
func (m *machine) decide(in Message) {
	if name, ok := strings.CutPrefix(in.Choice, "tier:"); ok && m.sold(name) {
		m.accept(name, in.NewID)
		return
	}
	if yes(in.Text) && m.sold(m.s.Facts.Offer) {
		m.accept(m.s.Facts.Offer, in.NewID)
		return
	}
	if name := tierNamed(m.tiers, in.Text); name != "" && name != m.s.Facts.Offer {
		m.s.Facts.Offer = name
		m.s.Asked[AskTier] = 0
	}
	m.ask(AskTier)
}

// purchase is what the customer would pay for now.
func (m *machine) purchase() Purchase {
	return Purchase{m.s.Customer, m.s.Facts.Tier, m.s.Facts.Email}
}

func (m *machine) accept(tier, newID string) {
	m.s.Facts.Tier, m.s.Facts.Offer = tier, tier
	if m.s.Customer == "" {
		m.s.Customer = newID
	}
	m.lead, m.lines = "", nil
	m.effects = append(m.effects, SignUpAndPay)
}
