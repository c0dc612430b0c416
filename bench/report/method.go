package report

import (
	"strings"
)

// method says how it was measured, so that it can be doubted and repeated.
const method = `## How it is measured

    make bench           # the comparison, about 50 minutes
    make bench-scale     # streams, overload, grants, system calls, about 35 minutes
    make bench-control   # the api at size, about 8 minutes; openclaw-bench report then shows it here
    make bench-quick     # a small comparison, printed only; under 2 minutes, wider spread

- **All proxies run at the same time** and are measured phase by phase, in several rounds, every other one in the opposite order: each alone, for what it
  takes and how late it answers; and each together with nginx (one with a TLS upstream with nginx with one), under half of the load each, for
  processor time. A processor that others use too, behind one's back, may be twice as fast in one half second as in the next: in turns that
  makes two proxies differ that do not, while at the same time it does the same to both. They do share the processor's caches then.
  What a proxy's measurements of a round have as median is its value of it, and its ratio of a round is the median of those to the nginx that was under load
  with it: medians of each by itself are not of the same moments. The proxies
  have the last processor for themselves and all else shares the others (` + "`--apart`" + `; each table says whether its run did), so a proxy
  does not wait while something else runs. Generator, upstream, Redis, Postgres and the billing-worker do wait for each other, on
  what is left: where that is one processor, what they use beside token-proxy delays the generator too, and is in its latency and lag.
  The one that was measured before may still work a little while the next is. A measurement during which something else used more than a
  part of a processor (` + "`--quiet`" + `) is repeated, and the least disturbed is kept.
- **Customers are not cold.** token-proxy returns the tokens of who was silent for 5 s, so a customer's next request is dearer. All are heard of, uncounted, before whole answers
  are measured, if that is longer ago: an agent at work asks again sooner. One that is asked something now and then does not; sizes are computed for such.
- **Streams are out of step**: each begins 0.09 of the interval after the one before, which spreads the events of any number of them evenly over it.
- **CPU** is read from each process's own clock of the operating system (the scheduler's, exact to the nanosecond, user and
  kernel time of all threads, children included), when counting begins and when it ends. An interrupt counts for the process that
  it hits unless the kernel was built to tell them apart (IRQ_TIME_ACCOUNTING), and what loopback does to receive counts for the sender; those that
  hit an idle processor, and the kernel's own threads, count for nobody.
- **Redis, Postgres and the billing-worker** do a part of what a request needs after it: their processor time is read from the beginning
  of a load until they are at rest, and divided by what was done in all that time, warm-up included.
- **Latency** counts from the time at which a request was to be sent, with arrivals that do not wait for answers; a closed
  load (` + "`always busy`" + `) counts from sending, and its latency says how long the queue is. Recorded in HdrHistograms, three digits.
- **Lag** of an event is from the time that the upstream wrote into it, just before it wrote it to the socket, to the
  generator's read; same clock. *Nothing in between* shows what generator and upstream contribute.
- **The generator** drives raw non-blocking sockets from one thread with epoll, with requests made in advance. The upstream
  (` + "`openclaw-bench origin`" + `) does the same with answers and events; each event is written by itself when it is due. kimisim, the
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
