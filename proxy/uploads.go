package proxy

import (
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"
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
	claims map[*fasthttp.RequestHeader]int64
}

// overBudget is a claim that was refused.
const overBudget int64 = -1

func (u *uploads) init(limit, free int64) {
	u.limit, u.free = limit, free
	u.claims = map[*fasthttp.RequestHeader]int64{}
}

// claim counts n bytes for the body that follows h, and reports false if they are too
// many just now.
func (u *uploads) claim(h *fasthttp.RequestHeader, n int64) bool {
	switch {
	case n <= 0:
		return true
	case n <= u.free:
		if u.total.Load()+n <= u.limit {
			return true
		}
		n = overBudget
	case u.total.Add(n) > u.limit:
		u.total.Add(-n)
		n = overBudget
	}
	u.note(h, n)
	return n != overBudget
}

// refuse has the request of h answered as if its body were too many bytes.
func (u *uploads) refuse(h *fasthttp.RequestHeader) { u.note(h, overBudget) }

func (u *uploads) note(h *fasthttp.RequestHeader, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.claims[h] = n
}

// take ends the claim of h and returns it: its bytes, which the caller must give back,
// overBudget, or 0 where there is none.
func (u *uploads) take(h *fasthttp.RequestHeader) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.claims[h]
	delete(u.claims, h)
	return n
}

// add changes what is counted by n bytes.
func (u *uploads) add(n int64) {
	if n != 0 {
		u.total.Add(n)
	}
}

// held returns the bytes that are counted.
func (u *uploads) held() int64 { return u.total.Load() }

// takeUpload ends the claim of ctx's request, whoever keeps it.
func (s *Server) takeUpload(ctx *fasthttp.RequestCtx) int64 {
	n := s.uploads.take(&ctx.Request.Header)
	if cc, ok := ctx.Conn().(*clientConn); ok {
		n += cc.claim.Swap(0)
	}
	return n
}
