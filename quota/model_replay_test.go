package quota

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The real code, driven step by step through a schedule of the model: replicas without
// their loops, a Keeper, and Redis. What the model has to say of both is compared.

var replayed = Account{Customer: "c", Period: contract.Period{ID: "p"}}

// real is the real code in the place of a state.
type realWorld struct {
	m      *model
	client *redis.Client // of replicas, with a gate
	plain  *redis.Client
	keeper *Keeper
	r      [modelReplicas]*realReplica
	copied *copyOfRedis
}

// realReplica is a replica with its journal, and its calls.
type realReplica struct {
	name string
	mu   sync.Mutex // guards what follows: the journal
	life uint64
	log  []contract.Event
	gone int64

	leases *Leases
	cancel context.CancelFunc
	flight *flight
	args   []any
	answer []any
	late   []any // of a call that nobody waits for any more
	gate   atomic.Bool

	declaredIn int64 // the newest epoch in which this life has said that it has declared
}

func (r *realReplica) Replica() string { return r.name }
func (r *realReplica) Life() uint64    { return r.life }

func (r *realReplica) Last() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.log))
}

func (r *realReplica) Forgotten() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}

func (r *realReplica) Next(after int64, n int) ([]contract.Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if after < r.gone {
		return nil, fmt.Errorf("events up to %d are forgotten, not %d", r.gone, after)
	}
	return r.log[after:min(int(after)+n, len(r.log))], nil
}

func (r *realReplica) Wait(ctx context.Context, _ int64) error {
	<-ctx.Done()
	return ctx.Err()
}

func (r *realReplica) append(reserved, used int8) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, contract.Event{
		Replica: r.name, Seq: int64(len(r.log) + 1), CustomerID: replayed.Customer, PeriodID: replayed.Period.ID,
		Reserved: int64(reserved), Settled: int64(used),
	})
}

// gate lets a replica declare only when the schedule says so.
type gate struct{ world atomic.Pointer[realWorld] }

func (g *gate) DialHook(next redis.DialHook) redis.DialHook { return next }

func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

var errNotYet = errors.New("not yet")

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if w := g.world.Load(); w != nil && slices.Contains(cmd.Args(), any(contract.QuotaEpochKey)) {
			for i := range w.m.replicas {
				if r := w.r[i]; slices.Contains(cmd.Args(), any("d:"+r.name)) && !r.gate.Load() {
					cmd.SetErr(errNotYet)
					return errNotYet
				}
			}
		}
		return next(ctx, cmd)
	}
}

// newRealWorld makes what m's initial state says.
func newRealWorld(t *testing.T, m *model, g *gate, client, plain *redis.Client) *realWorld {
	t.Helper()
	w := &realWorld{m: m, client: client, plain: plain, keeper: NewKeeper(plain, time.Minute)}
	ctx := context.Background()
	bases := map[string]int64{}
	for i := range m.replicas {
		w.r[i] = &realReplica{name: "r" + strconv.Itoa(int(i))}
		bases[w.r[i].name] = 0
	}
	g.world.Store(w)
	fatal := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	fatal(plain.FlushAll(ctx).Err())
	fatal(w.keeper.Begin(ctx, 1, []string{"0"}, nil, nil))
	if !m.missing {
		fatal(w.put(putScript, 1, m.limitOf(0), 0, 0, time.Now().Add(time.Hour).UnixMilli(), 0))
	}
	fatal(w.keeper.Declare(ctx, 1, bases, nil))
	for i := range m.replicas {
		w.start(w.r[i])
		fatal(w.r[i].leases.followOnce(ctx))
		fatal(w.declare(w.r[i], 1))
	}
	fatal(w.keeper.Open(ctx, 1))
	for i := range m.replicas {
		fatal(w.r[i].leases.followOnce(ctx))
	}
	return w
}

// put runs a script on the record.
func (w *realWorld) put(script string, args ...any) error {
	return redis.NewScript(script).Run(context.Background(), w.plain, w.keys(), args...).Err()
}

func (w *realWorld) keys() []string {
	return []string{contract.QuotaKey(replayed.Customer, replayed.Period.ID)}
}

