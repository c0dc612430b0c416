package limits

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// register is one look at the register of replicas, in an epoch that is not being built.
type register struct {
	*Keeper
	leader  *store.Leader
	epoch   quota.Epoch
	members []control.Member
	beats   map[string]quota.Beat
}

// keep registers replicas that are new, takes off those that retired, and shuts out those
// that were declared lost. Postgres knows of each before Redis does, so that none is
// forgotten whoever dies in between.
func (r *register) keep(ctx context.Context) (err error) {
	if r.members, err = r.leader.Members(ctx, r.epoch.Number); err != nil {
		return err
	}
	if r.beats, err = r.quota.Beats(ctx); err != nil {
		return err
	}
	if err := r.hear(ctx); err != nil {
		return err
	}
	known := make(map[string]bool, len(r.members))
	r.overdue = r.overdue[:0]
	for _, m := range r.members {
		known[m.ID] = true
		if err := r.member(ctx, m); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.beats)) {
		if known[id] {
			continue
		}
		if err := r.stranger(ctx, id); err != nil {
			return err
		}
	}
	r.metrics.registered.Set(float64(len(r.members)))
	return nil
}

// member looks after a replica on the register.
func (r *register) member(ctx context.Context, m control.Member) error {
	beat, beats := r.beats[m.ID]
	_, joined := r.epoch.Members[m.ID]
	switch {
	case m.Lost:
		return r.lost(ctx, m, joined)
	case beats && beat.Retired:
		return r.leaving(ctx, m, beat)
	case m.Retiring && !beats && !joined && m.InEpoch:
		// It was taken off in Redis, and nobody lived to note it here.
		return r.leader.Retired(ctx, r.epoch.Number, m.ID, true)
	case m.Retiring && !beats && joined && !r.epoch.Declared[m.ID]:
		// Likewise, and this epoch has begun since; or Redis has lost what it said.
		return r.left(ctx, m)
	case m.Retiring:
		// It has come back.
		if err := r.leader.SetRetiring(ctx, m.ID, false); err != nil {
			return err
		}
	case !beats && joined && r.epoch.IsOpen() && !r.epoch.Declared[m.ID]:
		return r.left(ctx, m)
	}
	if joined || !m.InEpoch {
		return nil
	}
	return r.join(ctx, m.ID, m.Base)
}

// leaving looks after a replica on the register that says it has retired.
func (r *register) leaving(ctx context.Context, m control.Member, beat quota.Beat) error {
	switch {
	case int64(beat.Life) < m.Life: // #nosec G115 -- it counts starts; one that is out of range would be negative, and is not believed
		// It has come back since, and Redis has an older copy of its data.
		return r.quota.Disbelieve(ctx, m.ID, beat)
	case m.Acked < beat.Last:
		// Should Redis lose its data now, only its journal has what Postgres lacks.
		if r.say("retiring " + m.ID) {
			r.log.Info("a replica has retired and stays registered until Postgres has all its events", "replica", m.ID, "acked", m.Acked, "last", beat.Last)
		}
		return nil
	case beat.Epoch < r.epoch.Number && m.InEpoch && m.Base < beat.Last && r.epoch.Declared[m.ID]:
		// It has entered this epoch since, with what its records lack, and may have leased in
		// it. However long it is silent, it may be about to say so again. If it has ended, its
		// next life has to, or the records of the next epoch lack nothing. Only a life that was
		// seen to wait is noted: that of this beat can say nothing true any more. One that has
		// said so and is gone would leave nobody who could retire. And it is noted
		// before it can lease: an older copy of Redis may tell of this retirement.
		if beat.Next <= beat.Life || !r.heard[m.ID].waits {
			return nil
		}
		next := controlBeat(m.ID, beat)
		next.Life = int64(beat.Next) // #nosec G115 -- it counts starts; one that is out of range would be negative, and is not believed
		if err := r.leader.NoteBeats(ctx, []control.Beat{next}); err != nil {
			return err
		}
		return r.quota.Disbelieve(ctx, m.ID, beat)
	case beat.Epoch != r.epoch.Number && !(m.InEpoch && m.Base >= beat.Last):
		return nil // it says so again if it lives, else see entered
	}
	return r.retire(ctx, m, beat)
}

