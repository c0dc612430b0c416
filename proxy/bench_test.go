package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// BenchmarkRequest is one whole answer after the other over kept connections, from a client
// to an upstream that both do as little as they can: what is left is the proxy and the
// kernel. "cpu-ns/op" is the processor time of all three.
func BenchmarkRequest(b *testing.B) {
	w := newWorld(b)
	w.logs.discard = true
	upstreamAddr := cannedUpstream(b)
	r := w.replica(func(c *proxy.Config) {
		c.Upstreams = c.Upstreams[:1]
		c.Upstreams[0].BaseURL = "http://" + upstreamAddr + "/v1"
	})
	tok, _ := w.token(func(g *contract.Grant) { g.RequestsPerSecond, g.Burst, g.MonthlyLimit = 1e9, 1e9, 1<<50 })
	conn := dial(b, r)
	request := []byte(strings.ReplaceAll(sent(faces[0], chat(false, strings.Repeat("hello ", 150))), "<token>", tok))
	answers := bufio.NewReader(conn)
	ask := func() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		skipMessage(b, answers)
	}
	for range 100 {
		ask()
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	for b.Loop() {
		ask()
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

func cpu(b *testing.B) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// cannedUpstream gives every request the same answer.
func cannedUpstream(b *testing.B) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	body := `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"kimi-k2.5","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("hi ", 16) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":16,"total_tokens":26}}`
	answer := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nMsh-Request-Id: 1\r\n\r\n%s", len(body), body))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					if _, err := br.Peek(1); err != nil {
						return
					}
					skipMessage(b, br)
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// skipMessage takes a message with a Content-Length, without allocating.
func skipMessage(b *testing.B, br *bufio.Reader) {
	length := 0
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			b.Error(err)
			return
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				b.Error(err)
				return
			}
		}
	}
	if _, err := br.Discard(length); err != nil && err != io.EOF {
		b.Error(err)
	}
}
