//go:build !race

// The race detector allocates by itself.

package proxy_test

import (
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// What every request of a known customer costs in the limit's part of its path.
func TestWarmPathAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	w.quota.ReturnAfter = time.Minute
	r := w.replica()
	tok, _ := w.token(func(g *contract.Grant) { g.RequestsPerSecond, g.Burst = 1e9, 1e9 })
	for i, f := range faces {
		r.served(f, tok)
		h := r.NewHot([]kimi.Face{kimi.OpenAI, kimi.Anthropic}[i], tok, []byte(chat(true, "hello")))
		if !h.Authenticate() || !h.Admit() || h.Settle() == 0 {
			t.Fatal("not admitted")
		}
		for name, do := range map[string]func(){
			"authenticate": func() { h.Authenticate() },
			"admit":        func() { h.Admit(); h.Settle() },
			"all":          func() { h.Authenticate(); h.Admit(); h.Settle() },
		} {
			if n := testing.AllocsPerRun(5000, do); n != 0 {
				t.Errorf("%s, %s: %v allocations", f.name, name, n)
			}
		}
	}
}
