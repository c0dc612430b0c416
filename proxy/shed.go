package proxy

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// Under overload most requests are refused, so what a refusal costs decides how many can be
// served. Therefore it happens before fasthttp gets to see the request, for what is not in doubt: a
// usual request for a completion that has arrived whole, with its body, in one read (header_bytes at
// most), and nothing after it. Everything else goes the usual way, where handle decides: longer
// bodies, the first request of a connection and the next one after a stream, and whatever comes
// through a proxy that is trusted to say for whom.

// shed refuses the request that b begins with, if it is to be refused. An error is that of
// the connection.
func (s *Server) shed(c *clientConn, b []byte) (refused bool, err error) {
	c.spared = false
	// Here as in handle: one panic would end every stream of the process.
	defer func() {
		if p := recover(); p != nil {
			s.panicked(&call{requestID: newRequestID()}, p)
			refused, err = true, errors.New("refusing a request panicked")
		}
	}()
	if !s.overload.limiting() || s.state.Load() != stateServing || !c.overflowUntil.IsZero() || s.trusted(c.addr) {
		return false, nil
	}
	r, ok := s.wholeRequest(b)
	if !ok {
		return false, nil
	}
	if !s.overload.refuses() {
		c.spared = true
		return false, nil
	}
	now := time.Now()
	c.answer(true)
	defer c.answer(false)
	// Not allocated: calls that end at once would lie among those of streams, and their room stay empty
	// when they are gone.
	mem := shedPool.Get().(*shedding)
	defer mem.free()
	mem.call = call{s: s, start: now, requestID: newRequestID(), conn: c, bodyLen: r.bodyLen, face: r.face, route: r.route, remote: c.addr}
	resp := fasthttp.AcquireResponse()
	defer fasthttp.ReleaseResponse(resp)
	told := s.overload.told()
	mem.call.refuse(resp, refuseOverloaded, detail{retryAfter: told})
	s.metrics.unparsed.Inc()
	resp.Header.SetContentLength(len(resp.Body()))
	mem.answer = append(resp.Header.AppendBytes(mem.answer[:0]), resp.Body()...)
	if err = c.SetWriteDeadline(now.Add(time.Duration(s.cfg.Timeouts.Write))); err == nil {
		_, err = c.TCPConn.Write(mem.answer)
	}
	if err == nil {
		err = c.SetReadDeadline(now.Add(time.Duration(s.cfg.Timeouts.Idle)))
	}
	s.hold(c, told)
	return true, err
}

// hold has nothing more be read from a client that was just refused, for a part of the time that
// it was told to wait: the same part as that of the requests that are refused. Who does wait sees
// nothing of it. Those who ask again at once would make refusing a load of its own: a few thousand
// of them could keep all processors busy, and everything else waiting.
func (s *Server) hold(nc net.Conn, told time.Duration) {
	if c, ok := nc.(*clientConn); ok && !s.trusted(c.addr) {
		c.heldUntil = time.Now().Add(time.Duration(s.overload.refused() * float64(told)))
	}
}

// waitOut returns when the connection may be read from again: when that time is over, the client has
// gone, whose place others need, or the server drains. Within a request, of which a part
// was read together with the one before, nothing is waited for.
func (c *clientConn) waitOut() {
	if c.heldUntil.IsZero() || c.inRequest {
		return
	}
	t := time.NewTimer(time.Until(c.heldUntil))
	defer t.Stop()
	c.heldUntil = time.Time{}
	gone := make(chan struct{})
	c.peer.Watch(func() { close(gone) })
	defer c.peer.Stop()
	select {
	case <-t.C:
	case <-gone:
	case <-c.ln.draining:
	}
}

// shedding is what shed works with.
type shedding struct {
	call   call
	answer []byte
}

func (m *shedding) free() {
	m.call = call{} // it refers to the connection
	shedPool.Put(m)
}

var shedPool = sync.Pool{New: func() any { return &shedding{answer: make([]byte, 0, 512)} }}

// spared reports whether it was decided already that the request on nc is not refused for
// want of processors.
func spared(nc net.Conn) bool {
	c, ok := nc.(*clientConn)
	return ok && c.spared
}

// wholeRequest is what shed has to know of a request.
type wholeRequest struct {
	route   route
	face    kimi.Face
	bodyLen int
}

// shedLines are the request lines that shed knows, with the line's end.
var shedLines = func() (lines [][]byte) {
	for i := range routes {
		lines = append(lines, []byte(routes[i].method+" "+routes[i].path+" HTTP/1.1\r\n"))
	}
	return lines
}()

// wholeRequest reports whether b is one request that accept would accept, from its first byte to
// its last, with a body of known length, that wants the connection kept.
func (s *Server) wholeRequest(b []byte) (w wholeRequest, ok bool) {
	var line []byte
	for i, l := range shedLines {
		if (routes[i].route == routeChat || routes[i].route == routeMessages) && bytes.HasPrefix(b, l) {
			w.route, w.face, line = routes[i].route, routes[i].face, l
		}
	}
	if line == nil {
		return w, false
	}
	end := bytes.Index(b, headEnd)
	if end < len(line) {
		return w, false
	}
	var seen headerFacts
	if seen.scan(b[len(line):end+2]) != "" || seen.framing(false) != "" ||
		seen.contentLength != 1 || seen.expects+seen.unusual > 0 || seen.connections > 1 ||
		seen.connections == 1 && !bytes.EqualFold(seen.connection, []byte("keep-alive")) ||
		!usualHost(seen.host) || !s.hostAllowed(seen.host) || seen.contentTypes > 0 && !isJSON(seen.contentType) {
		return w, false
	}
	if _, r := seen.credential(); r != refuseNone {
		return w, false
	}
	var err error
	w.bodyLen, err = strconv.Atoi(string(seen.clValue))
	return w, err == nil && w.bodyLen == len(b)-end-len(headEnd)
}

// usualHost reports whether h is a name or an IPv4 address, with or without a port.
func usualHost(h []byte) bool {
	name, port, ported := bytes.Cut(h, []byte{':'})
	for _, c := range name {
		if c != '.' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return len(name) > 0 && (!ported || digits(port) && len(port) <= 5)
}

var headEnd = []byte("\r\n\r\n")
