package proxy_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// Answers that reserve nothing say where the customer stands as well, and refusals do
// not cost a command of Redis each.
func TestLimitHeadersOfRefusals(t *testing.T) {
	t.Parallel()
	commands := func(w *world) int {
		info, err := w.rdb.Info(context.Background(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "total_commands_processed:")
		n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, f := range faces {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			r := w.replica()
			tok, g := w.token(func(g *contract.Grant) { g.MonthlyLimit = 3000 })
			// A stream near the limit: from 90 % on each answer warns.
			body := capped(chat(true, sim(kimisim.Behavior{OutputTokens: 1_000_000, TokensPerChunk: 100})), 5000)
			if a := r.post(f, tok, body); a.status != http.StatusOK {
				t.Fatal(a.status, a.body)
			} else {
				limitHeaders(t, a, true, true)
			}
			settled := r.nothingHeld(g)
			if settled < 2700 {
				t.Fatalf("%d tokens are settled", settled)
			}
			before, began := commands(w), time.Now()
			const refusals = 300
			for i := range refusals {
				a := r.post(f, tok, "{")
				refusal{status: 400, typ: "invalid_request_error"}.check(t, f, a)
				limitHeaders(t, a, true, true)
				if got := a.header.Get("X-Ratelimit-Remaining-Tokens"); got != strconv.FormatInt(g.MonthlyLimit-settled, 10) {
					t.Fatalf("refusal %d: %s tokens remain, %d of %d are used", i, got, settled, g.MonthlyLimit)
				}
				if got := a.header.Get("X-Token-Warning"); got != "90%" {
					t.Fatalf("refusal %d: warning %q", i, got)
				}
			}
			n, took := commands(w)-before, time.Since(began)
			// What goes on all the time, by the clock, is not for the refusals.
			before = commands(w)
			time.Sleep(took)
			if idle := commands(w) - before; n > 2*idle+refusals/2 {
				t.Errorf("%d commands of Redis for %d refusals, %d in the same time without any", n, refusals, idle)
			}
			for _, path := range []string{"/v1/models", "/v1/usage"} {
				a := r.get(tok, path)
				limitHeaders(t, a, true, true)
				if a.status != http.StatusOK || a.header.Get("X-Token-Warning") != "90%" {
					t.Errorf("%s: %d, warning %q", path, a.status, a.header.Get("X-Token-Warning"))
				}
			}
			stream := r.post(f, tok, capped(chat(true, "hi"), 1))
			if stream.status == http.StatusOK && stream.header.Get("X-Token-Warning") != "90%" {
				t.Error("a stream does not warn")
			}
		})
	}
}
