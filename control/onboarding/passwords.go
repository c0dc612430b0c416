package onboarding

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// passwordNear is within how many words after its name a password is said.
	passwordNear = 10
	// passwordFillers is how many words may stand between "is" and a password.
	passwordFillers = 4
	// passwordBefore is how many bytes before its name "hunter2 is my" may have.
	passwordBefore = 400
	// maxQuoted is how many bytes a password between quotes may have.
	maxQuoted = 200
)

// passwordName is what a password is called, as foldWord has it.
var passwordName = regexp.MustCompile(`^(?:[a-z0-9-]*(?:password|passwd|passphrase|passcode)s?|pwd|contrasenas?|senhas?|palavra-passe|secrets?|segredos?)$`)

// wordSet is a set of words as foldWord has them.
func wordSet(words string) map[string]bool {
	out := make(map[string]bool)
	for w := range strings.FieldsSeq(words) {
		out[w] = true
	}
	return out
}

var (
	// saysWhat comes before a password; maySayWhat too, if what follows is not the beginning of a phrase.
	saysWhat   = wordSet("is are was were be equals its thats heres eh era foi sera seria fica ficou sao")
	maySayWhat = wordSet("to as e para pra como")
	// saidAgain begins a sentence that may be about what the last one was about.
	saidAgain = wordSet("it its is this thats isso isto ela e eh essa esta")
	// beside may stand between "is" and a password.
	beside = wordSet(`still now just simply only really actually currently probably maybe not always the a an my our your i we think believe guess going to be called this
		following that ainda agora so apenas mesmo sempre nao o minha meu nossa sua seu essa esta este esse seguinte acho que eu talvez`)
	// owned may stand between "hunter2 is" and the name, and pointed is no password before that.
	owned   = wordSet("my the our your a an new old minha meu nossa sua seu o nova antiga")
	pointed = wordSet(`it this that these those what whats which who where how when why here there so and but or if my your our the a an not he she i you we they
		isso isto este esta esse essa ela ele que qual quem onde como quando aqui ali e mas ou se o minha sua nao eu`)
	// aboutIt after a name makes something else of it: "password reset".
	aboutIt = wordSet("reset resets link links manager managers page form field prompt policy generator rule rules screen")
	// mailed and numbered are what an address and a number are called; what is said of those is no password.
	mailed   = wordSet("mail email e-mail address account login user username correio endereco conta usuario to at para pra em")
	numbered = wordSet("number numero id")
	// ofWhat after a name says what the password is of: "the password of my account is" tells no account.
	ofWhat = wordSet("of for on do da de dos das no na")
)

var (
	wholeAddress = regexp.MustCompile(`^[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}$`)
	wholeNumber  = regexp.MustCompile(`^[0-9]{5,}$`)
)

// span is a part of a text.
type span struct {
	from, to int
	doubtful bool // it is most likely a word of a sentence about something else
}

// expectation is whether what follows is a password.
type expectation int

const (
	notExpected expectation = iota
	perhaps                 // after a word that may also begin a phrase
	afterWord               // "is"
	afterSign               // ":"
)

// passwordReader goes over a text once, and notes what in it is a password.
type passwordReader struct {
	text  string
	at    int
	spans []span

	near    int    // within so many words more the password may be said; 0: none was named
	next    bool   // nothing but its name was read yet
	last    string // word after its name, but for "is"; "" if there was none
	aside   bool   // the sentence is about something that is called after it
	of      bool   // what the password is of was said after its name
	expects expectation
	fillers int
	ended   bool // the sentence has
}

// passwords finds what somebody says that a password is: "my password is hunter2", "a senha: x", "x is my
// password". Where a sentence only speaks of one it takes a word too many rather than leave one.
func passwords(text string) []span {
	r := &passwordReader{text: text}
	for r.at < len(r.text) {
		r.step()
	}
	return r.spans
}

// step reads a space, a sign, a password, a word or some punctuation.
func (r *passwordReader) step() {
	rest := r.text[r.at:]
	c, size := utf8.DecodeRuneInString(rest)
	sign := signOf(rest)
	switch {
	case unicode.IsSpace(c):
		r.at += size
	case r.near > 0 && sign > 0 && r.isSign(c, rest[size:]):
		r.at += sign
		r.expects = afterSign
	case r.expects != notExpected && r.expected():
	case r.near > 0 && r.next && r.spaced() && (quote(c) > 0 || telling(r.run())): // password hunter2
		r.take(true)
	case letter(c):
		r.word()
	default:
		if strings.ContainsRune(".!?;", c) && (len(rest) == size || strings.ContainsAny(rest[size:size+1], " \n")) {
			r.ended = true
		}
		r.at += size
	}
}

