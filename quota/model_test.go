package quota

import (
	"slices"
	"testing"
)

// model*_test.go hold a model of the protocol between replicas, Redis and the control
// plane, with a real account's arithmetic and the scripts in Go:
//
//	model_state_test.go     what there is
//	model_steps_test.go     what may happen, and when
//	model_replica_test.go   … at a replica
//	model_keeper_test.go    … at the control plane; the rules for its author
//	model_redis_test.go     … to Redis
//	model_scripts_test.go   … in a script; model_lua_test.go compares with Redis
//	model_check_test.go     what must never be, and how all comes to rest
//	model_explore_test.go   visits all states
//	model_schedule_test.go  the real code does what the model does; model_replay_test.go

// How many states of each configuration are visited: in -short or with the race detector,
// and otherwise: that is all of them, more than ten million, and takes about half a minute.
const (
	exploreStatesShort = 20_000
	exploreStates      = 2_000_000
)

// one is a configuration in which everything is as small as can be: one request of one
// token, of which one replica has to have all that there is; one call each on the way.
func one() *model {
	return &model{
		replicas: 2, limits: []int8{1}, events: 1, sizes: []int8{1}, used: [3][]int8{1: {1}, 2: {1}}, spares: []int8{0}, epochs: 1,
	}
}

// configurations are what is explored: each is large in one direction.
func configurations() []*model {
	var all []*model
	add := func(name string, change func(*model)) {
		m := one()
		change(m)
		m.name = name
		all = append(all, m)
	}
	late := func(m *model) { m.timeouts, m.late = 1, 1 }
	loss := func(m *model) { m.epochs, m.losses, m.forgets = 2, 1, true }

	// One epoch.
	add("requests of different sizes", func(m *model) {
		late(m)
		m.limits, m.sizes, m.used[1], m.crashes = []int8{3}, []int8{1, 2}, []int8{0, 1}, 1
	})
	add("several requests and late calls", func(m *model) {
		m.limits, m.events, m.sizes, m.timeouts, m.late, m.crashes = []int8{4}, 3, []int8{2}, 2, 2, 1
	})
	add("three replicas", func(m *model) {
		late(m)
		m.replicas, m.limits, m.crashes = 3, []int8{2}, 1
	})
	add("a limit is lowered", func(m *model) {
		late(m)
		m.limits, m.sizes, m.crashes, m.grants = []int8{3, 1}, []int8{2}, 1, true
	})
	add("a limit is lowered and raised", func(m *model) {
		m.limits, m.sizes, m.grants = []int8{3, 1, 4}, []int8{2}, true
	})

	// Redis loses its data.
	add("loss, crash and late calls", func(m *model) {
		late(m)
		loss(m)
		m.crashes, m.forgets = 1, false
	})
	add("loss, crash and forgetting", func(m *model) {
		loss(m)
		m.crashes = 1
	})
	add("loss and larger requests", func(m *model) {
		loss(m)
		m.limits, m.sizes = []int8{3}, []int8{2}
	})
	add("loss and several requests", func(m *model) {
		loss(m)
		m.events = 2
	})
	add("loss with three replicas", func(m *model) {
		loss(m)
		m.replicas, m.forgets = 3, false
	})
	add("loss while what was heard is not acted on", func(m *model) {
		loss(m)
		m.lazy, m.slow = true, true
	})
	add("loss while a limit is lowered", func(m *model) {
		loss(m)
		m.limits, m.forgets = []int8{2, 1}, false
	})
	add("two losses", func(m *model) {
		loss(m)
		m.epochs, m.losses = 3, 2
	})
	add("old data", func(m *model) {
		loss(m)
		m.copies = true
	})
	add("two losses of the record or the epoch alone", func(m *model) {
		loss(m)
		m.epochs, m.losses, m.drop, m.forgets = 3, 2, true, false
	})
	add("old data of the record or the epoch alone", func(m *model) {
		loss(m)
		m.drop, m.copies = true, true
	})

	// The control plane.
	add("epochs without a reason", func(m *model) { m.epochs, m.spurious, m.forgets = 3, true, true })
	add("a keeper dies, its commands are late", func(m *model) {
		loss(m)
		m.epochs, m.keeperCrashes, m.lateKeeper, m.forgets = 3, 1, true, false
	})
	add("records are made late", func(m *model) {
		loss(m)
		m.missing, m.noteLate, m.forgets = true, true, false
	})
	add("a replica is lost", func(m *model) {
		loss(m)
		m.losable, m.forgets = true, false
	})
	add("replicas retire and come back, with a loss", func(m *model) {
		loss(m)
		m.retiring, m.forgets, m.crashes = true, false, 1
	})
	add("replicas retire and old data comes back", func(m *model) {
		loss(m)
		m.retiring, m.copies, m.forgets = true, true, false
		m.first = []action{{kind: doClose}, {kind: doSnapshot}, {kind: doRestart}}
	})
	add("a replica retires and is silent", func(m *model) {
		loss(m)
		m.retiring, m.silent, m.forgets, m.crashes = true, true, false, 0
	})
	add("replicas retire with calls on the way", func(m *model) {
		late(m)
		loss(m)
		m.retiring, m.forgets = true, false
	})
	return all
}

