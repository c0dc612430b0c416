package onboarding

import "github.com/andreabadesso/openclaw-cloud/control"

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
		if f.UserID == in.ID {
			f.UserID = 0
		}
		m.say(sayBotGood)
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
		m.handOver()
	}
}

func (m *machine) opened(in Opened) {
	if m.s.Facts.Tier == "" || m.s.State != StateRecommending && m.s.State != StateAwaitingPayment {
		m.changed = false
		return
	}
	m.s.State, m.s.Asking, m.s.PayURL, m.s.SignedUp = StateAwaitingPayment, AskNothing, in.URL, true
	m.say(sayPay)
}

func (m *machine) notOpened(in NotOpened) {
	if m.s.State != StateRecommending && m.s.State != StateAwaitingPayment {
		m.changed = false
		return
	}
	m.s.SignedUp = m.s.SignedUp || in.SignedUp
	switch {
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
		m.s.Box, m.s.HandedOver = in.Box, false
	}
	if in.HasBot && m.s.BotLost {
		m.changed = true // it was given elsewhere; the settings are still to be handed over
		m.s.BotLost, m.s.Asking = false, AskNothing
	}
	if !m.s.HandedOver && in.Box != "" && !m.s.BotLost {
		if m.s.Sealed == nil && !in.HasBot {
			m.changed = true
			m.loseBot()
			return
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

func (m *machine) handOver() {
	if m.s.Box != "" {
		m.effects = append(m.effects, HandOver)
	}
}

// loseBot asks for another bot.
func (m *machine) loseBot() {
	if !m.s.State.waits() {
		m.changed = false
		return
	}
	m.s.BotLost, m.s.HandedOver, m.s.Sealed, m.s.Asking = true, false, nil, AskBot
	m.s.Facts.BotName, m.s.Facts.BotID = "", 0
	m.say(sayBotLost)
}
