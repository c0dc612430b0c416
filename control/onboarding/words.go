package onboarding

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// sentence is something that we say. Each is prepared in both languages.
type sentence string

// The sentences. A question has another wording for when it was asked before.
const (
	sayHello          sentence = "hello"
	sayUse            sentence = "use"
	sayUseAgain       sentence = "use_again"
	sayPeople         sentence = "people"
	sayPeopleAgain    sentence = "people_again"
	sayBot            sentence = "bot"
	sayBotAgain       sentence = "bot_again"
	sayBotHow         sentence = "bot_how"
	sayBotGood        sentence = "bot_good"
	sayBotBad         sentence = "bot_bad"
	sayBotTaken       sentence = "bot_taken"
	sayBotUnknown     sentence = "bot_unknown"
	sayBotBroken      sentence = "bot_broken"
	sayBotLost        sentence = "bot_lost"
	sayOneBot         sentence = "one_bot"
	sayUser           sentence = "user"
	sayUserAgain      sentence = "user_again"
	sayUserHow        sentence = "user_how"
	sayUserIsBot      sentence = "user_is_bot"
	sayUserLost       sentence = "user_lost"
	sayPreferences    sentence = "preferences"
	sayPreferencesSet sentence = "preferences_set"
	sayEmail          sentence = "email"
	sayEmailAgain     sentence = "email_again"
	sayEmailSet       sentence = "email_set"
	sayEmailTaken     sentence = "email_taken"
	sayOffer          sentence = "offer"
	sayOfferAgain     sentence = "offer_again"
	sayPay            sentence = "pay"
	sayPayAway        sentence = "pay_away"
	sayBeingOpened    sentence = "being_opened"
	sayCannotBuy      sentence = "cannot_buy"
	sayAwaiting       sentence = "awaiting"
	sayPaid           sentence = "paid"
	sayMaking         sentence = "making"
	sayFailed         sentence = "failed"
	sayTriedAgain     sentence = "tried_again"
	sayComplete       sentence = "complete"
	sayAbandoned      sentence = "abandoned"
	saySorry          sentence = "sorry"
	sayTooFast        sentence = "too_fast"
)

