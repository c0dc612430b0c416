package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// scale writes what the runs of the scale subcommands say.
func (b *book) scale(p *page) {
	if b.streams != nil {
		streams(p, b.streams)
	}
	if b.overload != nil {
		overload(p, b.overload)
	}
	if b.grants != nil {
		grants(p, b.grants)
	}
	if b.syscalls != nil {
		syscalls(p, b.syscalls)
	}
	if b.replay != nil {
		replayed(p, b.replay)
	}
	if b.control != nil {
		asked(p, b.control)
	}
}

// Figures of samples.
func kib(s *record.Sample) (float64, bool)      { return s.StreamBytes / 1024, s.StreamBytes > 0 }
func peakKiB(s *record.Sample) (float64, bool)  { return s.PeakBytes / 1024, s.PeakBytes > 0 }
func admitted(s *record.Sample) (float64, bool) { return perSecond(s, s.Load.Answers), true }
func refused(s *record.Sample) (float64, bool)  { return perSecond(s, s.Load.Refused), true }
func withheld(s *record.Sample) (float64, bool) { return perSecond(s, s.Load.Withheld), true }
func offered(s *record.Sample) (float64, bool)  { return s.Offered, s.Offered > 0 }
func refusing(s *record.Sample) (float64, bool) {
	return s.Load.Refusing.P99, s.Load.Refusing.Count > 0
}
func commands(s *record.Sample) (float64, bool) { return perSecond(s, s.Redis), s.Redis > 0 }
func ownMemory(s *record.Sample) (float64, bool) {
	return float64(s.MemoryBytes) / (1 << 20), s.MemoryBytes > 0
}
func redisMemory(s *record.Sample) (float64, bool) {
	return float64(s.RedisBytes) / (1 << 20), s.RedisBytes > 0
}

// failed is what was neither served nor refused. Older files count as not sent what was not before
// anything was counted, too.
func failed(s *record.Sample) (float64, bool) {
	n := s.Load.Backlog
	for _, k := range s.Load.Failures {
		n += k
	}
	return perSecond(s, n-s.Load.Refused), s.Tries > 0 || s.Load.Backlog == 0
}

func perSecond(s *record.Sample, n int64) float64 {
	if s.Load.Seconds <= 0 {
		return 0
	}
	return float64(n) / s.Load.Seconds
}

// curves draws a figure over the steps of a run, one curve per peer.
func curves(r *record.Run, phase string, x func(step float64) float64, v record.Value) []curve {
	var all []curve
	for _, peer := range r.Peers {
		c := curve{label: peer.Title, mark: isOurs(peer.Name)}
		for _, step := range r.Steps(phase) {
			if s := r.Only(step).Of(peer.Name, phase, v); s.N > 0 {
				c.x, c.y = append(c.x, x(step)), append(c.y, s.Median)
			}
		}
		if len(c.x) > 0 {
			all = append(all, c)
		}
	}
	return all
}

func same(step float64) float64 { return step }

func streams(p *page, r *record.Run) {
	p.printf("## Thousands of open streams\n\n")
	about(p, r)
	p.printf("Streams with an event each %s, at proxies just started. Memory as above. %sA further stream is what each took by which there are more than in the row before of the same proxy: with few open, what they take is lost in what the process had to spare. Added is the difference to nothing in between.\n\n", setting(r, "interval"), fewer(r))
	rows := [][]string{{"streams", "", "KiB per stream", "KiB per further stream", "the most that was seen, KiB per stream", "events/s", "CPU per event, µs", "lag p50 µs", "lag p99 µs", "added p99 µs", "failures"}}
	for _, step := range r.Steps(record.PhaseMemory) {
		part := r.Only(step)
		for _, peer := range r.Peers {
			if !part.Has(peer.Name, record.PhaseMemory) {
				continue
			}
			of := func(v record.Value) string { return cell(part.Of(peer.Name, record.PhaseMemory, v)) }
			rows = append(rows, []string{
				tick(step), peer.Title, of(kib), slope(r, peer.Name, step), of(peakKiB), of(record.Throughput), of(record.CPU), of(lagP50), of(lagP99),
				cell(part.Against(peer.Name, direct, record.PhaseMemory, lagP99, difference)), failureList(part.Failures(peer.Name)),
			})
		}
	}
	p.table(rows)
	p.plot("streams-memory.svg", "Memory per stream over the number of open streams", lines("Memory per open stream, KiB", "open streams", curves(r, record.PhaseMemory, same, kib), false))
	p.plot("streams-lag.svg", "Lag of events over the number of open streams", lines("Lag of an event, p99, µs", "open streams", curves(r, record.PhaseMemory, same, lagP99), false))
}

