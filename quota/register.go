package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Beat is the last sign of life of a replica.
type Beat struct {
	At      time.Time // by its own clock
	Life    uint64
	Last    int64 // number of the newest event in its journal
	Epoch   int64 // that it has entered
	Retired bool
	// Next is the life that waits until the retirement of this one was dealt with; 0 if none
	// has said so. While it waits, Waited changes.
	Next   uint64
	Waited int64
}

// Beats returns the last sign of life of each replica that Redis knows of.
func (k *Keeper) Beats(ctx context.Context) (map[string]Beat, error) {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	all, err := k.client.HGetAll(timed, contract.QuotaBeatsKey).Result()
	if err != nil {
		return nil, unavailable("read beats", ctx, err)
	}
	beats := make(map[string]Beat, len(all))
	for replica, text := range all {
		if b, ok := parseBeat(text); ok {
			life, waited, _ := strings.Cut(all[nextField+replica], "|")
			b.Next, _ = strconv.ParseUint(life, 10, 64) // 0 if it is not there
			b.Waited, _ = strconv.ParseInt(waited, 10, 64)
			beats[replica] = b
		}
	}
	return beats, nil
}

func parseBeat(text string) (b Beat, ok bool) {
	var at int64
	var state string
	_, err := fmt.Sscanf(strings.ReplaceAll(text, "|", " "), "%d %d %d %d %s", &at, &b.Life, &b.Last, &b.Epoch, &state)
	b.At, b.Retired = time.UnixMilli(at), state == beatRetired
	return b, err == nil
}

// Retire takes a replica off the register of an epoch if its last beat still tells of the
// retirement that beat does. It reports whether it has; Postgres must be told only then,
// since the replica may have come back, and must have been told before that it is about to
// be: else a new epoch that begins in between waits for the replica for ever.
//
// A replica that has retired leases nothing any more, and all its events were settled in the
// records of the epoch it says. But records that are made later know only what is in
// Postgres, and nobody settles the rest anew. So call it once Postgres has all its events up
// to Beat.Last, and if it retired from an earlier epoch than this one, once the records of
// this one were made with a base that is not below Beat.Last. The beat may come from an older
// copy of Redis' data, too: no later life may have leased since. None has that Postgres does
// not know of if the control plane notes the lives of all that beat before it calls Join and
// before it calls Open: a life that follows a retirement does not beat before that was dealt
// with. One that follows a crash leases at once, and may be noted later: no copy tells that the
// life before it has retired. But only lives must be noted that have begun for sure, those that
// beat or are seen to wait (Beat.Waited): else what the last one says after a silence, or has
// said, would not be believed, though it is true.
func (k *Keeper) Retire(ctx context.Context, epoch int64, replica string, beat Beat) (bool, error) {
	return k.endBeat(ctx, strconv.FormatInt(epoch, 10), replica, beat)
}

// Disbelieve removes a beat that tells of a retirement and is not to be believed, so that the
// replica can beat again. It stays on the register.
func (k *Keeper) Disbelieve(ctx context.Context, replica string, beat Beat) error {
	_, err := k.endBeat(ctx, "", replica, beat)
	return err
}

func (k *Keeper) endBeat(ctx context.Context, epoch, replica string, beat Beat) (bool, error) {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	n, err := k.retire.Run(timed, k.client, []string{contract.QuotaEpochKey, contract.QuotaBeatsKey}, replica,
		fmt.Sprintf("|%d|%d|%d|%s", beat.Life, beat.Last, beat.Epoch, beatRetired), epoch).Int()
	if err != nil {
		return false, unavailable("retire replica "+replica, ctx, err)
	}
	return n == 1, nil
}

// retireScript forgets a beat if it is still that one, and its replica if an epoch is given.
// A life that begins beats before it reads the register. A server that the epoch does not
// trust is not believed: it may have come back with an older beat, and the replica with a
// new life since.
//
//	KEYS[1] QuotaEpochKey, KEYS[2] QuotaBeatsKey
//	ARGV: replica, end of the beat, epoch or ''
const retireScript = `
local beat, epoch = redis.call('HGET', KEYS[2], ARGV[1]), redis.call('HGET', KEYS[1], 'epoch')
if not beat or string.sub(beat, -#ARGV[2]) ~= ARGV[2] then return 0 end
if ARGV[3] ~= '' then
  local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') .. '/' ..
    string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
  if epoch ~= ARGV[3] or redis.call('HGET', KEYS[1], 'node:' .. server) ~= epoch then return 0 end
  redis.call('HDEL', KEYS[1], 'm:' .. ARGV[1], 'd:' .. ARGV[1])
end
redis.call('HDEL', KEYS[2], ARGV[1], 'next:' .. ARGV[1])
return 1
`

