package kimisim_test

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

func TestFramingVariants(t *testing.T) {
	t.Parallel()
	onFaces(t, func(t *testing.T, s *kimisim.Server, f face) {
		plain := ask(t, s, f, `{"output_tokens":6,"reasoning_tokens":2}`, nil)
		for sim, check := range map[string]func(raw string) bool{
			`"crlf":true`:                 func(raw string) bool { return strings.Count(raw, "\n") == strings.Count(raw, "\r\n") },
			`"cr":true`:                   func(raw string) bool { return !strings.Contains(raw, "\n") && strings.Contains(raw, "\r\r") },
			`"no_space":true`:             func(raw string) bool { return strings.Contains(raw, "data:{") && !strings.Contains(raw, "data: {") },
			`"bom":true`:                  func(raw string) bool { return strings.HasPrefix(raw, "\xef\xbb\xbf") },
			`"comments":2`:                func(raw string) bool { return strings.Count(raw, ": keep-alive\n\n") >= 4 },
			`"ping":3`:                    func(raw string) bool { return strings.Contains(raw, "ping") },
			`"multi_line":true`:           func(raw string) bool { return strings.Contains(raw, ",\ndata: ") },
			`"crlf":true,"no_space":true`: func(raw string) bool { return strings.Contains(raw, "\r\n\r\n") },
			`"chunk_bytes":1`:             func(raw string) bool { return true },
			`"stamp":true`:                func(raw string) bool { return strings.Contains(raw, `,"t":1`) },
		} {
			r := ask(t, s, f, `{"output_tokens":6,"reasoning_tokens":2,`+sim+`}`, nil)
			if !check(r.raw) {
				t.Errorf("%s is not in %q", sim, r.raw)
			}
			if r.text != plain.text || r.reasoning != plain.reasoning || !r.done {
				t.Errorf("%s changed the answer: %q", sim, r.raw)
			}
			if e := closedEntry(t, s, r.header.Get("Msh-Request-Id")); e.ProducedTokens != 6 || e.Outcome != kimisim.OutcomeComplete {
				t.Errorf("%s: %+v", sim, e)
			}
		}
	})
}
