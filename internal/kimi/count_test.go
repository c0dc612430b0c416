package kimi_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// Counts are read as exact arithmetic reads them, or refused.
func TestCountsAreReadExactly(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	whole := 0
	for range 20_000 {
		text := fmt.Sprint(rng.Uint64() >> rng.IntN(64))
		if rng.IntN(2) == 0 {
			text += "." + []string{"0", "5", "000", "250", "75000"}[rng.IntN(5)]
		}
		if rng.IntN(2) == 0 {
			text += fmt.Sprintf("%s%d", []string{"e", "E+", "e-"}[rng.IntN(3)], rng.IntN(6))
		}
		r, err := kimi.ScanRequest([]byte(req(`,"max_tokens":`+text)), kimi.OpenAI)
		want, ok := new(big.Rat).SetString(text)
		if !ok {
			t.Fatal(text)
		}
		fits := want.IsInt() && want.Num().IsInt64()
		if (err == nil) != fits || fits && r.MaxTokens.Value != want.Num().Int64() {
			t.Fatalf("%s reads as %d, %v", text, r.MaxTokens.Value, err)
		}
		if fits {
			whole++
		}
	}
	if whole < 5000 || whole > 19_000 {
		t.Errorf("%d whole numbers: little was tested", whole)
	}
	if r, err := kimi.ScanRequest([]byte(req(fmt.Sprintf(`,"max_tokens":%d`, int64(math.MaxInt64)))), kimi.OpenAI); err != nil || r.MaxTokens.Value != math.MaxInt64 {
		t.Errorf("the largest count: %v", err)
	}
}
