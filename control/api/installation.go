package api

// PaymentMode says what it means here to pay.
type PaymentMode string

// The ways to pay.
const (
	PaymentsNone      PaymentMode = "none"      // nothing can be bought
	PaymentsSimulated PaymentMode = "simulated" // at a simulator of Stripe
	PaymentsTest      PaymentMode = "test"      // in Stripe's test mode
	PaymentsLive      PaymentMode = "live"      // with real money
)

// Installation says what strangers may know of an installation.
type Installation struct {
	Payments PaymentMode `json:"payments" doc:"Real money moves with live only."`
	// TelegramBot is the page of the bot that new customers talk to.
	TelegramBot string `json:"telegram_bot,omitempty" doc:"Where to talk to the onboarding agent on Telegram: an address that takes start=, on t.me unless Telegram is simulated."`
}

func (a *API) serveInstallation(*call) (any, error) {
	out := Installation{Payments: a.o.Payments, TelegramBot: a.o.TelegramBot}
	switch {
	case a.o.Billing == nil:
		out.Payments = PaymentsNone
	case out.Payments == "":
		out.Payments = PaymentsLive // whoever is wrong about it must not be careless
	}
	return out, nil
}