// leftScript takes a replica off the register that has never entered the epoch, and has
// taken back its sign of life, as one does that ends before it has served anybody.
//
//	KEYS[1] QuotaEpochKey, KEYS[2] QuotaBeatsKey
//	ARGV: epoch, replica
const leftScript = `
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] or redis.call('HEXISTS', KEYS[1], 'd:' .. ARGV[2]) == 1
  or redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then return 0 end
return redis.call('HDEL', KEYS[1], 'm:' .. ARGV[2])
`

// left takes a replica off the register that joined an open epoch and left without having
// entered it: no lease of it is in the records. It may have entered without having said
// so; then it lives, and beats.
func (r *register) left(ctx context.Context, m control.Member) error {
	if h := r.heard[m.ID]; h == nil || time.Since(h.at) < beatsEvery {
		return nil
	}
	n, err := r.leftIt.Run(ctx, r.client, []string{contract.QuotaEpochKey, contract.QuotaBeatsKey}, r.epoch.Number, m.ID).Int()
	if err != nil {
		return fmt.Errorf("take replica %s off the register: %w: %w", m.ID, quota.ErrUnavailable, err)
	}
	if n == 0 {
		return nil
	}
	delete(r.epoch.Members, m.ID)
	r.log.Info("replica has left without having leased anything", "replica", m.ID)
	return r.leader.Retired(ctx, r.epoch.Number, m.ID, m.Retiring)
}

// join puts a replica on the register in Redis. Its life is noted before: see quota.Keeper.Retire.
func (r *register) join(ctx context.Context, id string, base int64) error {
	if b, ok := r.beats[id]; ok {
		if err := r.leader.NoteBeats(ctx, []control.Beat{controlBeat(id, b)}); err != nil {
			return err
		}
	}
	if err := r.quota.Join(ctx, r.epoch.Number, id, base); err != nil {
		return err
	}
	r.epoch.Members[id] = base
	r.log.Info("replica is registered", "replica", id, "epoch", r.epoch.Number, "base", base)
	return r.step("joined")
}

// retire takes a replica off the register that says it has retired.
func (r *register) retire(ctx context.Context, m control.Member, beat quota.Beat) error {
	if !m.Retiring {
		if err := r.leader.SetRetiring(ctx, m.ID, true); err != nil {
			return err
		}
		if err := r.step("retiring"); err != nil {
			return err
		}
	}
	retired, err := r.quota.Retire(ctx, r.epoch.Number, m.ID, beat)
	if err != nil {
		return err
	}
	faultpoint.At("epoch.retire.after")
	if err := r.step("retired"); err != nil {
		return err
	}
	if !retired {
		return nil // it has come back, or was taken off by a call whose answer was lost: the next look tells
	}
	delete(r.epoch.Members, m.ID)
	r.log.Info("replica has retired", "replica", m.ID)
	return r.leader.Retired(ctx, r.epoch.Number, m.ID, true)
}

// lost sees to it that a lost replica knows, if it lives, and that what it leased is freed if
// whoever declared it lost did not do that.
func (r *register) lost(ctx context.Context, m control.Member, joined bool) error {
	if joined || !m.Shut {
		delete(r.epoch.Members, m.ID)
		return r.shutOut(ctx, m.ID, r.opts.Grace)
	}
	if m.Overdue {
		r.overdue = append(r.overdue, m.ID)
	}
	return nil
}

