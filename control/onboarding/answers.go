package onboarding

import (
	"net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// fold returns a text as words are compared: in lower case, without accents and punctuation.
func fold(text string) string {
	var out strings.Builder
	space := true
	for _, r := range strings.ToLower(text) {
		if i := strings.IndexRune("áàâãäéèêëíìîïóòôõöúùûüçñ", r); i >= 0 {
			r = rune("aaaaaeeeeiiiiooooouuuucn"[len([]rune("áàâãäéèêëíìîïóòôõöúùûüçñ"[:i]))])
		}
		switch {
		case r >= 0x0300 && r <= 0x036F:
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			out.WriteRune(r)
			space = false
		case !space && r != '\'' && r != '’':
			out.WriteByte(' ')
			space = true
		}
	}
	return strings.TrimSpace(out.String())
}

// words splits a folded text.
func words(text string) []string { return strings.Fields(fold(text)) }

// hasAny reports whether a folded text has one of some words or phrases.
func hasAny(folded string, phrases ...string) bool {
	padded := " " + folded + " "
	return slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(padded, " "+p+" ") })
}

// isAny reports whether a folded text is one of some phrases, and nothing else.
func isAny(folded string, phrases ...string) bool { return slices.Contains(phrases, folded) }

// yes reports whether a message is consent and nothing else: it is what money is spent upon, so no part of
// a sentence counts.
func yes(text string) bool {
	if strings.ContainsRune(text, '?') {
		return false
	}
	return isAny(fold(text), "yes", "y", "yes please", "yeah", "yep", "yup", "sure", "ok", "okay", "ok yes", "yes ok", "correct", "right", "thats right", "that is right",
		"all right", "alright", "sounds good", "go ahead", "lets go", "lets do it", "i accept", "accept", "i agree", "i confirm", "confirm", "perfect", "great", "fine", "yes thats right", "yes that is right",
		"sim", "s", "sim por favor", "claro", "claro que sim", "certo", "isso", "isso mesmo", "esta certo", "ta certo", "correto", "exato", "pode ser", "pode", "beleza",
		"blz", "vamos", "vamos la", "quero", "quero sim", "eu quero", "aceito", "eu aceito", "concordo", "confirmo", "perfeito", "otimo", "combinado", "fechado", "ok sim", "sim ok")
}

// stop reports whether somebody ends the conversation.
func stop(text string) bool {
	return isAny(strings.ToLower(strings.TrimSpace(text)), "/cancel", "/stop", "cancel", "stop", "cancelar", "/cancelar", "parar", "desistir")
}

// greets reports whether a message says hello and nothing else.
func greets(text string) bool {
	return isAny(fold(text), "", "hi", "hello", "hey", "hi there", "hello there", "good morning", "good afternoon", "good evening", "start", "lets begin", "begin",
		"oi", "ola", "bom dia", "boa tarde", "boa noite", "oi tudo bem", "ola tudo bem", "tudo bem", "opa", "e ai", "iniciar", "comecar", "vamos comecar", "quero comecar")
}

// addressed is an address of a mailbox or a page, whose words are of no language.
var addressed = regexp.MustCompile(`\S*[@./:]\S+`)

// spoken returns in which language a message is written, "" if that cannot be told.
func spoken(text string) control.Language {
	folded := fold(text)
	switch {
	case hasAny(folded, "in english", "speak english", "english please", "em ingles") || isAny(folded, "english", "ingles"):
		return control.English
	case hasAny(folded, "em portugues", "in portuguese", "fala portugues", "portugues por favor") || isAny(folded, "portugues", "portuguese"):
		return control.Portuguese
	}
	score := 0
	for _, w := range words(addressed.ReplaceAllString(text, " ")) {
		switch w {
		case "the", "my", "want", "would", "like", "need", "with", "and", "for", "is", "are", "it", "this", "that", "hello", "hi", "yes", "please", "you", "your",
			"just", "only", "help", "what", "how", "have", "i", "im", "to", "of", "will", "thanks", "here":
			score++
		case "quero", "voce", "nao", "meu", "minha", "para", "pra", "com", "que", "uma", "um", "eu", "oi", "ola", "sim", "obrigado", "obrigada", "preciso", "ajuda", "ajudar",
			"de", "da", "os", "seu", "sua", "isso", "aqui", "gostaria", "somos", "como", "por", "favor", "apenas", "sozinho", "sozinha", "trabalho":
			score--
		}
	}
	switch {
	case score > 0:
		return control.English
	case score < 0:
		return control.Portuguese
	}
	return ""
}

