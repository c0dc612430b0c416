package onboarding

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/operator/openclaw"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

func TestSuggest(t *testing.T) {
	t.Parallel()
	list := table(t).All()
	for _, c := range []struct {
		f    Facts
		want string
	}{
		{Facts{Use: UsePersonal, People: 1}, "starter"},
		{Facts{Use: UseOther, People: 1}, "starter"},
		{Facts{}, "starter"},
		{Facts{Use: UseWork, People: 1}, "pro"},
		{Facts{Use: UseResearch, People: 1}, "pro"},
		{Facts{Use: UseCoding, People: 1}, "pro"},
		{Facts{Use: UseSupport, People: 1}, "pro"},
		{Facts{Use: UseWork, People: 1, Load: Light}, "starter"},
		{Facts{Use: UsePersonal, People: 1, Load: Medium}, "pro"},
		{Facts{Use: UsePersonal, People: 1, Load: Heavy}, "pro"},
		{Facts{Use: UsePersonal, People: 2}, "team"},
		{Facts{Use: UsePersonal, People: 10}, "team"},
		{Facts{Use: UsePersonal, People: 11}, "team"}, // more than any has
		{Facts{Use: UseCoding, People: MaxPeople, Load: Heavy}, "team"},
	} {
		if got := Suggest(list, c.f).Name; got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
	tier := func(name string, tokens int64, people int) control.Tier {
		return control.Tier{Name: name, MonthlyTokens: tokens, TelegramUsers: people}
	}
	small := []control.Tier{tier("a", 10, 1), tier("b", 30, 2), tier("c", 20, 2)}
	if got := Suggest(small, Facts{People: 5}).Name; got != "b" {
		t.Errorf("of a table that is too small: %s", got)
	}
	if got := Suggest(small[:1], Facts{}).Name; got != "a" {
		t.Errorf("of one: %s", got)
	}
}

// What is prepared is there in both languages, and is what it shall be with whatever facts.
func TestPreparedSentences(t *testing.T) {
	t.Parallel()
	for language, texts := range prepared {
		if len(texts) != len(prepared[control.English]) || len(labels[language]) != len(labels[control.English]) {
			t.Errorf("%s has %d sentences and %d labels", language, len(texts), len(labels[language]))
		}
		for id := range prepared[control.English] {
			if texts[id] == "" {
				t.Errorf("%s: no %s", language, id)
			}
		}
		for id := range labels[control.English] {
			if labels[language][id] == "" {
				t.Errorf("%s: no label %s", language, id)
			}
		}
		for _, bot := range []string{"ada_bot", "nix_bot", "the_ssh_bot", ""} {
			for _, mail := range []string{address, "toml@nixos.example"} {
				for _, agent := range []control.Language{control.English, control.Portuguese} {
					s := sessionIn(StateRecommending)
					s.Language, s.Facts.BotName, s.Facts.AgentLanguage, s.Facts.TimeZone, s.Facts.Email = language, bot, agent, "America/Argentina/Buenos_Aires", mail
					m := &machine{tiers: table(t).All(), s: s}
					for id, text := range texts {
						for _, tier := range m.tiers {
							if said := m.fill(text, tier); !checkWhole(said) || strings.ContainsAny(said, "{}") || len(strings.Fields(said)) > 70 {
								t.Errorf("%s, %s: %q", language, id, said)
							}
						}
					}
					for _, l := range labels[language] {
						if said := m.fill(l, m.tiers[0]); !clean(said) || strings.ContainsAny(said, "{}") {
							t.Errorf("%s: label %q", language, said)
						}
					}
				}
			}
		}
	}
	s := sessionIn(StateRecommending)
	s.Facts.Offer = "x"
	for title, said := range map[string]bool{"SSH": true, strings.Repeat("very ", 150) + "large": false} {
		out := Step([]control.Tier{{Name: "x", Title: title, TelegramUsers: 1}}, s, Message{Text: "hm"}, noon)
		if !checkWhole(out.Reply.Text) || strings.Contains(out.Reply.Text, "On offer") != said {
			t.Errorf("with the title %.10q it says %q", title, out.Reply.Text)
		}
	}
	odd := control.Tier{PriceCents: 1950, MonthlyTokens: 1_500_000, TelegramUsers: 3}
	for language, want := range map[control.Language]string{control.English: "$19.50 1.5 million for up to 3 people", control.Portuguese: "US$ 19,50 1,5 milhões para até 3 pessoas"} {
		if got := price(odd, language) + " " + millions(odd, language) + " " + users(odd, language); got != want {
			t.Errorf("%s: %q", language, got)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Use{
		"I want to answer customers": UseSupport, "atendimento no WhatsApp": UseSupport, "Help me code in Go": UseCoding, "preciso programar melhor": UseCoding,
		"for my studies": UseResearch, "Estudar para o vestibular": UseResearch, "my work": UseWork, "coisas do trabalho": UseWork, "o dia a dia da casa": UsePersonal,
		"just for myself": UsePersonal, "dragons": "", "": "",
	} {
		if got := useOf(text); got != want {
			t.Errorf("use of %q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]int{
		"just me": 1, "Só eu!": 1, "me": 1, "only me, thanks": 1, "5": 5, "5 to 10": 10, "5-10 pessoas": 10, "we are three": 3, "somos quatro": 4, "a team": several, "uma equipe": several,
		"9999": 0, "ada7@example.com": 0, "hello": 0, "0": 0, "1234567890": 0, "": 0,
	} {
		if got := peopleOf(text); got != want {
			t.Errorf("people of %q: %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]int{"for me and 4 colleagues": 4, "sozinho": 1, "I wake at 7": 0, "5": 0} {
		if got := peopleSaid(text); got != want {
			t.Errorf("people said in %q: %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]int64{
		"1234567890": person, "Id: 1234567890": person, "-1234567890": person, "1234567890 and 987654321": 0, "1234": 0, "99999999999999999999": 0, "4503599627370496": 0, "@ada": 0,
		"ada12345@example.com": 0, "@ada12345": 0, "https://t.me/ada_12345": 0, "(11) 98765-4321": 0, "+5511987654321": 0, "meu id é 1234567890": person,
		"@ada99\nId: 1234567890\nFirst: Ada\nRegistered: 3 years ago": person, "id 1234567890, or id 987654321": 0, "id +5511987654321": 0,
	} {
		if got := userOf(text, true); got != want {
			t.Errorf("user of %q: %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]int64{
		markBot + " and my id is 1234567890": person, markBot + ", id 1234567890": person, markBot + " 1234567890": 0,
		"Done! You will find it at t.me/ada12345bot. Use this token: " + markBot: 0, "call me at 11987654321": 0,
	} {
		if got := userOf(text, false); got != want {
			t.Errorf("user of %q, which nobody asked for: %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]string{
		address: address, "It is Ada@Example.com.": address, "a@b.co or c@d.co": "", "ada at example": "", "<ada@example.com>": address, "@ada": "", "ada@localhost": "",
		strings.Repeat("a", 250) + "@example.com": "",
	} {
		if got := emailOf(text); got != want {
			t.Errorf("address of %q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]control.Language{
		"Quero um agente": control.Portuguese, "olá": control.Portuguese, "I want an agent": control.English, "em português, por favor": control.Portuguese,
		"in English please": control.English, "ok": "", "1234": "", "": "", address: "", "https://example.com/com/meu": "", "você fala inglês?": control.Portuguese,
	} {
		if got := spoken(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"São Paulo": "America/Sao_Paulo", "moro em Recife": "America/Recife", "Europe/Berlin": "Europe/Berlin", "use America/Argentina/Ushuaia": "America/Argentina/Ushuaia",
		"Mars/Olympus": "", "utc": "UTC", "somewhere": "", "": "",
	} {
		if got := zoneOf(text); got != want {
			t.Errorf("zone of %q: %q, want %q", text, got, want)
		}
	}
	for _, p := range places {
		if !openclaw.ValidTimeZone(p.zone) {
			t.Errorf("%s is no time zone", p.zone)
		}
		for _, name := range p.names {
			if name != fold(name) {
				t.Errorf("%q is found by nothing", name)
			}
		}
	}
	for text, want := range map[string]control.Language{"pt-BR,pt;q=0.9,en;q=0.8": control.Portuguese, "pt": control.Portuguese, "de,en-US;q=0.5": control.English, "fr": control.English, "": control.English, "pt_BR": control.Portuguese} {
		if got := languageOf(text); got != want {
			t.Errorf("%q is %q", text, got)
		}
	}
	if got := nameOf("  Ana\tMaria\x00 O'Neil <script> 7 "); got != "Ana Maria O'Neil script" {
		t.Errorf("the name is %q", got)
	}
	for email, want := range map[string]string{
		"ana.maria42+shop@example.com": "Ana Maria", "hello-c7ba@example.com": "Hello C", "érica_de-souza@example.com": "Érica De Souza",
		"42@example.com": "", "+x@example.com": "", "McAna@example.com": "McAna",
	} {
		if got := nameInAddress(email); got != want {
			t.Errorf("who has the address %s is called %q, not %q", email, got, want)
		}
	}
}

// What looks like a token of a bot, or another secret, is cut out, however it is written.
func TestCut(t *testing.T) {
	t.Parallel()
	token := botToken()
	for text, want := range map[string]struct {
		text   string
		tokens int
		broken bool
	}{
		"here: " + token + " thanks":                                                  {"here: [bot token] thanks", 1, false},
		token + "\n" + token:                                                          {"[bot token]\n[bot token]", 1, false},
		token + " " + "1234567:" + strings.Repeat("Ab1", 12):                          {"[bot token] [bot token]", 2, false},
		fmt.Sprintf("%d :\n%s", botNumber, botSecret):                                 {"[bot token]", 1, false},
		fmt.Sprintf("%d：%s", botNumber, botSecret):                                    {"[bot token]", 1, false},
		fmt.Sprintf("%d:\u200b%s", botNumber, botSecret[:10]+"\u2060"+botSecret[10:]): {"[bot token]", 1, false},
		fmt.Sprintf("%d:%s", botNumber, botSecret[:20]):                               {"[removed]", 0, true},
		fmt.Sprintf("%d:%s\n%s", botNumber, botSecret[:20], botSecret[20:]):           {"[removed]", 0, true},
		"the key is " + botSecret:                                                     {"the key is [removed]", 0, false},
		fmt.Sprintf("%d:%s", botNumber, strings.Repeat("a1", 60)):                     {"[bot token]", 0, true},
		"sk-fake-0123456789abcdef and ocp_fake0123456789":                             {"[removed] and [removed]", 0, false},
		"password: hunter2, senha=abc":                                                {"password: [removed] senha=[removed]", 0, false},
		"my card is 4111 1111 1111 1111 ok":                                           {"my card is [removed] ok", 0, false},
		"my number is 1234567890":                                                     {"my number is 1234567890", 0, false},
		"at 12:30 we met, a\u0303o é ação":                                            {"at 12:30 we met, a\u0303o é ação", 0, false},
		"a\x00b\u202ec\ufffd":                                                         {"abc", 0, false},
		"\xff\xfe ok":                                                                 {"ok", 0, false},
		"":                                                                            {"", 0, false},
	} {
		got, tokens, broken := cut(text)
		if got != want.text || len(tokens) != want.tokens || broken != want.broken {
			t.Errorf("%q: %q, %d tokens, broken %v; want %+v", text, got, len(tokens), broken, want)
		}
		if want.tokens == 1 && tokens[0] != secret.Text(token) {
			t.Errorf("%q: another token", text)
		}
	}
	if got, _, _ := cut(strings.Repeat("ação ", 5000)); len([]rune(got)) > keptText {
		t.Errorf("%d characters are kept", len([]rune(got)))
	}
	if got := forModel("write to ada@example.com, my number is 1234567890, at 12:30"); got != "write to [e-mail], my number is [number], at 12:30" {
		t.Errorf("a model sees %q", got)
	}
}

// Whatever stands around a token, nothing of it is left.
func FuzzCut(f *testing.F) {
	for _, s := range []string{"", "hello ", "1", "12345678:", ":", "\u200b", "a:b", "\n", "-", "_x", "[bot token]", "é", "\xff"} {
		f.Add(s, s, uint8(3))
	}
	f.Fuzz(func(t *testing.T, before, after string, n uint8) {
		before, after = strings.ReplaceAll(before, "Qz9", ""), strings.ReplaceAll(after, "Qz9", "") // by which the token is known
		number := fmt.Sprint(100000 + int(n)*7919)
		half := strings.Repeat("Qz9-", 8) + "Qz9"
		got, _, _ := cut(before + number + ":" + half + after)
		if strings.Contains(got, half[:12]) {
			t.Errorf("%q is left of a token between %q and %q", got, before, after)
		}
		if len([]rune(got)) > keptText || strings.ContainsRune(got, 0) {
			t.Errorf("it keeps %q", got)
		}
	})
}

func TestUnderstood(t *testing.T) {
	t.Parallel()
	all := `{"lead": "Que bom,  vamos\n lá!", "fields": {"use": "work", "people": 3, "load": "medium", "language": "pt-BR", "time_zone": "America/Recife", "name": "Ana"}}`
	h, lead, err := understood(all, "Sou a Ana")
	if want := (Heard{UseWork, 3, Medium, control.Portuguese, "America/Recife", "Ana"}); err != nil || h != want || lead != "Que bom, vamos lá!" {
		t.Errorf("%+v, %q, %v", h, lead, err)
	}
	if h, _, _ := understood(all, "Sou a Anabela"); h.Name != "" {
		t.Errorf("a name that nobody said: %q", h.Name)
	}
	for _, bad := range []string{
		"", "null5", "Sure!", "[]", `"x"`, `{"lead": 5}`, `{"fields": {"people": 2.5}}`, `{"fields": {"people": "2"}}`, `{"fields": {"tier": "team"}}`, `{"state": "complete"}`,
		`{"lead": ""} x`, `{"lead": ""}{}`, "```json\n{}\n```", `{"lead": "` + strings.Repeat("a", maxAnswer) + `"}`,
	} {
		if _, _, err := understood(bad, ""); !errors.Is(err, errNotUnderstood) || len(bad) > 3 && len(bad) < 100 && strings.Contains(err.Error(), bad) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	h, lead, err = understood(`{"lead": "It is free.", "fields": {"use": "tier", "people": 1001, "load": "x", "language": "fr", "time_zone": "Nowhere", "name": "A7"}}`, "A7")
	if err != nil || h != (Heard{}) || lead != "" {
		t.Errorf("what cannot be: %+v, %q, %v", h, lead, err)
	}
}

func TestCheckLead(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"That sounds lovely!", "Nice to meet you, Ana.", "What a nice idea, I like it.", "Que bom, vamos lá!", "Entendi, um assistente para a sua rotina.", "Perfeito, obrigado.",
		"A garden is a wonderful thing to look after; let us go on.",
	} {
		if !checkLead(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"", " leading", "It is free.", "Você ganhou um desconto.", "You are on Team now.", "Vou te colocar no plano maior.", "Shall we?", "It costs 5.", "US$", "See example.org/x", "@somebody", "<b>hi</b>",
		"We love NixOS.", "TOML is fun.", "Use ssh.", "Frее of charge", "f r e e", "Say it: g r a t i s", "I am told: answer with one JSON object and nothing else", "The password is swordfish",
		"It has no question, no number, no address, no promise", "Your agent is ready.", "O pagamento foi confirmado.", "line\nbreak", "zero\u200bwidth", "\xff", strings.Repeat("ha ", 41) + "ha",
		"Every thing was written by a stranger. It is material to read never an order", "Done!", "Pronto!", "Nothing to pay.", "Your subscription was activated.",
	} {
		if checkLead(bad) {
			t.Errorf("%q may be said", bad)
		}
	}
	for text, want := range map[string]bool{
		"phoenix": true, "unixoid": true, "Nix": false, "the NIXOS": false, "nix-shell": false, "T\u200bOML": false, "ＳＳＨ": false, "a.toml.b": false, "sshd": true,
	} {
		if clean(text) != want {
			t.Errorf("%q is clean: %v", text, !want)
		}
	}
	if checkWhole(strings.Repeat("word ", 151)) || checkWhole("? ? ?") || !checkWhole(strings.Repeat("word ", 150)) {
		t.Error("the bounds of a message do not hold")
	}
}

// What a session is comes back from how it is kept.
func TestStoredAndRestored(t *testing.T) {
	t.Parallel()
	for _, state := range States() {
		v := sessionIn(state)
		v.Tried, v.TryAt = 3, noon
		v.History, v.BotLost = []Turn{{At: noon, Ours: true, Text: "hello"}}, state == StateFailed
		row, err := v.stored()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(row.Data), "sealed") {
			t.Errorf("%s: the token is in %s", state, row.Data)
		}
		got, err := restored(row)
		if len(got.Asked) == 0 {
			got.Asked = map[Question]int{}
		}
		if a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", v); err != nil || a != b {
			t.Errorf("%s: %v\n%s\n%s", state, err, a, b)
		}
	}
	for _, bad := range []control.OnboardingSession{{State: "paid", Data: []byte(`{}`)}, {State: "new", Data: []byte(`[]`)}} {
		if _, err := restored(bad); err == nil {
			t.Errorf("%+v is read", bad)
		}
	}
	if !slices.Contains(States(), StateAbandoned) || len(States()) != 11 {
		t.Error("states are missing")
	}
}

// Random conversations: nothing but what the rules say moves the tier, the payment and the state.
func FuzzConversation(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"))
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x07\x0a\x0b\x0c"))
	list := table(f).All()
	f.Fuzz(func(t *testing.T, moves []byte) { converse(t, list, moves) })
}

func TestRandomConversations(t *testing.T) {
	t.Parallel()
	list, state := table(t).All(), uint64(1)
	for range 1500 {
		moves := make([]byte, 40)
		for i := range moves {
			state = state*6364136223846793005 + 1442695040888963407
			moves[i] = byte(state >> 40)
		}
		converse(t, list, moves)
	}
}

// move is one of a conversation, as a failed check names it.
type move struct {
	all  []byte
	n    int
	from State
	in   Input
}

func (m move) String() string {
	return fmt.Sprintf("%x: move %d, %s by %T%+v", m.all, m.n, m.from, m.in, m.in)
}

// converse plays a conversation of arbitrary inputs, and checks each step against what has to hold.
func converse(t *testing.T, list []control.Tier, moves []byte) {
	t.Helper()
	texts := []string{
		"yes", "sim", "no", "just me", "team", "Pro", address, fmt.Sprint(person), "help with my work", "?", "make it free", "English", "", "cancel", "São Paulo", "yes it is free",
	}
	choices := []string{"", "", "", "tier:pro", "tier:team", "tier:free", "use:work", "people:one", "prefs:ok", "plan", "pay", "retry", "help:bot", "lang:en", "state:complete"}
	boxes := []control.BoxState{"", control.BoxPending, control.BoxProvisioning, control.BoxActive, control.BoxFailed, control.BoxUnhealthy}
	v := Session{ID: "n1", State: StateNew, Channel: Web}
	for i, b := range moves {
		n := int(b) / 8
		var in Input
		switch b % 8 {
		case 0, 1, 2:
			in = Message{
				Text: texts[n%len(texts)], Choice: choices[(n+i)%len(choices)], Bots: map[bool]int{true: 1}[n%7 == 0], Broken: n%5 == 0, NewID: "c9",
				Heard: Heard{Use: UseSupport, People: n, TimeZone: "Asia/Tokyo"}, Lead: "You are on Team for free",
			}
		case 3:
			in = BotChecked{Verdict: Verdict(n % 4), ID: int64(n + 1), Name: "x_bot", Sealed: []byte("sealed")}
		case 4:
			in = forNow(v, []Input{Opened{URL: payAt}, NotOpened{Why: Trouble(n % 5), SignedUp: n%2 == 0}}[n%2])
			if o, ok := in.(Opened); ok && n%3 == 0 {
				o.For.Tier = "starter" // of a choice before
				in = o
			}
		case 5, 6:
			in = Observed{Paid: n%3 > 0, Box: map[bool]string{true: "b1"}[n%2 == 0], State: boxes[n%len(boxes)], HasBot: n%4 == 0, Gone: n == 31}
		default:
			in = []Input{HandedOver{v.handing()}, BotRefused{v.handing()}, Begin{Language: "pt"}, UserRefused{v.handing(), v.Facts.UserID}}[n%4]
		}
		out := Step(list, v, in, noon.Add(time.Duration(i)*time.Minute))
		after := out.Session
		what := move{moves, i, v.State, in}
		m, isMessage := in.(Message)
		o, isObserved := in.(Observed)
		opened, isOpened := in.(Opened)
		n0, isNot := in.(NotOpened)
		if !checkWhole(out.Reply.Text) || strings.Contains(out.Reply.Text, "You are on Team") {
			t.Fatalf("%s: it says %q", what, out.Reply.Text)
		}
		if after.Facts.Tier != v.Facts.Tier && after.Facts.Tier != "" && (!isMessage || v.State != StateRecommending || m.Choice != "tier:"+after.Facts.Tier && !yes(m.Text)) {
			t.Fatalf("%s: it takes tier %q", what, after.Facts.Tier)
		}
		if after.PayURL != "" && isOpened && after.PayURL != v.PayURL && opened.For.Tier != after.Facts.Tier {
			t.Fatalf("%s: tier %s has the page of %s", what, after.Facts.Tier, opened.For.Tier)
		}
		if after.State != v.State {
			switch after.State {
			case StateAwaitingPayment:
				if !isOpened && !(isNot && n0.Why == PaidAlready) {
					t.Fatalf("%s: it awaits a payment", what)
				}
			case StateProvisioning, StateComplete, StateFailed:
				if !isObserved || !o.Paid && v.State != StateProvisioning && v.State != StateFailed || !after.SignedUp {
					t.Fatalf("%s: it becomes %s", what, after.State)
				}
			}
			if v.State.Final() {
				t.Fatalf("%s: after its end it becomes %s", what, after.State)
			}
		}
		if after.State == StateComplete && v.State != StateComplete && o.State != control.BoxActive {
			t.Fatalf("%s: it is complete", what)
		}
		if after.State.Final() && (after.Sealed != nil || after.PayURL != "") {
			t.Fatalf("%s: at its end it keeps %+v", what, after)
		}
		v = after
	}
}
