package quota

import "testing"

func calls() *model {
	return &model{
		name: "calls", replicas: 2, limits: []int8{3}, events: 1, sizes: []int8{2}, used: [3][]int8{1: {0, 1}, 2: {1}},
		spares: []int8{0}, late: 1, timeouts: 1, crashes: 1, epochs: 1,
	}
}

func epochs() *model {
	return &model{
		name: "epochs", replicas: 2, limits: []int8{3}, events: 1, sizes: []int8{2}, used: [3][]int8{2: {1}},
		spares: []int8{0}, late: 0, timeouts: 0, crashes: 0, epochs: 2, losses: 1, forgets: false,
	}
}

func TestModelFindsFlaws(t *testing.T) {
	for f := flawNone + 1; f < flaws; f++ {
		t.Run(f.String(), func(t *testing.T) {
			m := flawed(f)
			out := m.explore(1_000_000, 1)
			t.Log(out.String())
			if out.violation == nil {
				t.Error("the model does not notice")
			}
		})
	}
}

func flawed(f flaw) *model {
	m := calls()
	switch f {
	case flawNoMark, flawNoCallNumbers, flawNumbersStartAgain, flawFreeWithoutFloor, flawShrinkLate:
	default:
		m = epochs()
		m.timeouts, m.late, m.crashes, m.forgets = 1, 1, 1, true
	}
	switch f {
	case flawNoGuard, flawTrustEarly:
		m.copies = true
	case flawForgetInAnyEpoch, flawAckedLate, flawBasesEarly:
		m.spurious = true
	case flawResume:
		m.keeperCrashes = 1
	case flawAllRows:
		m.events = 2
	case flawRemake:
		m.drop = true
	case flawPutTwice:
		m.lateKeeper, m.keeperCrashes = true, 1
		m.epochs = 3
		m.losses = 2
	case flawFreeEarly:
		m.losable = true
	case flawRetireUnacked, flawRetireAcked, flawRetireLeasing, flawJoinAcked:
		m.retiring = true
	}
	m.flaw = f
	return m
}
