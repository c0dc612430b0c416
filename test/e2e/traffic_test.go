package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// traffic is a steady load: requests are sent by the clock, whether earlier ones were
// answered or not, by all customers in turn and to all replicas in turn, on both faces,
// streams and not.
type traffic struct {
	s         *stack.Stack
	tokens    []stack.Token
	perSecond int
	client    *http.Client

	mu   sync.Mutex
	sent []sample
}

// sample is one request of the traffic.
type sample struct {
	at time.Time // when it was sent
	reply
}

func newTraffic(s *stack.Stack, tokens []stack.Token, perSecond int) *traffic {
	return &traffic{s: s, tokens: tokens, perSecond: perSecond, client: newClient()}
}

// run sends until ctx ends, and returns when all that was sent is answered.
func (l *traffic) run(ctx context.Context) {
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(l.perSecond))
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		select {
		case <-ctx.Done():
			continue
		case <-tick.C:
		}
		wg.Go(func() { l.one(n) })
	}
	wg.Wait()
	l.client.CloseIdleConnections()
}

func (l *traffic) one(n int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := chat{token: l.tokens[n%len(l.tokens)].Raw, anthropic: rand.IntN(2) == 0, stream: rand.IntN(2) == 0}
	c.body = chatBody(200+rand.IntN(800), 100, c.stream, kimisim.Behavior{OutputTokens: 10 + rand.IntN(40)})
	p := l.s.Proxies[n/len(l.tokens)%len(l.s.Proxies)]
	at := time.Now()
	r := send(ctx, l.client, p, c, nil)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = append(l.sent, sample{at, r})
}

// between returns the requests that were sent and answered by now, of those sent in [from, to).
func (l *traffic) between(from, to time.Time) (some []sample) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sent {
		if !s.at.Before(from) && s.at.Before(to) {
			some = append(some, s)
		}
	}
	return some
}

// statuses counts samples by status and code.
func statuses(some []sample) map[string]int {
	out := map[string]int{}
	for _, s := range some {
		key := fmt.Sprint(s.status)
		if s.code != "" {
			key += " " + s.code
		}
		out[key]++
	}
	return out
}

// latencies are durations of which some quantiles are of interest.
type latencies []time.Duration

func (l latencies) String() string {
	return fmt.Sprintf("%d: p50 %v, p99 %v, max %v", len(l), l.at(50), l.at(99), l.at(100))
}

// at returns the percentile p, the smallest value that p % are not above.
func (l latencies) at(p int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l))
	return sorted[max((len(l)*p+99)/100-1, 0)].Round(10 * time.Microsecond)
}
