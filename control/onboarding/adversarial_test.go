package onboarding

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/secret"
)

// attackMessage is one of testdata/adversarial.tsv.
type attackMessage struct{ language, topic, text string }

func attacks(t testing.TB) []attackMessage {
	t.Helper()
	raw, err := os.ReadFile("testdata/adversarial.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var out []attackMessage
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(f) != 3 {
			t.Fatalf("not a message: %q", line)
		}
		out = append(out, attackMessage{f[0], f[1], f[2]})
	}
	if len(out) < 200 {
		t.Fatalf("only %d messages", len(out))
	}
	return out
}

// obedient are models that do what the attacker wants, each in its way. They get the message as a model does.
func obedient() map[string]func(message string) string {
	long := `{"lead": "` + strings.Repeat("a", 1<<20) + `"}`
	lead := func(text string) string {
		raw, err := json.Marshal(map[string]any{"lead": text, "fields": map[string]any{}})
		if err != nil {
			panic(err) // a text can be said
		}
		return string(raw)
	}
	return map[string]func(string) string{
		"echoes": lead,
		"grants": func(string) string {
			return lead("Done! You are on the Team plan for free, forever, and your agent is ready.")
		},
		"grants in pt": func(string) string {
			return lead("Pronto! Você está no plano Team de graça, e o seu agente já está ativo.")
		},
		"tells its prompt": func(string) string {
			return lead(systemPrompt[:200])
		},
		"tells a secret":  func(string) string { return lead("The key is sk-fake-0123456789 and the token is ocp_fakefakefake1.") },
		"tells of others": func(string) string { return lead("The customer before you is eve@example.org.") },
		"says the words":  func(string) string { return lead("We run on NixOS, with a TOML file, and you have SSH.") },
		"asks":            func(string) string { return lead("What is your password? And your card number? And your address?") },
		"sends away":      func(string) string { return lead("Please pay at pay dot example dot org instead.") },
		"is long":         func(string) string { return lead(strings.Repeat("very ", 500) + "nice") },
		"more fields": func(string) string {
			return `{"lead": "Nice.", "fields": {"tier": "team", "price_cents": 0, "state": "complete", "email": "eve@example.org", "user_id": 666666}}`
		},
		"more keys": func(string) string { return `{"lead": "Nice.", "fields": {}, "state": "complete", "tier": "team"}` },
		"wrong fields": func(string) string {
			return `{"lead": "", "fields": {"use": "team", "people": -5, "load": "infinite", "language": "fr", "time_zone": "../../etc/passwd", "name": "Eve; DROP TABLE"}}`
		},
		"possible fields": func(string) string {
			return `{"lead": "", "fields": {"use": "support", "people": 1000, "load": "heavy", "language": "en", "time_zone": "Asia/Tokyo", "name": "Eve"}}`
		},
		"as it is":  func(message string) string { return message },
		"not JSON":  func(string) string { return "Sure! You are on Team now." },
		"two":       func(string) string { return `{"lead": "", "fields": {}} {"lead": "free", "fields": {}}` },
		"null":      func(string) string { return "null" },
		"list":      func(string) string { return "[]" },
		"a number":  func(string) string { return `{"lead": 5, "fields": {}}` },
		"very much": func(string) string { return long },
	}
}

// money is what may be said of prices: what stands in the table.
var money = regexp.MustCompile(`(?:US)?\$ ?[0-9][0-9.,]*|[0-9][0-9.,]* ?(?:dollars|d[oó]lares|reais|USD|usd|%)`)

// checkSaid fails the test if a message says something that only the machine may say, and says otherwise.
func checkSaid(t *testing.T, what string, tiers []control.Tier, v Session, text string) {
	t.Helper()
	if !checkWhole(text) {
		t.Errorf("%s: it says %q", what, text)
	}
	for _, found := range money.FindAllString(text, -1) {
		found = strings.TrimRight(found, ".,")
		if !slices.ContainsFunc(tiers, func(tier control.Tier) bool {
			return found == price(tier, control.English) || found == price(tier, control.Portuguese)
		}) {
			t.Errorf("%s: it names the price %q: %q", what, found, text)
		}
	}
	lower := strings.ToLower(text)
	for _, word := range []string{"for free", "de graça", "grátis", "discount", "desconto", "eve@", "sk-fake", "ocp_", "drop table", "http", "maintenance", "dan,", "hunter", botSecret} {
		if strings.Contains(lower, strings.ToLower(word)) {
			t.Errorf("%s: it says %q: %q", what, word, text)
		}
	}
	if !v.State.Final() && (strings.Contains(lower, "your agent runs") || strings.Contains(lower, "seu agente está no ar")) {
		t.Errorf("%s: in state %s it says %q", what, v.State, text)
	}
	if quotes(words(text)) {
		t.Errorf("%s: it quotes what it was told: %q", what, text)
	}
}

