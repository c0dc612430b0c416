package main

import (
	"math/rand/v2"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
)

// kind is one sort of request: what its client does and how the upstream answers it.
type kind struct {
	name    string
	share   int // of the short requests, out of their sum
	mode    mode
	answer  func(*rand.Rand) kimisim.Behavior
	leave   func(*rand.Rand) time.Duration // after how long the client hangs up; nil: it stays
	body    func(*rand.Rand) int           // bytes of text; nil: some hundreds
	noCap   bool                           // asks for no maximum of output
	noCount bool                           // the upstream's count is missing or nonsense
}

type mode int

const (
	either mode = iota
	streamed
	unstreamed
)

// behave makes an answer of about so many tokens that varies in what a real one varies in.
func behave(r *rand.Rand, tokens int) kimisim.Behavior {
	b := kimisim.Behavior{
		OutputTokens: 1 + r.IntN(2*tokens), TokensPerChunk: 1 + r.IntN(6),
		TTFT: time.Duration(r.IntN(200)) * time.Millisecond, TokensPerSecond: float64(100 + r.IntN(400)),
	}
	switch r.IntN(6) {
	case 0:
		b.CachedTokens = -1
	case 1:
		b.ReasoningTokens = 1 + r.IntN(b.OutputTokens)
	case 2:
		b.HiddenTokens = 1 + r.IntN(4)
	case 3:
		b.ToolCalls = 1
	}
	return b
}

// with is behave with a change.
func with(change func(*rand.Rand, *kimisim.Behavior)) func(*rand.Rand) kimisim.Behavior {
	return func(r *rand.Rand) kimisim.Behavior {
		b := behave(r, 30)
		change(r, &b)
		return b
	}
}

func upTo(d time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(d))) }
}

// shortKinds are the requests that come and go.
func shortKinds() []*kind {
	position := func(r *rand.Rand) int { return 1 + r.IntN(6) }
	return []*kind{
		{name: "complete", share: 50, answer: func(r *rand.Rand) kimisim.Behavior { return behave(r, 40) }},
		{name: "large body", share: 5, answer: func(r *rand.Rand) kimisim.Behavior { return behave(r, 20) },
			body: func(r *rand.Rand) int { return 10_000 + r.IntN(50_000) }},
		{name: "no cap", share: 2, noCap: true, answer: func(r *rand.Rand) kimisim.Behavior { return behave(r, 40) }},
		{name: "client gone", share: 6, mode: streamed, leave: upTo(time.Second),
			answer: with(func(r *rand.Rand, b *kimisim.Behavior) { b.OutputTokens, b.TokensPerSecond = 100, 60 })},
		{name: "client gone before the head", share: 2, leave: upTo(300 * time.Millisecond),
			answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.StallBeforeHead = true })},
		{name: "cut in mid-event", share: 3, answer: with(func(r *rand.Rand, b *kimisim.Behavior) { b.CutMidEvent = position(r) })},
		{name: "cut on a boundary", share: 3, answer: with(func(r *rand.Rand, b *kimisim.Behavior) { b.CutAfterEvents = position(r) })},
		{name: "reset", share: 2, answer: with(func(r *rand.Rand, b *kimisim.Behavior) { b.CutMidEvent, b.Reset = position(r), true })},
		{name: "cut before the head", share: 2, answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.CutBeforeHead = true })},
		{name: "error event", share: 4, answer: with(func(r *rand.Rand, b *kimisim.Behavior) { b.ErrorAfterEvents = position(r) })},
		{name: "stall", share: 2, answer: with(func(r *rand.Rand, b *kimisim.Behavior) { b.StallAfterEvents = position(r) })},
		{name: "no count", share: 4, noCount: true, answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.UsagePlace = kimisim.UsageNone })},
		{name: "absurd count", share: 1, noCount: true, answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.AbsurdUsage = true })},
		{name: "negative count", share: 1, noCount: true, answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.NegativeUsage = true })},
		{name: "no end mark", share: 2, mode: streamed, answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.NoEndMark = true })},
		{name: "more than asked for", share: 2, answer: with(func(r *rand.Rand, b *kimisim.Behavior) { b.ExceedCap, b.OutputTokens = true, 300+r.IntN(900) })},
		{name: "refused by the upstream", share: 4, answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.Error = "400 content filter" })},
		{name: "upstream error", share: 1, answer: with(func(_ *rand.Rand, b *kimisim.Behavior) { b.Non2xxHTML = true })},
	}
}

// longKinds are the streams that are open for a while.
func longKinds() []*kind {
	long := func(r *rand.Rand) kimisim.Behavior {
		b := kimisim.Behavior{OutputTokens: 8 + r.IntN(32), TokensPerSecond: 1.5 + r.Float64()*2, TTFT: time.Duration(r.IntN(500)) * time.Millisecond}
		if r.IntN(4) == 0 {
			b.ReasoningTokens = 1 + r.IntN(8)
		}
		return b
	}
	and := func(change func(*rand.Rand, *kimisim.Behavior)) func(*rand.Rand) kimisim.Behavior {
		return func(r *rand.Rand) kimisim.Behavior {
			b := long(r)
			change(r, &b)
			return b
		}
	}
	return []*kind{
		{name: "long", share: 82, mode: streamed, answer: long},
		{name: "long, client gone", share: 6, mode: streamed, answer: long, leave: upTo(15 * time.Second)},
		{name: "long, cut", share: 4, mode: streamed, answer: and(func(r *rand.Rand, b *kimisim.Behavior) { b.CutMidEvent = 4 + r.IntN(20) })},
		{name: "long, error event", share: 3, mode: streamed, answer: and(func(r *rand.Rand, b *kimisim.Behavior) { b.ErrorAfterEvents = 4 + r.IntN(20) })},
		{name: "long, stall", share: 2, mode: streamed, answer: and(func(r *rand.Rand, b *kimisim.Behavior) { b.StallAfterEvents = 4 + r.IntN(20) })},
		{name: "long, no count", share: 3, mode: streamed, noCount: true, answer: and(func(_ *rand.Rand, b *kimisim.Behavior) { b.UsagePlace = kimisim.UsageNone })},
	}
}

// probeKind is the request that ends the run: small, and answered.
func probeKind() *kind {
	return &kind{name: "last request", mode: unstreamed, answer: func(*rand.Rand) kimisim.Behavior { return kimisim.Behavior{OutputTokens: 3} }}
}

// pick chooses a kind by its share.
func pick(kinds []*kind, r *rand.Rand) *kind {
	sum := 0
	for _, k := range kinds {
		sum += k.share
	}
	at := r.IntN(sum)
	for _, k := range kinds {
		if at < k.share {
			return k
		}
		at -= k.share
	}
	panic("BUG: shares do not add up")
}