// prepared are the sentences. What stands in braces is filled in by fill.
var prepared = map[control.Language]map[sentence]string{
	control.English: {
		sayHello:          "Hi! In a few questions and about a minute I set up your own AI agent on Telegram.",
		sayUse:            "What would you like your agent to help you with?",
		sayUseAgain:       "In a sentence: what should your agent do for you? You can also pick one of the answers below.",
		sayPeople:         "Will only you write to it, or a team? If it is a team, how many people?",
		sayPeopleAgain:    "How many people will write to your agent? A number is enough.",
		sayBot:            "Now your agent needs a Telegram bot of its own. In Telegram, write /newbot to @BotFather, follow its steps, and paste the token here. It looks like digits, a colon and many letters. I keep it encrypted and show it to nobody.",
		sayBotAgain:       "Please paste the whole token that @BotFather gave you: digits, a colon and many letters.",
		sayBotHow:         "Open Telegram, search for @BotFather and press Start. Send /newbot, choose a name, then a user name that ends in \"bot\". It answers with a line that begins with digits and a colon: that is the token.",
		sayBotGood:        "{bot} answers, thank you. The token is kept encrypted, and I took it out of our conversation.",
		sayBotBad:         "Telegram does not know this token. It may have been replaced, or copied in part.",
		sayBotTaken:       "This bot belongs to another agent already, and two would take each other's messages. Please make a new one with /newbot.",
		sayBotUnknown:     "Telegram does not answer me at the moment, so I could not check the token and did not keep it. Please send it again in a minute.",
		sayBotBroken:      "This looks like a part of a token, so I took it out and did not keep it.",
		sayBotLost:        "I cannot use the bot any more: its token was replaced, or another agent has it. Please send the token of another bot from @BotFather, and I go on at once.",
		sayOneBot:         "There was more than one token in your message. Please send only one.",
		sayUser:           "Who may write to your agent? I need your own Telegram number: write to @userinfobot, and send me the Id that it shows.",
		sayUserAgain:      "Please send the number that @userinfobot shows as your Id: only digits, no @name.",
		sayUserHow:        "Open Telegram, search for @userinfobot and press Start. It answers with your Id, a number of about ten digits. Only this person may write to your agent.",
		sayUserIsBot:      "This is the number of your bot. I need your own.",
		sayUserLost:       "Your agent needs to know who may write to it, and I have no number that it can have. Please send your own Telegram number: write to @userinfobot, and send me the Id that it shows.",
		sayPreferences:    "Your agent will speak {agent_language} and use the time zone {zone}. Is that right? If not, tell me the language or your city.",
		sayPreferencesSet: "Your agent speaks {agent_language}, in the time zone {zone}.",
		sayEmail:          "Which e-mail address should your account and your receipts go to?",
		sayEmailAgain:     "Please send an e-mail address, such as name@example.com.",
		sayEmailSet:       "Your account and your receipts go to {email}.",
		sayEmailTaken:     "There is an account with this address already. Sign in there, or use another address here.",
		sayOffer:          "For that I suggest {tier}: {price} a month, {tokens} tokens a month, {users}. You can cancel at any time. Shall we take {tier}?",
		sayOfferAgain:     "On offer is {tier}: {price} a month, {tokens} tokens a month, {users}. Say \"yes\" to go on to the payment, or pick another plan.",
		sayPay:            "Here is your page to pay for {tier}, {price} a month. As soon as the payment is there, I set up your agent. You can close this page meanwhile and come back.",
		sayPayAway:        "I could not open the payment page just now. Please try again in a minute.",
		sayBeingOpened:    "Your payment page is being opened already. It is here in a moment; if it is not, please ask for it again.",
		sayCannotBuy:      "With this account nothing can be bought at the moment. Please write to our support.",
		sayAwaiting:       "I am waiting for your payment of {tier}, {price} a month. It usually takes a few seconds after you have paid.",
		sayPaid:           "Thank you, your payment is there! I am setting up your agent now. That takes about a minute.",
		sayMaking:         "I am still setting up your agent. You see here how far it is.",
		sayFailed:         "Your agent could not be started yet. We try again by ourselves, and you lose nothing: what you have paid stays yours.",
		sayTriedAgain:     "I am trying again now.",
		sayComplete:       "Your agent runs! Open {bot} in Telegram and say hello. We mailed you a link to choose a password for your dashboard.",
		saySorry:          "Something went wrong on our side, and your last message may be lost. Please send it again in a minute.",
		sayTooFast:        "That is too fast for me, and I did not read all of it. Please wait half a minute, and write the last thing again.",
		sayAbandoned:      "All right, I stopped here and forgot what you told me. Whenever you like, we begin again.",
	},
	control.Portuguese: {
		sayHello:          "Olá! Com poucas perguntas e em cerca de um minuto eu preparo o seu próprio agente de IA no Telegram.",
		sayUse:            "Em que você gostaria que o seu agente ajudasse?",
		sayUseAgain:       "Em uma frase: o que o seu agente deve fazer por você? Você também pode escolher uma das respostas abaixo.",
		sayPeople:         "Só você vai escrever para ele, ou uma equipe? Se for uma equipe, quantas pessoas?",
		sayPeopleAgain:    "Quantas pessoas vão escrever para o seu agente? Basta um número.",
		sayBot:            "Agora o seu agente precisa de um bot próprio no Telegram. No Telegram, escreva /newbot para o @BotFather, siga os passos e cole o token aqui. Ele tem dígitos, dois-pontos e muitas letras. Eu o guardo criptografado e não mostro a ninguém.",
		sayBotAgain:       "Por favor, cole o token inteiro que o @BotFather enviou: dígitos, dois-pontos e muitas letras.",
		sayBotHow:         "Abra o Telegram, procure @BotFather e toque em Iniciar. Envie /newbot, escolha um nome e depois um nome de usuário que termine em \"bot\". Ele responde com uma linha que começa com dígitos e dois-pontos: esse é o token.",
		sayBotGood:        "{bot} está respondendo, obrigado. O token fica criptografado, e eu o tirei da nossa conversa.",
		sayBotBad:         "O Telegram não conhece esse token. Ele pode ter sido trocado ou copiado pela metade.",
		sayBotTaken:       "Esse bot já é de outro agente, e um tomaria as mensagens do outro. Por favor, crie um novo com /newbot.",
		sayBotUnknown:     "O Telegram não está respondendo agora, então não pude conferir o token e não o guardei. Por favor, envie de novo em um minuto.",
		sayBotBroken:      "Isso parece um pedaço de um token, então eu o tirei e não o guardei.",
		sayBotLost:        "Não consigo mais usar o bot: o token foi trocado ou está com outro agente. Por favor, envie o token de outro bot do @BotFather, e eu continuo na hora.",
		sayOneBot:         "Havia mais de um token na sua mensagem. Por favor, envie só um.",
		sayUser:           "Quem pode escrever para o seu agente? Preciso do seu número no Telegram: escreva para o @userinfobot e me envie o Id que ele mostra.",
		sayUserAgain:      "Por favor, envie o número que o @userinfobot mostra como seu Id: só dígitos, sem @nome.",
		sayUserHow:        "Abra o Telegram, procure @userinfobot e toque em Iniciar. Ele responde com o seu Id, um número de cerca de dez dígitos. Só essa pessoa pode escrever para o seu agente.",
		sayUserIsBot:      "Esse é o número do seu bot. Preciso do seu.",
		sayUserLost:       "O seu agente precisa saber quem pode escrever para ele, e eu não tenho um número que ele possa ter. Por favor, envie o seu número no Telegram: escreva para o @userinfobot e me envie o Id que ele mostra.",
		sayPreferences:    "O seu agente vai falar {agent_language} e usar o fuso horário {zone}. Está certo? Se não, diga o idioma ou a sua cidade.",
		sayPreferencesSet: "O seu agente fala {agent_language}, no fuso horário {zone}.",
		sayEmail:          "Para qual e-mail vão a sua conta e os seus recibos?",
		sayEmailAgain:     "Por favor, envie um endereço de e-mail, como nome@example.com.",
		sayEmailSet:       "A sua conta e os seus recibos vão para {email}.",
		sayEmailTaken:     "Já existe uma conta com esse endereço. Entre nela, ou use outro endereço aqui.",
		sayOffer:          "Para isso eu sugiro o plano {tier}: {price} por mês, {tokens} de tokens por mês, {users}. Você pode cancelar quando quiser. Vamos de {tier}?",
		sayOfferAgain:     "A oferta é o plano {tier}: {price} por mês, {tokens} de tokens por mês, {users}. Diga \"sim\" para seguir ao pagamento, ou escolha outro plano.",
		sayPay:            "Aqui está a sua página para pagar o plano {tier}, {price} por mês. Assim que o pagamento chegar, eu preparo o seu agente. Você pode fechar esta página e voltar depois.",
		sayPayAway:        "Não consegui abrir a página de pagamento agora. Por favor, tente de novo em um minuto.",
		sayBeingOpened:    "A sua página de pagamento já está sendo aberta. Ela chega em um instante; se não chegar, por favor peça de novo.",
		sayCannotBuy:      "Com esta conta não é possível comprar no momento. Por favor, escreva para o nosso suporte.",
		sayAwaiting:       "Estou esperando o pagamento do plano {tier}, {price} por mês. Costuma levar alguns segundos depois que você paga.",
		sayPaid:           "Obrigado, o pagamento chegou! Estou preparando o seu agente. Leva cerca de um minuto.",
		sayMaking:         "Ainda estou preparando o seu agente. Você vê aqui em que ponto está.",
		sayFailed:         "O seu agente ainda não pôde ser iniciado. Nós tentamos de novo sozinhos, e você não perde nada: o que você pagou continua seu.",
		sayTriedAgain:     "Estou tentando de novo agora.",
		sayComplete:       "O seu agente está no ar! Abra {bot} no Telegram e diga olá. Enviamos por e-mail um link para você escolher a senha do seu painel.",
		saySorry:          "Algo deu errado do nosso lado, e a sua última mensagem pode ter se perdido. Por favor, envie de novo em um minuto.",
		sayTooFast:        "Assim é rápido demais para mim, e não li tudo. Por favor, espere meio minuto e escreva de novo a última coisa.",
		sayAbandoned:      "Tudo bem, parei por aqui e esqueci o que você me contou. Quando quiser, começamos de novo.",
	},
}

