package load

import (
	"context"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/poller"
)

// drainTime is how long a run waits at its end for answers to an open load.
const drainTime = 2 * time.Second

// Run sends the load and returns what it saw. Failures are counted, not returned; an error
// means that nothing could be measured.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := cfg.setDefaults(); err != nil {
		return Result{}, err
	}
	addr, err := poller.Resolve(cfg.Target)
	if err != nil {
		return Result{}, err
	}
	count := &counters{}
	threads := make([]*thread, cfg.Threads)
	for i := range threads {
		if threads[i], err = newThread(&cfg, i, addr, count); err != nil {
			return Result{}, err
		}
	}
	// What connects first has a moment for it.
	start := time.Now().Add(10 * time.Millisecond)
	from := start.Add(cfg.Warmup)
	length, drain := cfg.Duration, drainTime
	if cfg.Closed {
		drain = 0 // what is under way is not counted anyway, and may be a long stream
	}
	if length == 0 {
		length, drain = cfg.Arrivals[len(cfg.Arrivals)-1]+cfg.Timeout, 0
	}
	to := from.Add(length)

	stop, done := make(chan struct{}), make(chan struct{})
	errs := make([]error, len(threads))
	var wg sync.WaitGroup
	for i, t := range threads {
		wg.Go(func() { errs[i] = t.run(start.UnixNano(), from.UnixNano(), to.UnixNano(), drain, stop) })
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	ended := watch(ctx, &cfg, count, start, from, to, done)
	if ctx.Err() != nil {
		close(stop)
	}
	<-done
	if ctx.Err() != nil {
		return Result{}, ctx.Err()
	}
	sum := newRecorder()
	for i, t := range threads {
		if errs[i] != nil {
			return Result{}, errs[i]
		}
		sum.merge(t.rec)
	}
	r := sum.result()
	r.Seconds = ended.Sub(from).Seconds()
	return r, nil
}

// watch calls what the configuration wants to be called, until counting ends. It returns
// when that was.
func watch(ctx context.Context, cfg *Config, count *counters, start, from, to time.Time, done <-chan struct{}) time.Time {
	call := func(f func()) {
		if f != nil {
			f()
		}
	}
	begin, end := time.NewTimer(time.Until(from)), time.NewTimer(time.Until(to))
	defer begin.Stop()
	defer end.Stop()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-begin.C:
			call(cfg.Begin)
		case <-end.C:
			call(cfg.End)
			return to
		case <-done: // all arrivals are answered
			call(cfg.End)
			return time.Now()
		case <-ctx.Done():
			return time.Now()
		case <-second.C:
			if cfg.Progress != nil {
				cfg.Progress(Progress{
					Elapsed: time.Since(start), Total: to.Sub(start),
					Answers: count.answers.Load(), Events: count.events.Load(), Failures: count.failures.Load(), Open: count.open.Load(),
				})
			}
		}
	}
}