// wantedStreams is how many are to be open at once.
const wantedStreams = 10_000

// fewer says why there were not so many streams as there are to be, if there were not.
func fewer(r *record.Run) string {
	steps := r.Steps(record.PhaseMemory)
	if len(steps) == 0 || steps[len(steps)-1] >= wantedStreams {
		return ""
	}
	limit := "the limit of open files"
	if files := setting(r, "open files"); files != "?" {
		limit += fmt.Sprintf(" (here %s)", files)
	}
	return fmt.Sprintf("Not %s but %s at most: a proxy needs two descriptors for each, and a step is lowered to what %s of a process leaves, less 400 for all else. ", tick(wantedStreams), tick(steps[len(steps)-1]), limit)
}

// further is how many bytes each stream of a step took, by which there are more than in the step
// before; ok is false for the first.
func further(r *record.Run, peer string, step float64) (bytes float64, ok bool) {
	var less, was float64
	for _, s := range r.Steps(record.PhaseMemory) {
		m := r.Only(s).Of(peer, record.PhaseMemory, record.Memory)
		if m.N == 0 {
			continue
		}
		if s == step {
			return (m.Median*step - was) / (step - less), less > 0
		}
		less, was = s, m.Median*s
	}
	return 0, false
}

// slope writes what a further stream takes, in KiB.
func slope(r *record.Run, peer string, step float64) string {
	bytes, ok := further(r, peer, step)
	if !ok {
		return "-"
	}
	return figure(bytes / 1024)
}

// whyCommandsGrow explains Redis' commands where the load is spread over many customers.
func whyCommandsGrow(r *record.Run) string {
	steps := r.Steps(record.PhaseOverload)
	customers, err := strconv.Atoi(setting(r, "customers"))
	if len(steps) < 2 || err != nil || !r.Has(ours, record.PhaseOverload) {
		return ""
	}
	pause := func(step float64) string {
		return figure(float64(customers) / r.Only(step).Of(ours, record.PhaseOverload, admitted).Median)
	}
	return fmt.Sprintf("Redis commands grow with the load here because %s customers share it, of whom each is served so rarely, once in %s s at the least load and in %s s at the greatest, that few requests of one share a call. With few customers who send often they do not grow, as `openclaw-bench grants` shows.\n\n",
		thousands(int64(customers)), pause(steps[0]), pause(steps[len(steps)-1]))
}

// capacity says what the load is a multiple of.
func capacity(p *page, r *record.Run) {
	rows := [][]string{{"", "connections", "admitted/s", "refused/s", "CPU per request, µs", "p99 of admitted, µs"}}
	for _, peer := range r.Peers {
		for _, step := range r.Steps(record.PhaseCapacity) {
			part := r.Only(step)
			if !part.Has(peer.Name, record.PhaseCapacity) {
				continue
			}
			connections := tick(step)
			if step == 0 {
				connections = "64" // which older files do not say
			}
			of := func(v record.Value) string { return cell(part.Of(peer.Name, record.PhaseCapacity, v)) }
			rows = append(rows, []string{peer.Title, connections, of(admitted), of(refused), of(record.CPU), of(latP99)})
		}
	}
	if len(rows) > 1 {
		p.printf("What a proxy takes with connections that are always busy; the load is parts and multiples of the first row of each, which is that of most connections without refusing:\n\n")
		p.table(rows)
	}
}

