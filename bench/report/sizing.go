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
	ofRequests                float64 // the part of cores that whole requests take, without their events
	replicas                  float64 // of token-proxy
	files                     float64 // descriptors, of all replicas together
	memory                    float64 // MiB, of streams
	redis                     float64 // commands per second
	grants                    float64 // MiB of Redis
}

// rates are what was measured. What was not is not a number.
type rates struct {
	// Of one and the same sample, for its rate matters: µs of token-proxy, µs of what is around
	// it, and commands of Redis per request.
	perRequest, around, redis float64
	events                    []perEvent // at least one
	perStream                 float64    // bytes
	perGrant                  float64    // bytes of Redis
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

// needs multiplies. An event costs what it does at the rate that one replica has; the fewer replicas there
// are the less, so it begins with the fewest.
func needs(customers float64, r rates) need {
	n := need{requests: customers * requestsPerHour / 3600, replicas: leastReplicas}
	n.events = n.requests * answerTokens
	n.streams = n.requests * answerTokens / tokensPerSecond
	n.in, n.out = n.requests*promptBytes/1e6, n.events*eventBytes/1e6
	n.ofRequests = n.requests * r.perRequest / 1e6
	for {
		n.cores = n.ofRequests + n.events*r.at(n.events/n.replicas)/1e6
		more := math.Ceil(n.cores / coresOfReplica)
		if more <= n.replicas || math.IsNaN(more) {
			break
		}
		n.replicas = more
	}
	n.files = n.streams * filesPerStream
	n.around = n.requests * r.around / 1e6
	n.memory = n.streams * r.perStream / (1 << 20)
	n.redis = n.requests * r.redis
	n.grants = customers * r.perGrant / (1 << 20)
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
	r.perGrant = perGrant(b.grants)
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

// perGrant is what one grant takes of Redis: what each took by which there were more at the last step than at the first.
func perGrant(r *record.Run) float64 {
	if r == nil {
		return math.NaN()
	}
	var steps, bytes []float64
	for _, step := range r.Steps(record.PhaseRequests) {
		if s := r.Only(step).Of(ours, record.PhaseRequests, redisMemory); s.N > 0 {
			steps, bytes = append(steps, step), append(bytes, s.Median*(1<<20))
		}
	}
	last := len(steps) - 1
	if last < 1 {
		return math.NaN()
	}
	return (bytes[last] - bytes[0]) / (steps[last] - steps[0])
}

// known writes a number, or that it is none.
func known(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return figure(v)
}

// customerCounts are the sizes of installations that are shown.
func customerCounts() []float64 { return []float64{1000, 10_000, 100_000, 1_000_000} }

// sizing writes what the measured rates mean for a number of customers.
func (b *book) sizing(p *page) {
	r, from, ok := b.measured()
	if !ok {
		return
	}
	events := slices.SortedFunc(slices.Values(r.events), func(a, b perEvent) int { return cmp.Compare(a.rate, b.rate) })
	var each []string
	for _, e := range events {
		each = append(each, fmt.Sprintf("%s at %s per second", figure(e.micros), figure(e.rate)))
	}
	p.printf("## What that means for an installation\n\n")
	p.printf("Computed from what was measured above (%s), not measured at these sizes. A customer in the busiest hour sends %d requests with %s bytes of prompt and gets answers of %d tokens, one event each, at %d tokens per second. "+
		"A request takes %s µs of token-proxy, %s µs of Redis, Postgres and the billing-worker and %s commands of Redis, all of them as in %s: the busier a proxy is, the less processor time it needs for one, and with events to relay it is busier than that one was, so this is an upper bound; who sends once a minute is cold each time, so the commands stay. "+
		"An event takes, in µs: %s; each row has what is nearest to the events of one replica. A replica has one core and uses %.0f %% of it, as `k8s/` starts them, %d at least. Cores are of the machine above. A stream takes two descriptors, over all replicas. Prompts cost more than the %s bytes with which a request was measured; see `openclaw-bench compare --body-bytes`.\n\n",
		b.sources(), requestsPerHour, thousands(promptBytes), answerTokens, tokensPerSecond, known(r.perRequest), known(r.around), known(r.redis), from,
		strings.Join(each, ", "), 100*coresOfReplica, leastReplicas, b.bodyBytes())
	rows := [][]string{{"customers", "requests/s", "open streams", "their descriptors", "events/s", "cores of token-proxy", "replicas", "memory of streams, MiB", "cores of Redis, Postgres, billing-worker", "Redis commands/s", "Redis memory of grants, MiB", "rows/s in Postgres", "from and to clients, MB/s"}}
	var last need
	for _, customers := range customerCounts() {
		n := needs(customers, r)
		rows = append(rows, []string{
			tick(customers), figure(n.requests), figure(n.streams), figure(n.files), figure(n.events), figure(n.cores), tick(n.replicas), known(n.memory), known(n.around), known(n.redis), known(n.grants),
			figure(n.requests), fmt.Sprintf("%s, %s", figure(n.in), figure(n.out)),
		})
		last = n
	}
	p.table(rows)
	p.printf("Of the cores in the last row requests are %.0f %% and events the rest.\n\n", 100*last.ofRequests/last.cores)
	bottlenecks(p, r, b.mostCommands())
}

// sources names the runs that sizes rest on.
func (b *book) sources() string {
	var all []string
	for _, r := range []*record.Run{b.overload, b.streams, b.grants, b.compare} {
		if r == nil {
			continue
		}
		name := "`" + r.Kind + "`"
		if r.Revision != "" {
			name += " of revision " + r.Revision
		}
		all = append(all, name)
	}
	return strings.Join(all, ", ")
}

// bodyBytes is how large the request was that rates are of.
func (b *book) bodyBytes() string {
	if b.overload != nil {
		return setting(b.overload, "body-bytes")
	}
	return setting(b.compare, "body-bytes")
}