// useOf finds what an agent is for by words that say it.
func useOf(text string) Use {
	folded := fold(text)
	for _, u := range []struct {
		use   Use
		words []string
	}{
		{UseSupport, []string{"customer support", "customer service", "support", "helpdesk", "atendimento", "suporte", "atender clientes", "clientes", "customers", "sac"}},
		{UseCoding, []string{"code", "coding", "programming", "program", "software", "developer", "development", "github", "programar", "programacao", "codigo", "desenvolvimento", "desenvolvedor"}},
		{UseResearch, []string{"research", "study", "studies", "studying", "learn", "learning", "university", "school", "thesis", "pesquisa", "pesquisar", "estudo", "estudos", "estudar", "aprender", "faculdade", "universidade", "escola"}},
		{UseWork, []string{"work", "business", "company", "office", "job", "clients", "sales", "marketing", "emails", "meetings", "trabalho", "negocio", "empresa", "escritorio", "vendas", "reunioes", "firma"}},
		{UsePersonal, []string{"personal", "myself", "home", "family", "daily life", "everyday", "day to day", "hobby", "shopping", "recipes", "travel", "pessoal", "casa", "familia", "dia a dia", "rotina", "receitas", "viagem", "viagens", "compras"}},
	} {
		if hasAny(folded, u.words...) {
			return u.use
		}
	}
	return ""
}

// loadOf finds how much an agent will do.
func loadOf(text string) Load {
	folded := fold(text)
	switch {
	case hasAny(folded, "all day", "heavily", "heavy use", "a lot every day", "around the clock", "o dia todo", "o dia inteiro", "uso intenso", "muito uso"):
		return Heavy
	case hasAny(folded, "now and then", "once in a while", "occasionally", "rarely", "light use", "de vez em quando", "as vezes", "raramente", "pouco uso"):
		return Light
	}
	return ""
}

var (
	allDigits = regexp.MustCompile(`[0-9]+`)
	// countedPeople is a number of people that says that it is one.
	countedPeople = regexp.MustCompile(`\b([0-9]{1,4}) ?(?:people|persons|users|of us|colleagues|pessoas|usuarios|colegas)\b`)
)

// peopleOf finds for how many people an agent is; 0 if that is not said. It is the answer to the question.
func peopleOf(text string) int {
	folded, most := fold(text), 0
	for _, found := range allDigits.FindAllString(emailShape.ReplaceAllString(text, ""), -1) {
		if n, err := strconv.Atoi(found); err == nil && n <= MaxPeople {
			most = max(most, n) // "5 to 10" are 10
		}
	}
	if most > 0 {
		return most
	}
	if isAny(folded, "me", "myself", "one", "one person", "eu", "um", "uma pessoa", "eu mesmo", "eu mesma") {
		return 1
	}
	if n := peopleSaid(text); n > 0 {
		return n
	}
	for i, names := range [][]string{
		{"two", "couple", "dois", "duas", "casal"}, {"three", "tres"}, {"four", "quatro"}, {"five", "cinco"}, {"six", "seis"}, {"seven", "sete"},
		{"eight", "oito"}, {"nine", "nove"}, {"ten", "dez"},
	} {
		if hasAny(folded, names...) {
			return i + 2
		}
	}
	if hasAny(folded, "team", "colleagues", "company", "family", "several", "equipe", "time", "colegas", "empresa", "familia", "varias", "varios", "pessoas") {
		return several
	}
	return 0
}

