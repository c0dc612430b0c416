package web_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/andreabadesso/openclaw-cloud/control/web"
)

const (
	script = "console.log('a script that is longer than its encoded forms');"
	index  = `<!doctype html><script type="module" src="/assets/main-0A1B2C3D.js"></script>`
)

// built is a directory as app/ is built into.
func built() fstest.MapFS {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	return fstest.MapFS{
		"index.html":                 file(index),
		"routes.json":                file(`{"landing":"/","login":"/login","box":"/boxes/{id}"}`),
		"favicon.svg":                file("<svg/>"),
		"robots.txt":                 file("User-agent: *\n"),
		"assets/main-0A1B2C3D.js":    file(script),
		"assets/main-0A1B2C3D.js.gz": file("gzipped and long"),
		"assets/main-0A1B2C3D.js.br": file("brotli"),
		"assets/main-0A1B2C3D.css":   file("a{}"),
	}
}

// newSite starts a site over real HTTP; api is what it passes requests on to.
func newSite(t *testing.T, api http.Handler, change func(*web.Options)) (*web.Site, string) {
	t.Helper()
	upstream := httptest.NewServer(api)
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := web.ReadPages(built())
	if err != nil {
		t.Fatal(err)
	}
	o := web.Options{Name: "site", Pages: pages, API: target, HTTPS: true, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	site, err := web.New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(site)
	t.Cleanup(server.Close)
	t.Cleanup(site.Drain)
	return site, server.URL
}

// ask sends a request as a browser would, which follows no redirects and decodes nothing.
func ask(t *testing.T, method, target string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	res, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

func noAPI(t *testing.T) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the api was asked for %s", r.URL) })
}

func TestPages(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, noAPI(t), nil)
	const forAYear, asked = "public, max-age=31536000, immutable", "no-cache"
	for _, c := range []struct {
		path, contentType, cache, body string
		status                         int
	}{
		{"/", "text/html; charset=utf-8", asked, index, 200},
		{"/login", "text/html; charset=utf-8", asked, index, 200},
		{"/login?lang=en", "text/html; charset=utf-8", asked, index, 200},
		{"/boxes/b1", "text/html; charset=utf-8", asked, index, 200},
		{"/boxes", "text/html; charset=utf-8", asked, index, 404},
		{"/boxes/b1/logs", "text/html; charset=utf-8", asked, index, 404},
		{"/nothing", "text/html; charset=utf-8", asked, index, 404},
		{"/index.html", "text/html; charset=utf-8", asked, index, 404},
		{"/routes.json", "text/html; charset=utf-8", asked, index, 404},
		{"/v1", "text/html; charset=utf-8", asked, index, 404},
		{"/favicon.svg", "image/svg+xml", asked, "<svg/>", 200},
		{"/robots.txt", "text/plain; charset=utf-8", asked, "User-agent: *\n", 200},
		{"/assets/main-0A1B2C3D.js", "text/javascript; charset=utf-8", forAYear, script, 200},
		{"/assets/main-0A1B2C3D.css", "text/css; charset=utf-8", forAYear, "a{}", 200},
		{"/assets/main-OLDER.js", "text/plain; charset=utf-8", "no-store", "There is no such file. Load the page again.\n", 404},
		{"/assets/main-0A1B2C3D.js.br", "text/plain; charset=utf-8", "no-store", "There is no such file. Load the page again.\n", 404},
	} {
		res, text := ask(t, "GET", base+c.path, nil)
		if res.StatusCode != c.status || text != c.body {
			t.Errorf("%s: %d %q", c.path, res.StatusCode, text)
		}
		for name, want := range map[string]string{
			"Content-Type": c.contentType, "Cache-Control": c.cache, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			"Strict-Transport-Security": "max-age=31536000",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", c.path, name, got, want)
			}
		}
		checkPolicy(t, c.path, res.Header.Get("Content-Security-Policy"))
	}
	for _, c := range [][2]string{{"/login/", "/login"}, {"//evil.example/", "/evil.example"}, {"/a/../login?x=1", "/login?x=1"}} {
		res, _ := ask(t, "GET", base+c[0], nil)
		if to := res.Header.Get("Location"); res.StatusCode != 308 || to != c[1] {
			t.Errorf("%s leads with %d to %q, want %q", c[0], res.StatusCode, to, c[1])
		}
	}
	if res, _ := ask(t, "POST", base+"/login", strings.NewReader("{}")); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", res.StatusCode, res.Header.Get("Allow"))
	}
	res, text := ask(t, "HEAD", base+"/", nil)
	if res.StatusCode != 200 || text != "" || res.ContentLength != int64(len(index)) {
		t.Errorf("HEAD: %d %q, %d bytes", res.StatusCode, text, res.ContentLength)
	}
}

// checkPolicy wants a content security policy that lets nothing in but files of ours.
func checkPolicy(t *testing.T, path, policy string) {
	t.Helper()
	directives := map[string]string{}
	for d := range strings.SplitSeq(policy, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
		directives[name] = value
	}
	for name, want := range map[string]string{
		"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'", "base-uri": "'none'",
		"frame-ancestors": "'none'", "form-action": "'self'", "require-trusted-types-for": "'script'",
	} {
		if directives[name] != want {
			t.Errorf("%s: %s is %q, want %q", path, name, directives[name], want)
		}
	}
	for _, bad := range []string{"unsafe", "*", "http:", "https:", "data:", "blob:"} {
		if strings.Contains(policy, bad) {
			t.Errorf("%s: the policy has %q: %s", path, bad, policy)
		}
	}
}