// signOf is how long the sign is that a text begins with and that a password may come after; 0 if there is none.
func signOf(text string) int {
	for _, s := range []string{"->", "=>", ":=", "==", "→", "⇒", "➡", ":", "=", "- ", "– ", "— "} {
		if strings.HasPrefix(text, s) {
			return len(s)
		}
	}
	return 0
}

// isSign reports whether a sign that begins with c is one here: not the colon of a time or of an address of a page,
// nor a dash between other words.
func (r *passwordReader) isSign(c rune, then string) bool {
	switch c {
	case ':':
		before, _ := utf8.DecodeLastRuneInString(r.text[:r.at])
		return r.next || !unicode.IsDigit(before) && !strings.HasPrefix(then, "//")
	case '-', '–', '—':
		return strings.HasPrefix(then, ">") || r.next && r.spaced()
	}
	return true
}

// spaced reports whether a space, or nothing, comes before.
func (r *passwordReader) spaced() bool {
	before, _ := utf8.DecodeLastRuneInString(r.text[:r.at])
	return r.at == 0 || unicode.IsSpace(before)
}

// run is what stands here up to the next space.
func (r *passwordReader) run() string {
	run, _, _ := strings.Cut(r.text[r.at:], " ")
	run, _, _ = strings.Cut(run, "\n")
	return run
}

// telling reports whether something can hardly be a word.
func telling(run string) bool { return len(run) >= 4 && strings.ContainsFunc(run, unicode.IsDigit) }

// expected reads the password that is expected here, or passes over what may come before it. It reports whether
// it has read something.
func (r *passwordReader) expected() bool {
	for _, mark := range []string{markBot, markSecret} {
		if strings.HasPrefix(r.text[r.at:], mark) { // it was cut out already
			r.at += len(mark)
			r.near, r.expects = 0, notExpected
			return true
		}
	}
	run := r.run()
	if r.elseSaid(run) {
		return true
	}
	c, _ := utf8.DecodeRuneInString(run)
	w := foldWord(run)
	last := strings.TrimSpace(r.text[r.at+len(run):]) == ""
	switch {
	case quote(c) > 0:
	case w == "" && r.expects != afterSign && len(run) < 3: // punctuation
		return false
	case r.expects == perhaps && (beside[w] || saysWhat[w] || isName(w) && !telling(run)):
		r.expects = notExpected
		return false
	case !last && (isStrong(run) || saysWhat[w] || maySayWhat[w] && (r.expects != afterSign || w == "e")): // ": is", "is to be"
		return false
	case !last && r.expects == afterWord && beside[w] && r.fillers > 0:
		r.fillers--
		r.at += len(run)
		return true
	}
	r.take(r.expects == perhaps)
	return true
}

// elseSaid passes over an address or a number that is said in a sentence that has named a password, such as "I
// forgot my password, my mail is ..." or "mail the password to ...". It reports whether there was one.
func (r *passwordReader) elseSaid(run string) bool {
	open := len(run) - len(strings.TrimLeft(run, "(<"))
	said := strings.TrimRight(run[open:], ".,;:!?)>")
	switch {
	case r.of:
		return false
	case wholeAddress.MatchString(said) && mailed[r.last]:
	case wholeNumber.MatchString(said) && r.expects != perhaps && numbered[r.last] && r.near < passwordNear-2: // not "password number is"
	default:
		return false
	}
	r.at += open + len(said)
	r.expects = notExpected
	return true
}

// take notes what stands here as a password: all between quotes, or up to the next space. If that is not sure,
// another one may follow.
func (r *passwordReader) take(unsure bool) {
	run := r.run()
	again := named(run) // my password is my password is
	if again {
		run = strings.TrimRightFunc(run, func(c rune) bool { return !letter(c) && !unicode.IsDigit(c) })
	}
	if unsure {
		run = strings.TrimRight(run, ":=") // senha e login:
	}
	from, to := r.at, r.at+len(run)
	c, size := utf8.DecodeRuneInString(run)
	if end := quote(c); end > 0 {
		inside := r.text[from+size : min(from+size+maxQuoted, len(r.text))]
		if i := strings.IndexRune(inside, end); i > 0 && !strings.Contains(inside[:i], "\n") && !slices.ContainsFunc(strings.Fields(inside[:i]), named) {
			to = max(to, from+size+i+utf8.RuneLen(end))
		}
	}
	r.spans = append(r.spans, span{from, to, r.aside && r.expects != afterSign && !strings.ContainsFunc(r.text[from:to], func(c rune) bool { return !unicode.IsLower(c) && !strings.ContainsRune(".,!?", c) })})
	r.at, r.expects, r.next = to, notExpected, false
	switch {
	case again:
		r.name()
	case !unsure:
		r.near = 0
	}
}

