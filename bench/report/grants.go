package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/andreabadesso/openclaw-cloud/bench/compare"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

func grants(p *page, r *record.Run) {
	p.printf("## As customers grow\n\n")
	about(p, r)
	how := "CPU and ratios are of nginx and token-proxy at the same time, with half of the connections each; the rest is of token-proxy alone."
	if busy(r, ours, record.PhaseOne) == record.PhaseOne {
		how = "A ratio is to nginx in turn, in the same round."
	}
	p.printf("Grants in Redis, of which one is used, so that nothing else changes from step to step, and of which at most %s are used, in turn: the more customers send requests, the more there is to settle, once a second for each. Medians over rounds. %s\n\n", setting(r, "active"), how)
	rows := [][]string{{"grants", "one customer: CPU per request, µs", "ratio to nginx", "up to " + setting(r, "active") + ": CPU per request, µs", "ratio to nginx", "requests/s", "p99 µs", "memory of token-proxy, MiB", "data of Redis, MiB"}}
	for _, step := range r.Steps(record.PhaseRequests) {
		part := r.Only(step)
		of := func(v record.Value) string { return cell(part.Of(ours, record.PhaseRequests, v)) }
		rows = append(rows, []string{
			tick(step), cell(cpu(part, ours, record.PhaseOne)), ratio(cpuRatio(part, ours, compare.Baseline, record.PhaseOne)),
			cell(cpu(part, ours, record.PhaseRequests)), ratio(cpuRatio(part, ours, compare.Baseline, record.PhaseRequests)), of(record.Throughput), of(latP99), of(ownMemory), of(redisMemory),
		})
	}
	p.table(rows)
	redisTable(p, r)
	p.plot("grants.svg", "CPU per request of one customer over the number of grants", lines("CPU per request, µs", "grants in Redis", curves(r, busy(r, ours, record.PhaseOne), same, record.CPU), true))
}

// reachedShare is which part of a rate has to be served for it to have been reached.
const reachedShare = 0.95

// redisStep is what Redis executed at one rate of the same customers.
type redisStep struct {
	rate, served, commands float64 // per second
}

func (s redisStep) reached() bool { return s.served >= reachedShare*s.rate }

// redisSteps are those of a run, by rate, as far as there is something to compare.
func redisSteps(r *record.Run) []redisStep {
	var all []redisStep
	for _, rate := range r.Steps(record.PhaseRedis) {
		part := r.Only(rate)
		served, sent := part.Of(ours, record.PhaseRedis, admitted), part.Of(ours, record.PhaseRedis, commands)
		if served.Median > 0 && sent.N > 0 {
			all = append(all, redisStep{rate, served.Median, sent.Median})
		}
	}
	return all
}

// What a customer costs Redis, as package quota has it.
const (
	perCall         = 3 // commands: the script, what it reads and what it writes
	leastPause      = 0.7
	mostPause       = 1.0 // seconds between two calls for a customer who sends; see routine and spread there
	callsWhenLow    = 10  // at most, per second: one at each tick
	commandsAtLimit = 25  // per second: five of each of five shares of a rate per second
)

// redisTable shows what Redis has to do at other rates, and says why.
func redisTable(p *page, r *record.Run) {
	rows := [][]string{{"requests/s", "served/s", "Redis commands/s", "p99 µs"}}
	missed := false
	for _, step := range r.Steps(record.PhaseRedis) {
		part := r.Only(step)
		of := func(v record.Value) string { return cell(part.Of(ours, record.PhaseRedis, v)) }
		rate := tick(step)
		if s := part.Of(ours, record.PhaseRedis, admitted); s.N > 0 && !(redisStep{rate: step, served: s.Median}).reached() {
			rate += ", **not reached**"
			missed = true
		}
		rows = append(rows, []string{rate, of(admitted), of(commands), of(latP99)})
	}
	if len(rows) == 1 {
		return
	}
	p.printf("What Redis executes for %s customers, commands inside of scripts and those of the billing-worker included", setting(r, "redis-customers"))
	if missed {
		p.printf("; a rate of which less than %.0f %% is served was not reached, and what was counted there is not of that rate", 100*reachedShare)
	}
	p.printf(":\n\n")
	p.table(rows)
	p.printf("%s", redisLaw(r))
}