func overload(p *page, r *record.Run) {
	p.printf("## More load than fits\n\n")
	about(p, r)
	capacity(p, r)
	p.printf("Poisson arrivals over at most %s connections. Latency counts from when a request was to be sent, so it contains the wait for a connection. A client that is refused sends nothing for as long as Retry-After says; what it would have sent meanwhile is told apart. Where more arrive than are served or refused a queue grows for as long as the load lasts: how long admitted requests take then says how long that was, and nothing of the proxy. Failed are those that got no answer in time, and those that had not been sent when the load ended.\n\n", setting(r, "connections"))
	table := func(phase string) {
		rows := [][]string{{"", "times", "offered/s", "admitted/s", "refused/s", "waiting as told/s", "failed/s", "p50 of admitted, µs", "p99 of admitted, µs", "p99 of refused, µs", "CPU per admitted request, µs", "Redis commands/s"}}
		for _, peer := range r.Peers {
			for _, step := range r.Steps(phase) {
				part := r.Only(step)
				if !part.Has(peer.Name, phase) {
					continue
				}
				of := func(v record.Value) string { return cell(part.Of(peer.Name, phase, v)) }
				rows = append(rows, []string{peer.Title, tick(step), of(offered), of(admitted), of(refused), of(withheld), of(failed), of(latP50), of(latP99), of(refusing), of(record.CPU), of(commands)})
			}
		}
		p.table(rows)
	}
	table(record.PhaseOverload)
	p.printf("%s", whyCommandsGrow(r))
	p.plot("overload.svg", "Admitted requests over offered load", lines("Requests admitted per second", "times the load that it takes", curves(r, record.PhaseOverload, same, admitted), false))
	if len(r.Steps(record.PhaseStorm)) > 0 {
		rows := [][]string{{"", "connections", "admitted/s", "refused/s", "failures", "p50 of admitted, µs", "p99 of admitted, µs", "CPU per admitted request, µs"}}
		for _, peer := range r.Peers {
			for i := range r.Samples {
				s := &r.Samples[i]
				if s.Peer != peer.Name || s.Phase != record.PhaseStorm {
					continue
				}
				part := r.Only(s.Step)
				of := func(v record.Value) string { return cell(part.Of(peer.Name, record.PhaseStorm, v)) }
				rows = append(rows, []string{peer.Title, tick(s.Step), of(admitted), of(refused), failureList(s.Load.Failures), of(latP50), of(latP99), of(record.CPU)})
			}
		}
		p.printf("Clients that ask again at once, whatever Retry-After says. They are not heard for a part of that time, and what they sent meanwhile counts from then, so the wait is in how long the admitted took:\n\n")
		p.table(rows)
	}
	if len(r.Steps(record.PhaseRates)) > 0 {
		p.printf("%s customers who may send 10 requests per second each, together send this many times as many, and do not wait as they are told. Who has used up half of a burst has his rate shared out among replicas five times a second, so Redis commands grow until all of them have, and then no more:\n\n", setting(r, "few-customers"))
		table(record.PhaseRates)
	}
}

func replayed(p *page, r *record.Run) {
	p.printf("## A trace of real traffic\n\n")
	about(p, r)
	p.printf("%s requests with %s prompt tokens and %s answer tokens, played %s times, %s times as fast as they were, against token-proxy with everything on; answers at %s tokens per second.\n\n",
		setting(r, "requests"), setting(r, "prompt tokens"), setting(r, "answer tokens"), setting(r, "repeat"), setting(r, "speed"), setting(r, "tokens-per-second"))
	rows := [][]string{{"answers", "failures", "events", "CPU per event, µs", "first byte p50 µs", "first byte p99 µs", "lag p50 µs", "lag p99 µs", "lag p99.9 µs"}}
	for i := range r.Samples {
		s := &r.Samples[i]
		rows = append(rows, []string{
			thousands(s.Load.Answers), failureList(s.Load.Failures), thousands(s.Load.Events), figure(s.CPUMicros),
			figure(s.Load.TTFB.P50), figure(s.Load.TTFB.P99), figure(s.Load.Lag.P50), figure(s.Load.Lag.P99), figure(s.Load.Lag.P999),
		})
	}
	p.table(rows)
	if len(r.Series) < 2 {
		return
	}
	var pss, open curve
	for _, s := range r.Series {
		pss.x, pss.y = append(pss.x, s.Seconds), append(pss.y, float64(s.PSS)/(1<<20))
		open.x, open.y = append(open.x, s.Seconds), append(open.y, float64(s.Streams))
	}
	pss.label, pss.mark, open.label = "memory, MiB", true, "open streams"
	p.plot("replay.svg", "Memory and open streams of token-proxy while the trace is played", lines("token-proxy while the trace is played", "seconds", []curve{pss, open}, false))
	p.printf("At the first look, in each third of the time (medians), and at the last look: %s MiB, %s goroutines, %s open files. A connection that waits for its next request has a goroutine, and one whose stream is relayed has none; what was opened is kept for the next request.\n\n",
		course(r, func(s *record.Point) float64 { return float64(s.PSS) / (1 << 20) }),
		course(r, func(s *record.Point) float64 { return float64(s.Goroutines) }),
		course(r, func(s *record.Point) float64 { return float64(s.Files) }))
}

