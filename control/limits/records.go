package limits

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Records works on single records. It is safe for concurrent use, by any number of
// processes, whether one of them runs a Keeper or not.
type Records struct {
	store  *store.Store
	client redis.UniversalClient
	quota  *quota.Keeper
	settle *redis.Script
}

// NewRecords returns Records. Each Redis command may take timeout; 0 means 2 s.
func NewRecords(st *store.Store, client redis.UniversalClient, timeout time.Duration) *Records {
	return &Records{store: st, client: client, quota: quota.NewKeeper(client, timeout), settle: redis.NewScript(settleScript)}
}

// SetLimit tells the record of acct, if there is one, of its limit, if that is newer.
func (r *Records) SetLimit(ctx context.Context, acct quota.Account) error {
	return r.quota.SetLimit(ctx, acct)
}

// Usage reads the record of acct. Without one it has the limit of acct and no use.
func (r *Records) Usage(ctx context.Context, acct quota.Account) (quota.Usage, error) {
	return r.quota.Usage(ctx, acct)
}

// Ensure makes the record of a customer and period, committed to Postgres before, unless
// it was made in this epoch. Where no epoch is ready for it, the next one will have the
// record from its beginning.
func (r *Records) Ensure(ctx context.Context, customer, period string) error {
	key := control.QuotaKey{CustomerID: customer, PeriodID: period}
	epoch, err := r.store.QuotaEpoch(ctx)
	if err != nil || !epoch.Based {
		return err
	}
	fresh, err := r.store.MarkRecords(ctx, epoch.Number, []control.QuotaKey{key}, false)
	if err != nil || len(fresh) == 0 {
		return err
	}
	err = r.put(ctx, epoch.Number, fresh)
	if err == nil {
		return nil
	}
	if now, rerr := r.store.QuotaEpoch(ctx); rerr == nil && now.Number > epoch.Number {
		return nil // it has begun after the period was committed
	}
	return err
}

// put makes records that are marked, each once in an epoch, whoever tries. So they are
// noted as made before they are: if whoever did that dies, or Redis does not answer, that
// costs another epoch. Some may be out of reach: it makes the others all the same, and
// says so.
func (r *Records) put(ctx context.Context, epoch int64, keys []control.QuotaKey) error {
	records, err := r.store.QuotaRecords(ctx, epoch, keys)
	if err != nil {
		return err
	}
	// Mostly, Redis would not take them because it is away, or about to lose its epoch.
	if have, err := r.quota.Epoch(ctx); err != nil {
		return err
	} else if have.Number != epoch {
		return fmt.Errorf("make records: %w: the epoch in Redis is %d, not %d", quota.ErrUnavailable, have.Number, epoch)
	}
	there, absent, away := r.absent(ctx, epoch, keys)
	if keys, err = r.store.RecordsMade(ctx, epoch, append(there, absent...)); err != nil {
		return err
	}
	if len(keys) == 0 {
		return away
	}
	records = slices.DeleteFunc(records, func(n control.QuotaRecord) bool { return !slices.Contains(keys, n.Key()) })
	_, errs := r.quota.PutEach(ctx, epoch, quotaRecords(records))
	failed := map[control.QuotaKey]bool{}
	for i, err := range errs {
		failed[records[i].Key()] = err != nil
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(k control.QuotaKey) bool { return failed[k] })
	if errs = append(errs, away); len(keys) == 0 {
		return errors.Join(errs...)
	}
	// A limit that was set between our look and the record found no record to tell.
	now, err := r.store.Limits(ctx, keys)
	if err != nil {
		return err
	}
	known := make(map[control.QuotaKey]int64, len(records))
	for i := range records {
		known[records[i].Key()] = records[i].LimitVersion
	}
	if err = r.setLimits(ctx, slices.DeleteFunc(now, func(n control.QuotaRecord) bool { return n.LimitVersion <= known[n.Key()] })); err != nil && !errors.Is(err, quota.ErrUnavailable) {
		return err
	}
	return errors.Join(append(errs, err)...)
}

func (r *Records) setLimits(ctx context.Context, limits []control.QuotaRecord) error {
	accounts := make([]quota.Account, len(limits))
	for i := range limits {
		accounts[i] = account(&limits[i])
	}
	return r.quota.SetLimits(ctx, accounts)
}

func account(r *control.QuotaRecord) quota.Account {
	return quota.Account{Customer: r.CustomerID, Period: r.Period, Limit: r.Limit, LimitVersion: r.LimitVersion}
}

func quotaRecords(records []control.QuotaRecord) []quota.Record {
	out := make([]quota.Record, len(records))
	for i := range records {
		out[i] = quota.Record{Account: account(&records[i]), Settled: records[i].Settled}
	}
	return out
}

func quotaAccount(k control.QuotaKey) quota.Account {
	return quota.Account{Customer: k.CustomerID, Period: contract.Period{ID: k.PeriodID}}
}

func quotaAccounts(keys []control.QuotaKey) []quota.Account {
	out := make([]quota.Account, len(keys))
	for i, k := range keys {
		out[i] = quotaAccount(k)
	}
	return out
}

// absent divides keys into those that have a record of an epoch in Redis and those that have
// none. Those that are out of reach are in neither; away is the reason of one.
func (r *Records) absent(ctx context.Context, epoch int64, keys []control.QuotaKey) (there, absent []control.QuotaKey, away error) {
	has, errs := r.quota.Has(ctx, epoch, quotaAccounts(keys))
	for i, k := range keys {
		switch {
		case errs[i] != nil:
			away = errs[i]
		case has[i]:
			there = append(there, k)
		default:
			absent = append(absent, k)
		}
	}
	return there, absent, away
}

// putWithin is how long a record that is noted as made may be under way to Redis, rather
// than lost there. Later it makes another epoch begin, which is harmless.
const putWithin = 2 * time.Second

// restore makes the records of keys that are missing. A record that had been made in this
// epoch is not made again: it is returned as lost. Some may be out of reach: it makes the
// others all the same, and says so.
func (r *Records) restore(ctx context.Context, epoch int64, keys []control.QuotaKey) (lost []control.QuotaKey, err error) {
	// Some may be there without anybody having lived to note it.
	there, absent, away := r.absent(ctx, epoch, keys)
	if _, err := r.store.RecordsMade(ctx, epoch, there); err != nil {
		return nil, err
	}
	if len(absent) == 0 {
		return nil, away
	}
	if _, err := r.store.MarkRecords(ctx, epoch, absent, false); err != nil {
		return nil, err
	}
	if lost, err = r.store.MadeRecords(ctx, epoch, absent, putWithin); err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		// Looked for once more: it may have come after the first look.
		_, lost, gone := r.absent(ctx, epoch, lost)
		if len(lost) > 0 {
			return lost, nil
		}
		if gone != nil {
			return nil, gone
		}
	}
	err = r.put(ctx, epoch, absent)
	if err == nil || errors.Is(err, quota.ErrUnavailable) {
		return nil, errors.Join(err, away)
	}
	return nil, err // a fault, which must not pass for a part of Redis that is away
}

// validText reports whether Postgres takes a name that came through Redis.
func validText(s string) bool {
	return s != "" && len(s) <= 200 && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}
