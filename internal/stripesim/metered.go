package stripesim

import (
	"math"
	"strconv"
	"time"
)

// metered returns how many cents what was metered of a subscription comes to, of the period
// that goes on, up to until.
//
// Of an item that was added, or given another price, only what comes afterwards is billed, and
// of one that was removed nothing ("Update prices mid-cycle", in
// docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup). What is used in a
// trial does not count ("Combining trials with usage-based billing", in
// docs.stripe.com/billing/subscriptions/trials).
func (s *Server) metered(o *subscription, until time.Time) int64 {
	if o.status == "trialing" {
		return 0
	}
	var cents float64
	for _, it := range o.items {
		if it.price.usage != "metered" {
			continue
		}
		from := o.start
		if it.since.After(from) {
			from = it.since
		}
		m, err := lookUp(s.meters, "meter", it.price.meter)
		if err != nil {
			continue
		}
		unit, err := strconv.ParseFloat(it.price.decimal, 64)
		if err != nil {
			continue
		}
		var sum int64
		for _, ev := range s.meterEvents {
			if ev.event == m.event && ev.customer == o.customer && !ev.at.Before(from) && ev.at.Before(until) {
				sum += ev.value
			}
		}
		cents += float64(sum) * unit
	}
	return int64(math.Round(cents))
}

// settle bills what was metered of a subscription that ends, as Stripe does at the end of a
// period, and, with invoice_now, when it is cancelled: without it, which is the default, what
// was metered is never billed (docs.stripe.com/api/subscriptions/cancel).
func (s *Server) settle(o *subscription) {
	if cents := s.metered(o, s.now.Add(time.Second)); cents > 0 {
		s.attempt(o, s.newInvoice(o, "subscription_cycle", cents))
	}
}

// Invoiced returns how many cents all invoices of a customer come to that are paid.
func (s *Server) Invoiced(customer string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	for _, in := range s.invoices {
		if in.customer == customer && in.status == "paid" {
			sum += in.amount
		}
	}
	return sum
}
