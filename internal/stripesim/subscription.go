package stripesim

import (
	"slices"
	"strconv"
	"time"
)

type subscription struct {
	id, customer, status, latestInvoice string
	items                               []*item
	anchor                              time.Time // from where periods are counted
	periods                             int       // since the anchor
	start, end                          time.Time
	trialEnd                            time.Time
	cancelAtPeriodEnd                   bool
	created, ended                      time.Time
}

type item struct {
	id       string
	price    *price
	quantity int64
	since    time.Time // when it was added, or got its price
}

func (o *subscription) key() string { return o.id }

func (o *subscription) object() object {
	var items []any
	for _, it := range o.items {
		v := object{"id": it.id, "object": "subscription_item", "price": it.price.object(), "subscription": o.id, "metadata": object{}}
		if it.quantity > 0 {
			v["quantity"] = it.quantity
		}
		items = append(items, v)
	}
	out := object{
		"id": o.id, "object": "subscription", "customer": o.customer, "status": o.status, "latest_invoice": orNil(o.latestInvoice),
		"items": listOf("subscription_items?subscription="+o.id, items), "current_period_start": o.start.Unix(), "current_period_end": o.end.Unix(),
		"cancel_at_period_end": o.cancelAtPeriodEnd, "created": o.created.Unix(), "currency": "usd", "livemode": false,
		"collection_method": "charge_automatically", "metadata": object{}, "trial_end": nil, "ended_at": nil,
	}
	if !o.trialEnd.IsZero() {
		out["trial_end"] = o.trialEnd.Unix()
	}
	if !o.ended.IsZero() {
		out["ended_at"] = o.ended.Unix()
	}
	return out
}

func (o *subscription) over() bool { return o.status == "canceled" || o.status == "incomplete_expired" }

// base is what is paid in advance.
func (o *subscription) base() *item {
	for _, it := range o.items {
		if it.price.usage != "metered" {
			return it
		}
	}
	return o.items[0]
}

type invoice struct {
	id, customer, subscription, status, reason, page string
	amount                                           int64
	attempts                                         int
	number                                           int
	start, end, created                              time.Time
}

func (o *invoice) key() string { return o.id }

func (o *invoice) object() object {
	paid := o.status == "paid"
	out := object{
		"id": o.id, "object": "invoice", "customer": o.customer, "subscription": o.subscription, "status": o.status, "paid": paid,
		"billing_reason": o.reason, "currency": "usd", "amount_due": o.amount, "amount_paid": int64(0), "total": o.amount,
		"attempt_count": o.attempts, "attempted": o.attempts > 0, "number": "SIM-" + strconv.Itoa(o.number),
		"hosted_invoice_url": o.page, "invoice_pdf": o.page + ".pdf",
		"period_start": o.start.Unix(), "period_end": o.end.Unix(), "created": o.created.Unix(), "livemode": false, "metadata": object{},
	}
	if paid {
		out["amount_paid"] = o.amount
	}
	return out
}

func (s *Server) getSubscription(id string, p *params) (any, error) {
	o, err := lookUp(s.subscriptions, "subscription", id)
	if err != nil {
		return nil, err
	}
	out := o.object()
	if slices.Contains(p.expand, "latest_invoice") {
		if in, err := lookUp(s.invoices, "invoice", o.latestInvoice); err == nil {
			out["latest_invoice"] = in.object()
		}
	}
	return out, nil
}

// listSubscriptions lists those that have not been canceled, as Stripe does unless it is asked for
// a status: those whose first payment never came are among them
// (docs.stripe.com/api/subscriptions/list).
func (s *Server) listSubscriptions(p *params) (any, error) {
	customer := p.get("customer")
	p.get("limit")
	var out []any
	for _, o := range slices.Backward(s.subscriptions) {
		if o.customer == customer && o.status != "canceled" {
			out = append(out, o.object())
		}
	}
	return listOf("subscriptions", out), nil
}

// updateSubscription changes prices, or whether it ends with its period.
func (s *Server) updateSubscription(id string, p *params) (any, error) {
	o, err := lookUp(s.subscriptions, "subscription", id)
	if err != nil {
		return nil, err
	}
	if o.over() {
		return nil, invalid("A canceled subscription can only update its cancellation_details.")
	}
	if v := p.get("cancel_at_period_end"); v != "" {
		o.cancelAtPeriodEnd = v == "true"
	}
	proration := p.get("proration_behavior")
	pending := p.get("payment_behavior") == "pending_if_incomplete"
	for _, change := range p.group("items") {
		i := slices.IndexFunc(o.items, func(it *item) bool { return it.id == change["id"] })
		if change["deleted"] == "true" && i >= 0 {
			o.items = slices.Delete(o.items, i, i+1)
			continue
		}
		pr, err := lookUp(s.prices, "price", change["price"])
		if err != nil {
			return nil, err
		}
		if i < 0 {
			o.items = append(o.items, s.newItem(pr))
			continue
		}
		if pending && s.declined(o, pr.cents()-o.items[i].price.cents()) {
			continue // a pending update, which comes to nothing here
		}
		s.setPrice(o, o.items[i], pr, proration != "none")
	}
	s.emit("customer.subscription.updated", o.object())
	return o.object(), nil
}

