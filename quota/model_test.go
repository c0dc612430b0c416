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

// flawBound is more states than have to be visited to find any flaw.
const flawBound = 500_000

// flawed is a small configuration in which a flaw does harm.
func flawed(f flaw) *model {
	// Calls alone; one epoch.
	m := &model{
		replicas: 2, limits: []int8{3}, events: 1, sizes: []int8{2}, used: [3][]int8{1: {0, 1}, 2: {1}}, spares: []int8{0}, epochs: 1,
	}
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
	// An epoch follows.
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
	case flawPutTwice:
		m.spurious = true
	case flawFreeEarly:
		m.losable = true
	case flawRetireUnacked, flawRetireAcked:
		m.retiring = true
	case flawCloseDirty:
		m.retiring, m.timeouts, m.late = true, 1, 1
	case flawDeclareEarly:
		m.timeouts, m.late, m.losses, m.spurious, m.used = 1, 1, 0, true, [3][]int8{} // nothing is ever used
	}
	m.flaw = f
	return m
}

func TestModelFindsFlaws(t *testing.T) {
	for f := flawNone + 1; f < flaws; f++ {
		t.Run(f.String(), func(t *testing.T) {
			m := flawed(f)
			out := m.explore(flawBound, 16)
			t.Log(out.String())
			if out.violation == nil {
				t.Fatal("the model does not notice")
			}
			m.flaw = flawNone
			if sound := m.explore(out.states, 16); sound.violation != nil {
				t.Errorf("without the flaw as well: %s", sound.String())
			}
		})
	}
}
