package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// route is what a path and method ask for.
type route uint8

const (
	routeNone route = iota
	routeChat
	routeMessages
	routeModels
	routeEstimate
	routeUsage
)

// routes is the whole public surface. Nothing else exists: in particular the
// upstream's balance endpoint would show the platform's own account.
var routes = []struct {
	path   string
	method string
	route  route
	face   kimi.Face
}{
	{"/v1/chat/completions", "POST", routeChat, kimi.OpenAI},
	{"/v1/messages", "POST", routeMessages, kimi.Anthropic},
	{"/v1/models", "GET", routeModels, kimi.OpenAI},
	{"/v1/tokenizers/estimate-token-count", "POST", routeEstimate, kimi.OpenAI},
	{"/v1/usage", "GET", routeUsage, kimi.OpenAI},
}

// head is what accept learns from a request's head.
type head struct {
	route      route
	face       kimi.Face
	credential []byte // raw token; aliases the request
	remote     netip.Addr
}

// accept checks the request line and the raw header block and finds the route. It is
// stricter than fasthttp, whose leniencies (obs-fold, odd versions, userinfo, TE beside
// CL, names that imitate framing headers) would otherwise be ours.
func (s *Server) accept(ctx *fasthttp.RequestCtx) (h head, r refusal, d detail) {
	h.remote = s.remoteAddr(ctx)
	hdr := &ctx.Request.Header
	target := hdr.RequestURI()
	h.face = faceOf(target)
	if !cleanTarget(target) {
		return h, refuseBadRequest, detail{message: "malformed request target: use a plain path such as /v1/chat/completions"}
	}
	path, query, _ := bytes.Cut(target, []byte{'?'})
	if p := hdr.Protocol(); string(p) != "HTTP/1.1" && string(p) != "HTTP/1.0" {
		return h, refuseBadRequest, detail{message: "unsupported protocol version"}
	}
	var seen headerFacts
	if msg := seen.scan(hdr.RawHeaders()); msg != "" {
		return h, refuseBadRequest, detail{message: msg}
	}
	if msg := seen.framing(string(hdr.Protocol()) == "HTTP/1.0"); msg != "" {
		return h, refuseBadRequest, detail{message: msg}
	}
	if !seen.expectation() {
		return h, refuseExpect, detail{}
	}
	if !s.hostAllowed(seen.host) {
		return h, refuseBadRequest, detail{message: "this host is not served here"}
	}
	pathKnown := false
	for i := range routes {
		if string(path) != routes[i].path {
			continue
		}
		pathKnown = true
		d.allow = routes[i].method
		if string(hdr.Method()) == routes[i].method {
			h.route, h.face = routes[i].route, routes[i].face
		}
	}
	switch {
	case !pathKnown:
		return h, refusePath, detail{}
	case h.route == routeNone:
		return h, refuseMethod, d
	}
	if hdr.Method()[0] == 'G' && len(ctx.Request.Body()) > 0 {
		return h, refuseBadRequest, detail{message: "a GET request has no body"}
	}
	if len(ctx.Request.Header.ContentEncoding()) > 0 {
		return h, refuseBadRequest, detail{message: "Content-Encoding is not supported: send the body as plain JSON"}
	}
	if h.route != routeModels && h.route != routeUsage && len(seen.contentType) > 0 && !isJSON(seen.contentType) {
		return h, refuseBadRequest, detail{message: "Content-Type must be application/json"}
	}
	h.credential, r = seen.credential()
	if r == refuseNone && credentialInQuery(query) {
		r = refuseTwoCredentials
	}
	return h, r, detail{}
}

// faceOf tells by a request target, which may be malformed, whose errors its sender reads.
func faceOf(target []byte) kimi.Face {
	if bytes.HasPrefix(target, []byte("/v1/messages")) {
		return kimi.Anthropic
	}
	return kimi.OpenAI
}