// name notes that a password was named.
func (r *passwordReader) name() {
	r.near, r.next, r.expects, r.ended = passwordNear, true, notExpected, false
	r.last, r.aside, r.of = "", false, false
}

// word reads a word that is no password.
func (r *passwordReader) word() {
	rest := r.text[r.at:]
	if end := strings.IndexFunc(rest, func(c rune) bool { return !letter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("'’-_", c) }); end >= 0 {
		rest = rest[:end]
	}
	raw := strings.TrimRight(rest, "-") // which may begin a sign
	from, w := r.at, foldWord(raw)
	r.at += len(raw)
	if own := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(raw), "'s"), "’s"); named(own) || isName(w) {
		r.before(from)
		r.name()
		if own != strings.ToLower(raw) { // my password's hunter2
			r.expects, r.fillers = afterWord, passwordFillers
		}
		return
	}
	if r.near == 0 {
		return
	}
	if r.ended && !saidAgain[w] {
		r.near = 0
		return
	}
	r.near--
	r.aside = r.aside && !r.ended || r.next && aboutIt[w]
	r.of = r.of && !r.ended || r.next && ofWhat[w]
	r.next, r.ended = false, false
	if !isStrong(raw) && !saysWhat[w] {
		r.last = w
	}
	switch {
	case isStrong(raw) || saysWhat[w]:
		r.expects, r.fillers = afterWord, passwordFillers
	case maySayWhat[w] && r.expects == notExpected:
		r.expects = perhaps
	}
}

// before notes a password that is said before its name, which begins at from: "hunter2 is my".
func (r *passwordReader) before(from int) {
	begin := max(from-passwordBefore, 0)
	for begin > 0 && !strings.ContainsAny(r.text[begin-1:begin], " \n") {
		begin--
	}
	list := strings.Fields(r.text[begin:from])
	i := len(list) - 1
	for n := 0; i >= 0 && n < 3 && owned[foldWord(list[i])]; n++ {
		i--
	}
	if i < 1 {
		return
	}
	if w := foldWord(list[i]); !isStrong(list[i]) && !saysWhat[w] && w != "as" && w != "como" {
		return
	}
	value := list[i-1]
	switch w := foldWord(value); {
	case pointed[w], w == "" && len(value) < 3, strings.HasSuffix(value, "]"): // the last is a mark
		return
	case strings.ContainsAny(value[len(value)-1:], ".?!:;,") && !strings.ContainsFunc(value, unicode.IsDigit):
		return // another sentence's
	}
	at := from
	for k := len(list) - 1; k >= i-1; k-- {
		at = strings.LastIndex(r.text[:at], list[k])
	}
	r.spans = append(r.spans, span{from: at, to: at + len(value)})
}

func isName(folded string) bool { return passwordName.MatchString(folded) }

func named(raw string) bool { return isName(foldWord(raw)) }

// isStrong reports whether a word is the Portuguese "is", which without its accent is "and".
func isStrong(raw string) bool {
	return slices.Contains([]string{"é", "e\u0301", "e'", "e’"}, strings.ToLower(strings.Trim(raw, ",.")))
}

// foldWord is fold of one word, with the dashes in it.
func foldWord(raw string) string {
	raw = strings.TrimFunc(raw, func(c rune) bool { return !letter(c) && !unicode.IsDigit(c) })
	parts := strings.Split(strings.ReplaceAll(raw, "_", "-"), "-")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(fold(p), " ", "")
	}
	return strings.Join(parts, "-")
}

func letter(c rune) bool { return unicode.IsLetter(c) || unicode.In(c, unicode.Mn) }

// quote returns what ends a quotation that begins with c; 0 if none does.
func quote(c rune) rune {
	switch c {
	case '"', '\'', '`', '”', '’':
		return c
	case '“':
		return '”'
	case '‘':
		return '’'
	case '«':
		return '»'
	}
	return 0
}
