package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// A token-proxy that is told to stop is not ready at once and still serves; then it takes
// no connections, lets a stream finish and cuts the one that takes too long, which is told
// so; it ends with code 0, and every event of it is in Postgres.
func TestSIGTERM(t *testing.T) {
	t.Parallel()
	s := stack.New(t, stack.Options{
		Proxy: func(c map[string]any) { c["timeouts"] = map[string]any{"pre_stop": "6s", "drain": "12s"} },
	})
	tok := s.Customer("Term", "team")
	p := s.Proxies[0]
	stream := func(tokens int) chan string {
		before := s.Sim.InFlight()
		text := make(chan string, 1)
		go func() {
			body := fmt.Sprintf(`{"model":"kimi-k2.5","stream":true,"max_tokens":10000,"messages":[{"role":"user",
				"content":"hi [[sim:{\"output_tokens\":%d,\"tokens_per_second\":20}]]"}]}`, tokens)
			req, err := http.NewRequest("POST", p.URL+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				text <- err.Error()
				return
			}
			req.Header.Set("Authorization", "Bearer "+tok.Raw)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				text <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			text <- string(b)
		}()
		s.Eventually("the stream runs", 30*time.Second, func() bool { return s.Sim.InFlight() > before })
		return text
	}
	short, long := stream(200), stream(5000)

	ended := make(chan error, 1)
	go func() { ended <- p.Stop(time.Minute) }()
	ready := func() int {
		resp, err := http.Get(p.Admin + "/readyz")
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	s.Eventually("it is not ready", 10*time.Second, func() bool { return ready() == http.StatusServiceUnavailable })
	if got := ask(p, tok.Raw); got != http.StatusOK {
		t.Errorf("a request after SIGTERM: %d", got)
	}
	if text := <-short; !strings.Contains(text, "[DONE]") {
		t.Errorf("the short stream ended with %.300q", text)
	}
	if text := <-long; !strings.Contains(text, "shutting down") {
		t.Errorf("the long stream ended with %.300q", text[max(0, len(text)-300):])
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	outcomes := map[string]int{}
	s.Eventually("every request has its row", 30*time.Second, func() bool {
		clear(outcomes)
		for _, r := range readRows(t, s) {
			outcomes[r.Outcome]++
		}
		return outcomes["ok"] == 2 && outcomes["drained"] == 1
	})
}
