package onboarding

import (
	"cmp"
	"context"
	"errors"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
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
	f, buys := v.Facts, Purchase{v.Customer, v.Facts.Tier, v.Facts.Email}
	err := s.o.Platform.SignUp(ctx, NewCustomer{
		ID: v.Customer, Name: cmp.Or(f.Name, nameInAddress(f.Email), "Customer"), Email: f.Email, Tier: f.Tier, Language: v.Language,
	})
	switch {
	case errors.Is(err, control.ErrExists):
		return NotOpened{Why: EmailTaken, For: buys}
	case err != nil:
		s.o.Logger.Error("a customer cannot sign up", "conversation", v.ID, "customer", v.Customer, "error", err)
		return NotOpened{Why: PayAway, For: buys}
	}
	url, err := s.o.Platform.CheckoutURL(ctx, v.Customer, f.Tier, v.Channel)
	switch {
	case err == nil:
		return Opened{URL: url, For: buys}
	case errors.Is(err, control.ErrExists):
		return NotOpened{Why: PaidAlready, SignedUp: true, For: buys}
	case errors.Is(err, control.ErrConflict):
		s.o.Logger.Info("a page to pay on is being opened already", "conversation", v.ID, "customer", v.Customer, "error", err)
		return NotOpened{Why: BeingOpened, SignedUp: true, For: buys}
	case errors.Is(err, control.ErrInvalid):
		s.o.Logger.Warn("a customer cannot buy", "conversation", v.ID, "customer", v.Customer, "error", err)
		return NotOpened{Why: CannotBeSold, SignedUp: true, For: buys}
	}
	s.o.Logger.Error("there is no page to pay on", "conversation", v.ID, "customer", v.Customer, "error", err)
	return NotOpened{Why: PayAway, SignedUp: true, For: buys}
}

// handOver gives the box what it needs. If that does not go just now, a later look at the conversation tries it
// again. Nobody could correct the language or the time zone if the box refuses that: then it is left out, since an
// agent that goes by the defaults is better than none. Without a bot or somebody who may write to it there is none:
// those are asked for again.
func (s *Service) handOver(ctx context.Context, v Session) Input {
	ctx, cancel := context.WithTimeout(ctx, handOverWithin)
	defer cancel()
	var token secret.Text
	if v.Sealed != nil {
		var err error
		if token, err = s.o.Seals.Open(v.Sealed, placeOfBot(v.ID)...); err != nil {
			s.o.Logger.Error("a bot's token cannot be read", "conversation", v.ID, "error", err)
			return BotRefused{v.handing()}
		}
	}
	chosen := control.BoxSettings{Language: v.Facts.AgentLanguage, TimeZone: v.Facts.TimeZone}
	if v.Facts.UserID != 0 {
		chosen.TelegramUsers = []int64{v.Facts.UserID}
	}
	err := s.o.Platform.HandOver(ctx, v.Customer, v.Box, chosen, token)
	for field := refused(err, chosen); field != ""; field = refused(err, chosen) {
		if field == "telegram_users" {
			s.o.Logger.Warn("a box cannot have its user: another is asked for", "conversation", v.ID, "box", v.Box, "error", err)
			return UserRefused{v.handing(), v.Facts.UserID}
		}
		s.o.Logger.Warn("a box goes without what was chosen for it", "conversation", v.ID, "box", v.Box, "field", field, "error", err)
		switch field {
		case "language":
			chosen.Language = ""
		case "time_zone":
			chosen.TimeZone = ""
		}
		err = s.o.Platform.HandOver(ctx, v.Customer, v.Box, chosen, token)
	}
	switch {
	case err == nil:
		return HandedOver{v.handing()}
	case errors.Is(err, ErrBotRefused):
		return BotRefused{v.handing()}
	}
	s.o.Logger.Error("a box does not have its settings yet", "conversation", v.ID, "box", v.Box, "error", err)
	return nil
}

// refused returns which of the settings that were chosen a box cannot have; "" if err says nothing of the kind.
func refused(err error, chosen control.BoxSettings) string {
	wrong := (*customers.SettingsError)(nil)
	if !errors.As(err, &wrong) {
		return ""
	}
	there := map[string]bool{"language": chosen.Language != "", "time_zone": chosen.TimeZone != "", "telegram_users": chosen.TelegramUsers != nil}
	if !there[wrong.Field] {
		return ""
	}
	return wrong.Field
}
