package stripesim

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// route answers one request. The caller holds the lock.
func (s *Server) route(route string, ids []string, p *params) (any, error) {
	id := ""
	if len(ids) > 0 {
		id = ids[0]
	}
	switch route {
	case "POST customers":
		return s.createCustomer(p)
	case "POST customers/{id}":
		return s.updateCustomer(id, p)
	case "GET customers/{id}":
		return find(s.customers, "customer", id)
	case "POST products":
		return s.createProduct(p)
	case "GET products/{id}":
		return find(s.products, "product", id)
	case "POST products/{id}":
		return s.updateProduct(id, p)
	case "GET prices":
		return s.listPrices(p)
	case "POST prices":
		return s.createPrice(p)
	case "POST checkout/sessions":
		return s.createSession(p)
	case "GET checkout/sessions":
		return s.listSessions(p)
	case "GET checkout/sessions/{id}":
		return find(s.sessions, "checkout.session", id)
	case "POST checkout/sessions/{id}/expire":
		return s.expireSession(id)
	case "GET billing_portal/configurations":
		p.get("limit")
		p.get("active") // all are
		return listOf("billing_portal/configurations", objects(s.portals)), nil
	case "POST billing_portal/configurations":
		return s.createPortalConfiguration(p)
	case "POST billing_portal/configurations/{id}":
		return s.updatePortalConfiguration(id, p)
	case "POST billing_portal/sessions":
		return s.createPortal(p)
	case "GET subscriptions":
		return s.listSubscriptions(p)
	case "GET subscriptions/{id}":
		return s.getSubscription(id, p)
	case "POST subscriptions/{id}":
		return s.updateSubscription(id, p)
	case "DELETE subscriptions/{id}":
		return s.cancelSubscription(id, p)
	case "GET invoices":
		return s.listInvoices(p)
	case "GET invoices/{id}":
		return find(s.invoices, "invoice", id)
	case "GET webhook_endpoints":
		p.get("limit")
		return listOf("webhook_endpoints", objects(s.endpoints)), nil
	case "POST webhook_endpoints":
		return s.createEndpoint(p)
	case "POST webhook_endpoints/{id}":
		return s.updateEndpoint(id, p)
	case "GET billing/meters":
		p.get("limit")
		p.get("status")
		return listOf("billing/meters", objects(s.meters)), nil
	case "POST billing/meters":
		return s.createMeter(p)
	case "POST billing/meter_events":
		return s.createMeterEvent(p)
	case "GET billing/meters/{id}/event_summaries":
		return s.summarize(id, p)
	}
	return nil, missing("route", route)
}

// thing is one of Stripe's objects.
type thing interface {
	key() string
	object() object
}

func lookUp[T thing](list []T, what, id string) (T, error) {
	for _, t := range list {
		if t.key() == id {
			return t, nil
		}
	}
	var none T
	return none, missing(what, id)
}

func find[T thing](list []T, what, id string) (any, error) {
	t, err := lookUp(list, what, id)
	if err != nil {
		return nil, err
	}
	return t.object(), nil
}

