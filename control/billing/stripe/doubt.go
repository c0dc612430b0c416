package stripe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	// sendWithin is for how long after it was first sent a report is sent again: Stripe tells
	// its identifier apart for 24 hours at least, and then may count it a second time.
	sendWithin = 23 * time.Hour
	// summedUp is after how long everything that Stripe has taken is taken to be in its sums. It
	// says that it sums up later on; that takes it minutes.
	summedUp = time.Hour
)

// errDoubt: Stripe may have a report already, and would count it twice if it were sent.
var errDoubt = errors.New("Stripe may have it already")

// taken finds out whether Stripe has a report that was first sent longer ago than sendWithin, without an
// answer, and notes what it finds. Until it is known the error is errDoubt.
//
// It compares the minute that the report was for: that is the same each time it is sent, and hardly any
// other report of the customer is for it, but those of usage that comes after the period's end. Of those
// in doubt it must be all or none that Stripe counts: which ones it counts its sum does not say.
func (m *Meter) taken(ctx context.Context, stripeID string, r control.MeterReport, now time.Time) (bool, error) {
	sent := "it was first sent at " + r.SentAt.Format(time.RFC3339) + ", and it is not known what became of it"
	// From sendWithin on it was not sent any more.
	if from := r.SentAt.Add(sendWithin + summedUp); now.Before(from) {
		return false, fmt.Errorf("%w: %s; from %s on Stripe is asked what it counts", errDoubt, sent, from.Format(time.RFC3339))
	}
	st := m.Customers.Store
	clock, err := st.Clock(ctx) // by which reports are noted as taken
	if err != nil {
		return false, err
	}
	minute := r.EventAt.Truncate(time.Minute)
	var list []control.MeterReport
	if err := st.InTx(ctx, func(tx *store.Tx) (err error) {
		list, err = tx.MeterReportsOn(ctx, r.CustomerID, minute, minute.Add(time.Minute))
		return err
	}); err != nil {
		return false, err
	}
	var known, open int64
	for _, o := range list {
		switch {
		case o.ReportedAt.IsZero():
			open += o.Microcents()
		case clock.Sub(o.ReportedAt) < summedUp:
			return false, fmt.Errorf("%w: %s; Stripe is asked what it counts once it has summed up report %s, of the same minute", errDoubt, sent, o.ID)
		default:
			known += o.Microcents()
		}
	}
	counts, err := m.sum(ctx, stripeID, minute, minute.Add(time.Minute))
	if refused(err) { // it will not get better by itself: the customer, or the meter, is another account's, or gone
		return false, fmt.Errorf("%w: %s: %w. %s", errDoubt, sent, err, whatToDo(r))
	}
	if err != nil {
		return false, fmt.Errorf("%w: %s: %w", errDoubt, sent, err)
	}
	switch {
	case counts == known:
		return false, st.MeterReportNotTaken(ctx, r.ID, r.SentAt)
	case counts == known+open:
		for _, o := range list {
			if err := st.MeterReported(ctx, o.ID); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	return false, fmt.Errorf("%w: %s. Of the minute %s Stripe counts %d microcents of its customer %s, of which it is known to have %d, and %d are in doubt. %s",
		errDoubt, sent, minute.Format(time.RFC3339), counts, stripeID, known, open, whatToDo(r))
}

// whatToDo tells an operator how to end a doubt.
func whatToDo(r control.MeterReport) string {
	return fmt.Sprintf("Look whether Stripe's meter has an event with the identifier %[1]s; if so, UPDATE meter_reports SET reported_at = now() WHERE id = '%[1]s'; "+
		"if not, UPDATE meter_reports SET sent_at = NULL, event_at = NULL WHERE id = '%[1]s': then it is sent", r.ID)
}
