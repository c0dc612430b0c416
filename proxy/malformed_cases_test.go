package proxy_test

import (
	"fmt"
	"strings"
)

// Lines that good requests are made of.
const (
	chatLine     = "POST /v1/chat/completions HTTP/1.1"
	messagesLine = "POST /v1/messages HTTP/1.1"
	hostLine     = "Host: proxy.test"
	authLine     = "Authorization: Bearer <token>"
	keyLine      = "X-Api-Key: <token>"
	jsonLine     = "Content-Type: application/json"
	chunkedLine  = "Transfer-Encoding: chunked"
	goodBody     = `{"model":"kimi-k2.5","max_tokens":64,"stream":false,"messages":[{"role":"user","content":"hello"}]}`
)

// request puts the parts of a request together.
func request(line, body string, headers ...string) string {
	return line + "\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n" + body
}

func lengthLine(body string) string { return fmt.Sprintf("Content-Length: %d", len(body)) }

// chunked writes body as chunks of at most size bytes.
func chunked(body string, size int) string {
	var b strings.Builder
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// line is a good request with another request line.
func line(l string) string {
	return request(l, goodBody, hostLine, authLine, jsonLine, lengthLine(goodBody))
}

// with is a good request with more header lines.
func with(headers ...string) string {
	return request(chatLine, goodBody, append([]string{hostLine, authLine, jsonLine, lengthLine(goodBody)}, headers...)...)
}

// controls are good requests, as plain as the bad ones.
func controls() []badRequest {
	return []badRequest{
		{name: "OpenAI", raw: line(chatLine)},
		{name: "Anthropic", raw: request(messagesLine, goodBody, hostLine, keyLine, jsonLine, lengthLine(goodBody))},
		{name: "chunked", raw: request(chatLine, chunked(goodBody, 20), hostLine, authLine, jsonLine, chunkedLine)},
		{name: "chunked in another case", raw: request(messagesLine, chunked(goodBody, 1000), hostLine, keyLine, jsonLine, "tRANSFER-eNCODING: \t Chunked \t")},
		{name: "headers that are not passed on", raw: with("X-Forwarded-For: 192.0.2.1", "Cookie: a=b", "X-Api-Version: 7", "Proxy-Authorization: Basic eDp5", "Connection: X-Api-Version")},
		{name: "HTTP/1.0", raw: line("POST /v1/chat/completions HTTP/1.0")},
		{name: "query", raw: line("POST /v1/chat/completions?beta=true HTTP/1.1")},
		{name: "expected", raw: with("Expect: 100-continue")},
		// What fasthttp tolerates in chunked framing ends here: the upstream gets the same
		// body with a Content-Length, and nothing of what was around it.
		{name: "chunk extension", raw: request(chatLine, strings.Replace(chunked(goodBody, 1000), "\r\n", ";a=b\r\n", 1), hostLine, authLine, jsonLine, chunkedLine)},
		{name: "chunk extension with NUL", raw: request(chatLine, strings.Replace(chunked(goodBody, 1000), "\r\n", ";a=\x00\r\n", 1), hostLine, authLine, jsonLine, chunkedLine)},
		{name: "chunk extension without a name", raw: request(chatLine, strings.Replace(chunked(goodBody, 1000), "\r\n", ";\r\n", 1), hostLine, authLine, jsonLine, chunkedLine)},
		{name: "space behind a chunk size", raw: request(chatLine, strings.Replace(chunked(goodBody, 1000), "\r\n", " \t\r\n", 1), hostLine, authLine, jsonLine, chunkedLine)},
		{name: "trailer with a space before the colon", raw: request(chatLine, strings.TrimSuffix(chunked(goodBody, 1000), "\r\n")+"X Sum : 7\r\n\r\n", hostLine, authLine, jsonLine, chunkedLine)},
		{name: "trailer that imitates framing", raw: request(chatLine, strings.TrimSuffix(chunked(goodBody, 1000), "\r\n")+"Content_Length: 7\r\n\r\n", hostLine, authLine, jsonLine, chunkedLine)},
		{name: "trailer", raw: request(chatLine, strings.TrimSuffix(chunked(goodBody, 1000), "\r\n")+"X-Sum: 7\r\n\r\n", hostLine, authLine, jsonLine, chunkedLine)},
	}
}

func requestLines() []badRequest {
	out := []badRequest{
		{"absolute form", line("POST http://proxy.test/v1/chat/completions HTTP/1.1"), []int{400}},
		{"absolute form, userinfo", line("POST http://u:p@proxy.test/v1/chat/completions HTTP/1.1"), []int{400}},
		{"absolute form, other host", line("POST https://api.moonshot.ai/v1/users/me/balance HTTP/1.1"), []int{400}},
		{"absolute form, other scheme", line("POST file:///v1/chat/completions HTTP/1.1"), []int{400}},
		{"authority form", line("POST proxy.test:80 HTTP/1.1"), []int{400}},
		{"CONNECT authority", line("CONNECT api.moonshot.ai:443 HTTP/1.1"), []int{400}},
		{"CONNECT path", line("CONNECT /v1/chat/completions HTTP/1.1"), []int{405}},
		{"asterisk", line("POST * HTTP/1.1"), []int{400}},
		{"OPTIONS asterisk", line("OPTIONS * HTTP/1.1"), []int{400}},
		{"method in lower case", line("post /v1/chat/completions HTTP/1.1"), []int{405}},
		{"method in mixed case", line("Post /v1/chat/completions HTTP/1.1"), []int{405}},
		{"unknown method", line("FROB /v1/chat/completions HTTP/1.1"), []int{405}},
		{"method with a prefix", line("XPOST /v1/chat/completions HTTP/1.1"), []int{405}},
		{"long method", line(strings.Repeat("A", 300) + " /v1/chat/completions HTTP/1.1"), []int{405}},
		{"endless method", line(strings.Repeat("A", 20_000) + " /v1/chat/completions HTTP/1.1"), []int{431, noAnswer}},
		{"method with a slash", line("PO/ST /v1/chat/completions HTTP/1.1"), []int{400}},
		{"method with NUL", line("PO\x00ST /v1/chat/completions HTTP/1.1"), []int{400}},
		{"method with a colon", line("POST: /v1/chat/completions HTTP/1.1"), []int{400}},
		{"no method", line("/v1/chat/completions HTTP/1.1"), []int{400}},
		{"no target", line("POST HTTP/1.1"), []int{400}},
		{"empty target", line("POST  HTTP/1.1"), []int{400}},
		{"no version", line("POST /v1/chat/completions"), []int{400}},
		{"space first", line(" POST /v1/chat/completions HTTP/1.1"), []int{400}},
		{"two spaces", line("POST  /v1/chat/completions HTTP/1.1"), []int{400}},
		{"two spaces before the version", line("POST /v1/chat/completions  HTTP/1.1"), []int{400}},
		{"space after the version", line("POST /v1/chat/completions HTTP/1.1 "), []int{400}},
		{"tab for space", line("POST\t/v1/chat/completions\tHTTP/1.1"), []int{400}},
		{"tab after the method", line("POST\t/v1/chat/completions HTTP/1.1"), []int{400}},
		{"space in the path", line("POST /v1/chat completions HTTP/1.1"), []int{400}},
		{"bare CR in the line", line("POST /v1/chat/completions\rHTTP/1.1"), []int{400}},
		{"bare CR in the path", line("POST /v1/chat\r/completions HTTP/1.1"), []int{400}},
		{"two CRs end the line", line("POST /v1/chat/completions HTTP/1.1\r"), []int{400}},
		{"bare CR ends every line", strings.ReplaceAll(line(chatLine), "\r\n", "\r"), []int{400, 408}},
		{"bare LF ends every line", strings.ReplaceAll(line(chatLine), "\r\n", "\n"), []int{400, 408}},
		{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{400}},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x5a", 500) + "\r\n", []int{400}},
		{"an answer", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", []int{400}},
		{"only NUL", strings.Repeat("\x00", 100) + "\r\n\r\n", []int{400}},
		{"a SOCKS greeting", "\x05\x01\x00", nil},
		{"nothing but line ends", "\r\n\r\n\r\n", nil},
		{"no bytes", "", nil},
	}
	for _, v := range []string{"HTTP/9.9", "HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/0.0", "HTTP/1.10", "HTTP/01.1", "HTTP/11", "HTTP/1", "HTTP/1.", "HTTP/1,1", "HTTP/1.x", "http/1.1", "HTTP /1.1", "HTTPS/1.1", "ICY/1.1", "HTTP/-1.1", "HTTP/1.1\x00"} {
		out = append(out, badRequest{fmt.Sprintf("version %q", v), line("POST /v1/chat/completions " + v), []int{400}})
	}
	for _, p := range []string{
		"//v1/chat/completions", "//evil.test/v1/chat/completions", "/v1//chat/completions", "/./v1/chat/completions",
		"/v1/../v1/chat/completions", "/v1/chat/completions/..", "/v1/messages/../chat/completions", "/..",
		"/v1/%2e%2e/v1/chat/completions", "/v1/chat/%63ompletions", "/v1%2fchat/completions", "/v1/chat/completions%00",
		"/v1/chat/completions%0d%0aX-Evil:1", "/v1/chat/completions%20", "/v1/chat/completions%", "/v1/chat/completions%zz",
		"/v1/chat/completions#x", "/v1/chat/completions?a=1#x", "/v1/chat/completions?x=%0d%0a", "/v1\\chat\\completions", "/\\evil.test/v1/chat/completions",
		"/v1/chat/completions\x00", "/v1/chat/completions\x01", "/v1/chat/completions\x7f", "/v1/chat/completions\x0b", "/v1/chat/completions\t",
		"/v1/chat/completions\xc3\xa9", "/v1/chat/completions\xc0\xaf", "/v1/chat/completions\xff", "/v1/chat/completions?\x80",
		"/u:p@proxy.test/v1/chat/completions", "v1/chat/completions", "./v1/chat/completions", "?/v1/chat/completions", "@proxy.test/", "\\", "http:",
	} {
		out = append(out, badRequest{fmt.Sprintf("target %q", p), line("POST " + p + " HTTP/1.1"), []int{400, 404}})
	}
	long := strings.Repeat("a", 15_000)
	return append(out,
		badRequest{"long path", line("POST /" + long + " HTTP/1.1"), []int{404}},
		badRequest{"endless path", line("POST /" + long + long + " HTTP/1.1"), []int{431, noAnswer}},
		badRequest{"endless query", line("POST /v1/chat/completions?" + long + long + " HTTP/1.1"), []int{431, noAnswer}},
	)
}

func headerLines() []badRequest {
	out := []badRequest{
		{"obs-fold", with("X-A: b", " c"), []int{400}},
		{"obs-fold with a tab", with("X-A: b", "\tc"), []int{400}},
		{"obs-fold that looks like a header", with("X-A: b", " X-B: c"), []int{400}},
		{"obs-fold of the first header", request(chatLine, goodBody, " X-A: b", hostLine, authLine, jsonLine, lengthLine(goodBody)), []int{400}},
		{"obs-fold of the token", request(chatLine, goodBody, hostLine, "Authorization: Bearer", " <token>", jsonLine, lengthLine(goodBody)), []int{400}},
		{"obs-fold of the length", request(chatLine, goodBody, hostLine, authLine, jsonLine, "Content-Length:", fmt.Sprintf(" %d", len(goodBody))), []int{400}},
		{"no colon", with("X-A"), []int{400}},
		{"no colon, with a space", with("X-A b"), []int{400}},
		{"no name", with(": b"), []int{400}},
		{"no name, only a colon", with(":"), []int{400}},
		{"a request line among the headers", with("GET /v1/usage HTTP/1.1"), []int{400}},
		{"bare LF between headers", with("X-A: b\nX-B: c"), []int{400}},
		{"bare LF before the empty line", request(chatLine, goodBody, hostLine, authLine, jsonLine, lengthLine(goodBody)+"\nX-A: b"), []int{400}},
		{"bare CR between headers", with("X-A: b\rX-B: c"), []int{400}},
		{"bare CR ends a value", with("X-A: b\r"), []int{400}},
		{"bare CR in a name", with("X-\rA: b"), []int{400}},
		{"bare CR before the colon", with("X-A\r: b"), []int{400}},
		{"bare CR first", with("\rX-A: b"), []int{400}},
		{"LF CR", with("X-A: b\n\rX-B: c"), []int{400}},
		{"no Host", request(chatLine, goodBody, authLine, jsonLine, lengthLine(goodBody)), []int{400}},
		{"two Hosts", with("Host: proxy.test"), []int{400}},
		{"two different Hosts", with("Host: evil.test"), []int{400}},
		{"two Content-Types", with(jsonLine), []int{400}},
		{"two different Content-Types", with("Content-Type: text/plain"), []int{400}},
		{"no end of the head", strings.TrimSuffix(request(chatLine, "", hostLine, authLine, jsonLine, lengthLine(goodBody)), "\r\n"), []int{408, 400, noAnswer}},
		{"half a line", "POST /v1/chat/comp", []int{408, 400, noAnswer}},
		{"Expect something else", with("Expect: 200-ok"), []int{400, 417}},
		{"Expect twice", with("Expect: 100-continue", "Expect: 42"), []int{400, 417}},
		{"Expect a list", with("Expect: 100-continue, 42"), []int{400, 417}},
		{"Expect more", with("Expect: 100-continued"), []int{400, 417}},
		{"Expect with another order", with("Expect: 42", "Expect: 100-continue"), []int{400, 417}},
	}
	for _, name := range []string{"Content_Length", "Content\rLength", "Transfer_Encoding", "Content_Type", "X_Api_Key", "Host ", "Content-Length ", "Transfer-Encoding ", "Transfer Encoding", "Transfer- Encoding", "X-A\t", "X-A\x00", "\x00X-A", "X\x01A", "X\x0bA", "X\x7fA", "X-\xc3\xa9", "X(A)", "X/A", "X@A", "X[A]", "X\"A\"", "X{A}", "X=A", "X,A", "X;A", "X?A", "X\\A", "<X>"} {
		out = append(out, badRequest{fmt.Sprintf("name %q", name), with(name + ": 5"), []int{400}})
	}
	for _, value := range []string{"\x00", "a\x00b", "a\x01b", "a\x08b", "a\x0bb", "a\x0cb", "a\x1bb", "a\x7fb", "\x0b", "a\x00"} {
		out = append(out, badRequest{fmt.Sprintf("value %q", value), with("X-A: " + value), []int{400}})
	}
	for _, host := range []string{"", " ", "u:p@proxy.test", "u@proxy.test", "proxy.test/v1", "proxy.test, evil.test", "proxy test", "proxy.test\tevil.test", "proxy.test\x00", "proxy.test\\evil.test", "proxy.test?x", "proxy.test#x", "pr\xc3\xb6xy.test", "http://proxy.test"} {
		out = append(out, badRequest{fmt.Sprintf("Host %q", host), request(chatLine, goodBody, "Host: "+host, authLine, jsonLine, lengthLine(goodBody)), []int{400}})
	}
	for _, ct := range []string{"text/plain", "text/json", "application/jsonx", "application/x-ndjson", "multipart/form-data; boundary=x", "multipart/form-data", "application/x-www-form-urlencoded", ";", "application/json, text/plain", "application"} {
		out = append(out, badRequest{fmt.Sprintf("Content-Type %q", ct), request(chatLine, goodBody, hostLine, authLine, "Content-Type: "+ct, lengthLine(goodBody)), []int{400}})
	}
	for _, ce := range []string{"gzip", "br", "deflate", "zstd", "gzip, gzip", "x-gzip", "identity"} {
		out = append(out, badRequest{fmt.Sprintf("Content-Encoding %q", ce), with("Content-Encoding: " + ce), []int{400}})
	}
	many := make([]string, 2000)
	for i := range many {
		many[i] = fmt.Sprintf("X-%d: v", i)
	}
	return append(out,
		badRequest{"a header too big", with("X-A: " + strings.Repeat("v", 20_000)), []int{431, noAnswer}},
		badRequest{"a name too big", with(strings.Repeat("N", 20_000) + ": v"), []int{431, noAnswer}},
		badRequest{"too many headers", with(many...), []int{431, noAnswer}},
		badRequest{"a value without an end", request(chatLine, "", hostLine, authLine, "X-A: ") + strings.Repeat("v", 40_000), nil},
	)
}

func credentials() []badRequest {
	auth := func(headers ...string) string {
		return request(chatLine, goodBody, append([]string{hostLine, jsonLine, lengthLine(goodBody)}, headers...)...)
	}
	out := []badRequest{
		{"no credential", auth(), []int{401}},
		{"both credentials", auth(authLine, keyLine), []int{401}},
		{"both credentials, the other order", auth(keyLine, authLine), []int{401}},
		{"two Authorizations", auth(authLine, authLine), []int{401}},
		{"two keys", auth(keyLine, keyLine), []int{401}},
		{"two keys, one empty", auth("X-Api-Key:", keyLine), []int{401}},
		{"a key and Basic", auth(keyLine, "Authorization: Basic eDp5"), []int{401}},
		{"Anthropic without a credential", request(messagesLine, goodBody, hostLine, jsonLine, lengthLine(goodBody)), []int{401}},
		{"Anthropic with both", request(messagesLine, goodBody, hostLine, jsonLine, lengthLine(goodBody), authLine, keyLine), []int{401}},
		{"usage with both", request("GET /v1/usage HTTP/1.1", "", hostLine, authLine, keyLine), []int{401}},
		{"models without a credential", request("GET /v1/models HTTP/1.1", "", hostLine), []int{401}},
		{"estimate without a credential", request("POST /v1/tokenizers/estimate-token-count HTTP/1.1", goodBody, hostLine, jsonLine, lengthLine(goodBody)), []int{401}},
		{"NUL in the token", auth("Authorization: Bearer <token>\x00"), []int{400}},
		{"DEL in the token", auth("X-Api-Key: <token>\x7f"), []int{400}},
		{"the token as a header name", auth("<token> : x"), []int{400}},
		{"the token as the method", strings.Replace(auth(authLine), "POST", "<token>", 1), []int{400, 405}},
		{"the token as the version", strings.Replace(auth(authLine), "HTTP/1.1", "<token>", 1), []int{400}},
		{"the token as the path", strings.Replace(auth(authLine), "/v1/chat/completions", "<token>", 1), []int{400}},
		{"the token as a path", strings.Replace(auth(authLine), "/v1/chat/completions", "/<token>", 1), []int{404}},
		{"the token as the length", request(chatLine, goodBody, hostLine, authLine, "Content-Length: <token>"), []int{400}},
		{"the token as the encoding", request(chatLine, goodBody, hostLine, authLine, "Transfer-Encoding: <token>"), []int{400}},
		{"the token as the first chunk", request(chatLine, "<token>\r\n", hostLine, authLine, chunkedLine), []int{400}},
		{"the token as a trailer", request(chatLine, strings.TrimSuffix(chunked(goodBody, 1000), "\r\n")+authLine+"\r\n\r\n", hostLine, authLine, chunkedLine), []int{400}},
		{"the token as the body", request(chatLine, "<token>", hostLine, authLine, jsonLine, "Content-Length: 40"), []int{400}},
	}
	for _, value := range []string{"", "Bearer", "Bearer ", "<token>", "Basic <token>", "Basic eDp5", "Token <token>", "Bearer<token>", "Bearer: <token>", "Bearer <token>x", "Bearer x<token>", "Bearer <token> x", "Bearer <token>,Bearer <token>", "Bearer \"<token>\"", "Bearer ocp_", "Bearer sk-fake-upstream-key", "Bearer " + strings.Repeat("a", 5000), "Bearer ocp_" + strings.Repeat("0", 36), "Negotiate abc", "Digest username=\"x\""} {
		out = append(out, badRequest{fmt.Sprintf("Authorization %q", value), auth("Authorization: " + value), []int{401}})
	}
	for _, q := range []string{"key", "api_key", "api-key", "apikey", "token", "access_token", "auth", "x-api-key", "authorization"} {
		out = append(out,
			badRequest{"a key in the query as " + q, request("POST /v1/chat/completions?"+q+"=<token> HTTP/1.1", goodBody, hostLine, jsonLine, lengthLine(goodBody)), []int{401}},
			badRequest{"a second key in the query as " + q, line("POST /v1/chat/completions?beta=true&" + q + "=<token> HTTP/1.1"), []int{401}})
	}
	return out
}

func routesAndMethods() []badRequest {
	var out []badRequest
	for _, p := range []string{
		"/", "/v1", "/v1/", "/v1/chat", "/v1/chat/completions/", "/v1/chat/completions/x", "/v1/chat/completionsx", "/V1/chat/completions", "/v1/Chat/Completions", "/chat/completions", "/v2/chat/completions",
		"/v1/messages/", "/v1/messages/batches", "/v1/messages/count_tokens", "/v1/users/me/balance", "/v1/users/me", "/v1/files", "/v1/files/x/content", "/v1/embeddings", "/v1/completions", "/v1/responses", "/v1/batches", "/v1/organization", "/v1/models/kimi-k2.5",
		"/v1/usage/", "/metrics", "/healthz", "/readyz", "/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/sim/ledger", "/anthropic/v1/messages", "/favicon.ico", "/robots.txt", "/.env", "/v1;/chat/completions", "/v1/chat/completions;x",
	} {
		for _, method := range []string{"GET", "POST"} {
			r := request(method+" "+p+" HTTP/1.1", "", hostLine, authLine)
			if method == "POST" {
				r = line("POST " + p + " HTTP/1.1")
			}
			out = append(out, badRequest{method + " " + p, r, []int{404}})
		}
	}
	for _, route := range []struct{ path, method string }{
		{"/v1/chat/completions", "POST"}, {"/v1/messages", "POST"}, {"/v1/models", "GET"},
		{"/v1/tokenizers/estimate-token-count", "POST"}, {"/v1/usage", "GET"},
	} {
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "QUERY"} {
			if m != route.method {
				out = append(out, badRequest{m + " " + route.path, request(m+" "+route.path+" HTTP/1.1", "", hostLine, authLine), []int{405}})
			}
		}
	}
	for _, p := range []string{"/v1/models", "/v1/usage"} {
		out = append(out, badRequest{"a body for " + p, line("GET " + p + " HTTP/1.1"), []int{400}})
	}
	return out
}