// labels are what quick replies say.
var labels = map[control.Language]map[string]string{
	control.English: {
		"use:personal": "Everyday life", "use:work": "My work", "use:research": "Research and study", "use:coding": "Programming", "use:support": "Helping customers", "use:other": "Something else",
		"people:one": "Just me", "people:more": "A team",
		"help:bot": "How do I get one?", "help:user": "How do I find it?",
		"prefs:ok": "Yes, that is right", "lang:en": "In English", "lang:pt-BR": "In Portuguese",
		"tier": "{tier}, {price} a month", "pay": "Show the payment page again", "plan": "Choose another plan", "retry": "Try again", "page": "Go to the payment page",
	},
	control.Portuguese: {
		"use:personal": "Dia a dia", "use:work": "Meu trabalho", "use:research": "Pesquisa e estudo", "use:coding": "Programação", "use:support": "Atender clientes", "use:other": "Outra coisa",
		"people:one": "Só eu", "people:more": "Uma equipe",
		"help:bot": "Como consigo um?", "help:user": "Como descubro?",
		"prefs:ok": "Sim, está certo", "lang:en": "Em inglês", "lang:pt-BR": "Em português",
		"tier": "{tier}, {price} por mês", "pay": "Mostrar a página de pagamento de novo", "plan": "Escolher outro plano", "retry": "Tentar de novo", "page": "Ir para a página de pagamento",
	},
}

