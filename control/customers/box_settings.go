package customers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// MaxSystemPrompt is how many characters a system prompt may have.
const MaxSystemPrompt = openclaw.MaxSystemPrompt

// SettingsError says which of a box's settings cannot be, and why. It is control.ErrInvalid.
type SettingsError struct {
	Field  string // as JSON names it
	Reason string
}

func (e *SettingsError) Error() string { return e.Field + ": " + e.Reason }

// Unwrap returns control.ErrInvalid.
func (e *SettingsError) Unwrap() error { return control.ErrInvalid }

// BoxSettingsChange is what is to be changed of a box's settings: what is nil stays.
type BoxSettingsChange struct {
	Language      *control.Language
	TimeZone      *string
	Thinking      *string
	SystemPrompt  *string
	TelegramUsers *[]int64
}

// UpdateBoxSettings changes what the customer can choose of a box. What cannot be is a
// SettingsError. Nothing happens if all is as it was.
func (s *Service) UpdateBoxSettings(ctx context.Context, actor string, ref BoxRef, ch BoxSettingsChange) (control.BoxDetail, error) {
	d, err := s.decideBox(ctx, actor, ref, "", func(c *change, d control.BoxDetail) (store.BoxDecision, bool, error) {
		tier, err := c.tiers.Get(c.customer.Tier)
		if err != nil {
			return store.BoxDecision{}, false, err
		}
		next, changed, err := ch.apply(d.Settings, tier)
		// The names only: what they are is the customer's business.
		return store.BoxDecision{Action: "box.settings", Settings: &next, Detail: map[string]any{"changed": changed}}, len(changed) > 0, err
	})
	if err != nil {
		return d, fmt.Errorf("settings of box: %w", err)
	}
	return d, nil
}

// apply returns the settings that follow, and the names of those that are others.
func (ch *BoxSettingsChange) apply(before control.BoxSettings, tier control.Tier) (next control.BoxSettings, changed []string, err error) {
	next = before
	different := make(map[string]bool)
	if ch.Language != nil {
		next.Language, different["language"] = *ch.Language, *ch.Language != before.Language
	}
	if ch.TimeZone != nil {
		next.TimeZone, different["time_zone"] = *ch.TimeZone, *ch.TimeZone != before.TimeZone
	}
	if ch.Thinking != nil {
		next.Thinking, different["thinking"] = *ch.Thinking, *ch.Thinking != before.Thinking
	}
	if ch.SystemPrompt != nil {
		prompt := strings.ReplaceAll(*ch.SystemPrompt, "\r\n", "\n")
		next.SystemPrompt, different["system_prompt"] = prompt, prompt != before.SystemPrompt
	}
	if ch.TelegramUsers != nil {
		next.TelegramUsers = slices.Clone(*ch.TelegramUsers)
		different["telegram_users"] = !slices.Equal(next.TelegramUsers, before.TelegramUsers)
	}
	maps.DeleteFunc(different, func(_ string, is bool) bool { return !is })
	changed = slices.Sorted(maps.Keys(different))
	// Only what is new is looked at: a smaller tier leaves what was chosen, and Desired leaves it out.
	for _, name := range changed {
		if reason := wrong(name, next, tier); reason != "" {
			return before, nil, &SettingsError{Field: name, Reason: reason}
		}
	}
	return next, changed, nil
}

// wrong says why a setting cannot be; "" if it can.
func wrong(name string, s control.BoxSettings, tier control.Tier) string {
	switch name {
	case "language":
		if s.Language != "" && s.Language != control.English && s.Language != control.Portuguese {
			return fmt.Sprintf("it must be %q or %q, or empty for that of the account", control.English, control.Portuguese)
		}
	case "time_zone":
		if s.TimeZone != "" && !openclaw.ValidTimeZone(s.TimeZone) {
			return "it must be a name of the IANA database, such as \"America/Sao_Paulo\", or empty for UTC"
		}
	case "thinking":
		if s.Thinking != "" && s.Thinking != "low" && s.Thinking != "medium" && s.Thinking != "high" {
			return "it must be \"low\", \"medium\" or \"high\", or empty for that of the plan"
		}
	case "system_prompt":
		switch {
		case s.SystemPrompt != "" && !tier.CustomSystemPrompt:
			return fmt.Sprintf("the plan %s has no system prompt of one's own", tier.Title)
		case utf8.RuneCountInString(s.SystemPrompt) > MaxSystemPrompt:
			return fmt.Sprintf("it has %d characters; %d are the most", utf8.RuneCountInString(s.SystemPrompt), MaxSystemPrompt)
		case !utf8.ValidString(s.SystemPrompt) || strings.ContainsFunc(s.SystemPrompt, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }):
			return "it has characters that no text has"
		}
	case "telegram_users":
		if len(s.TelegramUsers) > tier.TelegramUsers {
			return fmt.Sprintf("%d are too many: the plan %s allows %d", len(s.TelegramUsers), tier.Title, tier.TelegramUsers)
		}
		seen := make(map[int64]bool)
		for _, id := range s.TelegramUsers {
			if id <= 0 || id >= 1<<52 || seen[id] { // Telegram's ids have 52 bits at most
				return "each must be the number of another Telegram user, as bots like @userinfobot show it"
			}
			seen[id] = true
		}
	}
	return ""
}

