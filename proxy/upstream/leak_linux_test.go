package upstream

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func openFiles(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

// After 1,000 requests with every kind of ending nothing is left behind. Not parallel:
// it counts what the whole process holds.
func TestNothingLeaks(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	func() {
		p := newPeer(t, func(c *peerConn) {
			for {
				r, _, ok := c.request()
				if !ok {
					return
				}
				switch r.Header.Get("Accept") {
				case "cut":
					c.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
					return
				case "reset":
					c.reset()
					return
				case "silent", "cancel":
					c.waitClosed()
					return
				case "stall", "cancel body", "abandon":
					c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
					c.waitClosed()
					return
				case "garbage":
					c.send("\x00\x01\r\n")
					return
				default:
					c.send(okAnswer)
				}
			}
		})
		defer p.stopOnce()
		cfg := testConfig(p.url())
		cfg.FirstByteTimeout, cfg.IdleTimeout = Duration(500*time.Millisecond), Duration(500*time.Millisecond)
		cfg.BreakerFailures = 1 << 20
		pool := newTestPool(t, Options{}, cfg)
		defer pool.Close()
		kinds := []string{"ok", "cut", "reset", "silent", "stall", "cancel", "cancel body", "abandon", "garbage", "ok"}
		var wg sync.WaitGroup
		var late atomic.Int64 // calls that should succeed, on a busy machine
		for w := range 40 {
			wg.Go(func() {
				for i := range 25 {
					kind := kinds[(i+w)%len(kinds)]
					tg := pick(t, pool)
					var c Canceler
					if kind == "cancel" || kind == "cancel body" {
						time.AfterFunc(time.Duration(i)*time.Millisecond, func() { c.Cancel(errGone) })
					}
					r, err := tg.Do(&Request{Accept: []byte(kind)}, &c)
					if err == nil {
						if kind == "abandon" {
							_, _ = r.Read(make([]byte, 2))
						} else {
							_, err = io.ReadAll(r)
						}
						r.Close(i%2 == 0)
					}
					var e *Error
					switch succeeds := kind == "ok" || kind == "abandon"; {
					case succeeds && errors.As(err, &e) && e.Timeout:
						late.Add(1)
					case succeeds != (err == nil):
						t.Errorf("%s: %v", kind, err)
					}
					c.Detach()
					tg.Release(Result{Failed: err != nil})
				}
			})
		}
		wg.Wait()
		if n := late.Load(); n > 100 {
			t.Errorf("%d of 300 calls took too long", n)
		}
		s := pool.Stats()[0]
		if s.Open != s.Idle || s.InFlight != 0 || s.Idle > 40 || pool.live.Load() != 0 || pool.retrying.Load() != 0 {
			t.Errorf("%+v live %d retrying %d", s, pool.live.Load(), pool.retrying.Load())
		}
	}()
	waitFor(t, "goroutines and descriptors to go", func() bool {
		return runtime.NumGoroutine() <= goroutines && openFiles(t) <= files
	})
}
