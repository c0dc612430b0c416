package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
)

func TestParseHead(t *testing.T) {
	t.Parallel()
	var h Head
	in := "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nX-Empty:\r\nX-Pad: \t a b \t\r\ncontent-LENGTH: 12\r\nRetry-After: 2\r\n\r\nbody"
	n, err := ParseHead([]byte(in), &h)
	if err != nil || n != len(in)-4 || h.Status != 429 || h.ContentLength != 12 || h.Chunked || !h.KeepAlive || h.Minor != 1 {
		t.Fatalf("%d %v %+v", n, err, h)
	}
	for name, want := range map[string]string{"retry-after": "1", "X-EMPTY": "", "x-pad": "a b", "nope": ""} {
		if got := string(h.Get(name)); got != want {
			t.Errorf("%s = %q", name, got)
		}
	}
	if h.Get("nope") != nil || h.Get("x-empty") == nil {
		t.Error("absent and empty are not told apart")
	}
	var names []string
	eachField(&h, func(k, _ []byte) bool { names = append(names, string(k)); return len(names) < 3 })
	if strings.Join(names, ",") != "Retry-After,X-Empty,X-Pad" {
		t.Error(names)
	}
	for in, want := range map[string]Head{
		"HTTP/1.0 200\r\n\r\n":   {Status: 200, ContentLength: -1},
		"HTTP/1.1 200 \r\n\r\n":  {Status: 200, Minor: 1, ContentLength: -1, KeepAlive: true},
		"HTTP/1.1 200 é\r\n\r\n": {Status: 200, Minor: 1, ContentLength: -1, KeepAlive: true},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: foo, Close\r\n\r\n": {Status: 200, Minor: 1, ContentLength: -1, Chunked: true},
		"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n":          {Status: 200, KeepAlive: true},
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\n":               {Status: 200, Minor: 1, ContentLength: 7, KeepAlive: true},
	} {
		n, err := ParseHead([]byte(in), &h)
		if err != nil || n != len(in) || h.Status != want.Status || h.Minor != want.Minor || h.ContentLength != want.ContentLength || h.Chunked != want.Chunked || h.KeepAlive != want.KeepAlive {
			t.Errorf("%q: %d %v %+v", in, n, err, h)
		}
	}
}

func TestParseHeadRefuses(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, in := range []string{
		"HTTP/2.0 200 OK\r\n\r\n", "http/1.1 200 OK\r\n\r\n", "HTTP/1.2 200 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", " HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 600 x\r\n\r\n", "HTTP/1.1 2 0 x\r\n\r\n", "HTTP/1.1\r\n\r\n",
		"HTTP/1.1 200 O\x00K\r\n\r\n", "HTTP/1.1 200 O\rK\r\n\r\n", "HTTP/1.1 200 OK\n\r\n", "\r\n" + ok + "\r\n", "\n", "SSH-2.0\r\n", "\x16\x03\x01",
		ok + "A: b\n\r\n", ok + "A: b\r\n\n", ok + " A: b\r\n\r\n", ok + "A: b\r\n c\r\n\r\n", ok + "A: b\r\n\tc\r\n\r\n",
		ok + "A : b\r\n\r\n", ok + "A b\r\n\r\n", ok + ": b\r\n\r\n", ok + "A\x00: b\r\n\r\n", ok + "A: b\x00\r\n\r\n", ok + "A: b\rc\r\n\r\n", ok + "é: b\r\n\r\n",
		ok + "Content-Length: -1\r\n\r\n", ok + "Content-Length: +1\r\n\r\n", ok + "Content-Length: 1 2\r\n\r\n", ok + "Content-Length: 1,1\r\n\r\n",
		ok + "Content-Length:\r\n\r\n", ok + "Content-Length: 0x5\r\n\r\n", ok + "Content-Length: 9999999999999999999\r\n\r\n",
		ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
		ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", ok + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
		ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", ok + "Transfer-Encoding: identity\r\n\r\n", ok + "Transfer-Encoding:\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ok + "Transfer-Encoding: chunked, chunked\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		ok + strings.Repeat("A: b\r\n", maxHeadFields+1) + "\r\n", ok + "A: " + strings.Repeat("x", maxHeadBytes) + "\r\n\r\n",
	} {
		var h Head
		if n, err := ParseHead([]byte(in), &h); err == nil || !errors.Is(err, ErrMalformed) {
			t.Errorf("%.60q: %d %v", in, n, err)
		}
		checkHeadSplit(t, []byte(in))
	}
}

