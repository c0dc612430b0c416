package onboarding

import "github.com/andreabadesso/openclaw-cloud/control"

// Use is what an agent is for.
type Use string

// The uses.
const (
	UsePersonal Use = "personal"
	UseWork     Use = "work"
	UseResearch Use = "research"
	UseCoding   Use = "coding"
	UseSupport  Use = "support"
	UseOther    Use = "other"
)

// Uses lists all uses.
func Uses() []Use {
	return []Use{UsePersonal, UseWork, UseResearch, UseCoding, UseSupport, UseOther}
}

// Load is how much an agent will do.
type Load string

// The loads.
const (
	Light  Load = "light"
	Medium Load = "medium"
	Heavy  Load = "heavy"
)

// MaxPeople is the largest number of people that is believed.
const MaxPeople = 1000

// wanted is how many tokens a month a load is reckoned to take. Where nothing was said of the load, it
// follows from the use.
func (f Facts) wanted() int64 {
	load := f.Load
	if load == "" {
		switch f.Use {
		case UseWork, UseResearch:
			load = Medium
		case UseCoding, UseSupport:
			load = Heavy
		default:
			load = Light
		}
	}
	switch load {
	case Heavy:
		return 5_000_000
	case Medium:
		return 3_000_000
	}
	return 1_000_000
}

// Suggest says which tier to offer:
//
//  1. the first of the table that lets as many people write to the agent as there are, and has as many
//     tokens as the load is reckoned to take;
//  2. if there is none, the one that lets most people write, and of those the one with most tokens.
//
// The table must not be empty.
func Suggest(tiers []control.Tier, f Facts) control.Tier {
	best := tiers[0]
	for _, t := range tiers {
		if t.TelegramUsers >= f.People && t.MonthlyTokens >= f.wanted() {
			return t
		}
		if t.TelegramUsers > best.TelegramUsers || t.TelegramUsers == best.TelegramUsers && t.MonthlyTokens > best.MonthlyTokens {
			best = t
		}
	}
	return best
}