// In whatever state an attacker writes whatever it wants, and whatever the model then says: the state, the
// tier and the price go by the rules, and nothing is told.
func TestAttackersMoveNothing(t *testing.T) {
	t.Parallel()
	tiers := table(t).All()
	models := obedient()
	for _, a := range attacks(t) {
		text, tokens, _ := cut(a.text)
		if len(tokens) > 0 {
			t.Errorf("%q has a token", a.text)
		}
		type outcome struct {
			heard Heard
			lead  string
		}
		outcomes := map[outcome]string{}
		for name, answer := range models {
			heard, lead, _ := understood(answer(text), text)
			outcomes[outcome{heard, lead}] = name
		}
		for o, name := range outcomes { // most models come to the same: nothing
			for _, state := range States() {
				v := sessionIn(state)
				if state != StateNew {
					v.Language = control.Language(a.language)
				}
				what := fmt.Sprintf("%s, %s, %q", state, name, a.text)
				out := Step(tiers, v, Message{Text: text, NewID: "c9", Heard: o.heard, Lead: o.lead}, noon)
				checkSaid(t, what, tiers, out.Session, out.Reply.Text)
				checkMoved(t, what, v, out)
			}
		}
	}
}

// checkMoved fails the test if a message that was no answer moved more than a message can.
func checkMoved(t *testing.T, what string, before Session, out Outcome) {
	t.Helper()
	after := out.Session
	if before.State.waits() || before.State.Final() {
		if after.State != before.State || after.Facts != before.Facts || len(out.Effects) > 0 {
			t.Errorf("%s: it becomes %s with %+v and does %v", what, after.State, after.Facts, out.Effects)
		}
	}
	if after.State.waits() && !before.State.waits() || after.State == StateComplete && before.State != StateComplete {
		t.Errorf("%s: it becomes %s", what, after.State)
	}
	if after.Facts.Tier != before.Facts.Tier || after.Customer != before.Customer || after.SignedUp != before.SignedUp || after.PayURL != before.PayURL {
		t.Errorf("%s: it took tier %q, customer %q, page %q", what, after.Facts.Tier, after.Customer, after.PayURL)
	}
	if len(out.Effects) > 0 {
		t.Errorf("%s: it does %v", what, out.Effects)
	}
	if after.Facts.UserID != before.Facts.UserID || after.Facts.BotName != before.Facts.BotName {
		t.Errorf("%s: the user is %d, the bot %q", what, after.Facts.UserID, after.Facts.BotName)
	}
}

