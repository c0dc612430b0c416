package quota

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// explored is what an exploration came to.
type explored struct {
	states, steps, depth int
	complete             bool     // there is no state beyond
	violation            error    // nil if there is none
	trace                []action // the shortest way to it
	settling             []action // from there, if it is one of settling
}

// explore visits every state within the configuration once, the nearest first, until a
// violation is found or so many states were seen. From one state in settleEvery everything is
// brought to rest.
func (m *model) explore(most, settleEvery int) explored {
	e := &explorer{m: m, seed: maphash.MakeSeed(), seen: newHashSet()}
	first := m.initial()
	level := []visit{{*first, e.visit(first, -1, action{})}}
	var next []visit
	var buf []action
	out := explored{complete: true}
	for ; len(level) > 0; out.depth++ {
		next = next[:0]
		for i := range level {
			v := &level[i]
			if int(v.id)%settleEvery == 0 {
				if path, err := m.settle(&v.state); err != nil {
					out.violation, out.trace, out.settling = err, e.path(v.id), path
					return e.done(out)
				}
			}
			if len(e.parents) >= most {
				out.complete = false
				continue
			}
			buf = m.actions(&v.state, buf[:0])
			for _, a := range buf {
				s := v.state
				out.steps++
				err := m.do(&s, a)
				if err == nil {
					err = m.check(&s)
				}
				if err != nil {
					out.violation, out.trace = err, append(e.path(v.id), a)
					return e.done(out)
				}
				if id := e.visit(&s, v.id, a); id >= 0 {
					next = append(next, visit{s, id})
				}
			}
		}
		level, next = next, level
	}
	return e.done(out)
}

type visit struct {
	state state
	id    int32
}

type explorer struct {
	m       *model
	seed    maphash.Seed
	seen    *hashSet
	parents []int32
	by      []action
}

func (e *explorer) done(out explored) explored {
	out.states = len(e.parents)
	return out
}

// visit notes a state, and returns its number; -1 if it was seen before.
func (e *explorer) visit(s *state, parent int32, by action) int32 {
	if !e.seen.add(s.hash(e.seed, e.m.replicas)) {
		return -1
	}
	e.parents = append(e.parents, parent)
	e.by = append(e.by, by)
	return int32(len(e.parents) - 1)
}

// path is how the state with a number was reached.
func (e *explorer) path(id int32) (path []action) {
	for ; e.parents[id] >= 0; id = e.parents[id] {
		path = append(path, e.by[id])
	}
	slices.Reverse(path)
	return append(slices.Clone(e.m.first), path...)
}

func (e *explored) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d states, %d steps, depth %d, complete %v", e.states, e.steps, e.depth, e.complete)
	if e.violation == nil {
		return b.String()
	}
	fmt.Fprintf(&b, ": %v\n%s", e.violation, e.list())
	return b.String()
}

// list shows the way to the violation.
func (e *explored) list() string {
	var b strings.Builder
	for i, a := range e.trace {
		fmt.Fprintf(&b, "%4d %v\n", i+1, a)
	}
	for _, a := range e.settling {
		fmt.Fprintf(&b, "   … %v\n", a)
	}
	return b.String()
}

// hashSet holds hashes. Two states with the same one would be taken for one: of 10 million,
// that happens once in 300,000 runs.
type hashSet struct {
	table []uint64 // 0 is free
	used  int
}

func newHashSet() *hashSet { return &hashSet{table: make([]uint64, 1<<16)} }

// add reports whether h was not there.
func (s *hashSet) add(h uint64) bool {
	h = max(h, 1)
	if !s.put(h) {
		return false
	}
	if s.used++; s.used > len(s.table)/2 {
		old := s.table
		s.table = make([]uint64, 2*len(old))
		for _, h := range old {
			if h != 0 {
				s.put(h)
			}
		}
	}
	return true
}

func (s *hashSet) put(h uint64) bool {
	for i := h & uint64(len(s.table)-1); ; i = (i + 1) & uint64(len(s.table)-1) {
		switch s.table[i] {
		case 0:
			s.table[i] = h
			return true
		case h:
			return false
		}
	}
}
