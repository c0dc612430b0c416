package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// exchange writes text on a connection and returns so many answers, as they are on the wire,
// but for what differs from one request to the next.
func exchange(t *testing.T, c io.ReadWriter, text string, answers int) []string {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	ids := regexp.MustCompile(`req_[0-9a-f]{24}|Date: [^\r]*`)
	waits := regexp.MustCompile(`Retry-After: [123]\r`)
	in := bufio.NewReader(c)
	var all []string
	for range answers {
		var wire strings.Builder
		resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(oneByOne{in}, &wire)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		all = append(all, waits.ReplaceAllString(ids.ReplaceAllString(wire.String(), "<varies>"), "Retry-After: some seconds\r"))
	}
	if n := in.Buffered(); n > 0 {
		t.Errorf("%d bytes follow %d answers", n, answers)
	}
	return all
}

// oneByOne has nobody read more than is asked for.
type oneByOne struct{ io.Reader }

func (r oneByOne) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1)]) }

// Who is refused before its request was parsed gets what it would get otherwise, byte for
// byte, in the log and the metrics too, and is served on the same connection afterwards.
func TestShedAnswersAlike(t *testing.T) {
	t.Parallel()
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			tok, _ := w.token(nil)
			c := dial(t, r)
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			ask := func(headers ...string) string {
				body := chat(false, "hello")
				return request("POST "+f.path+" HTTP/1.1", body, append([]string{hostLine, "X-Api-Key: " + tok, lengthLine(body)}, headers...)...)
			}
			if a := exchange(t, c, ask(), 1)[0]; !strings.HasPrefix(a, "HTTP/1.1 200") {
				t.Fatalf("at first: %s", a)
			}
			r.RefuseAll(true, 1)
			// The usual client sends no such thing, so it goes the usual way.
			usual := exchange(t, c, ask("Content-Encoding: "), 1)[0]
			if !strings.HasPrefix(usual, "HTTP/1.1 503") || !strings.Contains(usual, "Retry-After: some seconds\r") || !strings.Contains(usual, "overloaded_error") {
				t.Fatalf("the usual way: %s", usual)
			}
			for i := range 3 {
				headers := [][]string{nil, {"Connection: keep-alive"}, {jsonLine, "User-Agent: OpenAI/JS 7.15.0"}}[i]
				if a := exchange(t, c, ask(headers...), 1)[0]; a != usual {
					t.Errorf("refused early: %s\nthe usual way: %s", a, usual)
				}
			}
			if got := r.metric(`token_proxy_blocked_total{reason="overloaded"}`); got != "4" {
				t.Errorf("%s are counted, want 4", got)
			}
			if got := r.metric("token_proxy_blocked_unparsed_total"); got != "3" {
				t.Errorf("%s were refused before they were parsed, want 3", got)
			}
			lines := regexp.MustCompile(`"request_id":"req_[0-9a-f]{24}","status":503,"took_ms":[0-9.]+,"remote":"127.0.0.1","blocked":"overloaded"}`)
			eventually(t, "each has its line", func() bool { return len(lines.FindAllString(w.logs.String(), -1)) == 4 })
			r.RefuseAll(false, 0)
			if a := exchange(t, c, ask(), 1)[0]; !strings.HasPrefix(a, "HTTP/1.1 200") {
				t.Errorf("in the end: %s", a)
			}
			if n := len(w.chats()); n != 2 {
				t.Errorf("%d requests were forwarded, want 2", n)
			}
		})
	}
}

// Who was refused is not heard again for a part of the time that it was told to wait, as large as that
// of the requests that are refused; unless many speak through the same address.
func TestRefusedClientsAreHeld(t *testing.T) {
	t.Parallel()
	const share, held = 0.8, 800 * time.Millisecond // of a second, the least that is told
	for _, row := range []struct {
		name, header string
		proxied      bool
	}{{name: "refused early"}, {name: "the usual way", header: "Content-Encoding: "}, {name: "through a proxy", proxied: true}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica(func(c *proxy.Config) {
				if row.proxied {
					c.TrustedProxies = []string{"127.0.0.0/8"}
				}
			})
			tok, _ := w.token(nil)
			c := dial(t, r)
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			headers := []string{hostLine, "Authorization: Bearer " + tok, jsonLine, lengthLine(goodBody)}
			if row.header != "" {
				headers = append(headers, row.header)
			}
			text := request(chatLine, goodBody, headers...)
			exchange(t, c, text, 1)
			r.RefuseAll(true, share)
			// From before what was refused to the end of the next answer.
			shortest, before, refused := time.Minute, time.Time{}, false
			for n := 0; n < 3; {
				at := time.Now()
				a := exchange(t, c, text, 1)[0]
				if refused {
					shortest = min(shortest, time.Since(before))
				}
				if refused = strings.HasPrefix(a, "HTTP/1.1 503"); refused {
					n++
				}
				before = at
			}
			if row.proxied == (shortest >= held) {
				t.Errorf("after a refusal it was heard after %v", shortest)
			}
		})
	}
}