// course writes the first value of a series, the medians of its thirds, and the last value.
func course(r *record.Run, v func(*record.Point) float64) string {
	all := make([]float64, len(r.Series))
	for i := range r.Series {
		all[i] = v(&r.Series[i])
	}
	values := []float64{all[0]}
	for third := range 3 {
		if part := slices.Sorted(slices.Values(all[len(all)*third/3 : len(all)*(third+1)/3])); len(part) > 0 {
			values = append(values, part[len(part)/2])
		}
	}
	texts := make([]string, 0, len(values)+1)
	for _, x := range append(values, all[len(all)-1]) {
		texts = append(texts, fmt.Sprintf("%.0f", x))
	}
	return strings.Join(texts, " → ")
}

func syscalls(p *page, r *record.Run) {
	p.printf("## System calls\n\n")
	about(p, r)
	p.printf("Counted by strace under a small load, since it slows down what it watches. What a proxy does on its own, as token-proxy's talk with Redis, is in them.\n\n")
	rows := [][]string{{"", "per request", "per event", "per event, by name"}}
	for _, peer := range r.Peers {
		calls := func(s *record.Sample) (float64, bool) { return s.Calls(), len(s.Syscalls) > 0 }
		names := ""
		for i := range r.Samples {
			s := &r.Samples[i]
			if s.Peer != peer.Name || s.Phase != record.PhaseEvents {
				continue
			}
			for _, name := range slices.Sorted(maps.Keys(s.Syscalls)) {
				if n := s.Syscalls[name]; n >= 0.05 {
					names += fmt.Sprintf("%s %s, ", name, figure(n))
				}
			}
		}
		rows = append(rows, []string{
			peer.Title, cell(r.Of(peer.Name, record.PhaseRequests, calls)), cell(r.Of(peer.Name, record.PhaseEvents, calls)), strings.TrimSuffix(names, ", "),
		})
	}
	p.table(rows)
}

func failureList(all map[string]int64) string {
	n := int64(0)
	for _, k := range all {
		n += k
	}
	if n == 0 {
		return "0"
	}
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(all)) {
		kinds = append(kinds, thousands(all[kind])+" "+kind)
	}
	return strings.Join(kinds, ", ")
}

// scaleGoals are the rows that those runs are about.
func (b *book) scaleGoals() []goal {
	var goals []goal
	if r := b.streams; r != nil {
		steps := r.Steps(record.PhaseMemory)
		most := steps[len(steps)-1]
		s := r.Only(most).Of(ours, record.PhaseMemory, kib)
		measured := cell(s) + " KiB"
		if bytes, ok := further(r, ours, most); ok {
			measured += fmt.Sprintf(" (each further one %s)", figure(bytes/1024))
		}
		goals = append(goals, goal{fmt.Sprintf("memory per stream with %s open", figure(most)) + b.of(r), "≤ 8 KiB", measured, judge(s, 8, 8)})
	}
	if r := b.grants; r != nil {
		g := redisGoal(r)
		g.what += b.of(r)
		goals = append(goals, g)
		goals = append(goals, b.flat(r, record.PhaseOne, "one customer"), b.flat(r, record.PhaseRequests, "up to "+setting(r, "active")+" customers"))
	}
	return goals
}

// of marks what was measured of another revision than was compared.
func (b *book) of(r *record.Run) string {
	if differ(r.Revision, b.revision()) {
		return " (of revision " + r.Revision + ")"
	}
	return ""
}

// asked is about the api of the control plane.
func asked(p *page, r *record.Run) {
	p.printf("## The api at size\n\n")
	about(p, r)
	p.printf("%s customers, %s usage events of %s months, some customers far busier than others, in a Postgres on the same processors. %s clients together ask %s times per second, each time for someone else or another page. Time counts from when a request was to be sent.\n\n",
		setting(r, "customers"), setting(r, "events"), setting(r, "months"), setting(r, "clients"), setting(r, "rate"))
	rows := [][]string{{"question", "answers/s", "p50 ms", "p99 ms", "longest ms", "bytes each", "failures"}}
	for i := range r.Samples {
		s := &r.Samples[i]
		ms := func(us float64) string { return fmt.Sprintf("%.1f", us/1000) }
		rows = append(rows, []string{
			s.Phase, fmt.Sprintf("%.0f", perSecond(s, s.Load.Answers)), ms(s.Load.Latency.P50), ms(s.Load.Latency.P99), ms(s.Load.Latency.Max),
			fmt.Sprint(s.Load.Bytes / max(s.Load.Answers, 1)), failureList(s.Load.Failures),
		})
	}
	p.table(rows)
}