// wordsIn returns the sentences of a language; those of English if there are none.
func wordsIn(l control.Language) map[sentence]string {
	if t, ok := prepared[l]; ok {
		return t
	}
	return prepared[control.English]
}

// labelsIn is wordsIn of what quick replies say.
func labelsIn(l control.Language) map[string]string {
	if t, ok := labels[l]; ok {
		return t
	}
	return labels[control.English]
}

// Apology is what to say if an answer failed, to somebody whose language is called so.
func Apology(language string) string { return wordsIn(languageOf(language))[saySorry] }

// TooFast is what to say to somebody who writes more than is read, and whose language is called so.
func TooFast(language string) string { return wordsIn(languageOf(language))[sayTooFast] }

// PageLabel is what to write on the way to the page to pay on.
func PageLabel(l control.Language) string { return labelsIn(l)["page"] }

// languageName says how a language is called in another.
func languageName(l, in control.Language) string {
	names := map[[2]control.Language]string{
		{control.English, control.English}: "English", {control.Portuguese, control.English}: "Portuguese",
		{control.English, control.Portuguese}: "inglês", {control.Portuguese, control.Portuguese}: "português",
	}
	return names[[2]control.Language{l, in}]
}

// price says what a tier costs.
func price(t control.Tier, l control.Language) string {
	whole, cents := t.PriceCents/100, t.PriceCents%100
	text, point, sign := strconv.FormatInt(whole, 10), ".", "$"
	if l == control.Portuguese {
		point, sign = ",", "US$ "
	}
	if cents != 0 {
		text += fmt.Sprintf("%s%02d", point, cents)
	}
	return sign + text
}

// millions says how many tokens a tier has.
func millions(t control.Tier, l control.Language) string {
	n := strings.TrimSuffix(strconv.FormatFloat(float64(t.MonthlyTokens)/1e6, 'f', 1, 64), ".0")
	if l != control.Portuguese {
		return n + " million"
	}
	if n == "1" {
		return n + " milhão"
	}
	return strings.Replace(n, ".", ",", 1) + " milhões"
}

