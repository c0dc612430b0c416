package proxy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// metric reads the value of a metric, with its labels as they are printed. A metric
// that does not exist is "".
func (r *replica) metric(name string) string {
	r.w.t.Helper()
	resp, err := http.Get(r.admin.URL + "/metrics")
	if err != nil {
		r.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.w.t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(l, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// heldBytes is what the metric of request bodies says.
func (r *replica) heldBytes() int {
	r.w.t.Helper()
	v, err := strconv.ParseFloat(r.metric("token_proxy_request_bytes"), 64)
	if err != nil {
		r.w.t.Fatal(err)
	}
	return int(v)
}

// upload is a request whose body does not come, or not whole.
type upload struct {
	conn net.Conn
	br   *bufio.Reader
}

func (r *replica) upload(text string) *upload {
	r.w.t.Helper()
	c, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		r.w.t.Fatal(err)
	}
	r.w.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	u := &upload{c, bufio.NewReader(c)}
	u.send(text)
	return u
}

func (u *upload) send(text string) { _, _ = io.WriteString(u.conn, text) } // what fails shows in the answer

func (u *upload) answer() answer {
	resp, err := http.ReadResponse(u.br, nil)
	if err != nil {
		return answer{err: err}
	}
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err}
}

// checkUnread is check for what is answered before the request was read: where its
// client's face is not known any more, the answer suits both.
func (w refusal) checkUnread(t *testing.T, f face, a answer) {
	t.Helper()
	if a.err != nil {
		t.Fatal(a.err)
	}
	var e errorBody
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	both := e.Type == "error" && e.Error.Code != nil
	if f.anthropic || !both {
		w.check(t, f, a)
		return
	}
	if *e.Error.Code != w.typ {
		t.Errorf("the code is not %s: %s", w.typ, a.body)
	}
	w.check(t, faces[1], a) // its shape and headers
}

const (
	uploadBytes  = 256 << 10
	uploadsAllow = 4
)

// uploadHeads are the heads of a request with a large body on the face, by how the body
// is announced.
func uploadHeads(f face, token string) map[string]string {
	cred := "Authorization: Bearer " + token
	if f.anthropic {
		cred = "X-Api-Key: " + token
	}
	head := func(framing ...string) string {
		return request("POST "+f.path+" HTTP/1.1", "", append([]string{hostLine, cred, jsonLine}, framing...)...)
	}
	length := fmt.Sprintf("Content-Length: %d", uploadBytes)
	return map[string]string{
		"length":          head(length),
		"chunks":          head(chunkedLine),
		"length expected": head(length, "Expect: 100-continue"),
		"chunks expected": head(chunkedLine, "Expect: 100-continue"),
	}
}

// Bodies that are still arriving take room from their head on. Beyond the budget a
// request is refused at once, in its client's shape, and every way in which an upload
// can end gives its room back.
func TestSlowUploadsAreBounded(t *testing.T) {
	t.Parallel()
	const budget = uploadsAllow * uploadBytes
	for _, f := range faces {
		w := newWorld(t)
		tok, _ := w.token(nil)
		var others []string // each has its share
		for range uploadsAllow {
			other, _ := w.token(nil)
			others = append(others, other)
		}
		for kind, head := range uploadHeads(f, tok) {
			t.Run(f.name+" "+kind, func(t *testing.T) {
				t.Parallel()
				r := w.replica(func(c *proxy.Config) {
					c.Limits.BodyBytes, c.Limits.InFlightBytes = uploadBytes, budget
				})
				start := head
				if !strings.Contains(kind, "expected") {
					start += map[bool]string{true: "5\r\n{\"a\":\r\n", false: `{"a":`}[strings.HasPrefix(kind, "chunks")]
				}
				var slow []*upload
				for i := range uploadsAllow {
					slow = append(slow, r.upload(strings.Replace(start, tok, others[i], 1)))
					eventually(t, "the upload is counted", func() bool { return r.heldBytes() == (i+1)*uploadBytes })
				}
				for range 20 {
					refusal{status: 503, typ: "overloaded_error", retry: "2"}.checkUnread(t, f, r.upload(start).answer())
				}
				// A small request is refused as well, one without a body is not.
				refusal{status: 503, typ: "overloaded_error", retry: "2"}.check(t, f, r.post(f, tok, chat(false, "hello")))
				if a := r.get(tok, "/v1/models"); a.status != http.StatusOK {
					t.Errorf("GET: %d", a.status)
				}
				if n := r.heldBytes(); n != budget {
					t.Errorf("%d bytes are counted after the refusals, want %d", n, budget)
				}
				_ = slow[0].conn.Close()
				eventually(t, "a vanished client's room is given back", func() bool { return r.heldBytes() == budget-uploadBytes })

				// Two good requests, one after the other on a connection, have that room.
				body := chat(false, "hello", `"user":"`+strings.Repeat("x", uploadBytes-200)+`"`)
				body += strings.Repeat(" ", uploadBytes-len(body))
				if strings.HasPrefix(kind, "chunks") {
					body = chunked(body, 60_000)
				}
				good := r.upload("")
				for range 2 {
					good.send(head)
					if strings.Contains(kind, "expected") {
						for range 2 {
							if l, err := good.br.ReadString('\n'); err != nil {
								t.Fatalf("%q, %v", l, err)
							}
						}
					}
					good.send(body)
					if a := good.answer(); a.status != http.StatusOK || a.err != nil {
						t.Fatalf("a good upload: %d, %v: %.200s", a.status, a.err, a.body)
					}
					eventually(t, "an answered request's room is given back", func() bool { return r.heldBytes() == budget-uploadBytes })
				}
				// Reset, half closed, broken.
				_ = slow[1].conn.(*net.TCPConn).SetLinger(0)
				_ = slow[1].conn.Close()
				_ = slow[2].conn.(*net.TCPConn).CloseWrite()
				if strings.HasPrefix(kind, "chunks") {
					slow[3].send("not a chunk\r\n")
				} else {
					_ = slow[3].conn.(*net.TCPConn).CloseWrite()
				}
				eventually(t, "all room is given back", func() bool { return r.heldBytes() == 0 })
				if a := r.post(f, tok, chat(false, "hello")); a.status != http.StatusOK {
					t.Errorf("afterwards: %d", a.status)
				}
				eventually(t, "nothing is left", func() bool { return r.heldBytes() == 0 })
			})
		}
	}
}

// However many connections one token opens, the others' bodies have room.
func TestUploadsOfOneToken(t *testing.T) {
	t.Parallel()
	const all = 16 * uploadBytes
	for _, f := range faces {
		w := newWorld(t)
		two, _ := w.token(func(g *contract.Grant) { g.Concurrent = 2 })
		many, _ := w.token(nil)
		good, _ := w.token(nil)
		large := chat(false, "hello", `"user":"`+strings.Repeat("x", uploadBytes-200)+`"`)
		for kind := range uploadHeads(f, "") {
			t.Run(f.name+" "+kind, func(t *testing.T) {
				t.Parallel()
				r := w.replica(func(c *proxy.Config) { c.Limits.BodyBytes, c.Limits.InFlightBytes = uploadBytes, all })
				held := 0
				greedy := func(tok string, allowed int) (first *upload) {
					head := uploadHeads(f, tok)[kind]
					if kind == "chunks" {
						head += "5\r\n{\"a\":\r\n"
					}
					first = r.upload(head)
					for i := range allowed {
						if i > 0 {
							r.upload(head)
						}
						held += uploadBytes
						eventually(t, "the upload is counted", func() bool { return r.heldBytes() == held })
					}
					for range 10 {
						refusal{status: 503, typ: "overloaded_error", retry: "2"}.checkUnread(t, f, r.upload(head).answer())
					}
					return first
				}
				first := greedy(two, 2) // what it may have in flight
				greedy(many, 4)         // a quarter
				if a := r.post(f, good, large); a.status != http.StatusOK {
					t.Errorf("another customer: %d %s", a.status, a.body)
				}
				// Small requests are nobody's share, and what was given back can be had again.
				r.served(f, two)
				_ = first.conn.Close()
				eventually(t, "the room is given back", func() bool { return r.heldBytes() == held-uploadBytes })
				for range 3 {
					if a := r.post(f, two, large); a.status != http.StatusOK {
						t.Errorf("with room in its share: %d %s", a.status, a.body)
					}
					eventually(t, "the room is given back", func() bool { return r.heldBytes() == held-uploadBytes })
				}
			})
		}
	}
}

// An upload that takes too long, or is too large, gives its room back too; a larger body
// than is allowed takes none.
func TestRefusedUploadsGiveBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tok, _ := w.token(nil)
	r := w.replica(func(c *proxy.Config) {
		c.Limits.BodyBytes, c.Limits.InFlightBytes = uploadBytes, uploadBytes
		c.Timeouts.ReadRequest = proxy.Duration(300 * time.Millisecond)
	})
	for _, f := range faces {
		heads := uploadHeads(f, tok)
		for kind, head := range heads {
			u := r.upload(head)
			if kind == "length" {
				refusal{status: 408, typ: "timeout_error"}.checkUnread(t, f, u.answer())
			} else {
				for a := u.answer(); a.err == nil; a = u.answer() { // 100, then the refusal, then the end
				}
			}
			eventually(t, kind+": a slow client's room is given back", func() bool { return r.heldBytes() == 0 })
		}
		r := w.replica(func(c *proxy.Config) { c.Limits.BodyBytes, c.Limits.InFlightBytes = uploadBytes, uploadBytes }) // in no hurry
		u := r.upload(heads["chunks"] + "ffffff\r\n")
		refusal{status: 413, typ: "request_too_large"}.checkUnread(t, f, u.answer())
		eventually(t, "nothing is held of a body that is too large", func() bool { return r.heldBytes() == 0 })
		u = r.upload(strings.Replace(heads["length"], strconv.Itoa(uploadBytes), "9999999", 1))
		refusal{status: 413, typ: "request_too_large"}.checkUnread(t, f, u.answer())
		if n := r.heldBytes(); n != 0 {
			t.Errorf("%d bytes are held of a body that is too large", n)
		}
		// Without a token that exists nobody takes the room of others.
		u = r.upload(strings.Replace(heads["chunks"], tok, "ocp_"+strings.Repeat("0", 36), 1))
		eventually(t, "a stranger's upload is counted small", func() bool { return r.heldBytes() == 64<<10 })
		_ = u.conn.Close()
		eventually(t, "and given back", func() bool { return r.heldBytes() == 0 })
	}
}

