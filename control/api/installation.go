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
}

func (a *API) serveInstallation(*call) (any, error) {
	out := Installation{Payments: a.o.Payments}
	switch {
	case a.o.Billing == nil:
		out.Payments = PaymentsNone
	case out.Payments == "":
		out.Payments = PaymentsLive // whoever is wrong about it must not be careless
	}
	return out, nil
}
