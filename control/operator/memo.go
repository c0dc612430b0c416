package operator

import (
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// memo is what this process remembers of a box. All of it may be forgotten: what has to
// outlive the process is in Postgres or in the cluster. It belongs to the worker that has the
// box, except what mu guards.
type memo struct {
	steps steps
	op    activity
	// minted are secrets, with a token that this process made and has not seen registered. Only such a one
	// is registered once more; anything else in the Secret may be somebody's who put it there.
	minted Secrets
	// revoked names the tokens that were told to end, so that they are not told again.
	revoked string
	// refusedSince is when the cluster first refused what the rights of the box should allow.
	refusedSince time.Time
	// claim is what was told of a claim that cannot be what it shall be.
	claim string
	// failures counts failed provisions in a row.
	failures int
	// recounted is when the quota was last made anew.
	recounted time.Time
	// dealt is how many strikes there were when the pod was last deleted because of them.
	dealt int
	// nudged is when the Deployment was last touched, and nudges how often in a row.
	nudged time.Time
	nudges int

	mu        sync.Mutex
	state     control.BoxState // as last known
	namespace string
	strikes   int // health checks in a row that found the gateway not ready
}

func (m *memo) known(state control.BoxState, namespace string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.namespace = state, namespace
}

// strike notes what a health check has found, and returns how many in a row were bad.
func (m *memo) strike(ready bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ready {
		m.strikes = 0
	} else {
		m.strikes++
	}
	return m.strikes
}

// due reports whether so many strikes in a row are out, also if the last pass to see that failed or
// came late.
func (m *memo) due(strikes int) bool {
	if strikes < m.dealt {
		m.dealt = 0 // it was ready in between
	}
	return strikes >= m.dealt-m.dealt%strikesOut+strikesOut
}

func (m *memo) struck() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.strikes
}

// memos are the boxes that this process has seen.
type memos struct {
	mu sync.Mutex
	m  map[string]*memo
}

func (s *memos) get(id string) *memo {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string]*memo)
	}
	m, ok := s.m[id]
	if !ok {
		m = &memo{}
		s.m[id] = m
	}
	return m
}

// find returns the memo of a box that was seen, or nil.
func (s *memos) find(id string) *memo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[id]
}

func (s *memos) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
}

// each calls do for a copy of what there is.
func (s *memos) each(do func(id string, m *memo)) {
	s.mu.Lock()
	copied := make(map[string]*memo, len(s.m))
	for id, m := range s.m {
		copied[id] = m
	}
	s.mu.Unlock()
	for id, m := range copied {
		do(id, m)
	}
}
