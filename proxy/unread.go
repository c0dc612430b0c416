package proxy

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// headerReceived runs before a body is read: without a plausible token nobody may
// make us read a large one, and nobody may add to what is held when it is too much.
func (s *Server) headerReceived(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	const tiny = 1 // 0 would be the default
	limit, from, known := s.bodyLimit(h)
	if !known {
		s.uploads.refuse(h)
		return fasthttp.RequestConfig{MaxRequestBodySize: tiny}
	}
	n := h.ContentLength()
	if n == -1 { // chunked: it may become as large as allowed
		n = limit
	}
	if n <= limit && !s.uploads.claim(h, int64(n), from) {
		limit = tiny
	}
	return fasthttp.RequestConfig{MaxRequestBodySize: limit}
}

// strangersPerSecond bounds the look-ups of tokens that are not known here yet and want
// to send a large body: authenticate's limit per address comes after the body, and the
// checksum of tokens is public.
const strangersPerSecond = 2000

// bodyLimit returns how large the body that follows h may be, and who sends it if it is
// large. known is false if that cannot be told just now.
func (s *Server) bodyLimit(h *fasthttp.RequestHeader) (limit int, from sender, known bool) {
	small := min(64<<10, s.cfg.Limits.BodyBytes)
	if n := h.ContentLength(); n >= 0 && n <= small {
		return small, sender{}, true
	}
	cred := h.Peek("X-Api-Key")
	if a := h.Peek("Authorization"); len(a) > len("Bearer ") {
		cred = a[len("Bearer "):]
	}
	// The checksum is public: only a token that exists may make us hold a large body.
	if !contract.PlausibleToken(cred) {
		return small, sender{}, true
	}
	if n := h.ContentLength(); n == -1 || n > small { // -1 is chunked, -2 no body
		from.digest = s.hasher.Digest(cred)
		g, ok := s.grants.Cached(from.digest)
		if !ok {
			if !s.grants.Known(from.digest) && !s.strangers.Allow() {
				return 0, sender{}, false
			}
			var err error
			if g, err = s.grants.Lookup(s.life, from.digest); errors.Is(err, grants.ErrUnknownToken) {
				return small, sender{}, true
			}
		}
		from.share = s.uploadShare(g)
	}
	return s.cfg.Limits.BodyBytes, from, true
}

// expect answers "Expect: 100-continue"; what else is wrong is found by accept later.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	claim := s.takeUpload(ctx)
	switch {
	case claim.refused:
		s.refuseUnread(ctx, refuseOverloaded)
		return fasthttp.StatusServiceUnavailable
	case ctx.Request.Header.ContentLength() > s.cfg.Limits.BodyBytes:
		s.refuseUnread(ctx, refuseTooLarge)
		return fasthttp.StatusRequestEntityTooLarge
	}
	if cc, ok := ctx.Conn().(*clientConn); ok {
		cc.claim.Store(&claim) // nothing of ours is called if the 100 cannot be written
	} else {
		s.uploads.release(claim)
	}
	return fasthttp.StatusContinue
}

// malformed answers a request that fasthttp could not read. The connection is closed
// after it.
func (s *Server) malformed(ctx *fasthttp.RequestCtx, err error) {
	r := refuseBadRequest
	claim := s.takeUpload(ctx)
	s.uploads.release(claim)
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		r = refuseTooLarge
		if claim.refused {
			r = refuseOverloaded
		}
	case errors.As(err, &small):
		r = refuseHeadTooLarge
	case errors.As(err, &netErr) && netErr.Timeout():
		r = refuseSlow
	case errors.Is(err, io.ErrUnexpectedEOF):
		r = refuseBadRequest
	}
	s.refuseUnread(ctx, r)
}

// refuseUnread refuses a request that was not read to its end. Whose errors the client
// reads is not known where fasthttp has forgotten the request line already: then the
// body suits both faces.
func (s *Server) refuseUnread(ctx *fasthttp.RequestCtx, r refusal) {
	target := ctx.Request.Header.RequestURI()
	c := &call{s: s, start: time.Now(), requestID: newRequestID(), face: faceOf(target), remote: addrOf(ctx.RemoteAddr())}
	c.refuse(&ctx.Response, r, detail{})
	if cc, ok := ctx.Conn().(*clientConn); ok && r != refuseSlow {
		cc.unread.Store(true)
	}
	if string(target) == "/" { // what fasthttp says where it has none
		ctx.Response.SetBodyRaw(suitBothFaces(ctx.Response.Body(), c.requestID))
	}
}
