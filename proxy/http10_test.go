package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// An HTTP/1.0 client gets whole answers; a stream needs chunks, which it cannot read.
func TestHTTP10(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	ask := func(body string) (int, string) {
		c, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.0\r\nHost: proxy\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", tok, len(body), body)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, body := ask(chat(false, "hello")); status != 200 || !strings.Contains(body, `"usage"`) {
		t.Errorf("whole answer: status %d: %s", status, body)
	}
	if status, body := ask(chat(true, "hello")); status != 400 || !strings.Contains(body, "HTTP/1.1") {
		t.Errorf("stream: status %d: %s", status, body)
	}
}

// A connection serves one request after the other, streams included.
func TestKeepAliveAfterStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	for i, stream := range []bool{true, false, true, true, false} {
		body := chat(stream, "hello")
		fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", tok, len(body), body)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || resp.Close {
			t.Fatalf("request %d: status %d, close %v, %v: %s", i, resp.StatusCode, resp.Close, err, b)
		}
	}
	w.events(5)
	if n := w.sim.OpenConns(); n != 1 {
		t.Errorf("%d upstream connections for requests one after the other, want 1", n)
	}
}
