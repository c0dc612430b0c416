package onboarding

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// placeOfBot is what a bot's token is sealed for.
func placeOfBot(id string) []string { return []string{"onboarding_sessions", id, "bot_token"} }

// do does an effect, and returns what came of it; nil if that is nothing, or is tried again.
func (s *Service) do(ctx context.Context, v Session, e Effect, token secret.Text) (Input, error) {
	switch e {
	case CheckBot:
		return s.checkBot(ctx, v, token)
	case SignUpAndPay:
		return s.signUpAndPay(ctx, v), nil
	case HandOver:
		return s.handOver(ctx, v), nil
	case RetryBox:
		if err := s.o.Platform.Retry(ctx, v.Customer, v.Box); err != nil {
			s.o.Logger.Warn("a box is not tried again", "conversation", v.ID, "box", v.Box, "error", err)
		}
	}
	return nil, nil
}

func (s *Service) checkBot(ctx context.Context, v Session, token secret.Text) (Input, error) {
	if token == "" {
		return nil, nil
	}
	bot, err := s.o.Bots.Check(ctx, token)
	if errors.Is(err, ErrBotRefused) {
		return BotChecked{Verdict: BotBad}, nil
	}
	taken := false
	if err == nil {
		taken, err = s.o.Platform.BotTaken(ctx, token)
	}
	switch {
	case err != nil:
		s.o.Logger.Warn("a bot cannot be checked", "conversation", v.ID, "error", err)
		return BotChecked{Verdict: BotUnknown}, nil
	case taken:
		return BotChecked{Verdict: BotTaken}, nil
	}
	sealed, err := s.o.Seals.Seal(token, placeOfBot(v.ID)...)
	if err != nil {
		return nil, err
	}
	return BotChecked{Verdict: BotGood, ID: bot.ID, Name: bot.Name, Sealed: sealed}, nil
}

func (s *Service) signUpAndPay(ctx context.Context, v Session) Input {
	f := v.Facts
	name, _, _ := strings.Cut(f.Email, "@")
	err := s.o.Platform.SignUp(ctx, NewCustomer{
		ID: v.Customer, Name: cmp.Or(f.Name, nameOf(name), "Customer"), Email: f.Email, Tier: f.Tier, Language: v.Language,
	})
	switch {
	case errors.Is(err, control.ErrExists):
		return NotOpened{Why: EmailTaken}
	case err != nil:
		s.o.Logger.Error("a customer cannot sign up", "conversation", v.ID, "customer", v.Customer, "error", err)
		return NotOpened{Why: PayAway}
	}
	url, err := s.o.Platform.CheckoutURL(ctx, v.Customer, f.Tier)
	switch {
	case err == nil:
		return Opened{URL: url}
	case errors.Is(err, control.ErrExists):
		return NotOpened{Why: PaidAlready, SignedUp: true}
	case errors.Is(err, control.ErrInvalid):
		s.o.Logger.Warn("a customer cannot buy", "conversation", v.ID, "customer", v.Customer, "error", err)
		return NotOpened{Why: CannotBeSold, SignedUp: true}
	}
	s.o.Logger.Error("there is no page to pay on", "conversation", v.ID, "customer", v.Customer, "error", err)
	return NotOpened{Why: PayAway, SignedUp: true}
}

// handOver gives the box what it needs. If that does not go just now, the next look at the conversation
// tries it again.
func (s *Service) handOver(ctx context.Context, v Session) Input {
	var token secret.Text
	if v.Sealed != nil {
		var err error
		if token, err = s.o.Seals.Open(v.Sealed, placeOfBot(v.ID)...); err != nil {
			s.o.Logger.Error("a bot's token cannot be read", "conversation", v.ID, "error", err)
			return BotRefused{}
		}
	}
	err := s.o.Platform.HandOver(ctx, v.Customer, v.Box, control.BoxSettings{
		Language: v.Facts.AgentLanguage, TimeZone: v.Facts.TimeZone, TelegramUsers: []int64{v.Facts.UserID},
	}, token)
	switch {
	case err == nil:
		return HandedOver{}
	case errors.Is(err, ErrBotRefused):
		return BotRefused{}
	}
	s.o.Logger.Error("a box does not have its settings yet", "conversation", v.ID, "box", v.Box, "error", err)
	return nil
}
