package quota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// The real code does what the model does, along random schedules of it, to the end.
func TestCodeFollowsTheModel(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client, plain := server.Client(), server.Client()
	schedules := 250
	if testing.Short() {
		schedules = 30
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	g := &gate{}
	client.AddHook(g)
	counts := map[string]int{}
	for range schedules {
		m := schedulable(rng)
		p := newPair(t, m, g, client, plain)
		err := p.walk(rng, 80)
		for _, a := range p.trace {
			counts[name(a)]++
		}
		p.w.close()
		if err != nil {
			t.Fatalf("%s\n%s\n%v", m.name, (&explored{trace: p.trace}).list(), err)
		}
	}
	t.Logf("steps: %v", counts)
	for k := range kinds {
		if k == doFollow || testing.Short() {
			continue // the former is part of what is heard
		}
		if counts[name(action{kind: k})] == 0 {
			t.Errorf("no schedule had the step %q", name(action{kind: k}))
		}
	}
}

// The real code does what the model does also where it would go wrong with a flaw.
func TestCodeWithstandsSchedulesOfFlaws(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	client, plain := server.Client(), server.Client()
	g := &gate{}
	client.AddHook(g)
	for f := flawNone + 1; f < flaws; f++ {
		m := flawed(f)
		found := m.explore(flawBound, 16)
		m = flawed(f)
		m.flaw = flawNone
		p := newPair(t, m, g, client, plain)
		err := p.follow(append(found.trace, found.settling...))
		p.w.close()
		if err != nil {
			t.Errorf("%v\n%s\n%v", f, (&explored{trace: p.trace}).list(), err)
		}
	}
}

func newPair(t *testing.T, m *model, g *gate, client, plain *redis.Client) *pair {
	t.Helper()
	return &pair{m: m, s: m.beginning(), w: newRealWorld(t, m, g, client, plain)}
}

// schedulable is a configuration without anything that the real code cannot be made to do
// step by step.
func schedulable(rng *rand.Rand) *model {
	m := &model{
		replicas: 2, limits: []int8{5, 2, 6}, events: 3, sizes: []int8{1, 2}, used: [3][]int8{1: {0, 1}, 2: {0, 1, 2}}, spares: []int8{0, 1, 2},
		late: 1, timeouts: 3, crashes: 2, epochs: 4, losses: 3, drop: true, copies: true, keeperCrashes: 2, lateKeeper: true, spurious: true,
		lazy: true, grants: true, forgets: true,
	}
	switch rng.IntN(4) {
	case 0:
		m.name, m.missing = "missing record", true
	case 1:
		m.name, m.losable = "lost replica", true
	case 2:
		m.name, m.retiring, m.silent = "retiring replicas", true, true
	case 3:
		m.name, m.replicas = "three replicas", 3
	}
	return m
}

func name(a action) string {
	text := a.String()
	if _, rest, ok := strings.Cut(text, ": "); ok {
		text = rest
	}
	text, _, _ = strings.Cut(text, ",")
	return strings.TrimRight(text, " -0123456789")
}

// pair is the model and the real code, taking the same steps.
type pair struct {
	m     *model
	s     *state
	w     *realWorld
	trace []action
}

// do takes a step, and compares.
func (p *pair) do(a action) error {
	p.trace = append(p.trace, a)
	before := *p.s
	if err := p.m.do(p.s, a); err != nil {
		return fmt.Errorf("the model alone: %w", err)
	}
	if err := p.m.check(p.s); err != nil {
		return fmt.Errorf("the model alone: %w", err)
	}
	if err := p.w.do(&before, p.s, a); err != nil {
		return err
	}
	if err := p.w.compare(p.s); err != nil {
		return err
	}
	if a.kind == doForget && a.a == 0 {
		return p.do(action{doForget, a.r, 1, 0}) // Forgettable does both at once
	}
	return nil
}

// walk takes n random steps, and then lets both come to rest.
func (p *pair) walk(rng *rand.Rand, n int) error {
	var buf []action
	for range n {
		if buf = slices.DeleteFunc(p.m.actions(p.s, buf[:0]), p.w.withholds); len(buf) == 0 {
			break // all that it has is used up
		}
		if err := p.do(pick(rng, buf)); err != nil {
			return err
		}
	}
	return p.m.settleWith(p.s, p.do)
}

// withholds reports whether the code does not give out what a takes: in the model whatever is
// idle may be taken, and the code gives out less once the limit was lowered below what is leased.
func (w *realWorld) withholds(a action) bool {
	if a.kind != doTake {
		return false
	}
	account := w.r[a.r].account()
	defer account.mu.Unlock()
	return int64(a.a) > account.idle()+min(account.free(), 0)
}

// follow takes those of the steps that can be taken, and then lets both come to rest.
func (p *pair) follow(steps []action) error {
	for _, a := range steps {
		if !slices.Contains(p.m.actions(p.s, nil), a) || p.w.withholds(a) {
			continue
		}
		if err := p.do(a); err != nil {
			return err
		}
	}
	return p.m.settleWith(p.s, p.do)
}

// pick chooses a kind of step first, so that rare kinds are not rare; and mostly one that
// requests and events need, so that there are some to lose.
func pick(rng *rand.Rand, actions []action) action {
	var of [kinds][]action
	var work, others, losses []kind
	for _, a := range actions {
		if len(of[a.kind]) == 0 {
			switch {
			case a.kind >= doFlush, a.kind == doCrash, a.kind == doChangeLimit, a.kind == doNumber:
				losses = append(losses, a.kind)
			case a.kind <= doAnswer, a.kind == doShip, a.kind == doForget, a.kind == doHear, a.kind == doRestart:
				work = append(work, a.kind)
			default:
				others = append(others, a.kind)
			}
		}
		of[a.kind] = append(of[a.kind], a)
	}
	from := work
	switch n := rng.IntN(20); {
	case n == 0 && len(losses) > 0 || len(work)+len(others) == 0:
		from = losses
	case n < 8 && len(others) > 0 || len(work) == 0:
		from = others
	}
	k := from[rng.IntN(len(from))]
	if k == doLaunch {
		// The last are those for which somebody waits.
		return of[k][max(rng.IntN(len(of[k])), rng.IntN(len(of[k])))]
	}
	return of[k][rng.IntN(len(of[k]))]
}

// do lets the real code do what led the model from before to after.
func (w *realWorld) do(before, after *state, a action) error {
	if a.kind >= doNumber {
		return w.doOthers(before, after, a)
	}
	ctx := context.Background()
	r, b := w.r[a.r], &before.r[a.r]
	l := r.leases
	switch a.kind {
	case doTake:
		acct := replayed
		acct.LimitVersion = int64(b.grant)
		if out := l.TryReserve(acct, int64(a.a)); out.Verdict != Granted {
			return fmt.Errorf("%d tokens are not granted: %+v", a.a, out)
		}
	case doRelease:
		l.Release(Hold{replayed.Customer, replayed.Period.ID, int64(a.a)})
	case doComplete:
		r.append(a.a, a.b)
		if !w.m.lazy {
			return r.read()
		}
	case doRead:
		return r.read()
	case doLaunch:
		w.launch(r, a, after.r[a.r].call.state == callNone)
	case doDeliver:
		var err error
		r.answer, err = l.sync.Run(ctx, w.plain, []string{r.flight.record}, r.args...).Slice()
		return err
	case doAnswer:
		l.land(r.flight, r.answer, nil)
		r.flight = nil
	case doAbandon:
		w.abandon(r, b)
		l.land(r.flight, nil, context.DeadlineExceeded)
		r.flight = nil
	case doLate:
		return w.put(syncScript, r.late...)
	case doCrash:
		w.abandon(r, b)
		w.end(r)
	case doRestart:
		return w.restart(r, b, a.a)
	case doHear:
		return l.followOnce(ctx)
	case doDeclare:
		return w.declare(r, int64(b.epoch))
	case doForget:
		if a.a == 1 {
			w.forget(r, int64(b.forgetAcked))
		}
	case doGrant:
		acc := r.account()
		acc.learn(w.m.limitOf(before.version), int64(before.version))
		acc.mu.Unlock()
	case doExpire:
		l.confirmed.Store(0)
	case doSay:
		l.beating.Lock()
		l.retiring = true
		l.beating.Unlock()
		return w.plain.HSet(ctx, contract.QuotaBeatsKey, r.name, l.beat(l.epoch.Load(), beatRetired)).Err()
	case doClose:
		// It does not wait to be taken off the register.
		beat := l.beat(l.epoch.Load(), beatRetired)
		w.end(r)
		return w.plain.HSet(ctx, contract.QuotaBeatsKey, r.name, beat).Err()
	case doShut:
		return w.keeper.Shut(ctx, int64(before.epoch), r.name)
	case doFree:
		_, err := w.keeper.Release(ctx, r.name, []Account{replayed})
		return err
	case doRetire:
		return w.retire(r, int64(before.epoch), a.a == 1)
	case doJoin:
		return w.keeper.Join(ctx, int64(before.epoch), r.name, int64(b.pgBase))
	}
	return nil
}

// retire takes r off the register, or only disbelieves its beat.
func (w *realWorld) retire(r *realReplica, epoch int64, disbelieve bool) error {
	ctx := context.Background()
	beats, err := w.keeper.Beats(ctx)
	if err != nil || disbelieve {
		return errors.Join(err, w.keeper.Disbelieve(ctx, r.name, beats[r.name]))
	}
	// The model says that the server is one that the epoch trusts.
	id, err := identify(ctx, w.plain)
	if err != nil {
		return err
	}
	if err := w.plain.HSet(ctx, contract.QuotaEpochKey, "node:"+id, epoch).Err(); err != nil {
		return err
	}
	if ok, err := w.keeper.Retire(ctx, epoch, r.name, beats[r.name]); err != nil || !ok {
		return fmt.Errorf("retire: %v, %w", ok, err)
	}
	return nil
}

// launch makes a call of r. Without a connection that may be used it fails.
func (w *realWorld) launch(r *realReplica, a action, failed bool) {
	acc := r.account()
	if a.a > 0 {
		acc.waiting = append(acc.waiting, &wait{tokens: int64(a.a)})
	}
	acc.demand = demand{largest: int64(a.b >> 1)} // whatever history led to so much to spare
	acc.answeredAt = 0
	f := r.leases.launch(acc, a.b&1 != 0)
	acc.waiting = nil
	acc.mu.Unlock()
	if failed {
		r.leases.land(f, nil, ErrUntrusted)
		return
	}
	r.flight, r.args, r.answer = f, f.call.args(r.name), nil
}

// abandon keeps the call of r that nobody waits for any more, if the model does.
func (w *realWorld) abandon(r *realReplica, before *replicaState) {
	if before.call.state == callSent && before.late[0].state == callNone {
		r.late = r.args
	}
}

// restart begins a life of r; used says what its open requests used.
func (w *realWorld) restart(r *realReplica, before *replicaState, used int8) error {
	for range before.open1 {
		r.append(1, used%3)
		used /= 3
	}
	for range before.open2 {
		r.append(2, used%3)
		used /= 3
	}
	w.start(r)
	return r.read()
}

// read has r's ledger read r's journal.
func (r *realReplica) read() error {
	r.leases.reading.Lock()
	defer r.leases.reading.Unlock()
	return r.leases.readOn()
}

func (w *realWorld) forget(r *realReplica, acked int64) {
	n, err := r.leases.Forgettable(context.Background())
	if err != nil {
		return // it is not in the epoch that holds
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = max(r.gone, min(n, acked))
}

// doOthers does what no replica does.
func (w *realWorld) doOthers(before, after *state, a action) error {
	ctx := context.Background()
	switch a.kind {
	case doKeep:
		return w.keep(before, &lateKeeper{
			step: before.keeper.step, epoch: before.epoch, nodes: before.keeper.nodes, version: before.version, settled: w.m.sumOfBases(before),
		}, func(r *replicaState) int8 { return r.pgBase }, (*replicaState).toCome)
	case doLateKeeper:
		return w.keep(before, &before.late, func(r *replicaState) int8 { return r.lateBase }, func(r *replicaState) int8 { return r.lateMember })
	case doMake:
		return w.make(before, a.a)
	case doOpen:
		e, err := w.keeper.Epoch(ctx)
		if err != nil || len(e.Undeclared()) > 0 {
			return fmt.Errorf("undeclared are %v: %w", e.Undeclared(), err)
		}
		return w.keeper.Open(ctx, int64(before.epoch))
	case doSetLimit:
		acct := replayed
		acct.Limit, acct.LimitVersion = w.m.limitOf(before.version), int64(before.version)
		return w.keeper.SetLimit(ctx, acct)
	case doFlush:
		return w.plain.FlushAll(ctx).Err()
	case doDropRecord:
		return w.plain.Del(ctx, w.keys()...).Err()
	case doDropEpoch:
		return w.plain.Del(ctx, contract.QuotaEpochKey, contract.QuotaBeatsKey).Err()
	case doSnapshot:
		return w.copyRedis()
	case doRestartRedis:
		return w.restartRedis(a.a>>1, a.a&1 != 0)
	}
	return nil
}

// restartRedis does what ending the process of a server would do, and what was copied.
func (w *realWorld) restartRedis(which int8, old bool) error {
	var keys []string
	if which != startEpoch {
		keys = w.keys()
		for i := range w.m.replicas {
			if r := w.r[i]; r.flight != nil {
				r.leases.land(r.flight, nil, errors.New("connection lost"))
				r.flight = nil
			}
		}
	}
	if which != startRecord {
		keys = append(keys, contract.QuotaEpochKey, contract.QuotaBeatsKey)
	}
	if err := w.plain.Del(context.Background(), keys...).Err(); err != nil || !old {
		return err
	}
	return w.putBack(keys)
}

// keep does a step of the keeper.
func (w *realWorld) keep(s *state, c *lateKeeper, base, member func(*replicaState) int8) error {
	ctx := context.Background()
	switch c.step {
	case keeperBegin:
		var members, lost []string
		for i := range w.m.replicas {
			switch member(&s.r[i]) {
			case memberToCome:
				members = append(members, w.r[i].name)
			case memberGone:
				lost = append(lost, w.r[i].name)
			}
		}
		return w.keeper.Begin(ctx, int64(c.epoch), []string{fmt.Sprint(c.nodes.record), fmt.Sprint(c.nodes.epoch)}, members, lost)
	case keeperPut:
		if s.redis.number != c.epoch && c != &s.late {
			return nil // Put looks first
		}
		return w.put(putScript, int64(c.epoch), w.m.limitOf(c.version), int64(c.version), int64(c.settled), time.Now().Add(time.Hour).UnixMilli(), 0)
	case keeperMembers:
		bases := map[string]int64{}
		var lost []string
		for i := range w.m.replicas {
			switch r := &s.r[i]; r.status {
			case replicaLive:
				bases[w.r[i].name] = int64(base(r))
			case replicaLost:
				lost = append(lost, w.r[i].name)
			}
		}
		err := w.keeper.Declare(ctx, int64(c.epoch), bases, lost)
		if s.redis.number != c.epoch && errors.Is(err, ErrUnavailable) {
			err = nil
		}
		return err
	}
	return nil
}

// make does a step of Keeper.Put in an epoch that is declaring or open.
func (w *realWorld) make(s *state, maker int8) error {
	k := s.makers[maker]
	switch k.step {
	case makerExpect, makerExpectAgain:
		err := w.keeper.expect(context.Background(), int64(k.epoch))
		if holds := s.redis.number == k.epoch; holds != (err == nil) {
			return fmt.Errorf("epoch %d is expected while %d holds: %w", k.epoch, s.redis.number, err)
		}
	case makerPut:
		if s.based != k.epoch {
			return nil
		}
		sealed := 0
		if k.sealed {
			sealed = 1
		}
		return w.put(putScript, int64(k.epoch), w.m.limitOf(s.version), int64(s.version), int64(w.m.sumOfBases(s)), time.Now().Add(time.Hour).UnixMilli(), sealed)
	case makerOpen:
		return w.put(openScript, int64(k.epoch))
	}
	return nil
}