func objects[T thing](list []T) []any {
	out := make([]any, 0, len(list))
	for _, t := range slices.Backward(list) { // the newest first
		out = append(out, t.object())
	}
	return out
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

type customer struct {
	id, email, name, locale, reference string
	created                            time.Time
	declines                           bool // its card does
	credit                             int64
}

func (c *customer) key() string { return c.id }

func (c *customer) object() object {
	metadata := object{}
	if c.reference != "" {
		metadata["customer_id"] = c.reference
	}
	return object{
		"id": c.id, "object": "customer", "email": orNil(c.email), "name": orNil(c.name), "created": c.created.Unix(),
		"livemode": false, "metadata": metadata, "preferred_locales": []string{c.locale},
	}
}

func (s *Server) createCustomer(p *params) (any, error) {
	c := &customer{id: s.id("cus"), reference: p.get("metadata[customer_id]"), created: s.now}
	c.read(p)
	s.customers = append(s.customers, c)
	return c.object(), nil
}

func (s *Server) updateCustomer(id string, p *params) (any, error) {
	c, err := lookUp(s.customers, "customer", id)
	if err != nil {
		return nil, err
	}
	c.read(p)
	return c.object(), nil
}

// read takes over what a request says of the customer.
func (c *customer) read(p *params) {
	if email := p.get("email"); email != "" {
		c.email = email
	}
	if name := p.get("name"); name != "" {
		c.name = name
	}
	if locales := p.list("preferred_locales"); len(locales) > 0 {
		c.locale = locales[0]
	}
}

type product struct {
	id, name string
	created  time.Time
}

func (o *product) key() string { return o.id }

func (o *product) object() object {
	return object{"id": o.id, "object": "product", "active": true, "name": o.name, "created": o.created.Unix(), "livemode": false, "metadata": object{}}
}

func (s *Server) createProduct(p *params) (any, error) {
	o := &product{id: p.get("id"), name: p.get("name"), created: s.now}
	if o.id == "" {
		o.id = s.id("prod")
	}
	if o.name == "" {
		return nil, invalid("Missing required param: name.")
	}
	if _, err := lookUp(s.products, "product", o.id); err == nil {
		return nil, &problem{400, "invalid_request_error", "resource_already_exists", "Product already exists."}
	}
	s.products = append(s.products, o)
	return o.object(), nil
}

func (s *Server) updateProduct(id string, p *params) (any, error) {
	o, err := lookUp(s.products, "product", id)
	if err != nil {
		return nil, err
	}
	if name := p.get("name"); name != "" {
		o.name = name
	}
	return o.object(), nil
}

type price struct {
	id, product, lookupKey, currency, interval, usage, meter, decimal string
	created                                                           time.Time
}

func (o *price) key() string { return o.id }

// cents is 0 where the price is a fraction of one.
func (o *price) cents() int64 {
	n, _ := strconv.ParseInt(o.decimal, 10, 64)
	return n
}

func (o *price) object() object {
	recurring := object{"interval": o.interval, "interval_count": 1, "usage_type": o.usage, "meter": orNil(o.meter), "aggregate_usage": nil}
	out := object{
		"id": o.id, "object": "price", "active": true, "currency": o.currency, "product": o.product, "lookup_key": orNil(o.lookupKey),
		"type": "recurring", "billing_scheme": "per_unit", "unit_amount": nil, "unit_amount_decimal": o.decimal, "recurring": recurring,
		"created": o.created.Unix(), "livemode": false, "metadata": object{},
	}
	if !strings.Contains(o.decimal, ".") {
		out["unit_amount"] = o.cents()
	}
	return out
}

func (s *Server) listPrices(p *params) (any, error) {
	keys, active := p.list("lookup_keys"), p.get("active")
	p.get("limit")
	_ = active // all of them are
	if len(keys) > 10 {
		return nil, invalid("lookup_keys: at most 10")
	}
	var out []any
	for _, o := range s.prices {
		if len(keys) == 0 || o.lookupKey != "" && slices.Contains(keys, o.lookupKey) {
			out = append(out, o.object())
		}
	}
	return listOf("prices", out), nil
}

func (s *Server) createPrice(p *params) (any, error) {
	o := &price{
		id: s.id("price"), product: p.get("product"), lookupKey: p.get("lookup_key"), currency: p.get("currency"),
		interval: p.get("recurring[interval]"), usage: p.get("recurring[usage_type]"), meter: p.get("recurring[meter]"),
		decimal: p.get("unit_amount_decimal"), created: s.now,
	}
	if amount := p.get("unit_amount"); amount != "" {
		o.decimal = amount
	}
	if o.usage == "" {
		o.usage = "licensed"
	}
	if _, err := lookUp(s.products, "product", o.product); err != nil {
		return nil, err
	}
	if o.meter != "" {
		if _, err := lookUp(s.meters, "meter", o.meter); err != nil {
			return nil, err
		}
	}
	if (o.meter != "") != (o.usage == "metered") {
		return nil, invalid("a meter and usage_type metered belong together")
	}
	transfer := p.get("transfer_lookup_key") == "true"
	for _, other := range s.prices {
		if o.lookupKey == "" || other.lookupKey != o.lookupKey {
			continue
		}
		if !transfer {
			return nil, invalid("A price already uses that lookup key.")
		}
		other.lookupKey = ""
	}
	if _, err := strconv.ParseFloat(o.decimal, 64); err != nil || o.currency == "" || o.interval == "" {
		return nil, invalid("unit_amount, currency and recurring are required")
	}
	s.prices = append(s.prices, o)
	return o.object(), nil
}

type session struct {
	id, customer, status, payment, subscription, reference, success, cancel, tier, locale, page string
	begun                                                                                       string // the subscription that was not paid for yet
	prices                                                                                      []string
	trialDays                                                                                   int
	created                                                                                     time.Time
}

func (o *session) key() string { return o.id }

func (o *session) object() object {
	out := object{
		"id": o.id, "object": "checkout.session", "mode": "subscription", "status": o.status, "payment_status": o.payment,
		"customer": o.customer, "subscription": orNil(o.subscription), "client_reference_id": orNil(o.reference),
		"created": o.created.Unix(), "livemode": false, "metadata": object{"tier": o.tier}, "url": nil,
	}
	if o.status == "open" {
		out["url"] = o.page
	}
	return out
}

func (s *Server) createSession(p *params) (any, error) {
	o := &session{
		id: s.id("cs"), customer: p.get("customer"), status: "open", payment: "unpaid", reference: p.get("client_reference_id"),
		success: p.get("success_url"), cancel: p.get("cancel_url"), tier: p.get("metadata[tier]"), locale: p.get("locale"), created: s.now,
	}
	o.page = s.page("checkout", "pay", o.id)
	if p.get("mode") != "subscription" || o.success == "" || o.cancel == "" {
		return nil, invalid("mode, success_url and cancel_url are required")
	}
	p.get("allow_promotion_codes")
	o.trialDays, _ = strconv.Atoi(p.get("subscription_data[trial_period_days]"))
	if _, err := lookUp(s.customers, "customer", o.customer); err != nil {
		return nil, err
	}
	for _, item := range p.group("line_items") {
		pr, err := lookUp(s.prices, "price", item["price"])
		if err != nil {
			return nil, err
		}
		if (item["quantity"] == "") != (pr.usage == "metered") {
			return nil, invalid("quantity is for prices that are not metered")
		}
		o.prices = append(o.prices, pr.id)
	}
	if len(o.prices) == 0 {
		return nil, invalid("line_items are required")
	}
	s.sessions = append(s.sessions, o)
	return o.object(), nil
}

func (s *Server) listSessions(p *params) (any, error) {
	customer, status := p.get("customer"), p.get("status")
	p.get("limit")
	var out []any
	for _, o := range slices.Backward(s.sessions) {
		if (customer == "" || o.customer == customer) && (status == "" || o.status == status) {
			out = append(out, o.object())
		}
	}
	return listOf("checkout/sessions", out), nil
}

func (s *Server) expireSession(id string) (any, error) {
	o, err := lookUp(s.sessions, "checkout.session", id)
	if err != nil {
		return nil, err
	}
	if o.status != "open" {
		return nil, invalid("Only Checkout Sessions with a status in [\"open\"] can be expired.")
	}
	o.status = "expired"
	return o.object(), nil
}
