package control

import "time"

// OverageCheck compares what of a period has to be billed token by token, as its usage events and
// its limit say, with the reports that were written of it. Weighted tokens.
type OverageCheck struct {
	CustomerID string `json:"customer_id"`
	PeriodID   string `json:"period_id"`
	// Subscriptions are those that the reports bill it to, of which there should be one.
	Subscriptions []string  `json:"subscriptions"`
	End           time.Time `json:"period_end"`
	// Due is at least to be billed: of events that were recorded long enough ago to have been
	// reported. It is 0 where the customer's tier has no price above its limit.
	Due int64 `json:"due_tokens"`
	// Most is what can have been billed: more than Due by what is too young or came too late,
	// and by what a higher limit would include now and did not when it was used.
	Most     int64 `json:"most_tokens"`
	Reported int64 `json:"reported_tokens"` // by all reports, also those that Stripe has not taken yet
}

// Differs reports whether too little was reported, or too much.
func (c *OverageCheck) Differs() bool { return c.Reported < c.Due || c.Reported > c.Most }
