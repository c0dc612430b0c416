package proxy

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/valyala/fasthttp"
)

// Whatever is refused without fasthttp is one request, to the last byte, for fasthttp too, and
// one that accept would accept, on a connection that is kept.
func FuzzWholeRequest(f *testing.F) {
	const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ocp_x\r\n"
	for _, text := range []string{
		head + "Content-Length: 2\r\n\r\n{}",
		"POST /v1/messages HTTP/1.1\r\nHost: a:80\r\nX-Api-Key: ocp_x\r\ncontent-length: 0002\r\nContent-Type: application/json; charset=utf-8\r\n\r\n{}",
		head + "Content-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n",
		head + "Content-Length: +2\r\n\r\n{}",
		head + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		head + "Content-Length: 2\r\nconnection: close\r\n\r\n{}",
		head + "Content-Length: 2\r\nProxy-Connection: close\r\nTE: trailers\r\nUpgrade: h2c\r\nTrailer: x\r\n\r\n{}",
		head + " Content-Length: 2\r\n\r\n{}",
		head + "Content-Length: 2\r\nX-Api-Key: ocp_y\r\n\r\n{}",
		head + "Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}",
		head + "Content-Length: 2\r\nConnection: Keep-Alive\r\n\r\n{}",
		head + "Content-Length: 2\r\nConnection: keep-alive, close\r\n\r\n{}",
		head + "\nContent-Length: 2\r\n\r\n{}",
		head + "Content-Length: 2\r\nTrailer: Host\r\n\r\n{}",
		"POST /v1/messages HTTP/1.1\r\nHost:\r\nX-Api-Key: ocp_x\r\nContent-Length: 2\r\n\r\n{}",
		"POST /v1/messages HTTP/1.1\r\nHost: [\r\nX-Api-Key: ocp_x\r\nContent-Length: 2\r\n\r\n{}",
		"GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ocp_x\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	s := &Server{}
	f.Fuzz(func(t *testing.T, b []byte) {
		w, ok := s.wholeRequest(b)
		if !ok {
			return
		}
		var ctx fasthttp.RequestCtx
		in := bufio.NewReaderSize(bytes.NewReader(b), 1<<16)
		if err := ctx.Request.ReadLimitBody(in, 1<<20); err != nil {
			t.Fatalf("fasthttp says %v: %q", err, b)
		}
		if n := in.Buffered(); n != 0 {
			t.Fatalf("fasthttp leaves %d bytes: %q", n, b)
		}
		h, r, _ := s.accept(&ctx)
		if r != refuseNone || h.route != w.route || h.face != w.face {
			t.Fatalf("accept says %d, %+v; %+v: %q", r, h, w, b)
		}
		if len(ctx.Request.Body()) != w.bodyLen || ctx.Request.Header.ConnectionClose() {
			t.Fatalf("%d bytes of body, close %v; %+v: %q", len(ctx.Request.Body()), ctx.Request.Header.ConnectionClose(), w, b)
		}
	})
}