// Tokens that nobody gave out can be made up by the thousand, since their checksum is
// public. However many come with a large body, Redis is asked for a bounded number.
func TestLookUpsOfStrangersAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(func(c *proxy.Config) { c.Limits.AuthFailures = 1 << 30 })
	known, _ := w.token(nil)
	r.served(faces[0], known)
	head := uploadHeads(faces[0], "<token>")["chunks"]
	const attempts, allowed = 5000, 2000 // at once, and per second
	begin := time.Now()
	statuses := map[int]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := dial(t, r)
			_ = c.SetDeadline(time.Now().Add(60 * time.Second))
			br := bufio.NewReader(c)
			for range attempts / 20 {
				stranger, err := contract.NewToken(nil)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.WriteString(c, strings.Replace(head, "<token>", stranger.Reveal(), 1)+"0\r\n\r\n"); err != nil {
					t.Error(err)
					return
				}
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				mu.Lock()
				statuses[resp.StatusCode]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	most := allowed * (2 + int(time.Since(begin).Seconds()))
	if statuses[401] > most || statuses[401] < allowed || statuses[401]+statuses[503] != attempts {
		t.Errorf("answered %v, want at most %d times 401 and else 503", statuses, most)
	}
	r.served(faces[0], known) // who is known does not wait for strangers
}