// cancelSubscription ends one now. With proration that is invoiced now, what was paid for the
// rest of the period becomes the customer's credit.
func (s *Server) cancelSubscription(id string, p *params) (any, error) {
	o, err := lookUp(s.subscriptions, "subscription", id)
	if err != nil {
		return nil, err
	}
	if o.status == "incomplete_expired" {
		return nil, invalid("The subscription is %s.", o.status) // how Stripe says it is not known here
	}
	if o.over() {
		return nil, missing("subscription", id)
	}
	// A cancellation without invoice_now discards what was metered: see settle.
	prorate, invoiceNow := p.get("prorate") == "true", p.get("invoice_now") == "true"
	if prorate && invoiceNow && o.status == "active" {
		c, err := lookUp(s.customers, "customer", o.customer)
		if err != nil {
			return nil, err
		}
		left := o.end.Sub(s.now).Seconds() / o.end.Sub(o.start).Seconds()
		c.credit += int64(float64(o.base().price.cents()) * left)
	}
	if invoiceNow {
		s.settle(o)
	}
	s.end(o)
	return o.object(), nil
}

func (s *Server) newItem(pr *price) *item {
	it := &item{id: s.id("si"), price: pr, quantity: 1, since: s.now}
	if pr.usage == "metered" {
		it.quantity = 0
	}
	return it
}

// setPrice changes an item's price, and bills what the rest of the period costs more.
func (s *Server) setPrice(o *subscription, it *item, pr *price, prorate bool) {
	more := pr.cents() - it.price.cents()
	it.price, it.since = pr, s.now
	if !prorate || more <= 0 || o.status == "trialing" {
		return
	}
	left := o.end.Sub(s.now).Seconds() / o.end.Sub(o.start).Seconds()
	in := s.newInvoice(o, "subscription_update", int64(float64(more)*left))
	s.attempt(o, in)
}

// declined has an invoice tried that a change depends on, if the card is declined, and reports
// that. Stripe leaves it open for 23 hours; here it is void at once.
func (s *Server) declined(o *subscription, amount int64) bool {
	c, err := lookUp(s.customers, "customer", o.customer)
	if err != nil || !c.declines || amount <= 0 || o.status != "active" {
		return false
	}
	before := o.latestInvoice
	in := s.newInvoice(o, "subscription_update", amount)
	in.attempts = 1
	s.emit("invoice.payment_failed", in.object())
	in.status, o.latestInvoice = "void", before
	return true
}

func (s *Server) newInvoice(o *subscription, reason string, amount int64) *invoice {
	in := &invoice{
		id: s.id("in"), customer: o.customer, subscription: o.id, status: "open", reason: reason, amount: amount,
		number: len(s.invoices) + 1, start: o.start, end: o.end, created: s.now,
	}
	in.page = s.page("invoice", "invoice", in.id)
	s.invoices = append(s.invoices, in)
	o.latestInvoice = in.id
	return in
}

// attempt tries to have an invoice paid. The status of a subscription follows the latest of its
// invoices: it is active "if the most recent payment is successful", past_due if "payment on the
// latest finalized invoice failed", whatever older ones are open
// (docs.stripe.com/billing/subscriptions/overview, "Subscription statuses").
func (s *Server) attempt(o *subscription, in *invoice) {
	c, err := lookUp(s.customers, "customer", o.customer)
	if err != nil {
		panic(err) // a subscription's customer is never removed
	}
	in.attempts++
	latest := in.id == o.latestInvoice
	if c.declines {
		if latest && (o.status == "active" || o.status == "trialing") {
			o.status = "past_due"
		}
		s.emit("invoice.payment_failed", in.object())
		return
	}
	in.status = "paid"
	if o.status != "canceled" && latest {
		o.status = "active"
	}
	s.emit("invoice.payment_succeeded", in.object())
}

func (s *Server) listInvoices(p *params) (any, error) {
	customer, subscription, status := p.get("customer"), p.get("subscription"), p.get("status")
	p.get("starting_after")
	limit, err := strconv.Atoi(p.get("limit"))
	if err != nil {
		limit = 10
	}
	var out []any
	for _, in := range slices.Backward(s.invoices) {
		if (customer == "" || in.customer == customer) && (subscription == "" || in.subscription == subscription) &&
			(status == "" || in.status == status) && len(out) < limit {
			out = append(out, in.object())
		}
	}
	return listOf("invoices", out), nil
}

// monthsAfter counts months as Stripe does: the last day of a month that is too short.
func monthsAfter(t time.Time, n int) time.Time {
	first := time.Date(t.Year(), t.Month()+time.Month(n), 1, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1)
}

