package onboarding

import (
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// waiting answers a message while the payment or the box is waited for: nothing that is said moves those.
func (m *machine) waiting(in Message) {
	if m.s.BotLost && in.Bots == 1 {
		m.effects = append(m.effects, CheckBot)
		return
	}
	switch {
	case m.s.BotLost && in.Bots > 1:
		m.say(sayOneBot)
	case m.s.BotLost && in.Broken:
		m.say(sayBotBroken)
	case m.s.BotLost:
		m.say(sayBotLost)
	case m.s.Asking == AskUser && in.Choice == "":
		m.takeUser(in)
	case m.s.State == StateAwaitingPayment && in.Choice == "plan":
		m.s.State, m.s.Facts.Tier, m.s.PayURL, m.s.Asked[AskTier] = StateRecommending, "", "", 0
		m.ask(AskTier)
	case m.s.State == StateAwaitingPayment && in.Choice == "pay":
		m.effects = append(m.effects, SignUpAndPay) // the page may have been closed
	case m.s.State == StateAwaitingPayment:
		m.say(sayAwaiting)
	case m.s.State == StateFailed && in.Choice == "retry":
		m.effects = append(m.effects, RetryBox)
		m.say(sayTriedAgain)
	case m.s.State == StateFailed:
		m.say(sayFailed)
	default:
		m.say(sayMaking)
	}
}

func (m *machine) botChecked(in BotChecked) {
	if m.s.State.Final() || m.s.State == StateNew || m.s.State.waits() && !m.s.BotLost {
		m.changed = false
		return
	}
	f := &m.s.Facts
	switch in.Verdict {
	case BotGood:
		f.BotID, f.BotName, m.s.Sealed = in.ID, in.Name, in.Sealed
		m.say(sayBotGood)
		if f.UserID == in.ID { // nobody's number is a bot's: it is asked for again
			f.UserID = 0
			m.say(sayUserIsBot)
		}
	case BotTaken:
		m.say(sayBotTaken)
	case BotBad:
		m.say(sayBotBad)
	default:
		m.say(sayBotUnknown)
	}
	if !m.s.State.waits() {
		m.goOn(in.Verdict == BotGood)
		return
	}
	if in.Verdict == BotGood {
		m.s.BotLost, m.s.Asking = false, AskNothing
		if f.UserID == 0 {
			m.s.Asking = AskUser
			m.say(sayUser)
			return
		}
		m.handOver()
	}
}

// takeUser reads who may write to the agent, when that is asked for again: without anybody the box does not run.
func (m *machine) takeUser(in Message) {
	switch n := userOf(in.Text, true); n {
	case 0:
		m.say(sayUserAgain)
	case m.s.Facts.BotID:
		m.say(sayUserIsBot)
	default:
		m.s.Facts.UserID, m.s.Asking = n, AskNothing
		m.say(sayTriedAgain)
		m.handOver()
	}
}

// buys reports whether a purchase is of this customer, and notes that there is one.
func (m *machine) buys(p Purchase, signedUp bool) bool {
	now := m.purchase()
	if m.s.State != StateRecommending && m.s.State != StateAwaitingPayment || p.Customer != now.Customer || p.Email != now.Email {
		m.changed = false
		return false
	}
	m.changed = signedUp && !m.s.SignedUp
	m.s.SignedUp = m.s.SignedUp || signedUp
	return true
}

// opened shows the page to pay on. One for another tier than was chosen meanwhile bears another price than is
// said, and when it was opened it closed the other's: so that one is asked for again.
func (m *machine) opened(in Opened) {
	if !m.buys(in.For, true) {
		return
	}
	if in.For != m.purchase() {
		m.openAgain()
		return
	}
	m.changed = true
	m.s.State, m.s.Asking, m.s.PayURL = StateAwaitingPayment, AskNothing, in.URL
	m.say(sayPay)
}

// openAgain asks for the page of the tier that was chosen, if one was.
func (m *machine) openAgain() {
	if m.s.Facts.Tier != "" {
		m.effects = append(m.effects, SignUpAndPay)
	}
}

func (m *machine) notOpened(in NotOpened) {
	if !m.buys(in.For, in.SignedUp) {
		return
	}
	if in.For != m.purchase() && in.Why != PaidAlready && in.Why != EmailTaken { // those are so whatever the tier is
		if in.Why != BeingOpened {
			m.openAgain()
		}
		return
	}
	m.changed = true
	switch {
	case in.Why == BeingOpened: // that page shall still count
		m.say(sayBeingOpened)
	case in.Why == PaidAlready:
		m.s.State, m.s.Asking, m.s.SignedUp = StateAwaitingPayment, AskNothing, true
		m.say(sayAwaiting)
	case in.Why == EmailTaken && !m.s.SignedUp:
		m.s.Facts.Email, m.s.Facts.Tier, m.s.Customer = "", "", ""
		m.s.State = StatePreferences
		m.say(sayEmailTaken)
		m.ask(AskEmail)
	default:
		if m.s.State == StateRecommending {
			m.s.Facts.Tier = ""
		}
		m.say(map[bool]sentence{true: sayCannotBuy, false: sayPayAway}[in.Why == CannotBeSold])
	}
}

// observed follows what Postgres says. It is called again and again, and most often nothing is new.
func (m *machine) observed(in Observed) {
	m.changed = false
	if !m.s.SignedUp || m.s.State.Final() {
		return
	}
	if in.Gone {
		m.changed = true
		m.s.State, m.s.Asking, m.s.BotLost = StateAbandoned, AskNothing, false
		m.say(sayAbandoned)
		return
	}
	if in.Paid && !m.s.State.waits() || in.Paid && m.s.State == StateAwaitingPayment {
		m.changed = true
		m.s.State, m.s.Asking, m.s.PayURL = StateProvisioning, AskNothing, ""
		m.say(sayPaid)
	}
	if m.s.State != StateProvisioning && m.s.State != StateFailed {
		return
	}
	if in.Box != m.s.Box {
		m.changed = true
		m.s.Box, m.s.HandedOver, m.s.Tried, m.s.TryAt = in.Box, false, 0, time.Time{}
	}
	if in.HasBot && m.s.BotLost {
		m.changed = true // it was given elsewhere; the settings are still to be handed over
		m.s.BotLost, m.s.Asking = false, AskNothing
	}
	if !m.s.HandedOver && in.Box != "" && !m.s.BotLost && !m.now.Before(m.s.TryAt) {
		if m.s.Sealed == nil && !in.HasBot {
			m.changed = true
			m.loseBot()
			return
		}
		if m.s.Facts.UserID == 0 && !in.HasUsers {
			if m.s.Asking != AskUser {
				m.changed = true
				m.loseUser()
			}
			return
		}
		if m.s.Asking == AskUser { // somebody was given elsewhere
			m.s.Asking = AskNothing
		}
		m.handOver()
	}
	m.follow(in)
}

// follow follows the state of the box.
func (m *machine) follow(in Observed) {
	switch in.State {
	case control.BoxActive:
		// Not before: with the hand-over also go the settings, and the mail that says how to sign in.
		if !m.s.HandedOver || m.s.BotLost {
			return
		}
		m.changed = true
		m.s.State = StateComplete
		m.say(sayComplete)
	case control.BoxFailed:
		if m.s.State == StateProvisioning && m.s.HandedOver {
			m.changed = true
			m.s.State = StateFailed
			m.say(sayFailed)
		}
	case control.BoxPending, control.BoxProvisioning, control.BoxUpdating:
		if m.s.State == StateFailed {
			m.changed = true
			m.s.State = StateProvisioning
			m.say(sayTriedAgain)
		}
	}
}

const (
	// handOverWithin is how long a hand-over may take.
	handOverWithin = 10 * time.Second
	// firstPause and longestPause bound how long a hand-over that did not go is left alone: each further time
	// it is twice as long. Before the first one is over no other begins.
	firstPause, longestPause = handOverWithin, 10 * time.Minute
)

// handOver has the box given what it needs. Everybody who follows the conversation, in whatever process, asks
// for that again and again, so it is noted before it is tried when the next try may be: one of them tries it,
// and one that fails for good is tried seldom.
func (m *machine) handOver() {
	if m.s.Box == "" {
		return
	}
	m.quiet, m.changed = !m.changed, true
	m.s.TryAt = m.now.Add(min(firstPause<<min(m.s.Tried, 20), longestPause))
	m.s.Tried++
	m.effects = append(m.effects, HandOver)
}

// handing reports whether this is what is being handed over now.
func (m *machine) handing(h Handing) bool {
	return (m.s.State == StateProvisioning || m.s.State == StateFailed) && !m.s.BotLost && h == m.s.handing()
}

// loseBot asks for another bot.
func (m *machine) loseBot() {
	m.s.BotLost, m.s.HandedOver, m.s.Sealed, m.s.Asking = true, false, nil, AskBot
	m.s.Tried, m.s.TryAt = 0, time.Time{}
	m.s.Facts.BotName, m.s.Facts.BotID = "", 0
	m.say(sayBotLost)
}

// loseUser asks again who may write to the agent.
func (m *machine) loseUser() {
	m.s.HandedOver, m.s.Asking, m.s.Facts.UserID = false, AskUser, 0
	m.s.Tried, m.s.TryAt = 0, time.Time{}
	m.say(sayUserLost)
}
