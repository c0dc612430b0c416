//go:build linux

package monitoring

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// callAPI has an operator look at its customers, now and then, until ctx ends.
func (w *world) callAPI(ctx context.Context) {
	for ctx.Err() == nil {
		_, _ = w.tryRun(ctx, filepath.Join(w.run, "openclawctl"), "customer", "list") // while the api hangs it fails
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

// chats asks a proxy for completions on both faces, with a message, as often as every says, until ctx ends.
func (w *world) chats(ctx context.Context, proxy, message string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; ; n++ {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, _ = w.chat(limited, proxy, message, n%2 == 1, n%4 < 2) // what becomes of it is seen by metrics
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// chat asks a proxy for one completion, and returns the status.
func (w *world) chat(ctx context.Context, proxy, message string, anthropic, stream bool) (status int, err error) {
	path := "/v1/chat/completions"
	if anthropic {
		path = "/v1/messages"
	}
	body := fmt.Sprintf(`{"model":"kimi-k2.6","stream":%v,"max_tokens":50,"messages":[{"role":"user","content":%q}]}`, stream, message)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+proxy+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// while has work done, several times at once, until the function that it returns is called.
func (w *world) while(times int, work func(ctx context.Context)) (end func()) {
	ctx, stop := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	for range times {
		all.Go(func() { work(ctx) })
	}
	return func() { stop(); all.Wait() }
}

// nothing ends a fault that ends by itself.
func nothing() {}