// In every state that can be reached, whatever happens in whatever order, nobody uses more
// than the limit, no event is lost or counted twice, and everything can come to rest.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, m := range configurations() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			most := exploreStates
			if testing.Short() || raceEnabled {
				most = exploreStatesShort
			}
			out := m.explore(most, 64)
			t.Log(out.String())
			if out.violation != nil || most == exploreStates && !out.complete {
				t.Fail()
			}
		})
	}
}

// flawed is a small configuration in which a flaw does harm, after a while.
func flawed(f flaw) *model {
	nextEpoch := []action{{kind: doNumber}, {kind: doKeep}, {kind: doKeep}, {kind: doKeep}, {kind: doKeep}}
	m := one()
	m.limits, m.sizes, m.used[1] = []int8{3}, []int8{2}, []int8{0, 1}
	switch f {
	case flawNoMark:
		m.timeouts = 1
	case flawNoCallNumbers:
		m.timeouts, m.late = 1, 1
	case flawNumbersStartAgain:
		m.timeouts, m.late, m.crashes = 2, 1, 1
	case flawFreeWithoutFloor, flawShrinkLate:
	default:
		m.epochs, m.losses = 2, 1
	}
	switch f {
	case flawNoGuard, flawGuardAnyEpoch:
		m.copies = true
	case flawForgetUnsettled:
		m.forgets = true
	case flawForgetInAnyEpoch, flawAckedLate, flawBasesEarly:
		m.forgets, m.spurious, m.losses = true, true, 0
	case flawResume:
		m.keeperCrashes = 1
	case flawBaseHighest:
		m.events, m.sizes = 2, []int8{1}
	case flawRemake:
		m.drop = true
	case flawNoteLate:
		m.drop, m.missing, m.keeperCrashes = true, true, 1
	case flawNoSeal:
		m.missing, m.noteLate = true, true
	case flawSealWhenOpen:
		m.missing = true
		m.first = slices.Concat([]action{{kind: doMake}}, nextEpoch[:3], []action{{kind: doMake}, {kind: doMake}}, nextEpoch[3:])
	case flawPutTwice:
		m.spurious, m.first = true, nextEpoch
	case flawFreeEarly:
		m.losable = true
	case flawOpenWithoutLost:
		m.losable = true
		m.first = slices.Concat([]action{{doLaunch, 0, 2, 0}, {kind: doDeliver}, {kind: doAnswer}, {kind: doFlush}}, nextEpoch)
	case flawRetireUnacked, flawRetireAcked:
		m.retiring = true
	case flawRetireAnywhere:
		m.retiring, m.copies = true, true
		m.first = []action{{kind: doClose}, {kind: doRestart}, {kind: doSnapshot}}
	case flawOldLife:
		m.retiring, m.copies = true, true
		m.first = []action{{kind: doClose}, {kind: doSnapshot}, {kind: doRetire}, {kind: doRestart}, {kind: doHear}, {kind: doJoin}, {kind: doHear}}
	case flawNoteNext:
		m.retiring, m.silent = true, true
		m.first = slices.Concat([]action{{doLaunch, 0, 2, 0}, {kind: doDeliver}, {kind: doAnswer}, {kind: doTake, a: 2}, {doComplete, 0, 2, 1},
			{doLaunch, 0, 0, 1}, {kind: doDeliver}, {kind: doAnswer}, {kind: doSay}}, nextEpoch)
	case flawCloseDirty:
		m.retiring, m.timeouts, m.late = true, 1, 1
	case flawDeclareEarly:
		m.timeouts, m.late, m.losses = 1, 1, 0
		m.first = slices.Concat([]action{{doLaunch, 0, 2, 0}, {kind: doDeliver}, {kind: doAnswer}, {kind: doTake, a: 2}}, nextEpoch)
	}
	m.flaw = f
	return m
}

// flawBound is more states than have to be visited to find any flaw.
const flawBound = 100_000

// The model can fail: it finds each flaw, and nothing where there is none.
func TestModelFindsFlaws(t *testing.T) {
	t.Parallel()
	for f := flawNone + 1; f < flaws; f++ {
		t.Run(f.String(), func(t *testing.T) {
			m := flawed(f)
			out := m.explore(flawBound, 16)
			t.Log(out.String())
			if out.violation == nil {
				t.Fatal("the model does not notice")
			}
			if m.flaw = flawNone; raceEnabled {
				return // one goroutine in which no race can be, at ten times the price: without the detector the rest is looked at
			}
			if sound := m.explore(out.states, 16); sound.violation != nil {
				t.Errorf("without the flaw as well: %s", sound.String())
			}
		})
	}
}
