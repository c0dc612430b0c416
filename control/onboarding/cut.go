package onboarding

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// The marks that stand where something was cut out.
const (
	markBot    = "[bot token]"
	markSecret = "[removed]"
)

var (
	// wholeToken is the token of a bot, with what may have come between its halves.
	wholeToken = regexp.MustCompile(`([0-9]{6,20})\s*:\s*([A-Za-z0-9_-]{30,})`)
	// brokenToken is one that was not copied whole, or lies on several lines. It takes some words too
	// many rather than leave a part of a token.
	brokenToken = regexp.MustCompile(`[0-9]{6,}\s*:\s*[A-Za-z0-9_-]+(?:\s+[A-Za-z0-9_-]{4,})*`)
	// secretPrefix is what is known to be a secret by its beginning.
	secretPrefix = regexp.MustCompile(`(?i)\b(?:sk|rk|pk|ocp|ocm|whsec|gh[a-z]|xox[a-z]|akia)[-_]?[A-Za-z0-9_-]*[0-9][A-Za-z0-9_-]{7,}`)
	// longRun is no word of any language.
	longRun = regexp.MustCompile(`[A-Za-z0-9_+/=-]{30,}`)
	// digits may be the number of a card.
	digits = regexp.MustCompile(`[0-9](?:[ .-]?[0-9]){12,18}`)

	emailShape  = regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+`)
	numberShape = regexp.MustCompile(`[0-9]{5,}`)
	// tokenShape is what customers.Service takes for a bot's token.
	tokenShape = regexp.MustCompile(`^[0-9]{6,20}:[A-Za-z0-9_-]{30,100}$`)
)

// readable returns what somebody wrote as one would read it: no characters that are not seen or that only
// look like others, which could hide a token or a word.
func readable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co), unicode.In(r, unicode.Mn, unicode.Me) && !accent(r):
			return -1
		case r >= 0xFF01 && r <= 0xFF5E: // full width
			return r - 0xFEE0
		case strings.ContainsRune("ː∶꞉﹕︓", r):
			return ':'
		case strings.ContainsRune("‐‑‒−", r):
			return '-'
		}
		return r
	}, text)
}

// short bounds what is kept.
func short(text string, most int) string {
	text = strings.TrimSpace(text)
	if utf8.RuneCountInString(text) > most {
		text = strings.TrimSpace(string([]rune(text)[:most]))
	}
	return text
}

// accent reports whether a mark is one of those that Portuguese has, written apart from its letter.
func accent(r rune) bool { return r >= 0x0300 && r <= 0x0303 || r == 0x0327 }

// cut takes the tokens of bots, and whatever else looks like a secret, out of a message. What it returns
// as text may be kept and shown to a model. broken says that there was something like a token that is
// not one.
func cut(message string) (text string, tokens []secret.Text, broken bool) {
	text, tokens, broken, _ = cutSurely(message)
	return text, tokens, broken
}

// cutSurely is cut. sure says that something was cut out, and not only a word of a sentence that merely is about a
// password.
func cutSurely(message string) (text string, tokens []secret.Text, broken, sure bool) {
	// Before it is shortened: half a token would not be recognised.
	if len(message) > 8*keptText {
		message = message[:8*keptText]
	}
	text = readable(message)
	text = wholeToken.ReplaceAllStringFunc(text, func(found string) string {
		m := wholeToken.FindStringSubmatch(found)
		token := m[1] + ":" + m[2]
		switch {
		case !tokenShape.MatchString(token):
			broken = true
		case !slices.Contains(tokens, secret.Text(token)):
			tokens = append(tokens, secret.Text(token))
		}
		return markBot
	})
	// All of them are looked for in the same text: what one of them takes may be what another is known by.
	spans := passwords(text)
	find := func(what *regexp.Regexp, is func(string) bool) {
		for _, at := range what.FindAllStringIndex(text, -1) {
			if is == nil || is(text[at[0]:at[1]]) {
				spans = append(spans, span{from: at[0], to: at[1]})
			}
		}
	}
	find(brokenToken, func(string) bool { broken = true; return true })
	find(secretPrefix, nil)
	find(longRun, nil)
	find(digits, luhn)
	sure = len(tokens) > 0 || broken || slices.ContainsFunc(spans, func(s span) bool { return !s.doubtful })
	return short(without(text, spans), keptText), tokens, broken, sure
}

// without returns a text with a mark in the place of each of some parts of it, and of those that overlap.
func without(text string, spans []span) string {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(a.from-b.from, a.to-b.to) })
	var out strings.Builder
	at := 0
	for i := 0; i < len(spans); {
		from, to := spans[i].from, spans[i].to
		for i++; i < len(spans) && spans[i].from < to; i++ {
			to = max(to, spans[i].to)
		}
		out.WriteString(text[at:from] + markSecret)
		at = to
	}
	return out.String() + text[at:]
}

// HasSecret reports whether a message has something secret: whoever keeps messages has to forget this one. A word
// that is cut out of a sentence such as "password reset is broken", only to be on the safe side, is nothing of the
// kind.
func HasSecret(message string) bool {
	_, _, _, sure := cutSurely(message)
	return sure
}

// LooksLikeBotToken reports whether something has the form of a bot's token.
func LooksLikeBotToken(token secret.Text) bool { return tokenShape.MatchString(token.Reveal()) }

// luhn reports whether digits are those of a card.
func luhn(text string) bool {
	sum, n := 0, 0
	for i := len(text) - 1; i >= 0; i-- {
		if text[i] < '0' || text[i] > '9' {
			continue
		}
		d := int(text[i] - '0')
		if n%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
		n++
	}
	return n >= 13 && sum%10 == 0
}

// forModel leaves out of a text that was cut what a model need not know.
func forModel(text string) string {
	return numberShape.ReplaceAllString(emailShape.ReplaceAllString(text, "[e-mail]"), "[number]")
}