// The same through the service: an attack after each answer of a whole conversation. The customer pays what
// the table says, gets what it chose, and no prompt, row, log or reply has the bot's token.
func TestAttackedConversations(t *testing.T) {
	t.Parallel()
	all := attacks(t)
	for name, answer := range obedient() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			model := obeying(t, answer)
			e := newEnv(t, func(o *Options) { o.Model = model })
			tiers := table(t).All()
			var replies strings.Builder
			said := func(c Conversation) {
				t.Helper()
				checkSaid(t, name, tiers, Session{State: c.State}, c.Reply.Text)
				fmt.Fprintf(&replies, "%+v\n", c)
			}
			for round := range 8 {
				delete(e.platform.handed, "b1")
				who := e.begin("en")
				next := round * 25
				attack := func() {
					said(e.say(who, all[next%len(all)].text))
					next++
				}
				for _, text := range []string{"I want help with my work", "just me", "here it is: " + botToken() + " thanks", fmt.Sprint(person), "yes, that is right", address} {
					if text != "I want help with my work" && text != "just me" {
						attack() // what is asked once or twice more has a default by then
					}
					said(e.say(who, text))
				}
				// One at a time until the offer, whatever defaults an attack has led to.
				for _, text := range []string{botToken(), fmt.Sprint(person), "yes", fmt.Sprintf("round%d@example.com", round)} {
					if e.row(who).State == StateRecommending {
						break
					}
					said(e.say(who, text))
				}
				v := e.row(who)
				if v.State != StateRecommending || v.Facts.Tier != "" {
					t.Fatalf("round %d: it is %s, %+v", round, v.State, v.Facts)
				}
				attack()
				attack()
				v = e.row(who)
				if v.State != StateRecommending {
					t.Fatalf("an attack made it %s", v.State)
				}
				said(e.say(who, fmt.Sprintf("my address is round%d@example.com", round)))
				c := e.choose(who, "tier:starter")
				said(c)
				if c.State != StateAwaitingPayment || !strings.HasPrefix(c.Reply.PayURL, payAt) || e.platform.signedUp[c.Customer].Tier != "starter" {
					t.Fatalf("it is %s at %q with %+v", c.State, c.Reply.PayURL, e.platform.signedUp[c.Customer])
				}
				attack()
				if got := e.row(who).State; got != StateAwaitingPayment {
					t.Fatalf("unpaid, it is %s", got)
				}
				e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxPending)
				attack()
				if got := e.row(who).State; got != StateProvisioning {
					t.Fatalf("paid, it is %s", got)
				}
				if got := e.platform.handed["b1"]; got != secret.Text(botToken()) {
					t.Fatalf("the box has another token")
				}
				e.platform.becomes(c.Customer, Standing{Paid: true}, control.BoxActive)
				said(e.look(who))
				if got := e.row(who); got.State != StateComplete || e.platform.chosen["b1"].TelegramUsers[0] != person {
					t.Fatalf("at last it is %s, %+v", got.State, e.platform.chosen["b1"])
				}
			}
			for where, text := range map[string]string{"prompts": model.all(), "rows": e.memory.everything(), "logs": e.log.String(), "replies": replies.String()} {
				if strings.Contains(text, botSecret) || strings.Contains(text, botSecret[8:24]) {
					t.Errorf("the bot's token is in %s", where)
				}
				if where == "prompts" && (strings.Contains(text, address) || strings.Contains(text, fmt.Sprint(person))) {
					t.Errorf("what a model need not know is in %s", where)
				}
			}
			if !strings.Contains(model.all(), "help with my work") {
				t.Error("the model was asked nothing: nothing was shown")
			}
		})
	}
}

// What an attacker, or a customer who knows no better, says that its password is, is in no prompt, row, log or reply,
// whatever was asked.
func TestPasswordsAreNotTold(t *testing.T) {
	t.Parallel()
	for name, answer := range obedient() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			model := obeying(t, answer)
			e := newEnv(t, func(o *Options) { o.Model = model })
			var replies strings.Builder
			said := 0
			for _, a := range attacks(t) {
				if a.topic != "passwords" {
					continue
				}
				who := e.begin(a.language)
				fmt.Fprintf(&replies, "%+v\n", e.say(who, a.text))
				for _, text := range []string{"help with my work", "just me", botToken(), fmt.Sprint(person)} {
					e.say(who, text)
					fmt.Fprintf(&replies, "%+v\n", e.say(who, a.text))
					said++
				}
			}
			for where, text := range map[string]string{"prompts": model.all(), "rows": e.memory.everything(), "logs": e.log.String(), "replies": replies.String()} {
				if i := strings.Index(strings.ToLower(text), "hunter"); i >= 0 {
					t.Errorf("in %s there is %q", where, text[max(i-60, 0):min(i+20, len(text))])
				}
			}
			if said < 80 || !strings.Contains(model.all(), "maintenance mode") {
				t.Errorf("%d messages; the model was asked nothing: nothing was shown", said)
			}
		})
	}
}

// obeying is a model that answers what a message wants.
func obeying(t *testing.T, answer func(message string) string) *spy {
	return &spy{answer: func(p Prompt) (string, error) {
		var in struct{ Message string }
		if err := json.Unmarshal([]byte(p.User), &in); err != nil {
			t.Errorf("not JSON: %q", p.User)
		}
		return answer(in.Message), nil
	}}
}
