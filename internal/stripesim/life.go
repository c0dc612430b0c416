package stripesim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"
)

// Event is one that waits to be delivered, with the object as it was when it happened.
type Event struct {
	ID, Type string
	Body     []byte
}

func (s *Server) emit(kind string, o object) {
	s.emitVersion(kind, APIVersion, o)
}

func (s *Server) emitVersion(kind, version string, o object) {
	id := s.id("evt")
	body, err := json.Marshal(object{
		"id": id, "object": "event", "type": kind, "api_version": version, "created": s.now.Unix(), "livemode": false,
		"pending_webhooks": 1, "request": object{"id": nil, "idempotency_key": nil}, "data": object{"object": o},
	})
	if err != nil {
		panic(err) // an object holds nothing that JSON cannot say
	}
	e := Event{ID: id, Type: kind, Body: body}
	if s.site != nil {
		s.send(e)
		return
	}
	s.events = append(s.events, e)
}

// Events returns the events since the last call, oldest first.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.events
	s.events = nil
	return out
}

// EmitOther makes an event of another API version, as an account sends it whose endpoint was
// made without naming one: with only the id of the object.
func (s *Server) EmitOther(kind, version, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.emitVersion(kind, version, object{"id": id, "object": "elsewhere"})
}

// Sign returns the Stripe-Signature header of a body that is sent at a time.
func Sign(body []byte, secret string, at time.Time) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%d.", at.Unix())
	mac.Write(body)
	return fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(mac.Sum(nil)))
}

// EndpointSecret returns the secret of the newest webhook endpoint, "" without any.
func (s *Server) EndpointSecret() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.endpoints) == 0 {
		return ""
	}
	return s.endpoints[len(s.endpoints)-1].secret
}

// Complete has the customer pay at the checkout page of that URL, and returns the id of the
// subscription. The card works or declines as Decline says: then the subscription is
// incomplete.
func (s *Server) Complete(url string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs, err := lookUp(s.sessions, "checkout.session", path.Base(url))
	if err != nil {
		return "", err
	}
	if cs.status != "open" {
		return "", invalid("the session is %s", cs.status)
	}
	prices, err := s.pricesOf(cs)
	if err != nil {
		return "", err
	}
	o := s.subscribe(cs.customer, prices, cs.trialDays)
	if o.status != "incomplete" {
		s.complete(cs, o)
	}
	return o.id, nil
}

func (s *Server) pricesOf(cs *session) (out []*price, err error) {
	for _, id := range cs.prices {
		pr, err := lookUp(s.prices, "price", id)
		if err != nil {
			return nil, err
		}
		out = append(out, pr)
	}
	return out, nil
}

// complete ends a session whose subscription was paid for.
func (s *Server) complete(cs *session, o *subscription) {
	cs.status, cs.payment, cs.subscription = "complete", "paid", o.id
	s.emit("checkout.session.completed", cs.object())
}

// subscribe begins a subscription, which is incomplete if the card declines.
func (s *Server) subscribe(customer string, prices []*price, trialDays int) *subscription {
	o := &subscription{id: s.id("sub"), customer: customer, status: "incomplete", anchor: s.now, start: s.now, end: monthsAfter(s.now, 1), created: s.now}
	for _, pr := range prices {
		o.items = append(o.items, s.newItem(pr))
	}
	s.subscriptions = append(s.subscriptions, o)
	if trialDays > 0 {
		o.status, o.trialEnd = "trialing", s.now.AddDate(0, 0, trialDays)
		o.end = o.trialEnd
		s.newInvoice(o, "subscription_create", 0).status = "paid"
	} else {
		s.attempt(o, s.newInvoice(o, "subscription_create", o.base().price.cents()))
	}
	s.emit("customer.subscription.created", o.object())
	if o.status != "incomplete" {
		s.emit("customer.subscription.updated", o.object())
	}
	return o
}

