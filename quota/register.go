package quota

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Beat is the last sign of life of a replica.
type Beat struct {
	At      time.Time // by its own clock
	Life    uint64
	Last    int64 // number of the newest event in its journal
	Epoch   int64 // that it has entered
	Retired bool
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
		var at int64
		var b Beat
		var state string
		if _, err := fmt.Sscanf(strings.ReplaceAll(text, "|", " "), "%d %d %d %d %s", &at, &b.Life, &b.Last, &b.Epoch, &state); err == nil {
			b.At, b.Retired = time.UnixMilli(at), state == beatRetired
			beats[replica] = b
		}
	}
	return beats, nil
}

// Retire takes a replica off the register if its last beat says that it has retired, in the
// epoch that holds: an older beat may have come back with an older copy of Redis' data. It
// reports whether it has; Postgres must be told only then, since it may have come back.
//
// It leases nothing any more, and all its events are settled in the records. But records
// that are made later, in a new epoch, know only what is in Postgres, and nobody settles
// the rest anew. So call it once Postgres has its events up to Beat.Last.
func (k *Keeper) Retire(ctx context.Context, replica string) (bool, error) {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	n, err := k.retire.Run(timed, k.client, []string{contract.QuotaEpochKey, contract.QuotaBeatsKey}, replica, beatRetired).Int()
	if err != nil {
		return false, unavailable("retire replica "+replica, ctx, err)
	}
	return n == 1, nil
}

// retireScript forgets a replica that has retired in this epoch. A life that begins beats
// before it reads the register.
//
//	KEYS[1] QuotaEpochKey, KEYS[2] QuotaBeatsKey
//	ARGV: replica, how a beat says so
const retireScript = `
local beat, epoch = redis.call('HGET', KEYS[2], ARGV[1]), redis.call('HGET', KEYS[1], 'epoch')
if not beat or not epoch then return 0 end
local says = '|' .. epoch .. '|' .. ARGV[2]
if string.sub(beat, -#says) ~= says then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], 'm:' .. ARGV[1], 'd:' .. ARGV[1])
return 1
`

// Shut tells a lost replica that it is: it serves nothing from then on, if it still lives.
func (k *Keeper) Shut(ctx context.Context, epoch int64, replica string) error {
	return k.setEpoch(ctx, epoch, "m:"+replica, memberLost)
}

// Release frees what a lost replica leases of the accounts, and shuts it out of their
// records. It returns how many tokens that were. A replica that still lives, but did not
// hear Shut, gives them out as well until its grace is over (Options.Grace, 10 s): unless it
// is known to be dead, wait for that long after Shut.
func (k *Keeper) Release(ctx context.Context, replica string, accounts []Account) (int64, error) {
	var sum int64
	for _, a := range accounts {
		timed, cancel := context.WithTimeout(ctx, k.timeout)
		n, err := k.lose.Run(timed, k.client, []string{contract.QuotaKey(a.Customer, a.Period.ID)}, replica).Int64()
		cancel()
		if err != nil {
			return sum, unavailable("free leases of replica "+replica, ctx, err)
		}
		sum += n
	}
	return sum, nil
}