// Strangers cost no customer an upload whose grant has just changed.
func TestStrangersHinderNoKnownToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stranger, _ := w.token(nil) // whose grant the feed does not announce any more
	r := w.replica()
	known, g := w.token(nil)
	r.served(faces[0], known)
	r.RefuseStrangers()
	g.Version, g.LimitVersion, g.MonthlyLimit = 2, 2, 2*g.MonthlyLimit
	w.put(known, g)
	eventually(t, "the change has come", func() bool { _, ok := r.cache.Cached(w.hasher.Digest([]byte(known))); return !ok })
	for _, f := range faces {
		large := chat(false, strings.Repeat("x", 100_000))
		refusal{status: 503, typ: "overloaded_error", retry: "2"}.check(t, f, r.post(f, stranger, large))
		if a := r.post(f, known, large); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", f.name, a.status, a.body)
		}
	}
}

// A request without a body is no large upload.
func TestRequestsWithoutABodyNeedNoLookUpBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tok, _ := w.token(nil) // whose grant the feed does not announce any more
	r := w.replica()
	r.RefuseStrangers()
	if a := r.get(tok, "/v1/models"); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// An open stream has no use for the body that asked for it, which no budget counts any more.
func TestStreamsDoNotKeepBodies(t *testing.T) {
	const streams, size = 16, 4 << 20
	for _, f := range faces {
		w := newWorld(t)
		r := w.replica(patientUpstream)
		tok, _ := w.token(nil)
		open := func(size int) {
			body := chat(true, sim(kimisim.Behavior{StallAfterEvents: 2}), `"user":"`+strings.Repeat("x", size)+`"`)
			u := r.upload(strings.ReplaceAll(sent(f, body), "<token>", tok))
			if l, err := u.br.ReadString('\n'); err != nil || l != "HTTP/1.1 200 OK\r\n" {
				t.Fatalf("%q, %v", l, err)
			}
		}
		open(100)
		before := heap()
		for range streams {
			open(size)
		}
		if n := r.heldBytes(); n != 0 {
			t.Errorf("%s: %d bytes are counted", f.name, n)
		}
		// The simulator, which runs in this process, keeps each body once.
		eventually(t, f.name+": the bodies are gone", func() bool { return heap() < before+streams*size*3/2 })
	}
}
