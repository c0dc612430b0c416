package onboarding

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of a message.
const (
	MaxWords     = 150
	MaxQuestions = 2
	// maxLead is how many words of a message may be the model's.
	maxLead = 40
)

// forbiddenWords are never said: they mean nothing to those we speak to.
var forbiddenWords = []string{"nix", "nixos", "toml", "ssh"}

// clean reports whether a text has no forbidden word.
func clean(text string) bool {
	for _, w := range strings.FieldsFunc(strings.ToLower(readable(text)), func(r rune) bool { return !unicode.IsLetter(r) }) {
		if slices.Contains(forbiddenWords, w) {
			return false
		}
	}
	return true
}

// checkWhole reports whether a message may be said as far as its form goes.
func checkWhole(text string) bool {
	return utf8.ValidString(text) && len(strings.Fields(text)) <= MaxWords && strings.Count(text, "?") <= MaxQuestions && clean(text)
}

// notForModels are words that a model's sentence must not have, because what they are about is for the
// machine alone to say: money, plans, states, secrets, and what it was told itself. Those of the first list
// count as they are, those of the second also as the beginning of a word.
var (
	notForModels = []string{
		"pro", "team", "teams", "done", "ready", "live", "key", "keys", "usd", "brl", "eur", "off", "bot", "bots", "id", "ids", "box", "pod", "admin", "root", "sudo",
		"graca", "sim", "yes", "deal", "offer", "oferta", "bonus", "pix", "zero", "half", "metade", "pronto", "pronta", "feito", "chave", "chaves", "brinde", "nada", "nothing", "www", "http", "https", "url", "link", "links",
		"everyone", "todos", "dono", "owner", "json", "lead", "fields", "cent", "cents", "buck", "bucks", "real", "reais",
	}
	notForModelsAnyEnd = []string{
		"price", "pricing", "cost", "free", "discount", "pay", "paid", "dollar", "plan", "tier", "starter", "upgrad", "subscri", "refund", "trial", "coupon", "credit",
		"promo", "bill", "invoice", "charge", "token", "secret", "password", "passw", "prompt", "instruct", "system", "customer", "client", "database", "administrat", "approv",
		"activat", "confirm", "unlock", "grant", "complete", "provision", "gratis", "gratuit", "desconto", "pag", "preco", "custo", "custa", "plano", "assinatura", "equipe",
		"dolar", "cupom", "credito", "promoc", "fatura", "cobr", "senha", "segred", "instruc", "sistema", "aprov", "ativa", "confirma", "desbloque", "liber", "conclu",
		"complet", "provision", "administra", "usuario", "user", "account", "conta", "email", "mail", "developer", "override", "jailbreak", "guarante", "garant", "reembols", "vip",
		"internal", "intern", "config", "server", "servidor", "kube", "kimi", "moonshot", "openai", "model", "ilimitad", "unlimited", "limit", "forever", "sempre", "gift", "present",
	}
)

// checkLead reports whether a model's sentence may be said before ours. Whatever is not plainly a short,
// kind sentence about nothing that matters is not: then ours goes alone, and nothing is lost.
func checkLead(lead string) bool {
	if lead == "" || !utf8.ValidString(lead) || lead != readable(lead) || !checkWhole(lead) {
		return false
	}
	if text, tokens, broken := cut(lead); text != lead || len(tokens) > 0 || broken {
		return false
	}
	for _, r := range lead {
		switch {
		case unicode.IsLetter(r) && !unicode.Is(unicode.Latin, r):
			return false
		case !unicode.IsLetter(r) && !strings.ContainsRune(" ,.!;:'’-", r) && !unicode.In(r, unicode.Mn):
			return false // digits, currency, addresses, code, questions
		}
	}
	list := words(lead)
	if len(list) == 0 || len(list) > maxLead || spelled(list) || quotes(list) {
		return false
	}
	return !slices.ContainsFunc(list, func(w string) bool {
		return slices.Contains(notForModels, w) || slices.ContainsFunc(notForModelsAnyEnd, func(stem string) bool { return strings.HasPrefix(w, stem) })
	})
}

// spelled reports whether something is spelled letter by letter.
func spelled(list []string) bool {
	run := 0
	for _, w := range list {
		if run++; utf8.RuneCountInString(w) > 1 {
			run = 0
		}
		if run >= 3 {
			return true
		}
	}
	return false
}

// quoted is how many words in a row make a quotation.
const quoted = 6

// quotes reports whether a list of words has so many in a row of what a model is told.
func quotes(list []string) bool {
	for i := 0; i+quoted <= len(list); i++ {
		if strings.Contains(promptWords, " "+strings.Join(list[i:i+quoted], " ")+" ") {
			return true
		}
	}
	return false
}