// queryCredentials are parameters that other APIs take keys from. Ours does not: a
// target ends up in the logs of whatever stands in between.
var queryCredentials = [...]string{
	"key", "api_key", "api-key", "apikey", "x-api-key", "token", "access_token", "auth", "authorization",
}

func credentialInQuery(query []byte) bool {
	for len(query) > 0 {
		var param []byte
		param, query, _ = bytes.Cut(query, []byte{'&'})
		name, _, _ := bytes.Cut(param, []byte{'='})
		for _, c := range queryCredentials {
			if bytes.EqualFold(name, []byte(c)) {
				return true
			}
		}
	}
	return false
}

// cleanTarget reports whether t is a path in visible ASCII without anything that
// another parser could read differently.
func cleanTarget(t []byte) bool {
	if len(t) == 0 || t[0] != '/' || bytes.HasPrefix(t, []byte("//")) {
		return false
	}
	for _, c := range t {
		if c <= ' ' || c >= 0x7f || c == '\\' || c == '#' || c == '@' || c == '%' {
			return false
		}
	}
	return !bytes.Contains(t, []byte(".."))
}

func isJSON(ct []byte) bool {
	mt, _, _ := bytes.Cut(ct, []byte{';'})
	return bytes.EqualFold(bytes.TrimSpace(mt), []byte("application/json"))
}

// headerFacts is what one pass over the raw header block finds.
type headerFacts struct {
	host          []byte
	hosts         int
	contentLength int
	clValue       []byte
	te            int
	teValue       []byte
	authorization []byte
	auths         int
	apiKey        []byte
	apiKeys       int
	contentType   []byte
	contentTypes  int
	expect        []byte
	expects       int
	connection    []byte
	connections   int
	unusual       int // headers that change what the others mean, and that no usual client sends
}

// tokenChars are the characters of a header name (RFC 9110 §5.6.2) without '_', which
// CGI-like parsers take for '-'.
var tokenChars = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-32] = true, true
	}
	for _, c := range "!#$%&'*+-.^`|~" {
		t[c] = true
	}
	return t
}()

// scan reads the raw block, lines ending in CRLF, and returns what is wrong with it.
func (f *headerFacts) scan(raw []byte) string {
	for len(raw) > 0 {
		i := bytes.IndexByte(raw, '\n')
		if i < 0 {
			i = len(raw)
		}
		line := raw[:i]
		raw = raw[min(i+1, len(raw)):]
		// An empty line too: fasthttp ends the head at a lone LF.
		n := len(line)
		if n == 0 || line[n-1] != '\r' {
			return "header lines must end in CRLF"
		}
		line = line[:n-1]
		if len(line) == 0 {
			continue // the empty line at the end
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			return "malformed header line"
		}
		name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
		for _, c := range name {
			if !tokenChars[c] {
				return "malformed header name"
			}
		}
		for _, c := range value {
			if c < ' ' && c != '\t' || c == 0x7f {
				return "control character in a header value"
			}
		}
		f.note(name, value)
	}
	return ""
}

func (f *headerFacts) note(name, value []byte) {
	switch len(name) {
	case 4:
		if bytes.EqualFold(name, []byte("host")) {
			f.host = value
			f.hosts++
		}
	case 7:
		if bytes.EqualFold(name, []byte("trailer")) {
			f.unusual++
		}
	case 16:
		if bytes.EqualFold(name, []byte("content-encoding")) {
			f.unusual++
		}
	case 6:
		if bytes.EqualFold(name, []byte("expect")) {
			f.expect = value
			f.expects++
		}
	case 9:
		if bytes.EqualFold(name, []byte("x-api-key")) {
			f.apiKey = value
			f.apiKeys++
		}
	case 10:
		if bytes.EqualFold(name, []byte("connection")) {
			f.connection = value
			f.connections++
		}
	case 12:
		if bytes.EqualFold(name, []byte("content-type")) {
			f.contentType = value
			f.contentTypes++
		}
	case 13:
		if bytes.EqualFold(name, []byte("authorization")) {
			f.authorization = value
			f.auths++
		}
	case 14:
		if bytes.EqualFold(name, []byte("content-length")) {
			f.clValue = value
			f.contentLength++
		}
	case 17:
		if bytes.EqualFold(name, []byte("transfer-encoding")) {
			f.teValue = value
			f.te++
		}
	}
}