// FollowLanguage has those boxes of a customer changed that speak the language of its account,
// which is another one now.
func (s *Service) FollowLanguage(ctx context.Context, actor, customerID string) error {
	err := s.locked(ctx, customerID, func(c *change) error {
		boxes, err := c.tx.BoxDetails(ctx, customerID)
		if err != nil {
			return err
		}
		for _, d := range boxes {
			if d.Settings.Language != "" || d.Wants == control.BoxDestroy {
				continue
			}
			if _, err := c.decide(ctx, actor, d.Box, store.BoxDecision{Action: "box.language"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("language of boxes: %w", err)
	}
	return nil
}

// telegramToken is what a bot's token looks like.
var telegramToken = regexp.MustCompile(`^[0-9]{6,20}:[A-Za-z0-9_-]{30,100}$`)

// botDigest is by what a bot is recognised that has this token. It is of the whole token: with the bot's
// number alone, which everybody may see, anybody could keep a bot from its owner.
func (s *Service) botDigest(token secret.Text) []byte {
	d := s.Hasher.Digest([]byte("telegram bot\x00" + token.Reveal()))
	return d[:]
}

// botTaken says of a bot that another box has it, and what to do. Another customer's box is not named.
func botTaken(ownBoxID string) error {
	reason := "another box has this bot, and two would take each other's messages: make another bot with Telegram's @BotFather; or, if it is yours, " +
		"have @BotFather revoke its token, which takes it away from there, and give this box the new one"
	if ownBoxID != "" {
		reason = fmt.Sprintf("your box %s has this bot, and two would take each other's messages: take it away from there first, by setting its token to an empty one, "+
			"or make another bot with Telegram's @BotFather", ownBoxID)
	}
	return &SettingsError{Field: "token", Reason: reason}
}

// BotTaken reports whether a box has the Telegram bot of a token: whoever does not know the whole token
// learns nothing.
func (s *Service) BotTaken(ctx context.Context, token secret.Text) (bool, error) {
	if s.Hasher == nil {
		return false, errors.New("box of a bot: no token pepper is configured")
	}
	err := s.Store.InTx(ctx, func(tx *store.Tx) error { _, err := tx.BoxOfBot(ctx, s.botDigest(token)); return err })
	if errors.Is(err, control.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// SetTelegramToken gives a box the token of the customer's Telegram bot; "" takes it away. It is
// kept sealed, and shown to nobody. One that cannot be, or that another box has, is a SettingsError.
func (s *Service) SetTelegramToken(ctx context.Context, actor string, ref BoxRef, token secret.Text) (control.BoxDetail, error) {
	if token != "" && !telegramToken.MatchString(token.Reveal()) {
		return control.BoxDetail{}, fmt.Errorf("Telegram token of box: %w", &SettingsError{
			Field: "token", Reason: "it does not look like a token of Telegram's @BotFather: a number, a colon and at least 30 letters, digits, _ or -",
		})
	}
	if s.Seals == nil {
		return control.BoxDetail{}, fmt.Errorf("Telegram token of box: %w", errNoSeals)
	}
	if s.Hasher == nil {
		return control.BoxDetail{}, errors.New("Telegram token of box: no token pepper is configured")
	}
	d, err := s.decideBox(ctx, actor, ref, "", func(c *change, d control.BoxDetail) (store.BoxDecision, bool, error) {
		sealed := []byte{}
		var bot []byte
		if token != "" {
			bot = s.botDigest(token)
			other, err := c.tx.BoxOfBot(ctx, bot)
			switch {
			case errors.Is(err, control.ErrNotFound) || err == nil && other.ID == d.ID:
			case err != nil:
				return store.BoxDecision{}, false, err
			case other.CustomerID == d.CustomerID:
				return store.BoxDecision{}, false, botTaken(other.ID)
			default:
				return store.BoxDecision{}, false, botTaken("")
			}
			if sealed, err = s.Seals.Seal(token, placeOfTelegramToken(d.ID)...); err != nil {
				return store.BoxDecision{}, false, err
			}
		}
		before, err := c.tx.SealedTelegramToken(ctx, d.ID)
		if err != nil {
			return store.BoxDecision{}, false, err
		}
		var known secret.Text
		if before != nil {
			// One that cannot be opened is replaced.
			if known, err = s.Seals.Open(before, placeOfTelegramToken(d.ID)...); err != nil && !errors.Is(err, secret.ErrSealed) {
				return store.BoxDecision{}, false, err
			}
		}
		needed := d.Wants == control.BoxDestroy || known != token || token == "" && before != nil
		return store.BoxDecision{Action: "box.telegram_token", TelegramToken: sealed, TelegramBot: bot, Detail: map[string]any{"has_token": token != ""}}, needed, nil
	})
	if errors.Is(err, control.ErrExists) {
		err = botTaken("") // whoever saved it at the same time was first
	}
	if err != nil {
		return d, fmt.Errorf("Telegram token of box: %w", err)
	}
	return d, nil
}