// users says how many people may write to an agent of a tier.
func users(t control.Tier, l control.Language) string {
	switch {
	case l == control.Portuguese && t.TelegramUsers == 1:
		return "para uma pessoa"
	case l == control.Portuguese:
		return fmt.Sprintf("para até %d pessoas", t.TelegramUsers)
	case t.TelegramUsers == 1:
		return "for one person"
	}
	return fmt.Sprintf("for up to %d people", t.TelegramUsers)
}

// tier returns the tier of a name; the zero value if it is not on sale any more.
func (m *machine) tier(name string) control.Tier {
	for _, t := range m.tiers {
		if t.Name == name {
			return t
		}
	}
	return control.Tier{}
}

// fill fills in what a sentence leaves open: facts of the session, and the tier's from the table.
func (m *machine) fill(text string, tier control.Tier) string {
	l, f := m.s.Language, &m.s.Facts
	bot := "@" + f.BotName
	if f.BotName == "" || !clean(bot) {
		bot = map[bool]string{true: "O seu bot", false: "Your bot"}[l == control.Portuguese]
	}
	email := f.Email
	if !clean(email) {
		email = map[bool]string{true: "o seu endereço", false: "your address"}[l == control.Portuguese]
	}
	title := tier.Title
	if !clean(title) {
		title = map[bool]string{true: "escolhido", false: "this plan"}[l == control.Portuguese]
	}
	return strings.NewReplacer(
		"{bot}", bot, "{email}", email, "{agent_language}", languageName(f.AgentLanguage, l), "{zone}", strings.ReplaceAll(f.TimeZone, "_", " "),
		"{tier}", title, "{price}", price(tier, l), "{tokens}", millions(tier, l), "{users}", users(tier, l),
	).Replace(text)
}

// reply says what is to be said, and which answers can be taken.
func (m *machine) reply() Reply {
	name := m.s.Facts.Tier
	if m.s.State == StateRecommending {
		name = m.s.Facts.Offer
	}
	table, said := wordsIn(m.s.Language), make([]string, 0, len(m.lines))
	for _, line := range m.lines {
		said = append(said, m.fill(table[line], m.tier(name)))
	}
	r := Reply{Text: strings.Join(said, "\n\n"), PayURL: m.s.PayURL}
	if !checkWhole(r.Text) {
		r.Text = table[saySorry] // whatever it was, it must not be said
	}
	if with := m.lead + "\n\n" + r.Text; m.lead != "" && r.Text != "" && checkLead(m.lead) && checkWhole(with) {
		r.Text = with
	}
	r.Quick = m.quick()
	return r
}

// quick are the answers that can be taken in a state.
func (m *machine) quick() []Quick {
	var ids []string
	switch m.s.State {
	case StateAwaitingPayment:
		ids = []string{"pay", "plan"}
	case StateFailed:
		ids = []string{"retry"}
	}
	if m.s.State.waits() {
		return m.labelled(ids)
	}
	switch m.s.Asking {
	case AskUse:
		for _, u := range Uses() {
			ids = append(ids, "use:"+string(u))
		}
	case AskPeople:
		ids = []string{"people:one", "people:more"}
	case AskBot:
		ids = []string{"help:bot"}
	case AskUser:
		ids = []string{"help:user"}
	case AskPreferences:
		ids = []string{"prefs:ok", "lang:" + string(control.Portuguese)}
		if m.s.Facts.AgentLanguage == control.Portuguese {
			ids[1] = "lang:" + string(control.English)
		}
	case AskTier:
		for _, t := range m.tiers {
			ids = append(ids, "tier:"+t.Name)
		}
	}
	return m.labelled(ids)
}

func (m *machine) labelled(ids []string) []Quick {
	out := make([]Quick, 0, len(ids))
	for _, id := range ids {
		text := labelsIn(m.s.Language)[id]
		if name, ok := strings.CutPrefix(id, "tier:"); ok {
			text = m.fill(labelsIn(m.s.Language)["tier"], m.tier(name))
		}
		out = append(out, Quick{ID: id, Label: text})
	}
	return out
}