// start begins a life, as NewLeases does, but without loops.
func (w *realWorld) start(r *realReplica) {
	r.life++
	ctx, cancel := context.WithCancel(context.Background())
	o := Options{Timeout: time.Minute, Grace: time.Hour, FollowEvery: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}
	o.setDefaults()
	l := &Leases{
		client: w.client, guarded: w.client, journal: r, opts: o, sync: redis.NewScript(syncScript), setFields: redis.NewScript(joinScript),
		wait: redis.NewScript(waitScript), start: time.Now().Add(-time.Minute), begun: r.Last(), stop: cancel, kick: make(chan struct{}, 1), nudge: make(chan struct{}, 1),
	}
	for i := range l.shards {
		l.shards[i].by = map[accountKey]*account{}
	}
	l.swept.Store(true)
	l.at.Store(r.Forgotten())
	l.caught.Store(l.at.Load() >= l.begun)
	r.leases, r.cancel, r.declaredIn = l, cancel, 0
	r.account().mu.Unlock()
	_ = ctx
}

// account returns the account, locked.
func (r *realReplica) account() *account {
	return r.leases.lock(accountKey{replayed.Customer, replayed.Period.ID})
}

// end ends a life as SIGKILL would.
func (w *realWorld) end(r *realReplica) {
	if r.leases == nil {
		return
	}
	r.leases.epoch.Store(switching) // declare ends
	r.leases.done.Wait()
	r.leases, r.flight, r.args, r.answer = nil, nil, nil, nil
}

// close ends all lives.
func (w *realWorld) close() {
	for i := range w.m.replicas {
		w.end(w.r[i])
	}
}

// declare lets r say that it has declared, and waits for that.
func (w *realWorld) declare(r *realReplica, epoch int64) error {
	r.leases.beating.Lock()
	retiring := r.leases.retiring
	r.leases.beating.Unlock()
	if retiring && r.declaredIn == epoch {
		// In the model it may say so once more, when it was taken off the register or Redis has
		// forgotten it. The code does so once in an epoch, and ends once it was taken off.
		return w.plain.HSet(context.Background(), contract.QuotaEpochKey, "d:"+r.name, epoch).Err()
	}
	r.gate.Store(true)
	defer r.gate.Store(false)
	deadline := time.Now().Add(30 * time.Second)
	for {
		n, err := w.plain.HGet(context.Background(), contract.QuotaEpochKey, "d:"+r.name).Int64()
		switch {
		case err == nil && n == epoch:
			r.declaredIn = epoch
			return nil
		case err != nil && !errors.Is(err, redis.Nil):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%s does not declare", r.name)
		}
		time.Sleep(time.Millisecond)
	}
}

// copyOfRedis is all that a copy has, by key.
type copyOfRedis map[string]map[string]string

func (w *realWorld) copyRedis() error {
	ctx := context.Background()
	c := copyOfRedis{}
	for _, key := range append(w.keys(), contract.QuotaEpochKey, contract.QuotaBeatsKey) {
		fields, err := w.plain.HGetAll(ctx, key).Result()
		if err != nil {
			return err
		}
		c[key] = fields
	}
	w.copied = &c
	return nil
}

