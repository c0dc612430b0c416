package openclaw

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxSystemPrompt is how many characters a custom system prompt may have. It is part of every
// request, so each of its tokens is paid for with each answer.
const MaxSystemPrompt = 8000

// MaxTelegramUsers is how many people may be allowed to write to one agent.
const MaxTelegramUsers = 100

// Config says what one box's gateway is to do. It holds no secret: these are in the
// environment, and the rendered file names them.
type Config struct {
	// ProxyURL is the base of token-proxy's OpenAI face, such as
	// http://token-proxy.platform.svc.cluster.local:8080/v1.
	ProxyURL string
	// Models are what the agent may use; the first is its default.
	Models []Model
	// Thinking is how much it thinks by default: low, medium or high.
	Thinking string
	// Language is what it speaks: en or pt-BR.
	Language string
	// TimeZone is its user's, as in the IANA database, such as America/Sao_Paulo.
	TimeZone string
	// SystemPrompt is what the customer adds to the agent's instructions. Empty for none; whether
	// the tier has it is the caller's to know.
	SystemPrompt string
	// TelegramUsers are the numeric ids of the people who may write to the agent. Their order does
	// not matter. Everybody else is not answered.
	TelegramUsers []int64
	// TelegramAPI is where the Bot API is. Empty is Telegram's own; tests have a simulator.
	TelegramAPI string
	// Port is where the gateway listens. 0 is Port, the constant.
	Port int
}

// Model is one that token-proxy serves.
type Model struct {
	ID        string // as token-proxy knows it
	Name      string // for people; the ID if empty
	Context   int    // tokens that prompt and answer may have together
	MaxOutput int    // tokens that an answer may have at most
	// Budget is how many tokens of conversation are kept, at most; older ones are summed up. All of
	// them are sent with every request, so a small monthly limit wants a small one. 0 is Context.
	Budget int
	Images bool // whether it understands them
	// Reasoning is how it is told to think.
	Reasoning Reasoning
}

// Reasoning is how a model is told how much to think.
type Reasoning string

// The ways. Kimi refuses parameters of the wrong kind.
const (
	ReasoningNone   Reasoning = ""       // it does not think, or cannot be told
	ReasoningSwitch Reasoning = "switch" // thinking: {"type": "enabled"}, whatever the level, as kimi-k2.5 and k2.6
	ReasoningEffort Reasoning = "effort" // reasoning_effort: low, high or max, as kimi-k3
	ReasoningAlways Reasoning = "always" // it always thinks and takes no parameter, as kimi-k2.7-code
)

// language is how an agent is told what to speak.
func language(tag string) (name string, ok bool) {
	switch tag {
	case "en":
		return "English", true
	case "pt-BR":
		return "Brazilian Portuguese", true
	}
	return "", false
}

var modelID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,99}$`)

// Validate returns everything that is wrong with a configuration, in words for whoever typed
// it, or nil.
func (c *Config) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(baseURL(c.ProxyURL), "proxy URL %q: want http://host:port/v1 or https://…, without user, query or fragment", c.ProxyURL)
	need(c.TelegramAPI == "" || baseURL(c.TelegramAPI), "Telegram API %q: want http://host:port or https://…, or nothing for Telegram's own", c.TelegramAPI)
	need(c.Port >= 0 && c.Port < 1<<16, "port %d: want 1 to 65535", c.Port)
	need(c.Thinking == "low" || c.Thinking == "medium" || c.Thinking == "high", "thinking %q: want low, medium or high", c.Thinking)
	_, known := language(c.Language)
	need(known, "language %q: want en or pt-BR", c.Language)
	need(ValidTimeZone(c.TimeZone), "time zone %q: want a name of the IANA database, such as America/Sao_Paulo or UTC", c.TimeZone)
	need(utf8.ValidString(c.SystemPrompt), "system prompt: it is not valid UTF-8")
	need(!strings.ContainsRune(c.SystemPrompt, 0), "system prompt: it contains a NUL character")
	n := utf8.RuneCountInString(c.SystemPrompt)
	need(n <= MaxSystemPrompt, "system prompt: %d characters, at most %d are possible", n, MaxSystemPrompt)
	need(len(c.TelegramUsers) > 0, "Telegram users: none; at least one must be allowed to write to the agent")
	need(len(c.TelegramUsers) <= MaxTelegramUsers, "Telegram users: %d, at most %d are possible", len(c.TelegramUsers), MaxTelegramUsers)
	for i, id := range c.TelegramUsers {
		need(id > 0, "Telegram user %d: ids of people are positive (negative ones are groups)", id)
		need(id < 1<<52, "Telegram user %d: ids have at most 52 bits", id)
		need(!slices.Contains(c.TelegramUsers[:i], id), "Telegram user %d: named twice", id)
	}
	need(len(c.Models) > 0, "models: none; at least one is needed")
	for i, m := range c.Models {
		need(modelID.MatchString(m.ID), "model %q: an id has letters, digits and . _ / -", m.ID)
		need(!slices.ContainsFunc(c.Models[:i], func(o Model) bool { return o.ID == m.ID }), "model %q: named twice", m.ID)
		need(m.Context >= minContext, "model %q: a context of %d tokens, at least %d are needed: the agent's instructions alone have thousands", m.ID, m.Context, minContext)
		need(m.MaxOutput > 0 && m.MaxOutput <= m.Context, "model %q: an output of %d tokens; want 1 to its context, %d", m.ID, m.MaxOutput, m.Context)
		need(m.Budget == 0 || m.Budget >= minContext && m.Budget <= m.Context, "model %q: a budget of %d tokens; want %d to its context, %d, or 0", m.ID, m.Budget, minContext, m.Context)
		switch m.Reasoning {
		case ReasoningNone, ReasoningSwitch, ReasoningEffort, ReasoningAlways:
		default:
			need(false, "model %q: reasoning %q is not known", m.ID, m.Reasoning)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("openclaw configuration: %w", err)
	}
	return nil
}

// minContext is the smallest context with which OpenClaw does any work.
const minContext = 32_000

func baseURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		u.RawQuery == "" && u.Fragment == "" && !strings.ContainsAny(s, "$ ") && !strings.HasSuffix(s, "/")
}

// zones are the names of the IANA database, one on a line, sorted.
//
//go:embed zones.txt
var zones string

// ValidTimeZone reports whether name is in the IANA database, written as it is there. The machine
// is not asked: it may have names that a gateway's image has not, such as posix/UTC, or lack all.
func ValidTimeZone(name string) bool {
	_, found := slices.BinarySearch(strings.Fields(zones), name)
	return found
}
