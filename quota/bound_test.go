package quota_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

func TestPromptBound(t *testing.T) {
	for _, tc := range []struct {
		name                                        string
		body, images, imageBytes, videos, videoByte int
		perImage, perVideo                          int64
		want                                        int64
	}{
		{name: "text only", body: 1000, want: 1000},
		{name: "empty", want: 0},
		{name: "one image", body: 5000, images: 1, imageBytes: 4000, perImage: 1200, want: 2200},
		{name: "image by reference", body: 100, images: 2, perImage: 1200, want: 2500},
		{name: "image and video", body: 10_000, images: 1, imageBytes: 4000, videos: 1, videoByte: 5000, perImage: 1200, perVideo: 9000, want: 1000 + 1200 + 9000},
		{name: "more inline data than body", body: 100, images: 1, imageBytes: 101, perImage: 7, want: 107},
		{name: "negative", body: -5, images: -1, imageBytes: -1, videos: -2, videoByte: -3, perImage: 10, perVideo: 10, want: 0},
		{name: "part maxima overflow", body: 10, images: 3, perImage: math.MaxInt64 / 2, want: math.MaxInt64},
		{name: "sum overflows", body: 10, images: 1, perImage: math.MaxInt64 - 5, want: math.MaxInt64},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := quota.PromptBound(tc.body, tc.images, tc.imageBytes, tc.videos, tc.videoByte, tc.perImage, tc.perVideo)
			if got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

func TestNeedAndLoweredCap(t *testing.T) {
	ones := contract.Weights{Prompt: 1, Cached: 1, Completion: 1}
	for _, tc := range []struct {
		name            string
		w               contract.Weights
		prompt, cap, n  int64
		need            int64
		left, wantLower int64
	}{
		{name: "plain", w: ones, prompt: 100, cap: 50, n: 1, need: 150, left: 150, wantLower: 50},
		{name: "one short", w: ones, prompt: 100, cap: 50, n: 1, need: 150, left: 149, wantLower: 49},
		{name: "prompt does not fit", w: ones, prompt: 100, cap: 50, n: 1, need: 150, left: 99, wantLower: 0},
		{name: "prompt just fits", w: ones, prompt: 100, cap: 50, n: 1, need: 150, left: 100, wantLower: 0},
		{name: "three choices", w: ones, prompt: 100, cap: 50, n: 3, need: 250, left: 199, wantLower: 33},
		{name: "n missing", w: ones, prompt: 100, cap: 50, n: 0, need: 150, left: 110, wantLower: 10},
		{name: "cached dearer", w: contract.Weights{Prompt: 1, Cached: 4, Completion: 2}, prompt: 10, cap: 5, n: 1, need: 50, left: 43, wantLower: 1},
		{name: "free completion", w: contract.Weights{Prompt: 1}, prompt: 10, cap: 5, n: 1, need: 10, left: 10, wantLower: math.MaxInt64},
		{name: "free", w: contract.Weights{}, prompt: math.MaxInt64, cap: math.MaxInt64, n: 9, need: 0, left: 0, wantLower: math.MaxInt64},
		{name: "saturates", w: ones, prompt: 1, cap: math.MaxInt64, n: 2, need: math.MaxInt64, left: 100, wantLower: 49},
		{name: "negative left", w: ones, prompt: 0, cap: 1, n: 1, need: 1, left: -1, wantLower: 0},
		{name: "least left", w: ones, prompt: math.MaxInt64, cap: 1, n: 1, need: math.MaxInt64, left: math.MinInt64, wantLower: 0},
		{name: "negative cap", w: ones, prompt: 7, cap: -3, n: 1, need: 7, left: 8, wantLower: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := quota.Need(tc.w, tc.prompt, tc.cap, tc.n); got != tc.need {
				t.Errorf("Need = %d, want %d", got, tc.need)
			}
			if got := quota.LoweredCap(tc.w, tc.left, tc.prompt, tc.n); got != tc.wantLower {
				t.Errorf("LoweredCap = %d, want %d", got, tc.wantLower)
			}
		})
	}
}

// Need against exact arithmetic, and LoweredCap as its inverse: the cap fits, one more
// does not.
func TestNeedAndLoweredCapProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func() int64 {
		switch rng.IntN(4) {
		case 0:
			return rng.Int64N(4)
		case 1:
			return rng.Int64N(1_000_000)
		case 2:
			return rng.Int64()
		default:
			return math.MaxInt64 - rng.Int64N(3)
		}
	}
	for range 200_000 {
		w := contract.Weights{Prompt: pick(), Cached: pick(), Completion: pick()}
		prompt, limit, n, left := pick(), pick(), pick(), pick()
		exact := new(big.Int).Mul(big.NewInt(prompt), big.NewInt(max(w.Prompt, w.Cached)))
		out := new(big.Int).Mul(big.NewInt(limit), big.NewInt(max(n, 1)))
		exact.Add(exact, out.Mul(out, big.NewInt(w.Completion)))
		want := int64(math.MaxInt64)
		if exact.IsInt64() {
			want = exact.Int64()
		}
		if got := quota.Need(w, prompt, limit, n); got != want {
			t.Fatalf("Need(%+v, %d, %d, %d) = %d, want %d", w, prompt, limit, n, got, want)
		}
		lowered := quota.LoweredCap(w, left, prompt, n)
		if quota.Need(w, prompt, 0, n) > left {
			if lowered != 0 {
				t.Fatalf("LoweredCap(%+v, %d, %d, %d) = %d although the prompt does not fit", w, left, prompt, n, lowered)
			}
			continue
		}
		if left == math.MaxInt64 {
			continue // a saturated need fits as well
		}
		if quota.Need(w, prompt, lowered, n) > left {
			t.Fatalf("LoweredCap(%+v, %d, %d, %d) = %d does not fit", w, left, prompt, n, lowered)
		}
		if lowered < math.MaxInt64 && quota.Need(w, prompt, lowered+1, n) <= left {
			t.Fatalf("LoweredCap(%+v, %d, %d, %d) = %d is not the greatest", w, left, prompt, n, lowered)
		}
	}
}
