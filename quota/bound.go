package quota

import (
	"math"
	"math/bits"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// PromptBound returns an upper bound of the prompt tokens of a request body of
// bodyLen bytes. Text costs at most one token per byte, whatever the tokenizer,
// and the JSON around each message is longer than the tokens that the upstream's
// template adds for it. Inline images and videos are not text: their imageBytes and
// videoBytes (of the body) are taken out and each part counts with its maximum,
// perImage or perVideo tokens. The result saturates at math.MaxInt64; negative
// arguments count as 0, and inline data that is larger than the body is impossible,
// so that the body then counts in full.
func PromptBound(bodyLen, images, imageBytes, videos, videoBytes int, perImage, perVideo int64) (tokens int64) {
	text := int64(max(bodyLen, 0))
	if inline := addSat(int64(max(imageBytes, 0)), int64(max(videoBytes, 0))); inline <= text {
		text -= inline
	}
	parts := addSat(mulSat(int64(images), perImage), mulSat(int64(videos), perVideo))
	return addSat(text, parts)
}

// Need returns the weighted tokens that a request uses at most: prompt tokens, each
// at the dearer of the prompt and the cached weight, and n choices of up to cap
// completion tokens. It saturates at math.MaxInt64. Negative counts are 0; n below 1
// is 1, which is what upstreams make of it.
func Need(w contract.Weights, prompt, cap, n int64) int64 {
	return addSat(promptNeed(w, prompt), mulSat(mulSat(cap, max(n, 1)), w.Completion))
}

// LoweredCap returns the greatest output cap per choice with which a request of
// prompt tokens and n choices needs at most left weighted tokens. It is 0 when not
// even one token per choice fits (the prompt alone may not fit then; compare Need),
// and math.MaxInt64 when completion tokens weigh nothing.
func LoweredCap(w contract.Weights, left, prompt, n int64) int64 {
	rest := left - promptNeed(w, prompt) // cannot wrap: promptNeed is not negative, and a negative left is refused below
	if left < 0 || rest < 0 {
		return 0
	}
	if w.Completion <= 0 {
		return math.MaxInt64
	}
	return rest / mulSat(max(n, 1), w.Completion)
}

func promptNeed(w contract.Weights, prompt int64) int64 {
	return mulSat(prompt, max(w.Prompt, w.Cached))
}

// addSat adds two numbers of which none is negative.
func addSat(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// mulSat multiplies; negative factors count as 0.
func mulSat(a, b int64) int64 {
	if a <= 0 || b <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi != 0 || lo > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(lo)
}
