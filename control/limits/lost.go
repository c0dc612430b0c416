package limits

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// graceMargin is added to the grace: for clocks that run at different speeds.
const graceMargin = time.Second

// settleScript settles events on behalf of a replica that will never do it, as its own
// call would: those above the number of the last one that counted, and out of its lease.
// It answers what it settled, or -1 if the record is not of this epoch.
//
//	KEYS[1] QuotaKey
//	ARGV: epoch, replica, base, then number and tokens of each event, ascending
const settleScript = `
local r = ARGV[2]
local q = redis.call('HMGET', KEYS[1], 'epoch', 'settled', 'leased', 'l:' .. r, 'w:' .. r)
if q[1] ~= ARGV[1] then return -1 end
local mark, sum = tonumber(q[5] or ARGV[3]), 0
for i = 4, #ARGV, 2 do
  local seq = tonumber(ARGV[i])
  if seq > mark then
    mark = seq
    sum = sum + tonumber(ARGV[i + 1])
  end
end
local lease = tonumber(q[4] or 0)
local left = math.max(lease - sum, 0)
local function int(n) return string.format('%.0f', n) end
redis.call('HSET', KEYS[1], 'settled', int(tonumber(q[2]) + sum), 'leased', int(tonumber(q[3]) - lease + left),
  'l:' .. r, int(left), 'w:' .. r, int(mark))
return sum
`

// Alive reports whether a replica gives signs of life: it looks twice.
func (r *Records) Alive(ctx context.Context, replica string) (bool, error) {
	first, err := r.quota.Beats(ctx)
	if err != nil {
		return false, err
	}
	b, ok := first[replica]
	if !ok || b.Retired {
		return false, nil
	}
	pause(ctx, time.Second) // it beats several times a second
	second, err := r.quota.Beats(ctx)
	return err == nil && second[replica] != b && !second[replica].Retired, err
}

// GiveUp frees what a replica leases that Postgres knows to be lost: as soon as the
// replica, should it live in spite of all, cannot use it any more, which takes the
// replicas' grace at most: the longer one of what the epoch allows them and grace. What it
// has used and not settled is settled as far as Postgres knows of it. GiveUp may be repeated after an error. It returns all that was freed of the
// replica's leases so far.
func (r *Records) GiveUp(ctx context.Context, replica string, grace time.Duration) ([]control.Released, error) {
	registered, err := r.registered(ctx, replica)
	if err != nil {
		return nil, err
	}
	if !registered { // any more: it leases nothing
		return r.store.Releases(ctx, replica)
	}
	epoch, err := r.quota.Epoch(ctx)
	if err != nil {
		return nil, err
	}
	if epoch.Grace > 0 {
		if err := r.shutOut(ctx, replica, grace); err != nil {
			return nil, err
		}
	} // else nobody but the Keeper knows for how long the replica may go on: it does that
	for deadline := time.Now().Add(releaseWithin); ; {
		freed, err := r.release(ctx, replica)
		left, usable := time.Duration(0), errUsable{}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("give up replica %s: %w", replica, ctx.Err())
		case errors.As(err, &usable) && usable.left > 0:
			left = min(usable.left, time.Second)
			deadline = time.Now().Add(releaseWithin)
		case !errors.Is(err, errNoEpoch) && !errors.As(err, &usable) || time.Now().After(deadline):
			return freed, err
		}
		pause(ctx, max(left, 100*time.Millisecond))
	}
}

func (r *Records) registered(ctx context.Context, replica string) (bool, error) {
	members, err := r.store.Members(ctx, 0)
	return slices.ContainsFunc(members, func(m control.Member) bool { return m.ID == replica }), err
}

// shutOut tells a lost replica, through Redis, that it is. Redis is told whether it knew
// of the replica or not. What the epoch allows replicas counts if it is longer than grace.
func (r *Records) shutOut(ctx context.Context, replica string, grace time.Duration) error {
	epoch, err := r.quota.Epoch(ctx)
	if err != nil {
		return err
	}
	if epoch.Number > 0 {
		if err := r.quota.Shut(ctx, epoch.Number, replica); err != nil {
			return err
		}
		again, err := r.quota.Epoch(ctx) // as of when it was told, or later
		if err != nil {
			return err
		}
		grace = max(grace, epoch.Grace, again.Grace)
	}
	// Only now: if it has seen itself registered for the last time, its beat was there.
	beats, err := r.quota.Beats(ctx)
	if err != nil {
		return err
	}
	var beat control.Beat
	if b, ok := beats[replica]; ok && !b.Retired { // it does not beat once it retires
		beat = controlBeat(replica, b)
	}
	_, err = r.store.Shut(ctx, replica, beat, grace+graceMargin)
	return err
}

// errNoEpoch says that records are being made just now.
var errNoEpoch = errors.New("the limits in Redis have to be made anew first, by a billing-worker")

// errUsable says for how long what a replica leases may still be used; 0 if that is not
// known yet.
type errUsable struct{ left time.Duration }

func (e errUsable) Error() string { return "what it leases may still be in use" }

// releaseWithin is how long GiveUp waits for records that are being made.
const releaseWithin = 30 * time.Second

// owed is what a lost replica has to do with a record.
type owed struct {
	lease   int64
	touched bool    // the replica has called for it
	seqs    []int64 // of its events that are not settled, ascending
	tokens  []int64
	sum     int64
}

// settledTo drops the events up to number mark, which the record contains.
func (o *owed) settledTo(mark int64) {
	n, _ := slices.BinarySearch(o.seqs, mark+1)
	for _, tokens := range o.tokens[:n] {
		o.sum -= tokens
	}
	o.seqs, o.tokens = o.seqs[n:], o.tokens[n:]
}

