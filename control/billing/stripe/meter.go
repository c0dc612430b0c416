package stripe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	api "github.com/stripe/stripe-go/v76"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/customers"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	payloadCustomer = "stripe_customer_id"
	payloadValue    = "value"

	reportLease = 2 * time.Minute
	reportPage  = 50
)

// Meter reports what tokens above the limit cost to Stripe. Any number may run.
type Meter struct {
	Account   *Account
	Customers *customers.Service // with its Store
	// Lease is how long a report may be in hand before whoever sends it is taken for dead.
	// Default 2 min.
	Lease time.Duration
}

// ReportDue writes down what was used above the limit, and tells Stripe of what it was not
// told yet. It returns how many reports Stripe has taken. Each has an identifier of ours:
// told of it twice within a day, Stripe counts it once; later on see taken.
func (m *Meter) ReportDue(ctx context.Context) (int, error) {
	var errs []error
	if _, err := m.Customers.ReportOverage(ctx); err != nil {
		errs = append(errs, err)
	}
	lease, sent := m.Lease, 0
	if lease <= 0 {
		lease = reportLease
	}
	for {
		list, err := m.Customers.Store.ClaimMeterReports(ctx, lease, reportPage)
		if err != nil || len(list) == 0 {
			return sent, errors.Join(append(errs, err)...)
		}
		for _, r := range list {
			if err := m.report(ctx, r); err != nil {
				errs = append(errs, fmt.Errorf("report overage %s of customer %s: %w", r.ID, r.CustomerID, err),
					m.Customers.Store.MeterReportFailed(context.WithoutCancel(ctx), r.ID, err.Error(), retryAfter(r.Attempts)))
				continue
			}
			sent++
		}
		if ctx.Err() != nil {
			return sent, errors.Join(errs...)
		}
	}
}

// settle tells Stripe of all that a customer used above its limit, for a last invoice. A report that
// Stripe may have already holds up nobody who leaves; should it turn out later that Stripe does not have
// it, there is no invoice any more that it could be on.
func (m *Meter) settle(ctx context.Context, customerID string) error {
	if err := m.Customers.ReportOverageOf(ctx, customerID); err != nil {
		return err
	}
	var list []control.MeterReport
	err := m.Customers.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.WaitingMeterReports(ctx, customerID)
		return err
	})
	for _, r := range list {
		if err == nil {
			err = m.report(ctx, r)
		}
		if errors.Is(err, errDoubt) {
			err = nil
		}
	}
	return err
}

func (m *Meter) report(ctx context.Context, r control.MeterReport) error {
	st := m.Customers.Store
	account, err := st.Account(ctx, r.CustomerID)
	if err != nil {
		return err
	}
	if account.StripeID == "" {
		return fmt.Errorf("%w: Stripe does not know the customer", control.ErrInvalid)
	}
	now := m.Customers.Clock().Truncate(time.Microsecond) // as Postgres keeps it
	if !r.SentAt.IsZero() && now.Sub(r.SentAt) >= sendWithin {
		if taken, err := m.taken(ctx, account.StripeID, r, now); err != nil || taken {
			return err
		}
		r.SentAt = time.Time{}
	}
	var p control.UsagePeriod
	if err := st.InTx(ctx, func(tx *store.Tx) (err error) {
		p, err = tx.Period(ctx, r.CustomerID, r.PeriodID)
		return err
	}); err != nil {
		return err
	}
	// Stripe bills what happened within the period.
	at := now
	if !at.Before(p.End) {
		at = p.End.Add(-time.Second)
	}
	sent, err := st.SendMeterReport(ctx, r.ID, now, at)
	if errors.Is(err, control.ErrNotFound) {
		return nil // somebody else has reported it meanwhile
	}
	if err != nil {
		return err
	}
	name, identifier := meterEventName, r.ID
	params := &api.BillingMeterEventParams{
		EventName: &name, Identifier: &identifier, Timestamp: api.Int64(sent.EventAt.Unix()),
		Payload: map[string]string{payloadCustomer: account.StripeID, payloadValue: strconv.FormatInt(r.Microcents(), 10)},
	}
	params.Context = ctx
	if _, err := m.Account.meterEvents().New(params); err != nil && !alreadyReported(err) {
		err, known := failure("tell Stripe", err), refused(err)
		if known && r.SentAt.IsZero() && sent.SentAt.Equal(now) { // of an earlier sending it says nothing
			err = errors.Join(err, st.MeterReportNotTaken(context.WithoutCancel(ctx), r.ID, now))
		}
		return err
	}
	return st.MeterReported(ctx, r.ID)
}