func (w *realWorld) putBack(keys []string) error {
	for _, key := range keys {
		if fields := (*w.copied)[key]; len(fields) > 0 {
			if err := w.plain.HSet(context.Background(), key, fields).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare reports where the real code and s are not of one mind.
func (w *realWorld) compare(s *state) error {
	var used int8 // by all
	for i := range w.m.replicas {
		used += s.r[i].sum(0, s.r[i].last)
	}
	for i := range w.m.replicas {
		if r := &s.r[i]; r.up {
			if err := w.r[i].compare(r, int64(used)); err != nil {
				return fmt.Errorf("r%d: %w", i, err)
			}
		} else if w.r[i].leases != nil {
			return fmt.Errorf("r%d is up", i)
		}
	}
	ctx := context.Background()
	record, err := w.plain.HGetAll(ctx, w.keys()[0]).Result()
	if err != nil {
		return err
	}
	epoch, err := w.plain.HGetAll(ctx, contract.QuotaEpochKey).Result()
	if err != nil {
		return err
	}
	beats, err := w.plain.HGetAll(ctx, contract.QuotaBeatsKey).Result()
	if err != nil {
		return err
	}
	field := func(from map[string]string, name string, absent int64) int64 {
		n, err := strconv.ParseInt(from[name], 10, 64)
		if err != nil {
			return absent
		}
		return n
	}
	var got, want []any
	add := func(g, w any) { got, want = append(got, g), append(want, w) }
	add(field(record, "epoch", 0), int64(s.redis.epoch))
	if s.redis.epoch != 0 {
		add(field(record, "limit", 0), w.m.limitOf(s.redis.version))
	}
	add(field(record, "limit_version", 0), int64(s.redis.version))
	add(field(record, "settled", 0), int64(s.redis.settled))
	add(field(record, "leased", 0), int64(s.redis.leased))
	add(field(epoch, "epoch", 0), int64(s.redis.number))
	add(epoch["state"], [...]string{"", stateBuilding, stateDeclaring, stateOpen}[s.redis.phase])
	for i := range w.m.replicas {
		r, name := &s.r[i].redis, w.r[i].name
		add(field(record, "l:"+name, never), int64(r.lease))
		add(field(record, "w:"+name, never), int64(r.mark))
		add(field(record, "n:"+name, 0) > 0, r.call > 0)
		add(record["x:"+name] != "", r.shut)
		member := int64(memberNone)
		switch text, ok := epoch["m:"+name]; {
		case text == memberLost:
			member = memberGone
		case text == memberComing:
			member = memberToCome
		case ok:
			member = field(epoch, "m:"+name, memberNone)
		}
		add(member, int64(r.member))
		if w.m.retiring {
			add(beats[nextField+name] != "", r.next != 0)
		}
		add(epoch["d:"+name] != "" && epoch["d:"+name] == epoch["epoch"], r.declared)
	}
	if g, w := fmt.Sprint(got...), fmt.Sprint(want...); g != w {
		return fmt.Errorf("Redis has %s, the model %s", g, w)
	}
	return nil
}

// compare reports where the real replica and r are not of one mind. All replicas used so
// many tokens.
func (real *realReplica) compare(r *replicaState, used int64) error {
	l, a := real.leases, real.account()
	defer a.mu.Unlock()
	if a.settled+a.unsettled > used {
		return fmt.Errorf("it would refuse what fits: it takes %d tokens for settled and %d more for used, of %d", a.settled, a.unsettled, used)
	}
	var pending, wantPending strings.Builder
	for _, s := range a.pending {
		fmt.Fprint(&pending, s.seq, ":", s.tokens, " ")
	}
	for seq := r.settled; seq < r.read; seq++ {
		fmt.Fprint(&wantPending, seq+1, ":", r.used[seq], " ")
	}
	got := fmt.Sprint("lease ", a.lease, " held ", a.held, " unsettled ", a.unsettled, " pending ", pending.String(), " limit ", a.version,
		" grant ", a.grantVersion, " read ", l.at.Load(), " last ", real.Last(), " forgotten ", real.Forgotten(), " epoch ", l.epoch.Load(), " base ", l.base.Load(),
		" open ", l.open.Load(), " lost ", l.lost.Load(), " confirmed ", l.confirmed.Load() != 0, " declared ", a.declared, " call ", real.flight != nil)
	want := fmt.Sprint("lease ", r.lease, " held ", r.held(), " unsettled ", r.unsettled(), " pending ", wantPending.String(), " limit ", r.limit,
		" grant ", r.grant, " read ", r.read, " last ", r.last, " forgotten ", r.forgotten, " epoch ", r.epoch, " base ", r.base,
		" open ", r.open, " lost ", r.lost, " confirmed ", r.confirmed, " declared ", r.declared, " call ", r.call.state != callNone)
	if got != want {
		return fmt.Errorf("the code has %s\nthe model     %s", got, want)
	}
	return nil
}
