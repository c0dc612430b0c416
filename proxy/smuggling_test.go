package proxy_test

import (
	"fmt"
	"strings"
)

// framed is a request of the good body with other framing headers, its body as it is on
// the wire.
func framed(body string, headers ...string) string {
	return request(chatLine, body, append([]string{hostLine, authLine, jsonLine}, headers...)...)
}

// framings are requests whose end two parsers may see in two places, or nobody sees.
func framings() []badRequest {
	n := len(goodBody)
	chunks := chunked(goodBody, 40)
	out := []badRequest{
		{"CL then TE, chunks", framed(chunks, lengthLine(chunks), chunkedLine), []int{400}},
		{"TE then CL, chunks", framed(chunks, chunkedLine, lengthLine(chunks)), []int{400}},
		{"CL then TE, plain", framed(goodBody, lengthLine(goodBody), chunkedLine), []int{400}},
		{"TE then CL, plain", framed(goodBody, chunkedLine, lengthLine(goodBody)), []int{400}},
		{"identity and CL", framed(goodBody, "Transfer-Encoding: identity", lengthLine(goodBody)), []int{400}},
		{"CL and identity", framed(goodBody, lengthLine(goodBody), "Transfer-Encoding: identity"), []int{400}},
		{"identity alone", framed(goodBody, "Transfer-Encoding: identity"), []int{400}},
		{"two TEs", framed(chunks, chunkedLine, chunkedLine), []int{400}},
		{"chunked and identity", framed(chunks, chunkedLine, "Transfer-Encoding: identity"), []int{400}},
		{"identity and chunked", framed(chunks, "Transfer-Encoding: identity", chunkedLine), []int{400}},
		{"two TEs in different cases", framed(chunks, chunkedLine, "transfer-encoding: CHUNKED"), []int{400}},
		{"TE folded", framed(chunks, "Transfer-Encoding:", " chunked"), []int{400}},
		{"TE folded behind", framed(chunks, "Transfer-Encoding: chunked", " , identity"), []int{400}},
		{"TE behind a bare CR", framed(goodBody, lengthLine(goodBody), "X-A: b\rTransfer-Encoding: chunked"), []int{400}},
		{"TE behind a bare LF", framed(goodBody, lengthLine(goodBody), "X-A: b\nTransfer-Encoding: chunked"), []int{400}},
		{"TE behind NUL", framed(goodBody, lengthLine(goodBody), "X-A: b\x00Transfer-Encoding: chunked"), []int{400}},
		{"TE after a fold", framed(goodBody, lengthLine(goodBody), "X-A: b", " Transfer-Encoding: chunked"), []int{400}},
		{"TE in HTTP/1.0", strings.Replace(framed(chunks, chunkedLine), "HTTP/1.1", "HTTP/1.0", 1), []int{400}},
		{"TE in HTTP/1.0, kept alive", strings.Replace(framed(chunks, chunkedLine, "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1), []int{400}},
		{"TE and CL in HTTP/1.0", strings.Replace(framed(chunks, chunkedLine, lengthLine(chunks)), "HTTP/1.1", "HTTP/1.0", 1), []int{400}},
		{"two CLs", framed(goodBody, lengthLine(goodBody), lengthLine(goodBody)), []int{400}},
		{"two different CLs", framed(goodBody, lengthLine(goodBody), "Content-Length: 5"), []int{400}},
		{"two CLs in different cases", framed(goodBody, lengthLine(goodBody), strings.ToUpper(lengthLine(goodBody))), []int{400}},
		{"CL too short", framed(goodBody, fmt.Sprintf("Content-Length: %d", n-1)), []int{400}},
		{"CL much too short", framed(goodBody, "Content-Length: 1"), []int{400}},
		{"CL 0 with a body", framed(goodBody, "Content-Length: 0"), []int{400}},
		{"no CL with a body", framed(goodBody), []int{400}},
		{"CL too long", framed(goodBody, fmt.Sprintf("Content-Length: %d", n+1)), []int{408}},
		{"CL much too long", framed(goodBody, "Content-Length: 100000"), []int{408}},
		{"CL with no body", framed("", lengthLine(goodBody)), []int{408}},
	}
	for _, v := range []string{"gzip", "deflate", "gzip, chunked", "chunked, gzip", "chunked, identity", "chunked, chunked", "chunked,", ",chunked", "xchunked", "chunkedx", "chunked;q=1", "\"chunked\"", "x chunked", "chunked\x0b", "\x0bchunked", "chunked\x00", "\x00chunked", "chunked\r", "chunk", "", "cow", "chun ked", "\xc3\xa7hunked", "chunKed"} {
		if v == "chunKed" {
			v = "chun\u212Aed" // the Kelvin sign folds to a k
		}
		out = append(out,
			badRequest{fmt.Sprintf("TE %q", v), framed(chunks, "Transfer-Encoding: "+v), []int{400}},
			badRequest{fmt.Sprintf("TE %q and CL", v), framed(goodBody, "Transfer-Encoding: "+v, lengthLine(goodBody)), []int{400}})
	}
	for _, v := range []string{"-1", "-0", "+%d", "0x%x", "%d;", "%d, %[1]d", "%d,", "%d %[1]d", "%d\x0b", "\x0b%d", "%d\x00", "%d.0", "1e2", "%d\r", "٥", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "99999999999999999999999999", "", "five", "0b11", "0o17", "1_0", "\"%d\""} {
		if strings.Contains(v, "%") {
			v = fmt.Sprintf(v, n)
		}
		// A length that is a number, only too large, is a body too large.
		out = append(out, badRequest{fmt.Sprintf("CL %q", v), framed(goodBody, "Content-Length: "+v), []int{400, 413}})
	}
	return append(out, chunkFaults()...)
}

// chunkFaults are chunked bodies with a fault.
func chunkFaults() []badRequest {
	n := len(goodBody)
	good := fmt.Sprintf("%x\r\n%s\r\n", n, goodBody)
	var out []badRequest
	for _, size := range []string{
		"", " %x", "-%x", "+%x", "0x%x", "%xh", "%x junk", "%x\x00", "%x\x0b", "%x\n", "%x\r", "%x;a\nb", "%x;a\rb", "%x ;a=b", "\t%x", "g", "zz",
		"-1", "ffffffffffffffff", "fffffffffffffffff", "7fffffffffffffff", "8000000000000000", "10000000000000000", "fffffffffffffff", "%x,%[1]x", "%x.", "%x\xff", "0x", "\"%x\"", "{",
	} {
		if strings.Contains(size, "%") {
			size = fmt.Sprintf(size, n)
		}
		out = append(out, badRequest{fmt.Sprintf("chunk size %q", size), framed(size+"\r\n"+goodBody+"\r\n0\r\n\r\n", chunkedLine), []int{400, 413}})
	}
	end := func(body string) string { return framed(body, chunkedLine) }
	out = append(out,
		badRequest{"chunk size with a bare LF", end(fmt.Sprintf("%x\n%s\r\n0\r\n\r\n", n, goodBody)), []int{400}},
		badRequest{"chunk with a bare LF", end(fmt.Sprintf("%x\r\n%s\n0\r\n\r\n", n, goodBody)), []int{400, 408}},
		badRequest{"chunk with a bare CR", end(fmt.Sprintf("%x\r\n%s\r0\r\n\r\n", n, goodBody)), []int{400}},
		badRequest{"chunk without a line end", end(fmt.Sprintf("%x\r\n%s0\r\n\r\n", n, goodBody)), []int{400}},
		badRequest{"chunk too short", end(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", n-1, goodBody)), []int{400}},
		badRequest{"chunk too long", end(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", n+1, goodBody)), []int{400, 408}},
		badRequest{"chunk much too long", end(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 100_000, goodBody)), []int{408}},
		badRequest{"no last chunk", end(good), []int{408}},
		badRequest{"half a last chunk", end(good + "0"), []int{408}},
		badRequest{"last chunk without a line end", end(good + "0\r\n"), []int{400, 408}},
		badRequest{"only a last chunk", end("0\r\n\r\n"), []int{400}},
		badRequest{"no chunk at all", end(""), []int{408}},
		badRequest{"plain JSON for chunks", end(goodBody), []int{400}},
		badRequest{"a chunk behind the last", end("0\r\n\r\n" + good), []int{400}},
		badRequest{"trailer without a colon", end(good + "0\r\nX-A\r\n\r\n"), []int{400}},
		badRequest{"trailer with NUL", end(good + "0\r\nX-A: \x00\r\n\r\n"), []int{400}},
		badRequest{"trailer without an end", end(good + "0\r\nX-A: b\r\n"), []int{400, 408}},
		badRequest{"trailer too big", end(good + "0\r\nX-A: " + strings.Repeat("v", 20_000) + "\r\n\r\n"), nil},
	)
	for _, h := range []string{"Content-Length: 5", "Transfer-Encoding: chunked", "Host: evil.test", "Authorization: Bearer x", "Content-Type: text/plain", "Content-Encoding: gzip", "Connection: keep-alive", "Expect: 100-continue", "Trailer: X-A"} {
		name, _, _ := strings.Cut(h, ":")
		out = append(out, badRequest{"trailer " + name, end(good + "0\r\n" + h + "\r\n\r\n"), []int{400}})
	}
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Host", "Authorization"} {
		out = append(out, badRequest{"announced trailer " + name, framed(chunked(goodBody, 40), chunkedLine, "Trailer: "+name), []int{400}})
	}
	return out
}

// hiddenRequests are framing attacks that carry a second, good request which a parser
// that reads the first one otherwise would serve: it must be neither answered with
// success nor forwarded.
func hiddenRequests() []badRequest {
	attacks := []struct {
		name string
		head []string // framing headers
		body func(hidden string) string
	}{
		{"CL.TE", []string{"Content-Length: %cut", chunkedLine}, func(h string) string { return "0\r\n\r\n" + h }},
		{"TE.CL", []string{chunkedLine, "Content-Length: 4"}, func(h string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(h), h) }},
		{"TE.CL, CL first", []string{"Content-Length: 0", chunkedLine}, func(h string) string { return h }},
		{"CL.0", []string{"Content-Length: 0", "Content_Length: %cut"}, func(h string) string { return h }},
		{"CL.CL", []string{"Content-Length: 0", "Content-Length: %cut"}, func(h string) string { return h }},
		{"CL list", []string{"Content-Length: 0, %cut"}, func(h string) string { return h }},
		{"CL with a space", []string{"Content-Length : %cut"}, func(h string) string { return h }},
		{"CL folded", []string{"Content-Length:", " %cut"}, func(h string) string { return h }},
		{"CL behind a bare CR", []string{"X-A: b\rContent-Length: %cut"}, func(h string) string { return h }},
		{"CL behind a bare LF", []string{"Content-Length: 0", "X-A: b\nX-B: c"}, func(h string) string { return h }},
		{"identity", []string{"Transfer-Encoding: identity"}, func(h string) string { return h }},
		{"identity and CL 0", []string{"Content-Length: 0", "Transfer-Encoding: identity"}, func(h string) string { return h }},
		{"TE underscore", []string{"Content-Length: 0", "Transfer_Encoding: chunked"}, func(h string) string { return h }},
		{"TE space", []string{"Content-Length: 0", "Transfer-Encoding : chunked"}, func(h string) string { return h }},
		{"TE.TE", []string{chunkedLine, "Transfer-Encoding: cow"}, func(h string) string { return "0\r\n\r\n" + h }},
		{"TE vertical tab", []string{"Transfer-Encoding: \x0bchunked"}, func(h string) string { return "0\r\n\r\n" + h }},
		{"TE quoted", []string{"Transfer-Encoding: \"chunked\""}, func(h string) string { return "0\r\n\r\n" + h }},
		{"TE list", []string{"Transfer-Encoding: chunked, identity"}, func(h string) string { return "0\r\n\r\n" + h }},
		{"TE folded", []string{"Content-Length: 0", "Transfer-Encoding:", " chunked"}, func(h string) string { return h }},
		{"TE behind NUL", []string{"Content-Length: 0", "X-A: \x00", chunkedLine}, func(h string) string { return h }},
		{"obs-fold", []string{"Content-Length: 0", "X-A: b", " Content-Length: %cut"}, func(h string) string { return h }},
		{"no colon", []string{"Content-Length: 0", "X-A"}, func(h string) string { return h }},
		{"two Hosts", []string{"Content-Length: 0", "Host: evil.test"}, func(h string) string { return h }},
		{"chunk size overflow", []string{chunkedLine}, func(h string) string { return "10000000000000000\r\n\r\n\r\n" + h }},
		{"chunk size negative", []string{chunkedLine}, func(h string) string { return "-1\r\n\r\n" + h }},
		{"chunk size with LF", []string{chunkedLine}, func(h string) string { return "0\n\r\n\r\n" + h }},
		{"chunk extension with LF", []string{chunkedLine}, func(h string) string { return "0;a\nb\r\n\r\n" + h }},
		{"trailer framing", []string{chunkedLine}, func(h string) string { return "0\r\nContent-Length: 0\r\n\r\n" + h }},
		{"trailer junk", []string{chunkedLine}, func(h string) string { return "0\r\nX-A\r\n\r\n" + h }},
		{"version", []string{"Content-Length: 0", "Connection: keep-alive", "X-Version: 1.0", chunkedLine}, func(h string) string { return h }},
		{"Expect", []string{"Content-Length: 0", "Expect: 42"}, func(h string) string { return h }},
	}
	hidden := []struct{ name, raw string }{
		{"completion", line(chatLine)},
		{"usage", request("GET /v1/usage HTTP/1.1", "", hostLine, authLine)},
	}
	var out []badRequest
	for _, a := range attacks {
		for _, h := range hidden {
			body := a.body(h.raw)
			head := strings.ReplaceAll(strings.Join(a.head, "\r\n"), "%cut", fmt.Sprint(len(body)))
			out = append(out, badRequest{name: "hidden " + h.name + " behind " + a.name, raw: framed(body, head), want: []int{400, 417}})
		}
	}
	// The same behind heads that only we find fault with.
	for _, first := range []string{"POST /v1/chat/completions HTTP/9.9", "POST //v1/chat/completions HTTP/1.1", "POST http://u:p@proxy.test/v1/chat/completions HTTP/1.1", "CONNECT proxy.test:80 HTTP/1.1", "OPTIONS * HTTP/1.1"} {
		raw := request(first, line(chatLine), hostLine, authLine, jsonLine, "Content-Length: 0", "Connection: keep-alive")
		out = append(out, badRequest{name: "hidden behind " + first, raw: raw, want: []int{400}})
	}
	return out
}