func TestNoHSTSWithoutHTTPS(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, noAPI(t), func(o *web.Options) { o.HTTPS = false })
	if res, _ := ask(t, "GET", base+"/", nil); res.Header.Get("Strict-Transport-Security") != "" {
		t.Error("a browser would never come back to this address without HTTPS, where there is none")
	}
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, noAPI(t), nil)
	for _, c := range []struct{ accept, coding, body string }{
		{"", "", script},
		{"identity", "", script},
		{"gzip, deflate, br, zstd", "br", "brotli"},
		{"gzip", "gzip", "gzipped and long"},
		{"GZip;q=0.5, *;q=0.1", "gzip", "gzipped and long"},
		{"br;q=0, gzip;q=1.0", "gzip", "gzipped and long"},
		{"br; q=0.000, gzip; q = 0", "", script},
		{"*", "", script},
		{"brotli", "", script},
	} {
		res, text := ask(t, "GET", base+"/assets/main-0A1B2C3D.js", nil, "Accept-Encoding", c.accept)
		if got := res.Header.Get("Content-Encoding"); got != c.coding || text != c.body || res.ContentLength != int64(len(c.body)) {
			t.Errorf("%q: encoding %q, %d bytes: %q", c.accept, got, res.ContentLength, text)
		}
		if res.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: a cache would give it to everybody: Vary %q", c.accept, res.Header.Get("Vary"))
		}
		if res.Header.Get("Content-Type") != "text/javascript; charset=utf-8" {
			t.Errorf("%q: %s", c.accept, res.Header.Get("Content-Type"))
		}
	}
}

func TestAskedForAnew(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, noAPI(t), nil)
	first, _ := ask(t, "GET", base+"/login", nil)
	tag := first.Header.Get("Etag")
	if tag == "" {
		t.Fatal("there is no Etag")
	}
	for header, status := range map[string]int{tag: 304, `"other", ` + tag: 304, strings.TrimPrefix(tag, "W/"): 304, "*": 304, `"other"`: 200} {
		res, text := ask(t, "GET", base+"/login", nil, "If-None-Match", header)
		if res.StatusCode != status || (status == 304) != (text == "") {
			t.Errorf("%s: %d %q", header, res.StatusCode, text)
		}
		checkPolicy(t, header, res.Header.Get("Content-Security-Policy"))
	}
	if res, _ := ask(t, "GET", base+"/nothing", nil, "If-None-Match", tag); res.StatusCode != 404 {
		t.Errorf("a page that is not there: %d", res.StatusCode)
	}
	other, _ := ask(t, "GET", base+"/assets/main-0A1B2C3D.js", nil)
	if other.Header.Get("Etag") == tag {
		t.Error("two files have the same tag")
	}
}

func TestNotBuilt(t *testing.T) {
	t.Parallel()
	_, base := newSite(t, noAPI(t), func(o *web.Options) { o.Pages = nil })
	res, text := ask(t, "GET", base+"/", nil)
	if res.StatusCode != 503 || !strings.Contains(text, "make build") || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d, Cache-Control %q: %s", res.StatusCode, res.Header.Get("Cache-Control"), text)
	}
}

func TestReadPagesComplains(t *testing.T) {
	t.Parallel()
	for missing, want := range map[string]string{"index.html": "index.html", "routes.json": "routes.json"} {
		dir := built()
		delete(dir, missing)
		if _, err := web.ReadPages(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", missing, err)
		}
	}
	dir := built()
	dir["routes.json"] = &fstest.MapFile{Data: []byte("[]")}
	if _, err := web.ReadPages(dir); err == nil {
		t.Error("routes that are no object are read")
	}
	if _, err := web.New(web.Options{}); err == nil {
		t.Error("a site of nothing is made")
	}
}

// What was built, if it was, keeps to the policy that it is sent with.
func TestBuilt(t *testing.T) {
	t.Parallel()
	for _, name := range []string{web.CustomerSite, web.Console} {
		pages, err := web.Built(name)
		if err != nil {
			if !strings.Contains(err.Error(), "make build") {
				t.Error(err)
			}
			t.Logf("%s is not built: only the placeholder is looked at", name)
			continue
		}
		_, base := newSite(t, noAPI(t), func(o *web.Options) { o.Pages = pages })
		_, text := ask(t, "GET", base+"/", nil)
		for _, bad := range []string{"<style", " style=", " onclick=", "javascript:", "http://", "https://"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s: the page has %q", name, bad)
			}
		}
		loaded := 0
		for part := range strings.SplitSeq(text, `"/assets/`) {
			file, _, ok := strings.Cut(part, `"`)
			if !ok || strings.HasPrefix(part, "<!") {
				continue
			}
			res, body := ask(t, "GET", base+"/assets/"+file, nil, "Accept-Encoding", "br")
			if res.StatusCode != 200 || res.Header.Get("Content-Encoding") != "br" {
				t.Errorf("%s: %s: %d, encoding %q", name, file, res.StatusCode, res.Header.Get("Content-Encoding"))
			}
			loaded += len(body)
		}
		if loaded == 0 || loaded > maxFirstLoad {
			t.Errorf("%s: the first load has %d bytes, and may have %d", name, loaded, maxFirstLoad)
		}
		t.Logf("%s: the first load has %d bytes compressed", name, loaded)
	}
}

// maxFirstLoad is how many bytes a first visit may load, compressed.
const maxFirstLoad = 200_000

// problemOf checks that an answer is one that pages can read as they read the api's.
func problemOf(t *testing.T, res *http.Response, text, kind string) {
	t.Helper()
	if res.Header.Get("Content-Type") != "application/problem+json" || !bytes.Contains([]byte(text), []byte(`"urn:openclaw:problem:`+kind+`"`)) {
		t.Errorf("%d %s: %s", res.StatusCode, res.Header.Get("Content-Type"), text)
	}
}
