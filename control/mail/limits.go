package mail

import (
	"context"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
)

const (
	nearPercent = 90
	limitPage   = 200
)

// LimitNotices puts mails into the outbox for customers who have used most of their limit,
// or as good as all of it.
type LimitNotices struct {
	Store *store.Store
	// Add puts a mail into the outbox; see jobs.Jobs.AddMail.
	Add func(ctx context.Context, tx *store.Tx, m control.Mail) (fresh bool, err error)
	// Now is time.Now outside of tests.
	Now func() time.Time
}

// Notify adds the mails that are due, and returns how many. Any number of processes may
// call it.
func (n *LimitNotices) Notify(ctx context.Context) (int, error) {
	added := 0
	for _, kind := range []struct {
		name    string
		stopped bool
	}{{control.MailLimitReached, true}, {control.MailNearLimit, false}} {
		for {
			now := time.Now()
			if n.Now != nil {
				now = n.Now()
			}
			list, err := n.Store.PeriodsUsed(ctx, now, nearPercent, kind.stopped, kind.name, limitPage)
			if err != nil {
				return added, err
			}
			for _, p := range list {
				fresh, err := n.add(ctx, kind.name, p)
				if err != nil {
					return added, err
				}
				if fresh {
					added++
				}
			}
			if len(list) < limitPage {
				break
			}
		}
	}
	return added, nil
}

func (n *LimitNotices) add(ctx context.Context, kind string, p control.UsagePeriod) (fresh bool, err error) {
	err = n.Store.InTx(ctx, func(tx *store.Tx) error {
		account, err := tx.Account(ctx, p.CustomerID)
		if err != nil {
			return err
		}
		fresh, err = n.Add(ctx, tx, control.Mail{
			CustomerID: p.CustomerID, Kind: kind, Cause: control.LimitCause(p),
			Params: map[string]any{
				"name": account.Name, "used": p.Totals.Settled, "tokens": p.LimitTokens, "period_end": p.End.Format(time.DateOnly),
			},
		})
		return err
	})
	return fresh, err
}
