package upstream

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

// benchPeer answers every request of exactly n bytes with the same bytes.
func benchPeer(b *testing.B, answer string) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				out := []byte(answer)
				for {
					n := 0
					for !bytes.HasSuffix(buf[:n], []byte("}}")) { // the end of benchBody
						m, err := c.Read(buf[n:])
						if err != nil {
							return
						}
						n += m
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + ln.Addr().String() + "/v1"
}

var benchBody = &Request{Body: [][]byte{[]byte(`{"model":"kimi-k2","messages":[`), []byte(strings.Repeat("x", 1000)), []byte(`{"a":{}}`)}}

func benchExchange(b *testing.B, answer string) {
	p := newTestPool(b, Options{}, testConfig(benchPeer(b, answer)))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 8<<10)
		var c Canceler
		for pb.Next() {
			tg := pick(b, p)
			r, err := tg.Do(benchBody, &c)
			if err != nil {
				b.Error(err)
				return
			}
			for err == nil {
				_, err = r.Read(buf)
			}
			if err != io.EOF {
				b.Error(err)
			}
			r.Close(true)
			tg.Release(Result{})
		}
	})
}

func BenchmarkExchange(b *testing.B) {
	b.Run("answer=length", func(b *testing.B) { benchExchange(b, okAnswer) })
	b.Run("answer=chunked", func(b *testing.B) {
		benchExchange(b, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	})
}

func BenchmarkPick(b *testing.B) {
	p := newTestPool(b, Options{}, poolConfig("a", 1, 2), poolConfig("b", 1))
	b.ReportAllocs()
	for b.Loop() {
		pick(b, p).Release(Result{})
	}
}

func BenchmarkParseHead(b *testing.B) {
	in := []byte("HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 08:00:00 GMT\r\nContent-Type: text/event-stream; charset=utf-8\r\n" +
		"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nMsh-Request-Id: 0123456789abcdef\r\nServer-Timing: inner; dur=12\r\n\r\n")
	var h Head
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if n, err := ParseHead(in, &h); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkChunked(b *testing.B) {
	in := []byte(strings.Repeat("c8\r\n"+strings.Repeat("x", 200)+"\r\n", 16))
	var c Chunked
	buf := make([]byte, len(in))
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		copy(buf, in)
		if _, _, err := c.decode(buf); err != nil {
			b.Fatal(err)
		}
	}
}
