package stripe

import (
	"context"
	"errors"
	"fmt"
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
// told of it twice, Stripe counts it once.
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

// settle tells Stripe of all that a customer used above its limit, for a last invoice.
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
	var p control.UsagePeriod
	if err := st.InTx(ctx, func(tx *store.Tx) (err error) {
		p, err = tx.Period(ctx, r.CustomerID, r.PeriodID)
		return err
	}); err != nil {
		return err
	}
	// Stripe bills what happened within the period.
	at := m.Customers.Clock()
	if !at.Before(p.End) {
		at = p.End.Add(-time.Second)
	}
	name, identifier := meterEventName, r.ID
	params := &api.BillingMeterEventParams{
		EventName: &name, Identifier: &identifier, Timestamp: api.Int64(at.Unix()),
		Payload: map[string]string{payloadCustomer: account.StripeID, payloadValue: strconv.FormatInt(r.Microcents(), 10)},
	}
	params.Context = ctx
	if _, err := m.Account.meterEvents().New(params); err != nil && !alreadyReported(err) {
		return failure("tell Stripe", err)
	}
	return st.MeterReported(ctx, r.ID)
}

// alreadyReported recognises that Stripe has the identifier: this version of its API gives
// that no code.
func alreadyReported(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && (e.Code == "duplicate_meter_event" || strings.Contains(e.Msg, "already exists with identifier"))
}

// MeterCheck compares what was reported of a customer since a time.
type MeterCheck struct {
	CustomerID string    `json:"customer_id"`
	Since      time.Time `json:"since"`
	// In millionths of a cent:
	Reported int64 `json:"reported_microcents"` // by what we keep
	Waiting  int64 `json:"waiting_microcents"`  // of reports that Stripe has not taken yet
	Stripe   int64 `json:"stripe_microcents"`   // by Stripe, which takes a moment to sum up
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
	meterID, err := m.Account.meterID(ctx)
	if err != nil {
		return out, fmt.Errorf("%s: %w", op, err)
	}
	// Stripe sums up whole minutes.
	params := &api.BillingMeterEventSummaryListParams{
		ID: &meterID, Customer: &account.StripeID, StartTime: api.Int64(out.Since.Truncate(time.Minute).Unix()),
		EndTime: api.Int64(until.Truncate(time.Minute).Add(time.Minute).Unix()),
	}
	params.Context = ctx
	list := m.Account.meterSums().List(params)
	for list.Next() {
		out.Stripe += int64(list.BillingMeterEventSummary().AggregatedValue)
	}
	return out, failure(op, list.Err())
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