// release frees what a lost replica leases in the present epoch, and settles what it has
// used. Nothing that it leases may be usable any more.
func (r *Records) release(ctx context.Context, replica string) ([]control.Released, error) {
	have, err := r.quota.Epoch(ctx)
	if err != nil {
		return nil, err
	}
	known, err := r.store.QuotaEpoch(ctx)
	if err != nil {
		return nil, err
	}
	if have.Number != known.Number || have.Number != 0 && have.Building() {
		return nil, fmt.Errorf("release replica %s: %w: %w", replica, quota.ErrUnavailable, errNoEpoch)
	}
	// After the epoch: its beginning may have let the replica go on.
	left, shut, err := r.store.Usable(ctx, replica)
	if err != nil {
		return nil, err
	}
	if !shut || left > 0 {
		return nil, fmt.Errorf("release replica %s: %w", replica, errUsable{left})
	}
	members, err := r.store.Members(ctx, known.Number)
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if m.ID == replica && m.InEpoch {
			return r.releaseMember(ctx, known.Number, m)
		}
	}
	// It has no part in this epoch.
	events, err := r.store.LeftBehind(ctx, replica, maxSeq, func(control.QuotaKey, int64, int64) {})
	if err != nil {
		return nil, err
	}
	if err := r.store.Released(ctx, known.Number, replica, events); err != nil {
		return nil, err
	}
	return r.store.Releases(ctx, replica)
}

const maxSeq = 1<<63 - 1

func (r *Records) releaseMember(ctx context.Context, epoch int64, m control.Member) ([]control.Released, error) {
	events := map[control.QuotaKey]*owed{}
	left, err := r.store.LeftBehind(ctx, m.ID, m.Base, func(k control.QuotaKey, seq, tokens int64) {
		o := events[k]
		if o == nil {
			o = &owed{}
			events[k] = o
		}
		o.seqs, o.tokens, o.sum = append(o.seqs, seq), append(o.tokens, tokens), o.sum+tokens
	})
	if err != nil {
		return nil, err
	}
	accounts, away, err := r.owes(ctx, epoch, m, events)
	if err != nil {
		return nil, err
	}
	var plan []control.Released
	for k, o := range accounts {
		if o.lease > 0 || o.sum > 0 {
			plan = append(plan, control.Released{CustomerID: k.CustomerID, PeriodID: k.PeriodID, Settled: o.sum, Freed: max(o.lease-o.sum, 0)})
		}
	}
	if err := r.store.NoteReleases(ctx, m.ID, plan); err != nil {
		return nil, err
	}
	var free []quota.Account
	for k, o := range accounts {
		if err := r.settleFor(ctx, epoch, m, k, o); err != nil {
			return nil, err
		}
		if o.touched {
			free = append(free, quotaAccount(k))
		}
	}
	if _, err := r.quota.Release(ctx, m.ID, free); err != nil {
		return nil, err
	}
	if away != nil {
		// It stays on the register until they are there: this is repeated then.
		return nil, fmt.Errorf("release replica %s: some records are out of reach: %w", m.ID, away)
	}
	if err := r.store.Released(ctx, epoch, m.ID, left); err != nil {
		return nil, err
	}
	return r.store.Releases(ctx, m.ID)
}

// owes reads what a replica has to do with the records of an epoch, and returns those of
// them that it has called for or that lack one of its events. Those that are out of reach
// are not among them; away is the reason of one.
func (r *Records) owes(ctx context.Context, epoch int64, m control.Member, events map[control.QuotaKey]*owed) (out map[control.QuotaKey]*owed, away, err error) {
	out = map[control.QuotaKey]*owed{}
	silent := map[string]bool{} // servers, each of which is waited for only once
	for after := (control.QuotaKey{}); ; {
		keys, err := r.store.RecordKeys(ctx, epoch, after, recordPage)
		if err != nil {
			return nil, nil, err
		}
		last := len(keys) < recordPage
		if last && len(keys) == 0 {
			return out, away, nil
		}
		after = keys[len(keys)-1]
		if len(silent) > 0 {
			keys = slices.DeleteFunc(keys, func(k control.QuotaKey) bool { return silent[r.quota.ServerOf(quotaAccount(k))] })
		}
		leases, errs := r.quota.Leased(ctx, m.ID, quotaAccounts(keys))
		for i, k := range keys {
			if errs[i] != nil {
				away = errs[i]
				silent[r.quota.ServerOf(quotaAccount(k))] = true
				continue
			}
			l, o := leases[i], events[k]
			if o == nil {
				if !l.Called {
					continue
				}
				o = &owed{}
			}
			o.lease, o.touched = l.Tokens, l.Called
			o.settledTo(max(l.Mark, m.Base))
			out[k] = o
		}
		if last {
			return out, away, nil
		}
	}
}

// settleFor settles for a lost replica what o says.
func (r *Records) settleFor(ctx context.Context, epoch int64, m control.Member, k control.QuotaKey, o *owed) error {
	const atOnce = 1000
	for from := 0; from < len(o.seqs); from += atOnce {
		args := []any{epoch, m.ID, m.Base}
		for i := from; i < min(from+atOnce, len(o.seqs)); i++ {
			args = append(args, o.seqs[i], o.tokens[i])
		}
		n, err := r.settle.Run(ctx, r.client, []string{contract.QuotaKey(k.CustomerID, k.PeriodID)}, args...).Int64()
		if err != nil {
			return fmt.Errorf("settle for replica %s: %w: %w", m.ID, quota.ErrUnavailable, err)
		}
		if n < 0 {
			return fmt.Errorf("settle for replica %s: %w: %w", m.ID, quota.ErrUnavailable, errNoEpoch)
		}
	}
	return nil
}