// redisLaw says in words what that depends on.
func redisLaw(r *record.Run) string {
	text := fmt.Sprintf("The law behind it, per replica that a customer's requests reach. A call to Redis for a customer is %d commands, however many requests it settles and leases tokens for. "+
		"Who sends is called for once in %.1f to %.1f s, so %.1f to %.1f commands per second, and about %d times a second at most while more is in flight, or used, than was planned for. "+
		"Who needs more than is idle there (the first request after a silence, more at once than before, who is close to the monthly limit) has a call made at once; one at most is under way for a customer. Who has used up half of a burst has his rate shared out anew each 200 ms, which is %d commands per second more. "+
		"Who was silent for 5 to 7.5 s has what is left returned, by a last call; his next request is cold: it has to lease before it is forwarded, is settled, and returns the rest: three calls. So with customers who send once a minute Redis' commands do grow with the requests. "+
		"All else (epochs, the feed, batches of usage) goes by the clock and by replicas.",
		perCall, leastPause, mostPause, perCall/mostPause, perCall/leastPause, callsWhenLow, commandsAtLimit)
	if n, err := strconv.Atoi(setting(r, "redis-customers")); err == nil {
		text += fmt.Sprintf(" For %d customers that is %.0f to %.0f commands per second, and what goes by the clock.", n, float64(n)*perCall/mostPause, float64(n)*perCall/leastPause)
	}
	return text + " That they do not grow with the requests is asserted by `test/e2e` TestRedisCommandsDoNotGrowWithRequests (of three replicas in `make promises`).\n\n"
}

// independent is how much Redis' commands at two rates may differ and still count as the same: what the
// programs do by the clock varies a little.
const independent = 1.25

// redisGoal compares Redis' commands per second at all rates that were reached, from the same customers.
// Fewer at a greater rate are no better than more: then something else was counted.
func redisGoal(r *record.Run) goal {
	g := goal{"Redis commands per second", fmt.Sprintf("independent of the request rate (most / least ≤ %.2f)", independent), "-", "not measured"}
	low, high, most := math.Inf(1), 0.0, 0.0
	var reached, missed []string
	for _, s := range redisSteps(r) {
		if !s.reached() {
			missed = append(missed, fmt.Sprintf("%s/s not reached, %s served", tick(s.rate), figure(s.served)))
			continue
		}
		at := "at"
		if len(reached) == 0 {
			at = "commands/s at"
		}
		reached = append(reached, fmt.Sprintf("%s %s %s", figure(s.commands), at, tick(s.rate)))
		low, high, most = min(low, s.commands), max(high, s.commands), max(most, s.rate)
	}
	if len(reached) == 0 {
		return g
	}
	g.measured = strings.Join(append(reached, missed...), ", ")
	if len(reached) < 2 {
		return g
	}
	spread := record.Spread{Median: high / low, N: 1}
	g.measured = fmt.Sprintf("%s × (%s)", figure(spread.Median), g.measured)
	g.met = judge(spread, independent, independent)
	if len(missed) > 0 && g.met == "yes" {
		g.met += fmt.Sprintf(", up to %s/s", tick(most))
	}
	return g
}

// flat says how much a request's cost differs from one number of grants to another.
func (b *book) flat(r *record.Run, phase, whose string) goal {
	low, high, iqr := math.Inf(1), 0.0, 0.0
	steps := r.Steps(phase)
	for _, step := range steps {
		if s := cpuRatio(r.Only(step), ours, compare.Baseline, phase); s.N > 0 {
			low, high, iqr = min(low, s.Median), max(high, s.Median), max(iqr, s.IQR())
		}
	}
	g := goal{"CPU per request of " + whose + ", whatever grants there are" + b.of(r), "flat (most / least ≤ 1.1)", "-", "not measured"}
	if len(steps) == 0 || high == 0 {
		return g
	}
	g.what = fmt.Sprintf("CPU per request of %s from %s to %s grants", whose, tick(steps[0]), tick(steps[len(steps)-1])) + b.of(r)
	spread := record.Spread{Median: high / low, N: 1}
	g.measured = fmt.Sprintf("%s × (ratios to nginx from %s to %s, IQR of each at most %.1f %%)", figure(spread.Median), figure(low), figure(high), iqr)
	g.met = judge(spread, 1.1, 1.1)
	return g
}
