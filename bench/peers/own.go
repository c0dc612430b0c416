package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// Serve runs one of the proxies that are a part of this program until ctx ends:
// "reverseproxy" or "fasthttp".
func Serve(ctx context.Context, kind, addr, upstream string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	switch kind {
	case "reverseproxy":
		return serveReverseProxy(ctx, l, upstream)
	case "fasthttp":
		return serveFasthttp(ctx, l, upstream)
	}
	l.Close()
	return fmt.Errorf("unknown peer %q: reverseproxy or fasthttp", kind)
}

// serveReverseProxy is the standard library's proxy as its users tune it: connections are
// kept, events are flushed at once, buffers are reused.
func serveReverseProxy(ctx context.Context, l net.Listener, upstream string) error {
	rp := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: upstream}) },
		FlushInterval: -1,
		BufferPool:    &buffers{sync.Pool{New: func() any { return make([]byte, 32<<10) }}},
		Transport: &http.Transport{
			MaxIdleConns: 0, MaxIdleConnsPerHost: 50_000, IdleConnTimeout: time.Hour, DisableCompression: true,
		},
	}
	s := &http.Server{Handler: rp, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("reverseproxy: %w", err)
	}
	return nil
}

type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return b.pool.Get().([]byte) }

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) {
	//lint:ignore SA6002 the interface hands out slices, and one small allocation is what its users have
	b.pool.Put(p)
}

// serveFasthttp forwards with fasthttp's server and client and does nothing else.
func serveFasthttp(ctx context.Context, l net.Listener, upstream string) error {
	client := &fasthttp.HostClient{
		Addr: upstream, MaxConns: 50_000, MaxIdleConnDuration: time.Hour, StreamResponseBody: true,
		NoDefaultUserAgentHeader: true, DisablePathNormalizing: true, DisableHeaderNamesNormalizing: true,
	}
	s := &fasthttp.Server{
		Handler: func(ctx *fasthttp.RequestCtx) {
			resp := fasthttp.AcquireResponse()
			resp.StreamBody = true
			if err := client.Do(&ctx.Request, resp); err != nil {
				fasthttp.ReleaseResponse(resp)
				ctx.Error(err.Error(), fasthttp.StatusBadGateway)
				return
			}
			length := resp.Header.ContentLength()
			resp.Header.CopyTo(&ctx.Response.Header)
			ctx.SetBodyStream(&upstreamBody{resp, resp.BodyStream()}, length)
		},
		NoDefaultServerHeader: true, NoDefaultDate: true, DisableHeaderNamesNormalizing: true, MaxRequestBodySize: 16 << 20,
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("fasthttp: %w", err)
	}
	return nil
}

// upstreamBody frees the upstream's answer when it was sent.
type upstreamBody struct {
	resp *fasthttp.Response
	io.Reader
}

// Close implements io.Closer.
func (b *upstreamBody) Close() error {
	err := b.resp.CloseBodyStream()
	fasthttp.ReleaseResponse(b.resp)
	return err
}
