package report

import (
	"strings"
)

// method says how it was measured, so that it can be doubted and repeated.
const method = `## How it is measured

    make bench         # the comparison, about 18 minutes
    make bench-scale   # streams, overload, grants, about 10 minutes
    make bench-quick   # a small comparison, printed only; under 2 minutes, wider spread

- **All proxies run at the same time** and are measured in turn, phase by phase, in several rounds; another one begins each
  round. What else the machine does hits all of them, and ratios are taken within a round. The proxies
  have the last processor for themselves and all else shares the others (` + "`--apart`" + `), so a proxy does not wait while something else
  runs, and what its neighbours leave in the caches is the same for all; a run of a revision before ` + "`--apart`" + ` shared them all. Busy connections and streams are measured twice in a round,
  in one order and back. A measurement during which something else used more than a part of a processor (` + "`--quiet`" + `) is repeated, and the least disturbed is kept.
- **CPU** is read from each process's own clock of the operating system (the scheduler's, exact to the nanosecond, user and
  kernel time of all threads, children included), when counting begins and when it ends. What the kernel does in interrupts
  on behalf of nobody is in none of them.
- **Latency** counts from the time at which a request was to be sent, with arrivals that do not wait for answers; a closed
  load (` + "`always busy`" + `) counts from sending, and its latency says how long the queue is. Recorded in HdrHistograms, three digits.
- **Lag** of an event is from the time that the upstream wrote into it, just before it wrote it to the socket, to the
  generator's read; same clock. *Nothing in between* shows what generator and upstream contribute.
- **The generator** drives raw non-blocking sockets from one thread with epoll, with requests made in advance. The upstream
  (` + "`openclaw-bench origin`" + `) does the same with answers and events; each event is written by itself at its own time. kimisim, the
  simulator of the tests, has too much to check and to book for it: it would need the core that the proxy is to have. With a TLS upstream
  it is a goroutine per connection, for all proxies alike.
- **token-proxy has everything on**: authentication against grants in Redis, requests per second, concurrency and monthly
  limit of {{customers}} customers whose requests come in turn, usage metered through its journal and Redis into Postgres by the
  billing-worker, access log, metrics. Redis appends to its file; Postgres runs without fsync, for a slow disk is not what is
  measured; it and the billing-worker, which have machines of their own elsewhere and nobody waits for, run at nice 10.
- **The others** do nothing but forward, with the configuration in ` + "`bench/peers/conf`" + ` and ` + "`bench/peers/own.go`" + `: connections to the upstream are
  kept, answers are not buffered, nothing is logged. nginx and HAProxy have one worker, which is all that
  their processor needs; programs in Go see one processor. Portkey gets
  provider and address in headers, as its users do it; it is a Node program of one thread.
- Requests have {{body}} bytes, answers 16 tokens, as OpenAI chat completions.

Micro-benchmarks beside the code: ` + "`make microbench`" + ` runs those of the working tree and of ` + "`BASE`" + ` (a revision) and compares them with benchstat.

## Raw results

Each run is a JSON file in ` + "`bench/results/`" + ` with the machine, all settings and every single sample; ` + "`latest-*.json`" + `, which are under
version control, are those that this page shows.
`

func (b *book) method(p *page) {
	customers, body := "the", "?"
	if b.compare != nil {
		customers, body = setting(b.compare, "customers"), setting(b.compare, "body-bytes")
	}
	p.printf("%s", strings.NewReplacer("{{customers}}", customers, "{{body}}", body).Replace(method))
}
