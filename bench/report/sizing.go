package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

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

// need is what a number of customers needs; what was not measured is not a number.
type need struct {
	requests, events, streams float64 // per second, per second, at a time
	in, out                   float64 // MB/s, from and to clients
	cores, around             float64
	memory                    float64 // MiB, of streams
	redis                     float64 // commands per second
}

// rates are what was measured. What was not is not a number.
type rates struct {
	// Of one and the same sample, for its rate matters: µs of token-proxy, µs of what is around
	// it, and commands of Redis per request.
	perRequest, around, redis float64
	events                    []perEvent // at least one
	perStream                 float64    // bytes
}

// perEvent is what an event costs where there are so many.
type perEvent struct {
	rate   float64 // per second
	micros float64
}

// at is what an event costs at a rate: as at the nearest that was measured, by their ratio.
func (r *rates) at(rate float64) float64 {
	return slices.MinFunc(r.events, func(a, b perEvent) int {
		return cmp.Compare(math.Abs(math.Log(a.rate/rate)), math.Abs(math.Log(b.rate/rate)))
	}).micros
}

// needs multiplies.
func needs(customers float64, r rates) need {
	n := need{requests: customers * requestsPerHour / 3600}
	n.events = n.requests * answerTokens
	n.streams = n.requests * answerTokens / tokensPerSecond
	n.in, n.out = n.requests*promptBytes/1e6, n.events*eventBytes/1e6
	n.cores = (n.requests*r.perRequest + n.events*r.at(n.events)) / 1e6
	n.around = n.requests * r.around / 1e6
	n.memory = n.streams * r.perStream / (1 << 20)
	n.redis = n.requests * r.redis
	return n
}

// measured are the rates, and where those of a request are from; ok is false without them.
func (b *book) measured() (r rates, from string, ok bool) {
	orNaN := func(s record.Spread) float64 {
		if s.N == 0 {
			return math.NaN()
		}
		return s.Median
	}
	take := func(run *record.Run, phase string) {
		served := run.Of(ours, phase, admitted).Median
		r.perRequest, r.around = orNaN(run.Of(ours, phase, record.CPU)), orNaN(run.Of(ours, phase, around))
		r.redis = orNaN(run.Of(ours, phase, commands)) / served
		from = fmt.Sprintf("%s requests per second", figure(served))
	}
	if o := b.overload; o != nil && o.Has(ours, record.PhaseOverload) {
		// The least load, spread over most customers: hardly two requests of one share a call.
		take(o.Only(o.Steps(record.PhaseOverload)[0]), record.PhaseOverload)
		from = "`overload` at " + from + " of " + setting(o, "customers") + " customers"
	} else if b.compare != nil {
		take(b.compare, busy(b.compare, ours, record.PhaseHalf))
		from = "`compare` at " + from
	}
	r.perStream = math.NaN()
	if b.streams != nil {
		for _, step := range b.streams.Steps(record.PhaseMemory) {
			part := b.streams.Only(step)
			if cpu := part.Of(ours, record.PhaseMemory, record.CPU); cpu.N > 0 {
				r.events = append(r.events, perEvent{part.Of(ours, record.PhaseMemory, record.Throughput).Median, cpu.Median})
			}
			// Whichever is most: with few open, what they take is lost in what else there is.
			if m := part.Of(ours, record.PhaseMemory, record.Memory); m.N > 0 {
				r.perStream = most(r.perStream, m.Median)
			}
			if bytes, ok := further(b.streams, ours, step); ok {
				r.perStream = most(r.perStream, bytes)
			}
		}
	}
	if c := b.compare; c != nil {
		phase := busy(c, ours, record.PhaseEvents)
		if cpu := c.Of(ours, phase, record.CPU); len(r.events) == 0 && cpu.N > 0 {
			r.events = append(r.events, perEvent{c.Of(ours, phase, record.Throughput).Median, cpu.Median})
		}
		if m := c.Of(ours, record.PhaseMemory, record.Memory); m.N > 0 {
			r.perStream = most(r.perStream, m.Median)
		}
	}
	return r, from, r.perRequest > 0 && len(r.events) > 0
}

// most is the greater of a, if that is a number, and b.
func most(a, b float64) float64 {
	if math.IsNaN(a) {
		return b
	}
	return max(a, b)
}

// sizing writes what the measured rates mean for a number of customers.
func (b *book) sizing(p *page) {
	r, from, ok := b.measured()
	if !ok {
		return
	}
	known := func(v float64) string {
		if math.IsNaN(v) {
			return "-"
		}
		return figure(v)
	}
	events := slices.SortedFunc(slices.Values(r.events), func(a, b perEvent) int { return cmp.Compare(a.rate, b.rate) })
	var each []string
	for _, e := range events {
		each = append(each, fmt.Sprintf("%s at %s per second", figure(e.micros), figure(e.rate)))
	}
	p.printf("## What that means for an installation\n\n")
	p.printf("Computed from what was measured above, not measured at these sizes. A customer in the busiest hour sends %d requests with %s bytes of prompt and gets answers of %d tokens, one event each, at %d tokens per second. A request takes %s µs of token-proxy, %s µs of Redis, Postgres and the billing-worker and %s commands of Redis, all of them as in %s: the busier a proxy is, the less it needs for one. An event takes, in µs: %s; each row has the nearest. Cores are of the machine above, fully used: plan for half of that. Prompts cost more than the %s bytes with which a request was measured; see `openclaw-bench compare --body-bytes`.\n\n",
		requestsPerHour, thousands(promptBytes), answerTokens, tokensPerSecond, known(r.perRequest), known(r.around), known(r.redis), from, strings.Join(each, ", "), b.bodyBytes())
	rows := [][]string{{"customers", "requests/s", "open streams", "events/s", "cores of token-proxy", "memory of streams, MiB", "cores of Redis, Postgres, billing-worker", "Redis commands/s", "rows/s in Postgres", "from and to clients, MB/s"}}
	for _, customers := range []float64{1000, 10_000, 100_000, 1_000_000} {
		n := needs(customers, r)
		rows = append(rows, []string{
			tick(customers), figure(n.requests), figure(n.streams), figure(n.events), figure(n.cores), known(n.memory), known(n.around), known(n.redis),
			figure(n.requests), fmt.Sprintf("%s, %s", figure(n.in), figure(n.out)),
		})
	}
	p.table(rows)
}

// bodyBytes is how large the request was that rates are of.
func (b *book) bodyBytes() string {
	if b.overload != nil {
		return setting(b.overload, "body-bytes")
	}
	return setting(b.compare, "body-bytes")
}
