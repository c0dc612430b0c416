package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Most clients send a whole request before they read. They must read the refusal of a
// body that is too large, and not find the connection reset.
func TestRefusalReachesWhoSendsAllFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	token, _ := w.token(nil)
	body := bytes.Repeat([]byte("x"), 9<<20)
	for _, head := range []string{
		"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token,
		"POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Api-Key: " + token,
		"POST /v1/messages HTTP/1.1\r\nHost: x",
	} {
		for range 3 {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(conn, "%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", head, len(body))
			if _, err := conn.Write(body); err != nil {
				t.Errorf("sending was broken off: %v", err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("no refusal: %v", err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge || !bytes.Contains(b, []byte("request_too_large")) {
				t.Errorf("status %d, %v, %s", resp.StatusCode, err, b)
			}
			conn.Close()
		}
	}
}

// Who never stops sending is not listened to for ever.
func TestRefusedSenderIsCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
	began := time.Now()
	for time.Since(began) < 15*time.Second {
		_ = conn.SetWriteDeadline(time.Now().Add(15 * time.Second))
		if _, err := conn.Write(make([]byte, 1024)); err != nil {
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("cut off after %v", took)
			}
			return
		}
		time.Sleep(50 * time.Millisecond) // a trickle
	}
	t.Error("a refused request may go on for ever")
}
