//go:build linux

package monitoring

import (
	"context"
	"net/http"
	"time"
)

// kimiAnswersWrongly has Kimi's simulator do what a message asks for.
func (w *world) kimiAnswersWrongly() []fault {
	once := func(proxy, behavior string, want int) {
		w.t.Helper()
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		defer cancel()
		if status, err := w.chat(ctx, w.address(proxy), "[[sim:"+behavior+"]]", false, false); err != nil || status != want {
			w.t.Errorf("Kimi is told to do %s, and the answer is %d, %v; want %d", behavior, status, err, want)
		}
	}
	return []fault{
		{"Kimi is slow", []string{"UpstreamSlow"}, func() func() {
			return w.while(2, func(ctx context.Context) {
				for ctx.Err() == nil {
					_, _ = w.chat(ctx, w.address("PROXY"), `[[sim:{"ttft":"6s"}]]`, false, true) // seen by metrics
				}
			})
		}},
		{"Kimi counts more than was reserved", []string{"UnbilledTokens"}, func() func() {
			once("PROXY", `{"exceed_cap":true,"output_tokens":1,"hidden_tokens":20000}`, http.StatusOK)
			return nothing
		}},
		{"Kimi counts what cannot be", []string{"ImplausibleUsage"}, func() func() {
			once("PROXY", `{"negative_usage":true}`, http.StatusOK)
			return nothing
		}},
		// By the second token-proxy: who knows that a key is refused does not use it for a minute.
		{"Kimi refuses our key", []string{"UpstreamKeyRefused"}, func() func() {
			once("SECOND", `{"error":"401 incorrect key"}`, http.StatusBadGateway)
			return nothing
		}},
	}
}

// kimiAway has nothing listen where Kimi was.
func (w *world) kimiAway() []fault {
	return []fault{{"Kimi is away", []string{"BreakerOpen", "UpstreamErrors"}, func() func() {
		back := w.away("kimisim")
		return func() { back() }
	}}}
}

// atLimit has a customer use more than its tokens.
func (w *world) atLimit() []fault {
	limit := func(tokens string) {
		w.ctl("openclawctl", "quota", "set", "--customer", w.customer, "--limit", tokens, "--reason", "a test")
	}
	return []fault{{"a limit is reached", []string{"CustomersAtLimit"}, func() func() {
		limit("1")
		return func() { limit("2000000") }
	}}}
}

// replicaAway has a token-proxy hang while the other one goes on. A Redis that loses its data meanwhile
// cannot be filled again before it says what it has leased.
func (w *world) replicaAway() []fault {
	return []fault{{"one token-proxy hangs, and Redis is emptied", []string{"PodDown", "ReplicaSilent", "QuotaEpochClosed"}, func() func() {
		resume := w.frozen("second-token-proxy")
		client := w.redis()
		defer client.Close()
		if err := client.FlushAll(w.t.Context()).Err(); err != nil {
			w.t.Fatal(err)
		}
		return resume
	}}}
}