type meter struct {
	id, name, event, formula, customerKey, valueKey string
	created                                         time.Time
}

func (o *meter) key() string { return o.id }

func (o *meter) object() object {
	return object{
		"id": o.id, "object": "billing.meter", "display_name": o.name, "event_name": o.event, "status": "active",
		"default_aggregation": object{"formula": o.formula}, "value_settings": object{"event_payload_key": o.valueKey},
		"customer_mapping": object{"type": "by_id", "event_payload_key": o.customerKey}, "event_time_window": nil,
		"created": o.created.Unix(), "updated": o.created.Unix(), "livemode": false,
	}
}

func (s *Server) createMeter(p *params) (any, error) {
	o := &meter{
		id: s.id("mtr"), name: p.get("display_name"), event: p.get("event_name"), formula: p.get("default_aggregation[formula]"),
		customerKey: p.get("customer_mapping[event_payload_key]"), valueKey: p.get("value_settings[event_payload_key]"), created: s.now,
	}
	if kind := p.get("customer_mapping[type]"); kind != "by_id" && kind != "" {
		return nil, invalid("customer_mapping[type] must be by_id")
	}
	if o.event == "" || o.name == "" || o.formula != "sum" {
		return nil, invalid("display_name, event_name and the formula sum are required")
	}
	if o.customerKey == "" {
		o.customerKey = "stripe_customer_id"
	}
	if o.valueKey == "" {
		o.valueKey = "value"
	}
	s.meters = append(s.meters, o)
	return o.object(), nil
}

type meterEvent struct {
	event, customer, identifier string
	value                       int64
	at                          time.Time // when it happened
	created                     time.Time // when it was told
}

// identifierFor is for how long an identifier counts once: Stripe promises "a rolling period of at
// least 24 hours" (docs.stripe.com/api/billing/meter-event/create), and no more is relied on.
const identifierFor = 24 * time.Hour

func (s *Server) createMeterEvent(p *params) (any, error) {
	name, identifier := p.get("event_name"), p.get("identifier")
	i := slices.IndexFunc(s.meters, func(m *meter) bool { return m.event == name })
	if i < 0 {
		return nil, missing("meter", name)
	}
	m := s.meters[i]
	ev := meterEvent{event: name, customer: p.get("payload[" + m.customerKey + "]"), identifier: identifier, at: s.now, created: s.now}
	value, err := strconv.ParseInt(p.get("payload["+m.valueKey+"]"), 10, 64)
	if err != nil || value < 0 {
		return nil, invalid("payload[%s] must be a whole number", m.valueKey)
	}
	ev.value = value
	if _, err := lookUp(s.customers, "customer", ev.customer); err != nil {
		return nil, err
	}
	if at := p.get("timestamp"); at != "" {
		n, err := strconv.ParseInt(at, 10, 64)
		ev.at = time.Unix(n, 0).UTC()
		if err != nil || ev.at.Before(s.now.AddDate(0, 0, -35)) || ev.at.After(s.now.Add(5*time.Minute)) {
			return nil, invalid("The timestamp must be within the past 35 days, and not in the future.")
		}
	}
	known := slices.ContainsFunc(s.meterEvents, func(o meterEvent) bool {
		return o.identifier == identifier && s.now.Sub(o.created) < identifierFor
	})
	if known || identifier == "" {
		return nil, &problem{400, "invalid_request_error", "", "An event already exists with identifier " + identifier + "."}
	}
	s.meterEvents = append(s.meterEvents, ev)
	return object{
		"object": "billing.meter_event", "event_name": name, "identifier": identifier, "timestamp": ev.at.Unix(), "created": s.now.Unix(),
		"livemode": false, "payload": object{m.customerKey: ev.customer, m.valueKey: strconv.FormatInt(ev.value, 10)},
	}, nil
}

func (s *Server) summarize(id string, p *params) (any, error) {
	m, err := lookUp(s.meters, "meter", id)
	if err != nil {
		return nil, err
	}
	customer := p.get("customer")
	from, err1 := strconv.ParseInt(p.get("start_time"), 10, 64)
	to, err2 := strconv.ParseInt(p.get("end_time"), 10, 64)
	p.get("limit")
	if err1 != nil || err2 != nil || from >= to || from%60 != 0 || to%60 != 0 {
		return nil, invalid("start_time and end_time must be whole minutes")
	}
	var sum int64
	for _, ev := range s.meterEvents {
		if ev.event == m.event && ev.customer == customer && ev.at.Unix() >= from && ev.at.Unix() < to {
			sum += ev.value
		}
	}
	return listOf("billing/meters/"+id+"/event_summaries", []any{object{
		"id": "mtrusg_sim", "object": "billing.meter_event_summary", "aggregated_value": sum, "start_time": from, "end_time": to,
		"meter": id, "livemode": false,
	}}), nil
}
