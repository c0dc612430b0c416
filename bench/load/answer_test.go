package load

import (
	"strconv"
	"testing"
)

// feedAll gives text to a fresh answer, n bytes at a time.
func feedAll(t *testing.T, text string, n int) (a answer, stamps []int64, rest string) {
	t.Helper()
	for i := 0; i < len(text); i += n {
		left, err := a.feed([]byte(text[i:min(i+n, len(text))]), func(stamp int64) { stamps = append(stamps, stamp) })
		if err != nil {
			t.Fatalf("%q in pieces of %d: %v", text, n, err)
		}
		rest += string(left)
	}
	return a, stamps, rest
}

func TestAnswerInPiecesOfAnySize(t *testing.T) {
	t.Parallel()
	chunk := func(s string) string { return strconv.FormatInt(int64(len(s)), 16) + "\r\n" + s + "\r\n" }
	stream := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
		chunk("data: {\"a\":1,\"t\":123}\n\ndata: {\"a\"") + chunk(":2,\"t\":456}\n\n: comment\n\n") + chunk("data: {}\n\ndata: [DONE]\n\n") + "0\r\nX-Trailer: 1\r\n\r\nMORE"
	whole := "HTTP/1.1 429 Too Many\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello"
	for n := 1; n <= len(stream); n++ {
		a, stamps, rest := feedAll(t, stream, n)
		if a.phase != complete || a.status != 200 || !a.ended || a.errored || a.close || rest != "MORE" {
			t.Fatalf("in pieces of %d: %+v, rest %q", n, a, rest)
		}
		if len(stamps) != 4 || stamps[0] != 123 || stamps[1] != 456 || stamps[2] != 0 || stamps[3] != 0 {
			t.Fatalf("in pieces of %d: stamps %v", n, stamps)
		}
		a, _, rest = feedAll(t, whole, n)
		if a.phase != complete || a.status != 429 || !a.close || a.body != 5 || rest != "" {
			t.Fatalf("in pieces of %d: %+v, rest %q", n, a, rest)
		}
	}
}

func TestAnswersThatAreNotComplete(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"head":      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
		"body":      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
		"chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"no length": "HTTP/1.1 200 OK\r\n\r\nhello",
	} {
		if a, _, _ := feedAll(t, text, 7); a.phase == complete {
			t.Errorf("%s: counted as complete", name)
		}
	}
	for _, text := range []string{"HTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 2xx OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"} {
		var a answer
		if _, err := a.feed([]byte(text), func(int64) {}); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestErrorEventsAndEndMarks(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
	for text, want := range map[string]struct{ ended, errored bool }{
		"data: {\"error\":{}}\n\n":                                             {false, true},
		"event: error\ndata: {\"type\":\"error\"}\n\n":                         {false, true},
		"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n":           {true, false},
		"data: {\"choices\":[{\"delta\":{\"content\":\"[DONE] error\"}}]}\n\n": {false, false},
		"data:[DONE]\n\n": {true, false},
	} {
		a, _, _ := feedAll(t, head+text, 5)
		if a.ended != want.ended || a.errored != want.errored || !a.close {
			t.Errorf("%q: ended %v, errored %v, close %v", text, a.ended, a.errored, a.close)
		}
	}
}
