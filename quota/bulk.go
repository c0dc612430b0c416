package quota

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// SetLimits is SetLimit for some hundreds at once, in a few trips to Redis. Where some are
// out of reach, the others are set all the same.
func (k *Keeper) SetLimits(ctx context.Context, accts []Account) error {
	if len(accts) == 0 {
		return nil
	}
	records := make([]Record, len(accts))
	for i, acct := range accts {
		records[i].Account = acct
	}
	_, errs := k.each(ctx, k.limit, records, make([]error, len(records)), func(r *Record) []any {
		limit, version := knownLimit(r.Account)
		return []any{limit, version}
	})
	// Only now: who is told to return tokens asks for the limit.
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	_, err := recalls(k.client).Pipelined(timed, func(p redis.Pipeliner) error {
		for i, acct := range accts {
			if errs[i] == nil {
				p.Publish(timed, contract.RecallChannel, acct.Customer+" "+acct.Period.ID)
			}
		}
		return nil
	})
	if err != nil {
		errs = append(errs, unavailable("set limits", ctx, err))
	}
	return errors.Join(errs...)
}

// FoundAll takes records, each a customer and period, off the list of missing ones.
func (k *Keeper) FoundAll(ctx context.Context, records [][2]string) error {
	if len(records) == 0 {
		return nil
	}
	names := make([]any, len(records))
	for i, r := range records {
		names[i] = r[0] + " " + r[1]
	}
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	if err := k.client.SRem(timed, contract.QuotaMissingKey, names...).Err(); err != nil {
		return unavailable("forget missing records", ctx, err)
	}
	return nil
}
