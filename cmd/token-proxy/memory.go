package main

import (
	"context"
	"runtime"
	"runtime/metrics"
	"time"
)

const (
	// tidyEvery is how often it is looked whether memory should be given back.
	tidyEvery = time.Second
	// tidyAfter is for how many looks nothing must have been collected: under load the runtime
	// does it more often than that.
	tidyAfter = 3
)

// tidy collects garbage where the runtime, which does it when the heap has doubled, would not
// for up to two minutes: after many streams have begun at the same time. Each has had a
// goroutine, with buffers, until its answer began; then nothing is allocated any more, and a
// container goes on being charged for the peak. While garbage is collected anyway, or there is
// little of it, nothing is done.
func tidy(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	m := newMemory()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if m.worthIt() {
			runtime.GC()
			runtime.GC() // also of what pools have kept over the first
		}
	}
}

// memory is what the runtime says, as of the first look after its last collection and now.
type memory struct {
	samples []metrics.Sample
	cycles  uint64 // collections until the last look
	quiet   int    // looks since the last one
	stacks  uint64 // largest size of all stacks since the last collection
}

func newMemory() *memory {
	m := &memory{}
	for _, name := range []string{"/gc/cycles/total:gc-cycles", "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/stacks:bytes"} {
		m.samples = append(m.samples, metrics.Sample{Name: name})
	}
	return m
}

// worthIt is called at each look, and reports whether there was no collection during the last
// ones, but a third of what is in use may be garbage, or the stacks of goroutines that have ended
// were a quarter of it.
func (m *memory) worthIt() bool {
	metrics.Read(m.samples)
	cycles, live, objects, stacks := m.samples[0].Value.Uint64(), m.samples[1].Value.Uint64(), m.samples[2].Value.Uint64(), m.samples[3].Value.Uint64()
	if cycles != m.cycles {
		m.cycles, m.stacks, m.quiet = cycles, stacks, 0
		return false
	}
	m.stacks = max(m.stacks, stacks)
	if m.quiet++; m.quiet < tidyAfter {
		return false
	}
	const slack = 1 << 20
	return objects > live+(live+stacks)/2+slack || m.stacks-stacks > (live+stacks)/4+slack
}