// alreadyReported recognises that Stripe has the identifier: this version of its API gives
// that no code.
func alreadyReported(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Code == "duplicate_meter_event" || strings.Contains(e.Msg, "already exists with identifier"))
}

// refused reports whether Stripe has answered that it does not take a report, or cannot say what it counts.
// After 408, 409 and 429 it may do so a moment later.
func refused(err error) bool {
	var e *api.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.HTTPStatusCode {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests:
		return false
	}
	return e.HTTPStatusCode >= 400 && e.HTTPStatusCode < 500
}

// MeterCheck compares what was reported of a customer since a time.
type MeterCheck struct {
	CustomerID string    `json:"customer_id"`
	Since      time.Time `json:"since"`
	// In millionths of a cent:
	Reported int64 `json:"reported_microcents"` // by what we keep
	Waiting  int64 `json:"waiting_microcents"`  // of reports that Stripe has not taken yet
	Stripe   int64 `json:"stripe_microcents"`   // by Stripe, which takes a moment to sum up
	// Why is what the last attempt at one of those that wait came to.
	Why string `json:"why_waiting,omitempty"`
}

// Differs reports whether Stripe counts what it was not told of, or the other way round.
func (c *MeterCheck) Differs() bool { return c.Reported != c.Stripe }

// Verify compares the reports of a customer's periods that ended after a time, or go on,
// with Stripe's own sum.
func (m *Meter) Verify(ctx context.Context, customerID string, ended time.Time) (MeterCheck, error) {
	op := "verify overage of customer " + customerID
	out := MeterCheck{CustomerID: customerID}
	st := m.Customers.Store
	account, err := st.Account(ctx, customerID)
	if err != nil {
		return out, fmt.Errorf("%s: %w", op, err)
	}
	until := m.Customers.Clock()
	err = st.InTx(ctx, func(tx *store.Tx) error {
		periods, err := tx.PeriodsSince(ctx, customerID, ended)
		for _, p := range periods {
			if out.Since.IsZero() {
				out.Since = p.Start
			}
			reports, err := tx.MeterReports(ctx, customerID, p.ID)
			if err != nil {
				return err
			}
			for _, r := range reports {
				if r.ReportedAt.IsZero() {
					out.Waiting += r.Microcents()
					if out.Why == "" {
						out.Why = r.Error
					}
				} else {
					out.Reported += r.Microcents()
				}
			}
		}
		return err
	})
	if err != nil || account.StripeID == "" || out.Since.IsZero() {
		return out, err
	}
	// Stripe sums up whole minutes.
	out.Stripe, err = m.sum(ctx, account.StripeID, out.Since.Truncate(time.Minute), until.Truncate(time.Minute).Add(time.Minute))
	if err != nil {
		return out, fmt.Errorf("%s: %w", op, err)
	}
	return out, nil
}

// sum asks Stripe what it counts of a customer of its own, from a whole minute on and before another.
func (m *Meter) sum(ctx context.Context, stripeID string, from, before time.Time) (sum int64, err error) {
	meterID, err := m.Account.meterID(ctx)
	if err != nil {
		return 0, err
	}
	params := &api.BillingMeterEventSummaryListParams{
		ID: &meterID, Customer: &stripeID, StartTime: api.Int64(from.Unix()), EndTime: api.Int64(before.Unix()),
	}
	params.Context = ctx
	list := m.Account.meterSums().List(params)
	for list.Next() {
		sum += int64(list.BillingMeterEventSummary().AggregatedValue)
	}
	return sum, failure("ask Stripe what it counts", list.Err())
}

// VerifyAll is Verify of all customers who have reports, or of one. It returns those that
// differ or wait, and how many it looked at.
func (m *Meter) VerifyAll(ctx context.Context, customer string, ended time.Time) (list []MeterCheck, looked int, err error) {
	after := ""
	for {
		page := []string{customer}
		if customer == "" {
			if page, err = m.Customers.Store.MeteredCustomers(ctx, ended, after, reportPage); err != nil {
				return list, looked, err
			}
		}
		for _, id := range page {
			after = id
			check, err := m.Verify(ctx, id, ended)
			if err != nil {
				return list, looked, err
			}
			looked++
			if check.Differs() || check.Waiting > 0 {
				list = append(list, check)
			}
		}
		if customer != "" || len(page) < reportPage {
			return list, looked, nil
		}
	}
}