// checkHeadSplit feeds b byte by byte and compares with feeding it whole.
func checkHeadSplit(t *testing.T, b []byte) {
	t.Helper()
	var whole, part Head
	wantN, wantErr := ParseHead(b, &whole)
	for i := range len(b) + 1 {
		n, err := ParseHead(b[:i], &part)
		if n == 0 && err == nil {
			continue
		}
		if n != wantN || (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("%q: whole %d %v, first %d bytes %d %v", b, wantN, wantErr, i, n, err)
		}
		if err == nil && (part.Status != whole.Status || part.ContentLength != whole.ContentLength || part.Chunked != whole.Chunked ||
			part.KeepAlive != whole.KeepAlive || !bytes.Equal(part.raw, whole.raw) || len(part.fields) != len(whole.fields)) {
			t.Fatalf("%q: heads differ", b)
		}
		return
	}
	if wantN != 0 || wantErr != nil {
		t.Fatalf("%q: whole %d %v, in parts nothing", b, wantN, wantErr)
	}
}

func FuzzParseHead(f *testing.F) {
	for _, s := range []string{
		okAnswer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n", "HTTP/1.0 404 \r\nA:b\r\nA: c\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4<<10 {
			b = b[:4<<10]
		}
		checkHeadSplit(t, b)
		var h Head
		n, err := ParseHead(b, &h)
		if err != nil || n == 0 {
			return
		}
		// What this accepts, net/http understands in the same way.
		r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
		if err != nil {
			t.Fatalf("%q: net/http refuses it: %v", b[:n], err)
		}
		_ = r.Body.Close()
		if r.StatusCode != h.Status {
			t.Fatalf("%q: status %d, net/http %d", b[:n], h.Status, r.StatusCode)
		}
		noBody := h.Status < 200 || h.Status == 204 || h.Status == 304
		if !noBody && (r.ContentLength != h.ContentLength || (len(r.TransferEncoding) == 1) != h.Chunked) {
			t.Fatalf("%q: length %d chunked %v, net/http %d %v", b[:n], h.ContentLength, h.Chunked, r.ContentLength, r.TransferEncoding)
		}
		eachField(&h, func(k, v []byte) bool {
			if name := http.CanonicalHeaderKey(string(k)); name != "Transfer-Encoding" && name != "Content-Length" && name != "Trailer" && name != "Connection" {
				if got := r.Header.Get(name); got != string(h.Get(string(k))) {
					t.Fatalf("%q: %s is %q, net/http has %q", b[:n], k, h.Get(string(k)), got)
				}
			}
			return true
		})
	})
}

// decodeAll feeds in portions of the given size.
func decodeAll(in []byte, step int) (out []byte, used int, done bool, err error) {
	var c Chunked
	for used < len(in) && !done && err == nil {
		part := in[used:min(len(in), used+step)]
		for len(part) > 0 && !done && err == nil {
			var b []byte
			var n int
			b, n, done, err = c.Feed(part)
			out = append(out, b...)
			part = part[n:]
			used += n
			if n == 0 && !done && err == nil {
				panic("no progress")
			}
		}
	}
	// The end may have been used up together with the last byte.
	return out, used, c.Done(), err
}

