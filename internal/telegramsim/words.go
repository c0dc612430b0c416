package telegramsim

import (
	"net/http"
	"strings"
)

// words are what pages say, by name; what of errors they say, by the error's own text.
type words map[string]string

// wordsOf returns those of the language that a browser asks for first.
func wordsOf(r *http.Request) words {
	if inPortuguese(r) {
		return portuguese()
	}
	return english()
}

func inPortuguese(r *http.Request) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(r.Header.Get("Accept-Language"))), "pt")
}

// sorry says what is wrong.
func (w words) sorry(err error) string {
	text := w[err.Error()]
	if text == "" {
		text = err.Error()
	}
	return w["sorry"] + text + "."
}

func english() words {
	return words{
		"lang":      "en",
		"site":      "Simulated Telegram",
		"simulated": "Simulated", "stands_in": "This page stands in for Telegram on a developer's machine: nothing leaves it.",
		"sorry": "Sorry: ",

		"made": "Done: ", "token": "Its token, for whoever runs it:",
		"username": "A new bot's username, which ends in bot", "make": "Make the bot",
		"bots": "Bots", "no_bot": "There are none yet.", "not_found": "There is no such bot.",

		"wrong_link": "The link is wrong: what stands behind start= may have 64 letters, digits, _ and - only.",
		"you":        "You are", "id": "Id", "name": "Name", "their_username": "Username", "language": "Language", "be": "Be that person",
		"messages": "Messages", "start": "Start", "answers": "Answers", "message": "Message", "send": "Send", "all_bots": "All bots",
		"edited": "edited", "away": "The simulator does not answer: ",
	}
}

func portuguese() words {
	return words{
		"lang":      "pt-BR",
		"site":      "Telegram simulado",
		"simulated": "Simulação", "stands_in": "Esta página substitui o Telegram na máquina de quem desenvolve: nada sai dela.",
		"sorry": "Não deu certo: ",

		"made": "Pronto: ", "token": "O token, para quem roda o bot:",
		"username": "Nome de usuário do novo bot, que termina em bot", "make": "Criar o bot",
		"bots": "Bots", "no_bot": "Ainda não há nenhum.", "not_found": "Este bot não existe.",

		"wrong_link": "O link está errado: o que vem depois de start= só pode ter 64 letras, dígitos, _ e -.",
		"you":        "Você é", "id": "Id", "name": "Nome", "their_username": "Nome de usuário", "language": "Idioma", "be": "Ser essa pessoa",
		"messages": "Mensagens", "start": "Iniciar", "answers": "Respostas", "message": "Mensagem", "send": "Enviar", "all_bots": "Todos os bots",
		"edited": "editada", "away": "O simulador não responde: ",

		ErrTaken.Error():        "este nome de usuário já está em uso",
		ErrName.Error():         "o nome de usuário de um bot tem de 5 a 32 letras, dígitos e sublinhados, e termina em bot",
		errPersonID.Error():     "o id de uma pessoa é um número a partir de 1",
		errPersonName.Error():   "o nome de uma pessoa tem de 1 a 64 letras",
		errPersonUser.Error():   "o nome de usuário de uma pessoa só tem letras, dígitos e sublinhados",
		errPersonSpeaks.Error(): "um idioma se escreve como pt-br",
	}
}
