package kimisim_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// BenchmarkStream is a client and the server in one process: the server must cost little
// beside the proxy that is measured with it.
func BenchmarkStream(b *testing.B) {
	for _, tc := range []struct{ tokens, perChunk, prompt int }{{100, 1, 1000}, {100, 4, 60_000}} {
		b.Run(fmt.Sprintf("tokens=%d/per_chunk=%d/prompt=%d", tc.tokens, tc.perChunk, tc.prompt), func(b *testing.B) {
			s, err := kimisim.New(kimisim.Config{Defaults: kimisim.Behavior{OutputTokens: tc.tokens, TokensPerChunk: tc.perChunk}})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			req := `{"model":"kimi-k2.5","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("word \\n", tc.prompt/7) + `"}]}`
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := http.NewRequest(http.MethodPost, s.OpenAIBase()+"/chat/completions", strings.NewReader(req))
					if err != nil {
						b.Error(err)
						return
					}
					r.Header.Set("Authorization", "Bearer "+fakeKey)
					res, err := client.Do(r)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			})
			b.ReportMetric(float64(b.N*tc.tokens/tc.perChunk)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
