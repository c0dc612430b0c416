package proxy

import (
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// uploads bounds the bytes of all request bodies, from before the first byte of one is
// read until the request is answered. fasthttp allocates a body's declared length, and a
// chunk's, before it reads them, so what counts while a body arrives is what was declared.
//
// A claim is known by the request's head: HeaderReceived is told nothing else. It is
// made there and taken in the handler, in ErrorHandler or in ExpectHandler, one of which
// fasthttp calls for every head that it has received as long as reads do not end with
// io.EOF; clientConn sees to that. All methods are safe for concurrent use.
type uploads struct {
	limit int64
	free  int64 // bodies up to this size claim nothing: a connection's buffer holds as much
	total atomic.Int64

	mu     sync.Mutex
	claims map[*fasthttp.RequestHeader]claim
	shares map[contract.Digest]int64 // bytes by token, of bodies that are large
}

// claim is what the body of one request counts.
type claim struct {
	bytes   int64
	owned   bool // counts to the share of owner, too
	owner   contract.Digest
	refused bool // then it counts nothing
}

// sender is who sends a large body, and how many bytes of theirs there may be at once. The
// zero value is somebody unknown, who is bounded by the size of one body only.
type sender struct {
	digest contract.Digest
	share  int64
}

func (u *uploads) init(limit, free int64) {
	u.limit, u.free = limit, free
	u.claims, u.shares = map[*fasthttp.RequestHeader]claim{}, map[contract.Digest]int64{}
}

// claim counts n bytes for the body that follows h, and reports false if they are too
// many just now, of its sender or in all.
func (u *uploads) claim(h *fasthttp.RequestHeader, n int64, from sender) bool {
	if n <= 0 || n <= u.free && u.total.Load()+n <= u.limit {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	c := claim{bytes: n, owned: from.share > 0, owner: from.digest}
	switch {
	case n <= u.free || c.owned && u.shares[c.owner]+n > from.share:
		c = claim{refused: true}
	case u.total.Add(n) > u.limit:
		u.total.Add(-n)
		c = claim{refused: true}
	case c.owned:
		u.shares[c.owner] += n
	}
	u.claims[h] = c
	return !c.refused
}

// refuse has the request of h answered as if its body were too many bytes.
func (u *uploads) refuse(h *fasthttp.RequestHeader) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.claims[h] = claim{refused: true}
}

// take ends the wait of h's claim for its body and returns it, for the caller to release.
func (u *uploads) take(h *fasthttp.RequestHeader) claim {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.claims[h]
	delete(u.claims, h)
	return c
}

// resize has c count n bytes.
func (u *uploads) resize(c *claim, n int64) {
	d := n - c.bytes
	if d == 0 {
		return
	}
	c.bytes = n
	u.total.Add(d)
	if !c.owned {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.shares[c.owner] += d; u.shares[c.owner] <= 0 {
		delete(u.shares, c.owner)
	}
}

// release gives back what c counts.
func (u *uploads) release(c claim) { u.resize(&c, 0) }

// held returns the bytes that are counted.
func (u *uploads) held() int64 { return u.total.Load() }

// takeUpload ends the wait of ctx's request for its body, whoever keeps its claim.
func (s *Server) takeUpload(ctx *fasthttp.RequestCtx) claim {
	c := s.uploads.take(&ctx.Request.Header)
	if cc, ok := ctx.Conn().(*clientConn); ok {
		if kept := cc.claim.Swap(nil); kept != nil {
			c = *kept
		}
	}
	return c
}

// uploadShare is how many bytes of bodies the token of g may have here at once: of as many
// as it may have in flight, but of no more than a quarter of what all may. g is nil where
// it cannot be told.
func (s *Server) uploadShare(g *contract.Grant) int64 {
	body := int64(s.cfg.Limits.BodyBytes)
	share := s.cfg.Limits.InFlightBytes / 4
	if g != nil {
		share = min(share, int64(g.Concurrent)*body)
	}
	return max(share, body)
}
