package proxy

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// authenticate finds the grant of the credential: checksum, digest, cache, and only
// then one Redis read.
func (s *Server) authenticate(c *call, credential []byte) (refusal, detail) {
	if !contract.PlausibleToken(credential) {
		return s.authFailed(c)
	}
	c.digest = s.hasher.Digest(credential)
	g, ok := s.grants.Cached(c.digest)
	if !ok {
		// An address that failed too often gets no look-ups; tokens known here still work,
		// also when their grants have just changed, since customers may share an address with
		// whoever is guessing.
		if s.failures.blocked(c.remote, c.start) && !s.grants.Known(c.digest) {
			return refuseAuthFlood, detail{}
		}
		var err error
		g, err = s.grants.Lookup(s.life, c.digest)
		switch {
		case errors.Is(err, grants.ErrUnknownToken):
			return s.authFailed(c)
		case err != nil:
			s.metrics.authErrors.Inc()
			return refuseQuotaUnavailable, detail{message: "tokens cannot be checked at the moment"}
		}
	}
	c.grant = g
	switch g.Status {
	case contract.StatusActive:
		return refuseNone, detail{}
	case contract.StatusSuspended:
		return refuseSuspended, detail{}
	default:
		return s.authFailed(c)
	}
}

func (s *Server) authFailed(c *call) (refusal, detail) {
	if s.failures.fail(c.remote, c.start) {
		return refuseAuthFlood, detail{}
	}
	return refuseBadToken, detail{}
}

// failures counts failed authentications per address and minute. Its memory is bounded:
// only addresses that failed within the last two minutes are kept, and at most
// maxFailing of them.
type failures struct {
	limit int

	mu       sync.Mutex
	minute   int64
	now, old map[netip.Addr]int
}

const maxFailing = 100_000

func (f *failures) init(limit int) {
	f.limit = limit
	f.now, f.old = map[netip.Addr]int{}, map[netip.Addr]int{}
}

func (f *failures) turn(now time.Time) {
	m := now.Unix() / 60
	if m == f.minute {
		return
	}
	f.old = f.now
	if m != f.minute+1 {
		f.old = map[netip.Addr]int{}
	}
	f.now, f.minute = map[netip.Addr]int{}, m
}

// weight is the sliding count: this minute's, and the part of the last one that is
// less than a minute old.
func (f *failures) weight(a netip.Addr, now time.Time) int {
	past := float64(now.Unix()%60) / 60
	return f.now[a] + int(float64(f.old[a])*(1-past))
}

// network is what one customer of a provider gets: an address, or with IPv6 a /64.
func network(a netip.Addr) netip.Addr {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// fail notes a failure and reports whether the address is over its limit.
func (f *failures) fail(a netip.Addr, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn(now)
	a = network(a)
	if len(f.now) < maxFailing || f.now[a] > 0 {
		f.now[a]++
	}
	return f.weight(a, now) > f.limit
}

func (f *failures) blocked(a netip.Addr, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn(now)
	return f.weight(network(a), now) > f.limit
}