// stranger looks after a replica that is not on the register and beats, or once did.
func (r *register) stranger(ctx context.Context, id string) error {
	if b := r.beats[id]; b.Retired {
		_, err := r.quota.Retire(ctx, r.epoch.Number, id, b) // forgets the beat
		return err
	}
	if r.shut[id] == r.epoch.Number || !validText(id) {
		return nil
	}
	// Perhaps it is gone, and the beat an old one that came late, or with a Redis that was put back.
	if s, ok := r.strangers[id]; !ok || s.epoch != r.epoch.Number {
		r.strangers[id] = stranger{r.epoch.Number, r.beats[id]}
		return nil
	} else if ownBeat(s.beat) == ownBeat(r.beats[id]) {
		return nil
	}
	base, fits, err := r.leader.Register(ctx, r.epoch.Number, id)
	if errors.Is(err, control.ErrInvalid) {
		r.shut[id] = r.epoch.Number
		r.log.Warn("a replica is turned away: it must be started with a new journal", "replica", id, "reason", err)
		return r.quota.Shut(ctx, r.epoch.Number, id)
	}
	if err != nil {
		return err
	}
	delete(r.strangers, id)
	if err := r.step("registered"); err != nil {
		return err
	}
	r.notedAt = time.Time{} // note its beat soon
	if !fits {
		r.repairAt = time.Time{} // it waits for another epoch
		return nil
	}
	return r.join(ctx, id, base)
}

// hear takes note of who gives signs of life.
func (r *register) hear(ctx context.Context) error {
	now := time.Now()
	for id, b := range r.beats {
		h := r.heard[id]
		if h == nil {
			r.heard[id] = &heard{beat: b, at: now}
		} else {
			h.waits = h.beat.Next == b.Next && h.beat.Waited < b.Waited
			if ownBeat(h.beat) != ownBeat(b) {
				h.at, h.moved = now, true
			}
			h.beat = b
		}
	}
	maps.DeleteFunc(r.heard, func(id string, _ *heard) bool {
		_, beats := r.beats[id]
		return !beats && !slices.ContainsFunc(r.members, func(m control.Member) bool { return m.ID == id })
	})
	maps.DeleteFunc(r.strangers, func(id string, _ stranger) bool { _, beats := r.beats[id]; return !beats })
	silent := 0
	for _, m := range r.members {
		h := r.heard[m.ID]
		if h == nil {
			h = &heard{at: now}
			r.heard[m.ID] = h
		}
		if !m.Lost && now.Sub(h.at) > silentAfter {
			silent++
			if r.say("silent " + m.ID) {
				r.log.Error("ALERT: a registered replica is silent; what it leases stays held. If its journal will not come back: openclawctl ledger declare-lost", "replica", m.ID)
			}
		}
	}
	r.metrics.silent.Set(float64(silent))
	if now.Sub(r.notedAt) < noteBeats {
		return nil
	}
	r.notedAt = now
	return r.note(ctx)
}

// note notes signs of life.
func (r *register) note(ctx context.Context) error {
	beats := make([]control.Beat, 0, len(r.beats))
	for id, b := range r.beats {
		if validText(id) {
			beats = append(beats, controlBeat(id, b))
		}
	}
	return r.leader.NoteBeats(ctx, beats)
}

// ownBeat is b without what another life says.
func ownBeat(b quota.Beat) quota.Beat {
	b.Next, b.Waited = 0, 0
	return b
}

func controlBeat(id string, b quota.Beat) control.Beat {
	return control.Beat{Replica: id, Life: int64(b.Life), At: b.At.UTC()} // #nosec G115 -- it counts starts; one that is out of range would be negative, and is not believed
}

// away lists registered replicas that would keep a new epoch waiting.
func (r *register) away() (replicas []string) {
	for _, m := range r.members {
		if h := r.heard[m.ID]; !m.Lost && (h == nil || !h.moved || time.Since(h.at) > beatsEvery) {
			replicas = append(replicas, m.ID)
		}
	}
	return replicas
}

