package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/andreabadesso/openclaw-cloud/control"
)

const (
	maxWebhook = 1 << 20
	// invoices is how many are listed.
	invoices = 100
)

// Purchase is what a customer wants to buy.
type Purchase struct {
	Tier string `json:"tier"`
}

// Link is where a customer goes on.
type Link struct {
	URL string `json:"url"`
}

// Received tells Stripe that an event is safe.
type Received struct {
	Received bool `json:"received"`
}

func noBilling() error {
	return fail(kindUnavailable(), "Payments are not set up here.")
}

func (a *API) serveCheckout(c *call) (any, error) {
	var in Purchase
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if _, err := a.o.Customers.Tiers.Get(in.Tier); err != nil {
		return nil, invalid("tier", "there is no such tier")
	}
	if a.o.Billing == nil {
		return nil, noBilling()
	}
	url, err := a.o.Billing.CheckoutURL(c.ctx(), c.customerID(), in.Tier)
	var unpaid *control.UnpaidError
	switch {
	case errors.As(err, &unpaid):
		return nil, &failure{kind: kindUnpaid(), detail: "An invoice is open. Pay it first: " + unpaid.URL, payURL: unpaid.URL, cause: err}
	case errors.Is(err, control.ErrNotFound): // a price at Stripe
		return nil, &failure{kind: kindUnavailable(), detail: "Payments are not set up completely.", cause: err}
	case errors.Is(err, control.ErrExists):
		return nil, &failure{kind: kindConflict(), detail: "There is a subscription already: change its tier.", cause: err}
	case errors.Is(err, control.ErrInvalid):
		return nil, &failure{kind: kindConflict(), detail: "This account cannot buy just now.", cause: err}
	}
	return Link{url}, err
}

func (a *API) servePortal(c *call) (any, error) {
	if a.o.Billing == nil {
		return nil, noBilling()
	}
	url, err := a.o.Billing.PortalURL(c.ctx(), c.customerID())
	if errors.Is(err, control.ErrInvalid) {
		return nil, &failure{kind: kindConflict(), detail: "Nothing was bought yet.", cause: err}
	}
	return Link{url}, err
}

func (a *API) serveInvoices(c *call) (any, error) {
	if a.o.Billing == nil {
		return nil, noBilling()
	}
	list, err := a.o.Billing.Invoices(c.ctx(), c.customerID(), invoices)
	return List[control.Invoice]{Items: some(list)}, err
}

// serveWebhook hands over what Stripe sent, byte for byte: its signature is over that. A
// failure of ours has Stripe send it again.
func (a *API) serveWebhook(c *call) (any, error) {
	if a.o.Webhook == nil {
		return nil, noBilling()
	}
	signatures := c.r.Header.Values("Stripe-Signature")
	var err error
	if len(signatures) != 1 || len(c.body) == 0 {
		err = fmt.Errorf("%w: it has %d signatures and %d bytes", control.ErrInvalid, len(signatures), len(c.body))
	} else {
		err = a.o.Webhook.Receive(c.ctx(), c.body, signatures[0])
	}
	if errors.Is(err, control.ErrInvalid) {
		// Not its content, which is a stranger's.
		a.noteRefusal(c, "webhook.refused", "stripe", map[string]any{"bytes": len(c.body)})
		return nil, &failure{kind: kindMalformed(), detail: "This is not from Stripe.", cause: err}
	}
	return Received{true}, err
}

// TierView is what can be bought.
type TierView struct {
	Name                   string  `json:"name"`
	Title                  string  `json:"title"`
	PriceCents             int64   `json:"price_cents" doc:"US cents per month."`
	MonthlyTokens          int64   `json:"monthly_tokens"`
	OverageCentsPerMillion int64   `json:"overage_cents_per_million"`
	RequestsPerSecond      float64 `json:"requests_per_second"`
	Burst                  int     `json:"burst"`
	Concurrent             int     `json:"concurrent"`
	Thinking               string  `json:"thinking"`
	TelegramUsers          int     `json:"telegram_users"`
	CustomSystemPrompt     bool    `json:"custom_system_prompt"`
}

func (a *API) serveTiers(*call) (any, error) {
	var out []TierView
	for _, t := range a.o.Customers.Tiers.All() {
		out = append(out, TierView{
			t.Name, t.Title, t.PriceCents, t.MonthlyTokens, t.OverageCentsPerMillion, t.RequestsPerSecond, t.Burst, t.Concurrent,
			t.Thinking, t.TelegramUsers, t.CustomSystemPrompt,
		})
	}
	return List[TierView]{Items: some(out)}, nil
}

func tiersRoute(w who, serve func(*call) (any, error)) route {
	return route{method: http.MethodGet, path: "/v1/tiers", who: w, serve: serve,
		op: operation{id: "listTiers", tag: "tiers", summary: "What can be bought", status: http.StatusOK, answer: List[TierView]{}}}
}

func (a *API) moneyRoutes() []route {
	return append(a.subscriptionRoutes(), []route{
		tiersRoute(anyone(), a.serveTiers),
		{method: http.MethodGet, path: "/v1/installation", who: anyone(), serve: a.serveInstallation,
			op: operation{id: "getInstallation", tag: "installation", summary: "What this installation is", status: http.StatusOK, answer: Installation{},
				about: "For pages, which say it to whoever might take it for another."}},
		{method: http.MethodPost, path: "/v1/me/checkout", who: customerSession(), serve: a.serveCheckout,
			op: operation{id: "createCheckout", tag: "billing", summary: "Where to pay for a tier", body: Purchase{}, status: http.StatusOK, answer: Link{},
				about: "With an invoice that is not paid the answer is 402, and pay_url says where to pay it."}},
		{method: http.MethodPost, path: "/v1/me/portal", who: customerSession(), serve: a.servePortal, withoutKey: true,
			op: operation{id: "createPortal", tag: "billing", summary: "Where to manage the subscription", status: http.StatusOK, answer: Link{}}},
		{method: http.MethodGet, path: "/v1/me/invoices", who: customerSession(), serve: a.serveInvoices,
			op: operation{id: "listInvoices", tag: "billing", summary: "Your newest invoices", status: http.StatusOK, answer: List[control.Invoice]{},
				about: "At most " + strconv.Itoa(invoices) + "; all are in the portal."}},
		{method: http.MethodPost, path: "/v1/webhooks/stripe", who: signedOnly(), serve: a.serveWebhook, maxBody: maxWebhook,
			op: operation{id: "receiveStripeEvent", tag: "billing", summary: "For Stripe only", status: http.StatusOK, answer: Received{}}},
	}...)
}