func TestChunked(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"0\r\n\r\n":                         "",
		"5\r\nhello\r\n0\r\n\r\n":           "hello",
		"000A\r\n0123456789\r\n00\r\n\r\n":  "0123456789",
		"a\r\n0123456789\r\n0\r\n\r\nextra": "0123456789",
		"1;a=b;c=\"x\\\"\ty\" ;d\r\nz\r\n0;last\r\nA: b\r\nB:\r\n\r\n": "z",
	} {
		for _, step := range []int{1, 2, 3, 5, 1000} {
			out, used, done, err := decodeAll([]byte(in), step)
			if err != nil || !done || string(out) != want || used != len(strings.TrimSuffix(in, "extra")) {
				t.Errorf("%q by %d: %q %d %v %v", in, step, out, used, done, err)
			}
		}
	}
	for _, in := range []string{
		"\r\n", "g\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "+5\r\n", "-1\r\n", "0x5\r\n", "5\nhello\r\n", "5\rhello", "5;a\nhello", "5;\x00\r\n", "5;\"\r\n",
		"5\r\nhello0\r\n", "5\r\nhello\n0", "5\r\nhello\r0", "FFFFFFFFFFFFFFFF\r\n", "10000000000000000\r\n", "00000000000000001\r\na\r\n", "8000000000000000\r\n",
		"0\r\n\n", "0\r\nA b\r\n", "0\r\n A: b\r\n", "0\r\n: b\r\n", "0\r\nA: b\n\r\n", "0\r\nA: \x00\r\n", "0\r\nA: b\rc", "0\r\n\rX",
		"1;" + strings.Repeat("x", maxChunkLine) + "\r\n", "0\r\nA: " + strings.Repeat("x", maxTrailerBytes) + "\r\n",
		strings.Repeat("1;"+strings.Repeat("x", 1000)+"\r\na\r\n", 100),
	} {
		for _, step := range []int{1, 1000} {
			if out, _, done, err := decodeAll([]byte(in), step); err == nil || done || !errors.Is(err, ErrMalformed) {
				t.Errorf("%.60q by %d: %q %v %v", in, step, out, done, err)
			}
		}
	}
	// Many tiny chunks without extensions are an ordinary stream.
	if _, _, done, err := decodeAll([]byte(strings.Repeat("1\r\na\r\n", 100_000)+"0\r\n\r\n"), 4096); err != nil || !done {
		t.Error(done, err)
	}
}

func FuzzChunked(f *testing.F) {
	for _, s := range []string{"5\r\nhello\r\n0\r\n\r\n", "1;a=\"b\"\r\nx\r\n0\r\nA: b\r\n\r\nrest", "5\r\nhel", "ffffffffffffffff\r\n"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		out, used, done, err := decodeAll(in, len(in)+1)
		for _, s := range []int{1, int(step) + 1} {
			o, u, d, e := decodeAll(in, s)
			if !bytes.Equal(o, out) || d != done || (e == nil) != (err == nil) || e == nil && u != used || e != nil && e.Error() != err.Error() {
				t.Fatalf("%q: whole %q %d %v %v, by %d %q %d %v %v", in, out, used, done, err, s, o, u, d, e)
			}
		}
		// In place gives the same.
		var c Chunked
		b := bytes.Clone(in)
		n, u, e := c.decode(b)
		if !bytes.Equal(b[:n], out) || u != used || c.Done() != done || (e == nil) != (err == nil) {
			t.Fatalf("%q: in place %q %d %v", in, b[:n], u, e)
		}
		if err != nil {
			return
		}
		// What this accepts, net/http decodes to the same bytes.
		got, herr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(in)))
		if !bytes.HasPrefix(got, out) && !bytes.HasPrefix(out, got) || done && (herr != nil || !bytes.Equal(got, out)) {
			t.Fatalf("%q: %q done %v, net/http %q %v", in, out, done, got, herr)
		}
	})
}

// eachField calls f for each field in order until f returns false. The slices alias the head.
func eachField(h *Head, f func(name, value []byte) bool) {
	for _, p := range h.fields {
		if !f(h.raw[p.name:p.nameEnd], h.raw[p.value:p.valueEnd]) {
			return
		}
	}
}