// Shut tells a lost replica that it is: it serves nothing from then on, if it still lives.
func (k *Keeper) Shut(ctx context.Context, epoch int64, replica string) error {
	return k.setEpoch(ctx, epoch, "m:"+replica, memberLost)
}

// Release frees what a lost replica leases of the accounts, and shuts it out of their
// records. It returns how many tokens that were, also if some records are out of reach. A
// replica that still lives, but did not hear Shut, gives them out as well until its grace is
// over (Options.Grace, 10 s): unless it is known to be dead, wait for that long after Shut.
func (k *Keeper) Release(ctx context.Context, replica string, accounts []Account) (int64, error) {
	var sum int64
	var errs []error
	for some := range slices.Chunk(accounts, readAtOnce) {
		timed, cancel := context.WithTimeout(ctx, k.timeout)
		args := make([][]any, len(some))
		for i := range args {
			args[i] = []any{replica}
		}
		for _, call := range runAll(timed, k.client, k.lose, recordKeys(some), args) {
			n, err := call.Int64()
			sum, errs = sum+n, append(errs, unavailable("free leases of replica "+replica, ctx, err))
		}
		cancel()
	}
	return sum, errors.Join(errs...)
}

// readAtOnce is how many records are asked for at once.
const readAtOnce = 500

func recordKeys(accounts []Account) []string {
	keys := make([]string, len(accounts))
	for i, a := range accounts {
		keys[i] = contract.QuotaKey(a.Customer, a.Period.ID)
	}
	return keys
}

// read reads the same fields of the record of each account: nil for a field that is not there.
func (k *Keeper) read(ctx context.Context, accounts []Account, fields ...string) (values [][]any, errs []error) {
	values, errs = make([][]any, len(accounts)), make([]error, len(accounts))
	for from := 0; from < len(accounts); from += readAtOnce {
		keys := recordKeys(accounts[from:min(from+readAtOnce, len(accounts))])
		timed, cancel := context.WithTimeout(ctx, k.timeout)
		replies := make([]*redis.SliceCmd, len(keys))
		perServer(timed, k.client, keys, func(c redis.Cmdable, i int) redis.Cmder {
			replies[i] = c.HMGet(timed, keys[i], fields...)
			return replies[i]
		})
		cancel()
		for i, r := range replies {
			values[from+i], errs[from+i] = r.Val(), unavailable("read quota record of "+accounts[from+i].Customer, ctx, r.Err())
		}
	}
	return values, errs
}

// Has answers for each account whether it has a record of an epoch, or of a later one. What
// is out of reach has an error.
func (k *Keeper) Has(ctx context.Context, epoch int64, accounts []Account) (has []bool, errs []error) {
	values, errs := k.read(ctx, accounts, "epoch")
	has = make([]bool, len(accounts))
	for i := range has {
		if errs[i] == nil {
			n, ok := number(values[i][0])
			has[i] = ok && n >= epoch
		}
	}
	return has, errs
}

// Lease is what a record knows of a replica.
type Lease struct {
	Tokens int64 // that are leased
	Mark   int64 // number of the last event that is settled; -1 if none is
	Called bool  // whether the replica ever called for the account
}

// Leased reads what a replica leases of the accounts. What is out of reach has an error.
func (k *Keeper) Leased(ctx context.Context, replica string, accounts []Account) (leases []Lease, errs []error) {
	values, errs := k.read(ctx, accounts, "l:"+replica, "w:"+replica)
	leases = make([]Lease, len(accounts))
	for i := range leases {
		if errs[i] != nil {
			continue
		}
		tokens, leased := number(values[i][0])
		mark, marked := number(values[i][1])
		if !marked {
			mark = -1
		}
		leases[i] = Lease{Tokens: tokens, Mark: mark, Called: leased || marked}
	}
	return leases, errs
}

// ServerOf returns the address of the Redis server that has the record of acct, as far as that
// is known without asking; "" without a Cluster.
func (k *Keeper) ServerOf(acct Account) string {
	if master := masterOf(k.client, contract.QuotaKey(acct.Customer, acct.Period.ID)); master != nil {
		return master.Options().Addr
	}
	return ""
}

// number reads a field of a record.
func number(field any) (n int64, ok bool) {
	s, _ := field.(string)
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
