package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Drain ends the server as a rollout wants it: not ready, but accepting, while the
// load balancers learn of it; then no new connections while streams finish; then the
// rest is cut as drained; then every usage event and settlement is written, and the
// leases are returned. It returns what could not be done in time. A second call returns at once.
func (s *Server) Drain(ctx context.Context) error {
	if !s.state.CompareAndSwap(stateServing, stateLame) {
		return nil
	}
	if s.ln != nil {
		close(s.ln.draining)
	}
	t := &s.cfg.Timeouts
	s.log.Info("draining", "in_flight", s.calls.len(), "pre_stop", time.Duration(t.PreStop).String(), "limit", time.Duration(t.Drain).String())
	wait(ctx, time.Duration(t.PreStop), func() bool { return false })

	if s.ln != nil {
		_ = s.ln.Close() // Serve returns; what is in flight goes on
	}
	wait(ctx, time.Duration(t.Drain), s.idle)

	s.state.Store(stateClosed)
	if n := s.calls.len(); n > 0 {
		s.log.Warn("cutting what did not finish in time", "in_flight", n)
		s.calls.cut(errDrained, func(*call) bool { return true })
	}
	wait(context.WithoutCancel(ctx), cutTime, s.idle)
	if !s.idle() {
		// Who does not read what is left must not keep us from returning the leases.
		s.calls.stopWriting()
		wait(context.WithoutCancel(ctx), time.Second, s.idle)
	}

	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(t.Flush))
	defer cancel()
	// In this order and within the same time: a replica whose events are not all in Redis
	// stays on the register, so that others go on reckoning with it.
	errs := []error{s.meter.Flush(flush), s.ledger.Close(flush)}
	if n := s.calls.len(); n > 0 {
		errs = append(errs, fmt.Errorf("%d requests did not end", n))
	}
	s.end()
	if s.ln != nil {
		s.ln.endRest()
	}
	// Idle connections are closed; fasthttp's Done fires now, which nothing of ours uses.
	shut, cancelShut := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelShut()
	if err := s.http.ShutdownWithContext(shut); err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, fmt.Errorf("shut down: %w", err))
	}
	errs = append(errs, s.hangups.Close(), s.loops.close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// cutTime is how long error events may take to be written to slow clients at the end.
const cutTime = 5 * time.Second

// idle reports whether no call is in flight and no answer is being written: one that is not
// a stream is written after its call has ended.
func (s *Server) idle() bool {
	return s.calls.len() == 0 && (s.ln == nil || s.ln.answering.Load() == 0)
}

// wait returns when done reports true, the time is over or ctx ends.
func wait(ctx context.Context, limit time.Duration, done func() bool) {
	deadline := time.Now().Add(limit)
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for !done() && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
