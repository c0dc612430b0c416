package proxy

import (
	"errors"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// What changes of a grant do to the calls that are in flight of it:
//
//   - Revoked or suspended: they are cut.
//   - A lower limit: whoever holds tokens may use them, up to what was reserved, for the
//     limit was higher when they were promised. Only where what is settled already reaches
//     the new limit the calls are cut, with outcome limit_cut: then an operator wants the
//     customer to stop, and nothing of what they would still use fits.
//   - A higher limit or a new period: those who wait for tokens see it at their next try.
//     A call stays in the period in which it was admitted.

// limitCut is why a call is cut that has no part in a limit that was lowered.
type limitCut struct{ settled, limit int64 }

func (e *limitCut) Error() string {
	return fmt.Sprintf("the monthly token limit was lowered to %d, of which %d are used", e.limit, e.settled)
}

// use makes g the grant by which the call goes on.
func (c *call) use(g *contract.Grant) {
	c.grant = g
	c.known.Store(g)
}

// grantChanged makes a new version of a grant effective for what is in flight of it.
func (s *Server) grantChanged(d contract.Digest, g *contract.Grant) {
	cause := errRevoked
	switch g.Status {
	case contract.StatusActive:
		s.limitChanged(d, g)
		return
	case contract.StatusSuspended:
		cause = errSuspended
	}
	s.calls.cut(cause, func(c *call) bool { return c.digest == d })
}

// limitChanged looks, where g lowers the limit of calls in flight, whether anything is
// left of it, and cuts them if not.
func (s *Server) limitChanged(d contract.Digest, g *contract.Grant) {
	lowered := func(c *call) bool {
		if c.digest != d || c.route == routeEstimate { // which uses no tokens
			return false
		}
		old := c.known.Load()
		return old.Period.ID == g.Period.ID && old.LimitVersion < g.LimitVersion && max(old.MonthlyLimit, c.promised.Load()) > g.MonthlyLimit
	}
	if !s.calls.any(lowered) {
		return
	}
	// Other replicas tell within a second or so what they used.
	looks := limitLooks
	go s.insist(func() bool {
		// Reserving nothing tells the ledger of the limit, and how much is settled.
		a, err := s.ledger.Reserve(s.life, account(g), 0)
		if err != nil {
			return !s.calls.any(lowered)
		}
		s.ledger.Release(a.Hold)
		if a.Settled >= a.Limit {
			s.calls.cut(&limitCut{a.Settled, a.Limit}, lowered)
			return true
		}
		looks--
		return looks == 0
	})
}

// limitLooks is how often it is looked whether anything is left of a limit that was lowered, each
// 250 ms.
const limitLooks = 7

// promise notes that the call holds tokens under a limit that was raised and of which the
// feed had not told yet. It may have told meanwhile of one that is lower again.
func (s *Server) promise(c *call, limit int64) {
	c.promised.Store(limit)
	if g, ok := s.grants.Cached(c.digest); ok && g.Status == contract.StatusActive {
		s.limitChanged(c.digest, g)
	}
}

// insist calls try until it has succeeded, for a minute at most: it fails while Redis is away.
func (s *Server) insist(try func() bool) {
	const (
		again = 250 * time.Millisecond
		tries = 240
	)
	t := time.NewTicker(again)
	defer t.Stop()
	for range tries {
		if try() {
			return
		}
		select {
		case <-t.C:
		case <-s.life.Done():
			return
		}
	}
}

// recheck looks up again every token that is in use, after changes may have been missed,
// until each was found or its calls are over.
func (s *Server) recheck() {
	inUse := s.calls.digests()
	s.insist(func() bool {
		for d := range inUse {
			g, err := s.grants.Lookup(s.life, d)
			if errors.Is(err, grants.ErrUnknownToken) {
				g, err = &contract.Grant{Status: contract.StatusRevoked}, nil
			}
			if err == nil {
				s.grantChanged(d, g)
				delete(inUse, d)
			}
		}
		return len(inUse) == 0
	})
}