// Subscribe has someone sell a customer of Stripe's a price, by its lookup key, in the dashboard,
// and returns the id of the subscription. Without a customer it is one that is made there, too.
func (s *Server) Subscribe(customer, lookupKey string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.stranger(customer)
	i := slices.IndexFunc(s.prices, func(pr *price) bool { return pr.lookupKey == lookupKey })
	if i < 0 {
		return "", missing("price", lookupKey)
	}
	return s.subscribe(c, s.prices[i:i+1], 0).id, nil
}

// stranger returns a customer's id, or, without one, that of a customer that nobody made here.
func (s *Server) stranger(id string) string {
	if id != "" {
		return id
	}
	c := &customer{id: s.id("cus"), created: s.now}
	s.customers = append(s.customers, c)
	return c.id
}

// otherPrice is of something that has nothing to do with tokens.
func (s *Server) otherPrice() *price {
	pr := &price{
		id: s.id("price"), product: s.id("prod"), currency: "usd", interval: "month", usage: "licensed", decimal: "700", created: s.now,
	}
	s.prices = append(s.prices, pr)
	return pr
}

// SellInstead has someone replace what a subscription is for by something else.
func (s *Server) SellInstead(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, err := lookUp(s.subscriptions, "subscription", id); err == nil {
		o.items = []*item{s.newItem(s.otherPrice())}
		s.emit("customer.subscription.updated", o.object())
	}
}

// SellOther sells something that has nothing to do with tokens, by subscription, whose id it
// returns: to a customer of Stripe's, or, with "", to one of another shop on the same account.
func (s *Server) SellOther(to string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscribe(s.stranger(to), []*price{s.otherPrice()}, 0).id
}

// Decline has the card of a subscription's customer, or of a customer, work or not.
func (s *Server) Decline(id string, declines bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, err := lookUp(s.subscriptions, "subscription", id); err == nil {
		id = o.customer
	}
	if c, err := lookUp(s.customers, "customer", id); err == nil {
		c.declines = declines
	}
}

// Advance moves the clock, and does what is due by then: subscriptions renew, or end.
func (s *Server) Advance(to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(to)
}

func (s *Server) advance(to time.Time) {
	for {
		var due *subscription
		for _, o := range s.subscriptions {
			if !o.over() && !o.end.After(to) && (due == nil || o.end.Before(due.end)) {
				due = o
			}
		}
		if due == nil {
			break
		}
		s.now = due.end
		s.renew(due)
	}
	s.now = to.UTC().Truncate(time.Second)
}

func (s *Server) renew(o *subscription) {
	if o.status == "incomplete" {
		// "The open invoice will be voided" (docs.stripe.com/api/subscriptions/object, status).
		for _, in := range s.invoices {
			if in.subscription == o.id && in.status == "open" {
				in.status = "void"
			}
		}
		o.status, o.ended = "incomplete_expired", s.now
		s.emit("customer.subscription.updated", o.object())
		return
	}
	metered := s.metered(o, o.end)
	if o.cancelAtPeriodEnd {
		s.settle(o)
		s.end(o)
		return
	}
	if o.status == "trialing" {
		o.anchor, o.periods = o.end, 0
		o.status = "active"
	} else {
		o.periods++
	}
	o.start, o.end = monthsAfter(o.anchor, o.periods), monthsAfter(o.anchor, o.periods+1)
	s.attempt(o, s.newInvoice(o, "subscription_cycle", o.base().price.cents()+metered))
	s.emit("customer.subscription.updated", o.object())
}

func (s *Server) end(o *subscription) {
	o.status, o.ended = "canceled", s.now
	s.emit("customer.subscription.deleted", o.object())
}

// Period returns the present period of a subscription, and its status.
func (s *Server) Period(id string) (start, end time.Time, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := lookUp(s.subscriptions, "subscription", id)
	if err != nil {
		return start, end, err.Error()
	}
	return o.start, o.end, o.status
}

// EndPeriod moves the end of the present period of a subscription, as when its billing cycle
// is given another anchor. The next one begins there, and lasts a month.
func (s *Server) EndPeriod(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, err := lookUp(s.subscriptions, "subscription", id); err == nil {
		o.end = at.UTC().Truncate(time.Second)
		o.anchor, o.periods = o.end, -1
		s.emit("customer.subscription.updated", o.object())
	}
}