// repair returns a reason to make all records anew although Redis lost nothing. That can
// wait: while a replica is away, a new epoch would do more harm than good.
func (r *register) repair(ctx context.Context) (reason string, err error) {
	if !r.epoch.IsOpen() || time.Now().Before(r.repairAt) {
		return "", nil
	}
	r.repairAt = time.Now().Add(repairLook)
	if time.Since(r.begunAt) < repairEvery {
		return "", nil
	}
	if reason, err = r.leader.Repair(ctx, r.epoch.Number); err != nil || reason == "" {
		r.metrics.repairs.Set(0)
		return "", err
	}
	if away := r.away(); len(away) > 0 {
		r.metrics.repairs.Set(1)
		if r.say("repair") {
			r.log.Warn("the limits in Redis have to be made anew, which waits for replicas", "reason", reason, "replicas", list(away))
		}
		return "", nil
	}
	r.metrics.repairs.Set(0)
	return reason, nil
}

// open opens the epoch once each replica on the register has declared what it leases, and
// nothing that a lost one leased can be used.
func (r *register) open(ctx context.Context) (bool, error) {
	waiting := r.epoch.Undeclared()
	for _, m := range r.members {
		_, joined := r.epoch.Members[m.ID]
		if m.Lost && m.Usable || !m.Lost && m.InEpoch && !joined && !r.retired(m.ID) {
			waiting = append(waiting, m.ID)
		}
	}
	r.metrics.undeclared.Set(float64(len(waiting)))
	if len(waiting) == 0 {
		// Lives that have declared lease from now on: see quota.Keeper.Retire.
		if err := r.note(ctx); err != nil {
			return false, err
		}
		faultpoint.At("epoch.open.before")
		if err := r.quota.Open(ctx, r.epoch.Number); err != nil {
			return false, err
		}
		faultpoint.At("epoch.open.after")
		if err := r.step("opened"); err != nil {
			return false, err
		}
		r.log.Info("the epoch of the limits is open", "epoch", r.epoch.Number)
		r.metrics.open.Set(1)
		r.setNote("")
		return true, r.leader.Opened(ctx, r.epoch.Number)
	}
	if r.waitsFrom.IsZero() {
		r.waitsFrom = time.Now()
	}
	slices.Sort(waiting)
	waiting = slices.Compact(waiting)
	if time.Since(r.waitsFrom) > sayAfter {
		r.setNote(fmt.Sprintf("no lease can grow: epoch %d waits for replicas %s", r.epoch.Number, list(waiting)))
		if r.say("waiting") {
			r.log.Error("ALERT: no lease can grow before these replicas declare what they hold. If the journal of one will not come back: openclawctl ledger declare-lost",
				"epoch", r.epoch.Number, "replicas", list(waiting), "for", time.Since(r.waitsFrom).Round(time.Second).String())
		}
	}
	return false, nil
}

// entered returns a reason to begin another epoch while this one is not open:
//
// A replica that was declared lost may have entered it. No record of it knows the replica,
// so none would refuse what it still calls for, should it live in spite of all. In the next
// epoch it has no part.
//
// Or one had retired whose events Postgres has only since this epoch began. Its records lack
// them, and nobody settles them. Those of the next one have them.
func (r *register) entered() string {
	if r.epoch.IsOpen() {
		return ""
	}
	for _, m := range r.members {
		if m.Lost && m.InEpoch && !r.epoch.Declared[m.ID] {
			return "replica " + m.ID + " was declared lost before it had declared what it leases"
		}
		b, h := r.beats[m.ID], r.heard[m.ID]
		lives := h != nil && h.moved && time.Since(h.at) < beatsEvery                              // then it goes on, and retires from this one
		if b.Retired && !lives && !m.Lost && !r.epoch.Declared[m.ID] && int64(b.Life) >= m.Life && // #nosec G115 -- it counts starts; one that is out of range would be negative, and is not believed
			b.Epoch < r.epoch.Number && m.Acked >= b.Last && m.InEpoch && m.Base < b.Last {
			return "replica " + m.ID + " had retired with events that the records lack"
		}
	}
	return ""
}

func (r *register) retired(id string) bool { return r.beats[id].Retired }
