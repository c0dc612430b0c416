package proc

import (
	"fmt"
	"time"
)

// Meter measures the processor time of a fixed set of processes between two moments. To read
// it takes a few microseconds, so that the reading does not disturb what is measured.
type Meter struct {
	pids  []int
	begin []time.Duration // -1 for one that was gone
	spent time.Duration
}

// NewMeter is about the processes and their descendants that live now; nil ones are none.
func NewMeter(procs ...*Process) (*Meter, error) {
	m := &Meter{}
	for _, p := range procs {
		if p == nil {
			continue
		}
		pids, err := p.Tree()
		if err != nil {
			return nil, fmt.Errorf("processor time of %s: %w", p.name, err)
		}
		m.pids = append(m.pids, pids...)
	}
	m.begin = make([]time.Duration, len(m.pids))
	return m, nil
}

// Begin sets the first moment.
func (m *Meter) Begin() {
	for i, pid := range m.pids {
		d, err := cpuOf(pid)
		if err != nil {
			d = -1
		}
		m.begin[i] = d
	}
}

// End sets the second. What a process that has ended meanwhile used is not counted.
func (m *Meter) End() {
	m.spent = 0
	for i, pid := range m.pids {
		if d, err := cpuOf(pid); err == nil && m.begin[i] >= 0 {
			m.spent += d - m.begin[i]
		}
	}
}

// Spent is the time between the two.
func (m *Meter) Spent() time.Duration { return m.spent }