// framing returns what is wrong with how the request says where it ends.
func (f *headerFacts) framing(http10 bool) string {
	switch {
	case f.te > 0 && f.contentLength > 0:
		return "Transfer-Encoding and Content-Length in one request"
	case f.te > 1 || f.te == 1 && !bytes.EqualFold(f.teValue, []byte("chunked")):
		return "Transfer-Encoding must be chunked, once"
	case f.te == 1 && http10:
		return "Transfer-Encoding in HTTP/1.0"
	case f.contentLength > 1:
		return "more than one Content-Length"
	case f.contentLength == 1 && !digits(f.clValue):
		return "malformed Content-Length"
	case f.contentTypes > 1:
		return "more than one Content-Type"
	case f.hosts > 1 || f.hosts == 0 && !http10:
		return "exactly one Host header is required"
	}
	for _, c := range f.host {
		if c <= ' ' || c >= 0x7f || c == '@' || c == '/' || c == '\\' || c == '?' || c == '#' || c == ',' {
			return "malformed Host header"
		}
	}
	return ""
}

// expectation reports whether what the client expects can be met.
func (f *headerFacts) expectation() bool {
	return f.expects == 0 || f.expects == 1 && bytes.EqualFold(f.expect, []byte("100-continue"))
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0 && len(b) < 19
}

// credential returns the one credential of the request.
func (f *headerFacts) credential() ([]byte, refusal) {
	switch {
	case f.auths+f.apiKeys == 0:
		return nil, refuseNoCredential
	case f.auths+f.apiKeys > 1:
		return nil, refuseTwoCredentials
	case f.apiKeys == 1:
		return f.apiKey, refuseNone
	}
	const bearer = "bearer "
	if len(f.authorization) < len(bearer) || !bytes.EqualFold(f.authorization[:len(bearer)], []byte(bearer)) {
		return nil, refuseNoCredential
	}
	return bytes.TrimLeft(f.authorization[len(bearer):], " "), refuseNone
}

func (s *Server) hostAllowed(host []byte) bool {
	if len(s.hosts) == 0 {
		return true
	}
	name := string(host)
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	} else if n := len(name); n > 2 && name[0] == '[' && name[n-1] == ']' { // IPv6 without a port
		name = name[1 : n-1]
	}
	return s.hosts[strings.ToLower(name)]
}

// remoteAddr returns the client's address: that of the connection, or, through the
// networks that are trusted to say so, the last address in X-Forwarded-For that is
// not one of theirs.
func (s *Server) remoteAddr(ctx *fasthttp.RequestCtx) netip.Addr {
	addr := addrOf(ctx.RemoteAddr())
	if !s.trusted(addr) {
		return addr
	}
	// The last line is the one that the nearest proxy wrote.
	lines := ctx.Request.Header.PeekAll("X-Forwarded-For")
	for l := len(lines) - 1; l >= 0; l-- {
		for list := lines[l]; len(list) > 0; {
			i := bytes.LastIndexByte(list, ',')
			hop, ok := parseHop(string(bytes.TrimSpace(list[i+1:])))
			if !ok {
				return addr
			}
			if addr = hop; !s.trusted(addr) {
				return addr
			}
			list = list[:max(i, 0)]
		}
	}
	return addr
}

// parseHop reads an address as proxies write it, with or without a port. A zone, which may be
// any text, is left out.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}

func (s *Server) trusted(a netip.Addr) bool {
	for _, p := range s.trustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