// peopleSaid is peopleOf of a text that was no answer to that question: what can be nothing else.
func peopleSaid(text string) int {
	folded := fold(text)
	if m := countedPeople.FindStringSubmatch(folded); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n <= MaxPeople {
			return n
		}
	}
	if hasAny(folded, "just me", "only me", "by myself", "for myself", "alone", "so eu", "somente eu", "apenas eu", "so para mim", "so pra mim", "sozinho", "sozinha") {
		return 1
	}
	return 0
}

// several is for how many people an agent is reckoned to be of which is only said that they are more
// than one.
const several = 5

var (
	// labelledUser is a number that is said to be somebody's, as @userinfobot says it.
	labelledUser = regexp.MustCompile(`(?i)\bid\b(?: is| é| e)?[^0-9A-Za-z+]{0,3}([0-9]{5,})\b`)
	// standing is a number that is no part of a name.
	standing = regexp.MustCompile(`\+?\b[0-9]+\b`)
)

// userOf finds the number of a Telegram user; 0 if there is none, or more than one. Whose it is may write to
// the agent, so nothing is guessed: not the digits of a name or of a telephone number, which are a
// stranger's, and, unless it was asked for, nothing that is not called so.
func userOf(text string, asked bool) int64 {
	text = emailShape.ReplaceAllString(text, "")
	found := ""
	if labelled := labelledUser.FindAllStringSubmatch(text, -1); len(labelled) == 1 {
		found = labelled[0][1]
	} else if all := standing.FindAllString(text, -1); asked && len(all) == 1 && len(all[0]) >= 5 && all[0][0] != '+' {
		found = all[0]
	}
	n, err := strconv.ParseInt(found, 10, 64)
	if err != nil || n <= 0 || n >= 1<<52 {
		return 0
	}
	return n
}

// maxEmail is how many bytes an address may have (RFC 5321).
const maxEmail = 254

// emailOf finds an address; "" if there is none, or more than one.
func emailOf(text string) string {
	found := emailShape.FindAllString(text, -1)
	if len(found) != 1 {
		return ""
	}
	address := strings.Trim(found[0], ".-")
	a, err := mail.ParseAddress(address)
	if err != nil || a.Address != address || a.Name != "" || len(address) > maxEmail {
		return ""
	}
	return strings.ToLower(address)
}

// agentLanguageOf finds which language an agent shall speak; "" if none, or both, are named.
func agentLanguageOf(text string) control.Language {
	folded := fold(text)
	en, pt := hasAny(folded, "english", "ingles"), hasAny(folded, "portuguese", "portugues", "brazilian", "brasileiro")
	switch {
	case en && !pt:
		return control.English
	case pt && !en:
		return control.Portuguese
	}
	return ""
}

// besides is how many words a message has beside an address.
func besides(text, address string) int {
	at := strings.Index(strings.ToLower(text), address)
	if at < 0 || address == "" {
		return len(words(text))
	}
	return len(words(text[:at])) + len(words(text[at+len(address):]))
}

// tierNamed returns the one tier that a message names; "" if it names none, or several.
func tierNamed(tiers []control.Tier, text string) string {
	folded, named := fold(text), ""
	for _, t := range tiers {
		if hasAny(folded, fold(t.Title), fold(t.Name)) {
			if named != "" {
				return ""
			}
			named = t.Name
		}
	}
	return named
}

// nameOf bounds what somebody is called. It is for invoices; nothing that we say has it.
func nameOf(text string) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.In(r, unicode.Mn) || strings.ContainsRune(" .'’-", r) {
			return r
		}
		return ' '
	}, readable(text))), " ")
	return short(text, 80)
}

// nameInAddress is what somebody is called who has not said it: the words that an address begins with, "" if there are none.
func nameInAddress(email string) string {
	local, _, _ := strings.Cut(email, "@")
	if i := strings.IndexFunc(local, func(r rune) bool { return !unicode.IsLetter(r) && !strings.ContainsRune("._-", r) }); i >= 0 {
		local = local[:i]
	}
	words := strings.FieldsFunc(local, func(r rune) bool { return !unicode.IsLetter(r) })
	for i, w := range words {
		first, size := utf8.DecodeRuneInString(w)
		words[i] = string(unicode.ToTitle(first)) + w[size:]
	}
	return nameOf(strings.Join(words, " "))
}
