package onboarding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// Bot is one of Telegram's.
type Bot struct {
	ID   int64
	Name string // without @
}

// ErrBotRefused says that a token is of no bot, or that a box cannot have it.
var ErrBotRefused = errors.New("the bot is refused")

// BotChecker asks whose a token is. A token that is of no bot is ErrBotRefused; any other error says that it
// is not known. No error has the token.
type BotChecker interface {
	Check(ctx context.Context, token secret.Text) (Bot, error)
}

// BotAPI is Telegram's Bot API, as far as bots are checked.
type BotAPI struct {
	URL    string // such as https://api.telegram.org
	Client *http.Client
}

// username is how Telegram has bots called.
var username = regexp.MustCompile(`^[A-Za-z0-9_]{3,64}$`)

// Check calls getMe.
func (b *BotAPI) Check(ctx context.Context, token secret.Text) (Bot, error) {
	if !tokenShape.MatchString(token.Reveal()) {
		return Bot{}, fmt.Errorf("check a bot: %w: it is no token", ErrBotRefused)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(b.URL, "/")+"/bot"+token.Reveal()+"/getMe", nil)
	if err != nil {
		return Bot{}, errors.New("check a bot: the address of Telegram cannot be used") // the error has the URL, and with it the token
	}
	client := http.Client{Timeout: b.client().Timeout, Transport: b.client().Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // without the URL
		}
		return Bot{}, fmt.Errorf("check a bot: %s", strings.ReplaceAll(err.Error(), token.Reveal(), "[redacted]"))
	}
	defer resp.Body.Close()
	var out struct {
		OK     bool `json:"ok"`
		Result struct {
			ID       int64  `json:"id"`
			IsBot    bool   `json:"is_bot"`
			Username string `json:"username"`
		} `json:"result"`
	}
	decoded := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&out)
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusNotFound:
		return Bot{}, fmt.Errorf("check a bot: %w: Telegram answers %d", ErrBotRefused, resp.StatusCode)
	case resp.StatusCode != http.StatusOK || decoded != nil || !out.OK:
		return Bot{}, fmt.Errorf("check a bot: Telegram answers %d", resp.StatusCode)
	case !out.Result.IsBot || out.Result.ID <= 0 || !username.MatchString(out.Result.Username):
		return Bot{}, fmt.Errorf("check a bot: %w: it is not a bot", ErrBotRefused)
	}
	return Bot{ID: out.Result.ID, Name: out.Result.Username}, nil
}

func (b *BotAPI) client() *http.Client {
	if b.Client == nil {
		return http.DefaultClient
	}
	return b.Client
}
