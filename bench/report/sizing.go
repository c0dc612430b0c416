package report

import (
	"fmt"
	"math"

	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// A customer in the busiest hour, as the sizing table has one: prompts and answers are the
// means of Mooncake's hour of Kimi traffic.
const (
	requestsPerHour = 60
	promptBytes     = 12_035 * 4
	answerTokens    = 343
	tokensPerSecond = 40
	eventBytes      = 280 // of an event of one token, with its HTTP chunk
)

// need is what a number of customers needs.
type need struct {
	requests, events, streams float64 // per second, per second, at a time
	in, out                   float64 // MB/s, from and to clients
	cores, around             float64
	memory                    float64 // MiB, of streams
	redis                     float64 // commands per second; NaN if not measured
}

// rates are the slopes that were measured.
type rates struct {
	perRequest, perEvent, around float64 // µs
	perStream                    float64 // bytes
	redis                        float64 // commands per request; NaN if not measured
}

// needs multiplies.
func needs(customers float64, r rates) need {
	n := need{requests: customers * requestsPerHour / 3600}
	n.events = n.requests * answerTokens
	n.streams = n.requests * answerTokens / tokensPerSecond
	n.in, n.out = n.requests*promptBytes/1e6, n.events*eventBytes/1e6
	n.cores = (n.requests*r.perRequest + n.events*r.perEvent) / 1e6
	n.around = n.requests * r.around / 1e6
	n.memory = n.streams * r.perStream / (1 << 20)
	n.redis = n.requests * r.redis
	return n
}

// sizing writes what the measured slopes mean for a number of customers.
func (b *book) sizing(p *page) {
	if b.compare == nil {
		return
	}
	r := rates{
		perRequest: b.compare.Of(ours, record.PhaseRequests, record.CPU).Median,
		perEvent:   b.compare.Of(ours, record.PhaseEvents, record.CPU).Median,
		around:     b.compare.Of(ours, record.PhaseHalf, around).Median,
		perStream:  b.compare.Of(ours, record.PhaseMemory, record.Memory).Median,
		redis:      math.NaN(),
	}
	if r.perRequest == 0 || r.perEvent == 0 {
		return
	}
	if o := b.streams; o != nil {
		// Whichever is more: with few open, what they cost is lost in what else there is.
		for _, step := range o.Steps(record.PhaseMemory) {
			r.perStream = max(r.perStream, o.Only(step).Of(ours, record.PhaseMemory, record.Memory).Median)
		}
	}
	if o := b.overload; o != nil {
		// The least load, spread over most customers: hardly two requests of one share a call.
		if steps := o.Steps(record.PhaseOverload); len(steps) > 0 {
			part := o.Only(steps[0])
			if served := part.Of(ours, record.PhaseOverload, admitted).Median; served > 0 {
				r.redis = part.Of(ours, record.PhaseOverload, commands).Median / served
			}
		}
	}
	p.printf("## What that means for an installation\n\n")
	p.printf("Computed from the slopes above, not measured at these sizes. A customer in the busiest hour sends %d requests with %s bytes of prompt and gets answers of %d tokens, one event each, at %d tokens per second. Cores are of the machine above, fully used: plan for half of that. Prompts cost more than the %s bytes with which a request was measured; see `openclaw-bench compare --body-bytes`.\n\n",
		requestsPerHour, thousands(promptBytes), answerTokens, tokensPerSecond, setting(b.compare, "body-bytes"))
	rows := [][]string{{"customers", "requests/s", "open streams", "events/s", "cores of token-proxy", "memory of streams, MiB", "cores of Redis, Postgres, billing-worker", "Redis commands/s", "rows/s in Postgres", "from and to clients, MB/s"}}
	for _, customers := range []float64{1000, 10_000, 100_000, 1_000_000} {
		n := needs(customers, r)
		commands := "-"
		if !math.IsNaN(n.redis) {
			commands = figure(n.redis)
		}
		rows = append(rows, []string{
			tick(customers), figure(n.requests), figure(n.streams), figure(n.events), figure(n.cores), figure(n.memory), figure(n.around), commands,
			figure(n.requests), fmt.Sprintf("%s, %s", figure(n.in), figure(n.out)),
		})
	}
	p.table(rows)
}
