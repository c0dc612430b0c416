package clients_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// goClient runs tasks with an SDK for Go. do makes the call and writes into o what it
// sees as it goes; describe adds what the SDK's own errors tell.
type goClient struct {
	do       func(ctx context.Context, baseURL string, tk task, o *seen, r *recorder) error
	describe func(o *seen, err error)
}

func (g goClient) run(_ *testing.T, baseURL string, phases [][][]task, announced func(check string)) map[string]seen {
	results := map[string]seen{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, groups := range phases {
		for _, group := range groups {
			wg.Go(func() {
				for _, tk := range group {
					o := g.one(baseURL, tk, announced)
					mu.Lock()
					results[tk.Check] = o
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	return results
}

func (g goClient) one(baseURL string, tk task, announced func(check string)) seen {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o := seen{Check: tk.Check}
	r := &recorder{task: tk, seen: &o, began: time.Now(), cancel: cancel, announced: announced}
	if tk.TimeoutMS > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(tk.TimeoutMS)*time.Millisecond)
		defer stop()
	}
	tk.Prompt = strings.Repeat("x", tk.Pad) + tk.Prompt
	if err := g.do(ctx, baseURL, tk, &o, r); err != nil {
		o.Failed, o.Message = true, err.Error()
		if errors.Is(err, context.DeadlineExceeded) {
			o.Classes = append(o.Classes, "context.DeadlineExceeded")
		}
		g.describe(&o, err)
	}
	o.Total = r.since()
	return o
}

// recorder notes what a stream brings, and aborts where the task wants it.
type recorder struct {
	task      task
	seen      *seen
	began     time.Time
	cancel    context.CancelFunc
	announced func(check string)
}

func (r *recorder) since() float64 { return float64(time.Since(r.began).Microseconds()) / 1000 }

// content notes one event with content.
func (r *recorder) content(text, reasoning string) {
	if text == "" && reasoning == "" {
		return
	}
	o := r.seen
	o.Text += text
	o.Reasoning += reasoning
	if o.Events++; o.Events == 1 {
		o.First = r.since()
		if r.task.Announce {
			r.announced(r.task.Check)
		}
	}
	if r.task.AbortAfter == o.Events {
		o.At = time.Now().UnixMilli()
		r.cancel()
	}
}

// describeResponse notes what an SDK's error keeps of the answer.
func describeResponse(o *seen, resp *http.Response) {
	if resp == nil {
		return
	}
	o.Status = resp.StatusCode
	o.RequestID = resp.Header.Get("X-Request-Id")
	o.RetryAfter = resp.Header.Get("Retry-After")
	o.ShouldRetry = resp.Header.Get("X-Should-Retry")
	_, _ = io.Copy(io.Discard, resp.Body) // the SDKs keep it readable, and it is read here
}

func TestClients(t *testing.T) {
	for _, c := range []client{
		{name: "openai-go", face: "openai", run: goClient{doOpenAI, describeOpenAI}.run},
		{name: "anthropic-sdk-go", face: "anthropic", run: goClient{doAnthropic, describeAnthropic}.run},
		{name: "openai for Node", face: "openai", node: true, run: nodeClient("openai.mjs")},
		{name: "anthropic for Node", face: "anthropic", node: true, run: nodeClient("anthropic.mjs")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testClient(t, c)
		})
	}
}

func nodeClient(script string) func(*testing.T, string, [][][]task, func(string)) map[string]seen {
	return func(t *testing.T, baseURL string, phases [][][]task, announced func(string)) map[string]seen {
		return runNode(t, script, baseURL, phases, announced)
	}
}