// Who was refused and has gone gives its place to others at once.
func TestHeldClientsLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Limits.PerAddress = 20 })
	tok, _ := w.token(nil)
	text := request(chatLine, goodBody, hostLine, "Authorization: Bearer "+tok, jsonLine, lengthLine(goodBody))
	r.RefuseAll(true, 0.9)
	refused := 0
	begin := time.Now()
	for range 60 {
		c := dial(t, r)
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if strings.HasPrefix(exchange(t, c, text, 1)[0], "HTTP/1.1 503") {
			refused++
		}
		_ = c.Close()
		eventually(t, "its place is free", func() bool { return r.metric("token_proxy_connections") == "0" })
	}
	if took := time.Since(begin); refused < 30 || took > time.Duration(refused)*900*time.Millisecond/2 {
		t.Errorf("%d were refused, within %v", refused, took)
	}
}

// Only what is one whole request, and not in doubt, is refused without being parsed as usual. The
// rest gets what it gets otherwise, in the order in which it was asked, whatever is refused.
func TestShedTouchesNothingInDoubt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	auth := "Authorization: Bearer " + tok
	whole := request(chatLine, goodBody, hostLine, auth, jsonLine, lengthLine(goodBody))
	// used returns a connection that has had its first request, which is not refused early.
	used := func(t *testing.T) net.Conn {
		r.RefuseAll(false, 0)
		c := dial(t, r)
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		exchange(t, c, whole, 1)
		r.RefuseAll(true, 1)
		return c
	}
	usage := "GET /v1/usage HTTP/1.1\r\n" + hostLine + "\r\n" + auth + "\r\n\r\n"
	inBody := fmt.Sprintf(`{"model":"kimi-k2.5","messages":[{"role":"user","content":%s}]}`, strconv.Quote(whole))
	for _, row := range []struct {
		name, text string
		want       []string
	}{
		{"an address", request(chatLine, goodBody, "Host: [::1]:80", auth, jsonLine, lengthLine(goodBody)), []string{"503"}},
		{"a line feed", strings.Replace(whole, "\r\nContent-Length", "\r\n\nContent-Length", 1), []string{"400"}},
		{"a trailer", request(chatLine, goodBody, hostLine, auth, jsonLine, lengthLine(goodBody), "Trailer: x"), []string{"503"}},
		{"two at once", whole + whole, []string{"503", "503"}},
		{"another one behind it", whole + usage, []string{"503", "503"}},
		{"a request in a body", request(chatLine, inBody, hostLine, auth, jsonLine, lengthLine(inBody)), []string{"503"}},
		{"chunks", request(chatLine, chunked(goodBody, 10), hostLine, auth, jsonLine, chunkedLine), []string{"503"}},
		{"no credential", request(chatLine, goodBody, hostLine, jsonLine, lengthLine(goodBody)), []string{"401"}},
		{"two credentials", request(chatLine, goodBody, hostLine, auth, "X-Api-Key: "+tok, jsonLine, lengthLine(goodBody)), []string{"401"}},
		{"another type", request(chatLine, goodBody, hostLine, auth, "Content-Type: text/plain", lengthLine(goodBody)), []string{"400"}},
		{"another path", request("POST /v1/completions HTTP/1.1", goodBody, hostLine, auth, jsonLine, lengthLine(goodBody)), []string{"404"}},
		{"a query", request("POST /v1/chat/completions?a=b HTTP/1.1", goodBody, hostLine, auth, jsonLine, lengthLine(goodBody)), []string{"503"}},
		{"the last one", request(chatLine, goodBody, hostLine, auth, jsonLine, lengthLine(goodBody), "Connection: close"), []string{"503"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			for _, a := range exchange(t, used(t), row.text, len(row.want)) {
				got = append(got, a[len("HTTP/1.1 "):][:3])
			}
			if fmt.Sprint(got) != fmt.Sprint(row.want) {
				t.Errorf("answered %v, want %v", got, row.want)
			}
		})
	}
	if got := r.metric("token_proxy_blocked_unparsed_total"); got != "1" {
		t.Errorf("%s requests were refused before they were parsed, want that with another in its body only", got)
	}
	// A request that comes in two parts, the second of which looks like one.
	body := `{"model":"kimi-k2.5","messages":[{"role":"user","content":"` + strings.Repeat("x", 100)
	c := used(t)
	head := request(chatLine, body, hostLine, auth, jsonLine, fmt.Sprintf("Content-Length: %d", len(body)+len(whole)))
	if _, err := io.WriteString(c, head); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // else it may be read in one piece, which is right as well
	if a := exchange(t, c, whole, 1)[0]; !strings.HasPrefix(a, "HTTP/1.1 503") {
		t.Errorf("answered %s", a)
	}
}
