package onboarding

import (
	"strings"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// take finds facts in a message, and reports whether it answered what was asked. What was found out
// before stays, but for the address until there is a customer. What the customer's own words say counts;
// what the model heard only fills in what they leave open.
func (m *machine) take(in Message) (answered bool) {
	f, asked := &m.s.Facts, m.s.Asking
	before := *f
	group, value, _ := strings.Cut(in.Choice, ":")
	if f.Use == "" {
		f.Use = m.takeUse(in, asked, group, value)
	}
	if f.People == 0 {
		f.People = m.takePeople(in, asked, group, value)
	}
	if f.Load == "" {
		if f.Load = loadOf(in.Text); f.Load == "" {
			f.Load = in.Heard.Load
		}
	}
	if f.Name == "" {
		f.Name = in.Heard.Name
	}
	if f.UserID == 0 && (asked == AskUser || in.Bots == 1) {
		switch n := userOf(in.Text, asked == AskUser); {
		case n == 0:
		case n == f.BotID:
			m.say(sayUserIsBot)
		default:
			f.UserID = n
		}
	}
	m.takeEmail(in, asked)
	m.takePreferences(in, asked, group, value)
	switch asked {
	case AskUse:
		return f.Use != before.Use
	case AskPeople:
		return f.People != before.People
	case AskBot:
		if group == "help" {
			m.say(sayBotHow)
		}
		return false
	case AskUser:
		if group == "help" {
			m.say(sayUserHow)
		}
		return f.UserID != before.UserID
	case AskPreferences:
		return f.Confirmed
	case AskEmail:
		return f.Email != before.Email
	}
	return false
}

// fewWords is how many words there may be beside an address that nobody has asked for: then it is meant as
// the customer's own.
const fewWords = 4

// takeEmail reads an address, until there is a customer who has it.
func (m *machine) takeEmail(in Message, asked Question) {
	f, found := &m.s.Facts, emailOf(in.Text)
	if found == "" || m.s.SignedUp || found == f.Email || asked != AskEmail && besides(in.Text, found) > fewWords {
		return
	}
	if f.Email == "" || m.s.State == StateRecommending {
		// With the other address goes another customer: one of this id may be signing up with the first one.
		f.Email, f.Tier, m.s.Customer = found, "", ""
		m.say(sayEmailSet)
	}
}

func (m *machine) takeUse(in Message, asked Question, group, value string) Use {
	if asked != AskUse {
		return in.Heard.Use
	}
	if group == "use" {
		return Use(value)
	}
	if u := useOf(in.Text); u != "" {
		return u
	}
	if in.Heard.Use != "" {
		return in.Heard.Use
	}
	// Whatever it is: somebody has said what it wants.
	if in.Bots == 0 && !in.Broken && len(words(in.Text)) >= 3 && !greets(in.Text) && !strings.Contains(in.Text, "?") {
		return UseOther
	}
	return ""
}

func (m *machine) takePeople(in Message, asked Question, group, value string) int {
	said := peopleSaid(in.Text)
	if asked == AskPeople {
		switch {
		case group == "people" && value == "one":
			return 1
		case group == "people":
			return several
		}
		said = peopleOf(in.Text)
	}
	if said == 0 {
		said = in.Heard.People
	}
	return said
}

// takePreferences reads the answer to what we propose, or, before it was asked, what the model heard.
func (m *machine) takePreferences(in Message, asked Question, group, value string) {
	f := &m.s.Facts
	if f.Confirmed {
		return
	}
	if asked != AskPreferences {
		if in.Heard.TimeZone != "" {
			f.TimeZone = in.Heard.TimeZone
		}
		return
	}
	language, zone := agentLanguageOf(in.Text), zoneOf(in.Text)
	if group == "lang" {
		language = control.Language(value)
	}
	if zone == "" {
		zone = in.Heard.TimeZone
	}
	if language != "" {
		f.AgentLanguage, f.Confirmed = language, true
	}
	if zone != "" {
		f.TimeZone, f.Confirmed = zone, true
	}
	if f.Confirmed {
		m.say(sayPreferencesSet)
		return
	}
	f.Confirmed = group == "prefs" || yes(in.Text)
}
