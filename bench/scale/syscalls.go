package scale

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/lab"
	"github.com/andreabadesso/openclaw-cloud/bench/load"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Syscalls counts system calls per request and per event, under a load so small that the
// counting does not change much.
type Syscalls struct {
	Rate     float64 // requests per second
	Streams  int
	Interval time.Duration // between the events of a stream
	Duration time.Duration
	Body     int // bytes of a request
	Say      func(format string, args ...any)
}

// Run counts them at all of the lab's proxies.
func (c Syscalls) Run(ctx context.Context, l *lab.Lab) ([]record.Sample, error) {
	var all []record.Sample
	for _, r := range l.Running {
		if r.Proc == nil {
			return nil, errors.New("syscalls: there is nothing to count where nothing is in between")
		}
		if err := l.Warm(ctx, r); err != nil {
			return nil, err
		}
		for _, one := range []struct {
			phase string
			cfg   load.Config
		}{
			{record.PhaseRequests, load.Config{Rate: c.Rate, Connections: 8, Jobs: lab.Whole(r, c.Body)}},
			{record.PhaseEvents, lab.Streams(r, load.Shape{BodyBytes: c.Body}, c.Streams, c.Interval, time.Minute)},
		} {
			one.cfg.Warmup, one.cfg.Duration = 2*time.Second, c.Duration
			s, err := l.Syscalls(ctx, r, one.phase, one.cfg)
			if err == nil {
				err = calm(&s, one.cfg)
			}
			if err != nil {
				return nil, err
			}
			all = append(all, s)
			c.Say("%-9s %-16s %6.0f/s  %5.2f system calls each: %s", one.phase, r.Name, float64(s.Ops())/s.Load.Seconds, s.Calls(), list(s.Syscalls))
		}
	}
	return all, nil
}

// calm is an error where a proxy under strace cannot follow: what has a backlog works in larger
// portions, and needs fewer calls than it does otherwise.
func calm(s *record.Sample, cfg load.Config) error {
	slow := s.Load.Refused+s.Load.Backlog > 0 || float64(s.Load.Answers) < 0.95*cfg.Rate*s.Load.Seconds
	if s.Phase == record.PhaseEvents {
		slow = s.Load.Refused > 0
	}
	if slow {
		return fmt.Errorf("syscalls: %s cannot follow under strace: %d answers, %d refused, %d more waiting; use a lower --rate", s.Peer, s.Load.Answers, s.Load.Refused, s.Load.Backlog)
	}
	return nil
}

// list names the most frequent calls.
func list(calls map[string]float64) string {
	names := slices.SortedFunc(maps.Keys(calls), func(a, b string) int {
		if calls[a] > calls[b] {
			return -1
		}
		return 1
	})
	var parts []string
	for _, name := range names[:min(6, len(names))] {
		parts = append(parts, name+" "+strconv.FormatFloat(calls[name], 'f', 2, 64))
	}
	return strings.Join(parts, ", ")
}
