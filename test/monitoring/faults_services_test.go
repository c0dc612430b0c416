//go:build linux

package monitoring

import (
	"context"
	"fmt"
	"time"
)

// hanging has all services hang: each by itself, whatever the others do.
func (w *world) hanging() []fault {
	freeze := func(names ...string) func() func() { return func() func() { return w.frozen(names...) } }
	return []fault{
		{"services hang: token-proxy", []string{"ServiceDown token-proxy"}, freeze("token-proxy", "second-token-proxy")},
		{"services hang: the api", []string{"ServiceDown api"}, freeze("api")},
		{"services hang: the billing-worker", []string{"ServiceDown billing-worker"}, freeze("billing-worker")},
		{"services hang: the operator", []string{"ServiceDown operator"}, freeze("box-operator")},
		{"services hang: the onboarding-agent", []string{"ServiceDown onboarding-agent"}, freeze("onboarding-agent")},
		{"services hang: web", []string{"ServiceDown web"}, freeze("web")},
		{"services hang: what asks Redis for its metrics", []string{"ServiceDown redis"}, freeze("redis-exporter")},
	}
}

// restarts has a program end again and again, and be started each time.
func (w *world) restarts() []fault {
	started := func() string {
		if found, err := w.query(`process_start_time_seconds{job="redis"}`); err == nil && len(found) == 1 {
			return fmt.Sprint(found[0].Value[1])
		}
		return ""
	}
	return []fault{{"a pod starts again and again", []string{"Restarting"}, func() func() {
		for range 5 {
			before := started()
			w.again("redis-exporter")
			w.eventually("Prometheus sees that it has started", 20*time.Second, func() string {
				if now := started(); now == "" || now == before {
					return "it does not"
				}
				return ""
			})
		}
		return nothing
	}}}
}

// postgresHangs is the longest one: usage is late after a minute.
func (w *world) postgresHangs() []fault {
	return []fault{{
		what: "Postgres hangs",
		alerts: []string{
			"PostgresDown", "ApiErrors", "ApiSlow", "QuotaKeptByNobody", "LedgerLate", "SweepOld",
			"JournalFilling", "JournalRefused", // of the second token-proxy, whose journal is small
		},
		stage: func() func() {
			resume := w.frozen("postgres")
			calling := w.while(3, w.callAPI)
			// Quick ones, as many as a customer may send.
			writing := w.while(3, func(ctx context.Context) {
				w.chats(ctx, w.address("SECOND"), `[[sim:{"ttft":"1ms","tokens_per_second":1000000,"output_tokens":1}]]`, 300*time.Millisecond)
			})
			return func() {
				resume()
				writing()
				calling()
			}
		},
	}}
}
