package origin

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"crypto/tls"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// serve runs both servers until the test ends, and returns their URLs.
func serve(t *testing.T) map[string]*http.Client {
	t.Helper()
	s, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, pem, err := kimisim.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- s.Serve(ctx) }()
	go func() { done <- ServeTLS(ctx, l, cfg) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return map[string]*http.Client{
		"http://" + s.Addr().String():  {Transport: &http.Transport{}},
		"https://" + l.Addr().String(): {Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
	}
}

func post(t *testing.T, c *http.Client, url, body string) *http.Response {
	t.Helper()
	resp, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

const ask = `{"stream":%v,"messages":[{"role":"user","content":"[[sim:{\"output_tokens\":5,\"tokens_per_second\":200,\"ttft\":\"10ms\",\"stamp\":true}]]"}]}`

func TestWholeAnswers(t *testing.T) {
	t.Parallel()
	for base, client := range serve(t) {
		for path, count := range map[string]string{"/v1/chat/completions": "completion_tokens", "/anthropic/v1/messages": "output_tokens"} {
			// Twice, so that the connection is used again.
			for range 2 {
				resp := post(t, client, base+path, fmt.Sprintf(ask, false))
				var body struct{ Usage map[string]int }
				if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
					t.Fatalf("%s%s: %v", base, path, err)
				}
				if resp.StatusCode != 200 || body.Usage[count] != 5 {
					t.Errorf("%s%s: %s, usage %v", base, path, resp.Status, body.Usage)
				}
			}
		}
		if resp := post(t, client, base+"/v1/chat/completions", "[[sim:{wrong}]]"); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("a wrong directive is answered %s", resp.Status)
		}
	}
}

func TestStreamsAreStampedAndPaced(t *testing.T) {
	t.Parallel()
	for base, client := range serve(t) {
		for path, want := range map[string]struct {
			events int
			end    string
		}{"/v1/chat/completions": {8, "data: [DONE]"}, "/anthropic/v1/messages": {10, "event: message_stop"}} {
			began := time.Now()
			resp := post(t, client, base+path, fmt.Sprintf(ask, true))
			events, ended := 0, false
			last := began.UnixNano()
			lines := bufio.NewScanner(resp.Body)
			for lines.Scan() {
				ended = ended || lines.Text() == want.end
				data, ok := strings.CutPrefix(lines.Text(), "data: ")
				if !ok {
					continue
				}
				events++
				var e struct {
					T     int64
					Delta struct{ T int64 }

					Choices []struct{ Delta struct{ T int64 } }
				}
				if err := json.Unmarshal([]byte(data), &e); err != nil && data != "[DONE]" {
					t.Fatalf("%s%s: %s: %v", base, path, data, err)
				}
				if data == "[DONE]" {
					continue
				}
				stamp := e.T + e.Delta.T
				for _, c := range e.Choices {
					stamp += c.Delta.T
				}
				if stamp < last || stamp > time.Now().UnixNano() {
					t.Errorf("%s%s: stamp %d after %d", base, path, stamp, last)
				}
				last = stamp
			}
			if err := lines.Err(); err != nil || events != want.events || !ended {
				t.Errorf("%s%s: %d events, ended %v, %v", base, path, events, ended, err)
			}
			// 10 ms and then 5 tokens of 5 ms each.
			if took := time.Since(began); took < 30*time.Millisecond {
				t.Errorf("%s%s: over after %v", base, path, took)
			}
		}
	}
}

// A request may come in any pieces, several at once, and chunked.
func TestRequestsInPieces(t *testing.T) {
	t.Parallel()
	plain := "POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"
	chunked := "POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n0b\r\nstream\":true\r\n0\r\n\r\n"
	text := plain + chunked + plain
	for n := 1; n <= len(text); n++ {
		var d decoder
		var p planner
		var got []request
		for i := 0; i < len(text); i += n {
			d.add([]byte(text[i:min(i+n, len(text))]))
			for {
				r, ok, err := d.next(&p)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				got = append(got, r)
			}
		}
		if len(got) != 3 || got[0].anthropic || !got[1].anthropic || got[2].anthropic || got[0].usage.prompt != 1 || len(d.in) != 0 {
			t.Fatalf("in pieces of %d: %+v, %d bytes left", n, got, len(d.in))
		}
	}
}

// What a slow reader does not take waits for it.
func TestSlowReaderGetsEverything(t *testing.T) {
	t.Parallel()
	for base, client := range serve(t) {
		const tokens = 50_000
		resp := post(t, client, base+"/v1/chat/completions", fmt.Sprintf(`{"stream":true,"x":"[[sim:{\"output_tokens\":%d}]]"}`, tokens))
		time.Sleep(50 * time.Millisecond) // the sockets' buffers are full by then
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), `"content":"token "`); n != tokens || !strings.HasSuffix(string(text), "data: [DONE]\n\n") {
			t.Errorf("%s: %d of %d tokens", base, n, tokens)
		}
	}
}