// Retry has the open invoice of a subscription tried once more.
func (s *Server) Retry(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := lookUp(s.subscriptions, "subscription", id)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.invoices, func(in *invoice) bool { return in.subscription == id && in.status == "open" })
	if i < 0 {
		return invalid("%s owes nothing", id)
	}
	s.retry(o, s.invoices[i])
	return nil
}

// retry tries an open invoice once more.
func (s *Server) retry(o *subscription, in *invoice) {
	before := o.status
	s.attempt(o, in)
	if before != o.status {
		s.emit("customer.subscription.updated", o.object())
	}
}

// ActionRequired says that the customer has to confirm the payment of the open invoice.
func (s *Server) ActionRequired(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.invoices {
		if in.subscription == id && in.status == "open" {
			s.emit("invoice.payment_action_required", in.object())
		}
	}
}

// TrialWillEnd sends the event of three days before the end of a trial.
func (s *Server) TrialWillEnd(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, err := lookUp(s.subscriptions, "subscription", id); err == nil {
		s.emit("customer.subscription.trial_will_end", o.object())
	}
}

// ChangePrice has the customer choose another price in the portal, by its lookup key. A
// higher one is billed at once.
func (s *Server) ChangePrice(id, lookupKey string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := lookUp(s.subscriptions, "subscription", id)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.prices, func(pr *price) bool { return pr.lookupKey == lookupKey })
	if i < 0 {
		return missing("price", lookupKey)
	}
	s.setPrice(o, o.base(), s.prices[i], true)
	s.emit("customer.subscription.updated", o.object())
	return nil
}

// SetStatus gives a subscription a status that its life here does not lead to: unpaid or
// paused.
func (s *Server) SetStatus(id, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, err := lookUp(s.subscriptions, "subscription", id); err == nil {
		o.status = status
		s.emit("customer.subscription.updated", o.object())
	}
}

// CancelAtPeriodEnd has the customer end a subscription with its period, or take that back.
func (s *Server) CancelAtPeriodEnd(id string, cancel bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, err := lookUp(s.subscriptions, "subscription", id); err == nil {
		o.cancelAtPeriodEnd = cancel
		s.emit("customer.subscription.updated", o.object())
	}
}

// Cancel ends a subscription now.
func (s *Server) Cancel(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, err := lookUp(s.subscriptions, "subscription", id); err == nil && !o.over() {
		s.end(o)
	}
}

// Credit returns how many cents of a customer's next invoices are paid already.
func (s *Server) Credit(customer string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := lookUp(s.customers, "customer", customer)
	if err != nil {
		return 0
	}
	return c.credit
}

// Prices returns the lookup keys of what a subscription is for, sorted.
func (s *Server) Prices(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := lookUp(s.subscriptions, "subscription", id)
	if err != nil {
		return nil
	}
	var out []string
	for _, it := range o.items {
		out = append(out, it.price.lookupKey)
	}
	slices.Sort(out)
	return out
}

// AddPrice adds a price to a subscription, by its lookup key.
func (s *Server) AddPrice(id, lookupKey string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := lookUp(s.subscriptions, "subscription", id)
	i := slices.IndexFunc(s.prices, func(pr *price) bool { return pr.lookupKey == lookupKey })
	if err == nil && i >= 0 {
		o.items = append(o.items, s.newItem(s.prices[i]))
		s.emit("customer.subscription.updated", o.object())
	}
}

// Metered returns how many tokens were reported for a customer, in all.
func (s *Server) Metered(customer string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	for _, ev := range s.meterEvents {
		if ev.customer == customer {
			sum += ev.value
		}
	}
	return sum
}

// MeterIdentifiers returns the identifiers of all meter events, sorted: one that counts twice is
// there twice.
func (s *Server) MeterIdentifiers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, ev := range s.meterEvents {
		list = append(list, ev.identifier)
	}
	slices.Sort(list)
	return list
}

// Customers returns how many customers there are.
func (s *Server) Customers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.customers)
}
