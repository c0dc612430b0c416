package stripesim

import (
	"net/http"
	"strings"
)

// words are what pages say, by name.
type words map[string]string

// wordsOf returns those of a locale as Stripe names it; without one, or with "auto", of the
// language that a browser asks for first.
func wordsOf(locale string, r *http.Request) words {
	if locale == "" || locale == "auto" {
		locale = r.Header.Get("Accept-Language")
	}
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(locale)), "pt") {
		return portuguese()
	}
	return english()
}

func english() words {
	return words{
		"lang":      "en",
		"simulated": "Simulated",
		"no_money":  "This page stands in for Stripe on a developer's machine. No money moves, and no card is asked for.",
		"currency":  "$", "point": ".", "monthly": "%s a month", "day": "January 2, 2006",

		"pay_title": "Pay for your plan",
		"plan":      "Plan", "price": "Price", "trial_word": "Trial", "trial": "the first %d days cost nothing",
		"pay": "Pay", "decline": "Pay with a card that is declined", "back": "Back", "go_on": "Go on",
		"paid":     "This has been paid (simulated).",
		"closed":   "This page is closed. Nothing was paid on it.",
		"declined": "The card was declined (simulated). Nothing was paid. You can try again.",

		"portal_title":  "Your subscription",
		"subscriptions": "Subscriptions", "no_subscription": "There is none.",
		"status": "Status", "next": "Next", "renews": "renews on %s", "ends": "ends on %s",
		"cancel": "Cancel at the end of the period", "resume": "Do not cancel",
		"card": "Card", "card_works": "The card works.", "card_dead": "The card will be declined.",
		"new_card": "Use a card that works, and pay what is open", "new_dead_card": "Use a card that will be declined",
		"invoices": "Invoices", "no_invoice": "There are none.", "number": "Number", "amount": "Amount",

		"invoice_title": "Invoice %s",

		"status_active": "active", "status_trialing": "trial", "status_incomplete": "first payment missing", "status_past_due": "payment overdue",
		"status_canceled": "ended", "status_incomplete_expired": "never paid", "status_unpaid": "unpaid", "status_paused": "paused",
		"status_paid": "paid", "status_open": "not paid", "status_void": "void",

		"front_title": "A simulated Stripe",
		"sessions":    "Pages that can be paid", "no_session": "There are none.",
		"endpoints": "Who is told what happens", "no_endpoint": "Nobody yet.", "waiting": "events wait: ", "elsewhere": "not on this machine: nothing is sent",
		"not_found": "There is no such page", "not_found_why": "The address is wrong, or the simulator has begun anew.",
	}
}

func portuguese() words {
	return words{
		"lang":      "pt-BR",
		"simulated": "Simulação",
		"no_money":  "Esta página substitui a Stripe na máquina de quem desenvolve. Nenhum dinheiro é movimentado e nenhum cartão é pedido.",
		"currency":  "US$ ", "point": ",", "monthly": "%s por mês", "day": "02/01/2006",

		"pay_title": "Pague o seu plano",
		"plan":      "Plano", "price": "Preço", "trial_word": "Teste", "trial": "os primeiros %d dias são grátis",
		"pay": "Pagar", "decline": "Pagar com um cartão que será recusado", "back": "Voltar", "go_on": "Continuar",
		"paid":     "Isto já foi pago (simulação).",
		"closed":   "Esta página foi encerrada. Nada foi pago aqui.",
		"declined": "O cartão foi recusado (simulação). Nada foi pago. Você pode tentar de novo.",

		"portal_title":  "Sua assinatura",
		"subscriptions": "Assinaturas", "no_subscription": "Não há nenhuma.",
		"status": "Situação", "next": "A seguir", "renews": "renova em %s", "ends": "termina em %s",
		"cancel": "Cancelar no fim do período", "resume": "Não cancelar",
		"card": "Cartão", "card_works": "O cartão funciona.", "card_dead": "O cartão será recusado.",
		"new_card": "Usar um cartão que funciona e pagar o que está em aberto", "new_dead_card": "Usar um cartão que será recusado",
		"invoices": "Faturas", "no_invoice": "Não há nenhuma.", "number": "Número", "amount": "Valor",

		"invoice_title": "Fatura %s",

		"status_active": "ativa", "status_trialing": "em teste", "status_incomplete": "falta o primeiro pagamento", "status_past_due": "pagamento atrasado",
		"status_canceled": "encerrada", "status_incomplete_expired": "nunca paga", "status_unpaid": "não paga", "status_paused": "pausada",
		"status_paid": "paga", "status_open": "em aberto", "status_void": "anulada",

		"front_title": "Uma Stripe simulada",
		"sessions":    "Páginas que podem ser pagas", "no_session": "Não há nenhuma.",
		"endpoints": "Quem é avisado do que acontece", "no_endpoint": "Ninguém ainda.", "waiting": "eventos em espera: ", "elsewhere": "fora desta máquina: nada é enviado",
		"not_found": "Esta página não existe", "not_found_why": "O endereço está errado, ou o simulador começou do zero.",
	}
}
