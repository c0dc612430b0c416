package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// What an installation has as it is delivered (k8s/options.nix), and what else is taken for granted. A test
// compares the former with the rendered manifests.
const (
	leastReplicas   = 2
	mostReplicas    = 8
	coresOfReplica  = 0.7 // a core is reserved; more replicas are started when more than this is used
	connectionsEach = 20_000
	filesPerStream  = 2 // the client's connection and the upstream's
	redisMiB        = 1024

	networkEach   = 125     // MB/s each way: a node with 1 Gbit/s
	redisCommands = 100_000 // per second that one server executes
	postgresCores = 8       // of a large machine
	boxesPerNode  = 20      // see control/operator/openclaw/MEASURED.md
	boxMiB        = 704     // that a Starter box requests
	clusterNodes  = 5000    // that Kubernetes is made for, as its makers say
)

// part is something of an installation that can be full.
type part struct {
	name, holds string
	share       func(n need, customers float64) float64 // of what it holds that is used
	pass        string                                  // how to get past it
	code        bool                                    // no setting gets past it: the code would have to be changed
}

// parts are those of an installation, in the order in which requests meet them.
func parts() []part {
	return []part{
		{"Kubernetes for the boxes", fmt.Sprintf("%s nodes in a cluster, with %d boxes each (a node of 16 GB; a Starter box requests %d MiB)", thousands(clusterNodes), boxesPerNode, boxMiB),
			func(_ need, customers float64) float64 { return customers / boxesPerNode / clusterNodes },
			"More nodes: an entry each in the data of the hosts. Beyond one cluster there would have to be several, each with an operator for a part of the customers: **the code has no such thing**, one operator takes all boxes, and was tried with 500", true},
		{"cores of token-proxy", fmt.Sprintf("%d replicas that use %.1f core each", mostReplicas, coresOfReplica),
			func(n need, _ float64) float64 { return n.cores / (mostReplicas * coresOfReplica) },
			"More replicas (`openclaw.tokenProxy.most`), or several cores for each: they share nothing but Redis", false},
		{"network of token-proxy", fmt.Sprintf("%d replicas on as many nodes with 1 Gbit/s: what comes from clients and from Kimi comes in, and all of it goes out again", mostReplicas),
			func(n need, _ float64) float64 { return (n.in + n.out) / (mostReplicas * networkEach) },
			"More nodes with replicas, or faster networks", false},
		{"connections and descriptors of token-proxy", fmt.Sprintf("%d replicas with %s connections of clients each, and twice as many descriptors", mostReplicas, thousands(connectionsEach)),
			func(n need, _ float64) float64 { return n.streams / (mostReplicas * connectionsEach) },
			"More replicas, or `limits.connections` and the limit of open files. Connections that clients keep between requests come on top", false},
		{"commands of Redis", thousands(redisCommands) + " per second of one server, which is assumed",
			func(n need, _ float64) float64 { return n.redis / redisCommands },
			"A Redis Cluster (`redis-cluster://`): leases and rates of one customer share a hash tag, so masters divide the customers, which `test/e2e` TestOnRedisCluster runs. Grants with their feed, the usage stream and the epoch are **not divided**: each lies in one slot. They get a command for a token that a replica does not know, and else go by replicas and time. `k8s/` renders one server, no Cluster", false},
		{"memory of Redis", fmt.Sprintf("%s MiB, of which grants alone are counted: records of limits come on top", thousands(redisMiB)),
			func(n need, _ float64) float64 { return n.grants / redisMiB },
			"`openclaw.redis.memoryMiB`. In a Cluster all grants are on one master", false},
		{"Postgres", fmt.Sprintf("%d cores, as if it alone took what Redis, Postgres and the billing-worker do", postgresCores),
			func(n need, _ float64) float64 { return n.around / postgresCores },
			"A larger machine; several billing-workers share the stream, rows go to a partition for each month. What a disk takes that makes writes durable was not measured. **The code knows one Postgres**: to divide customers among several it would have to be changed", true},
	}
}

// bottlenecks says how full each part is at some sizes, which is first, and how to get past it.
func bottlenecks(p *page, r rates, seen float64) {
	p.printf("### What is full first\n\n")
	p.printf("What the table above needs, in percent of what an installation has as it is delivered. Over 100 %% it does not fit; the most in a column is the first bottleneck at that size. What is assumed was not measured here")
	if seen > 0 {
		p.printf(": Redis executed %s commands per second at most, on a processor that it shared with all but the proxy", figure(seen))
	}
	p.printf(". What Kimi allows for an account is no part of this, and has to be asked for.\n\n")
	counts := customerCounts()[1:]
	head := []string{"", "has"}
	for _, customers := range counts {
		head = append(head, tick(customers)+" customers")
	}
	rows := [][]string{append(head, "how to get past it")}
	all := parts()
	needed := make([]need, len(counts))
	first := make([]int, len(counts))
	for i, customers := range counts {
		needed[i] = needs(customers, r)
		first[i] = fullest(all, needed[i], customers)
	}
	for n, one := range all {
		row := []string{one.name, one.holds}
		for i, customers := range counts {
			cell := percent(one.share(needed[i], customers))
			if first[i] == n {
				cell = "**" + cell + "**"
			}
			row = append(row, cell)
		}
		rows = append(rows, append(row, one.pass+"."))
	}
	p.table(rows)
	for i, customers := range counts {
		one := all[first[i]]
		share := one.share(needed[i], customers)
		is := "nothing is full; first would be"
		if share >= 1 {
			is = "the first bottleneck is"
		}
		p.printf("- **%s customers** (boxes on %s nodes, with %s GiB): %s %s, at %s.%s%s\n", tick(customers), tick(math.Ceil(customers/boxesPerNode)), figure(customers*boxMiB/1024),
			is, one.name, percent(share), others(all, first[i], needed[i], customers), noSetting(all, needed[i], customers))
	}
	p.printf("\n")
}

// noSetting names the fullest part that only another code gets past.
func noSetting(all []part, n need, customers float64) string {
	only := slices.DeleteFunc(slices.Clone(all), func(one part) bool { return !one.code })
	one := only[fullest(only, n, customers)]
	return fmt.Sprintf(" Of what only a change of the code gets past, %s comes first (%s).", one.name, percent(one.share(n, customers)))
}

// fullest is the part of which most is used.
func fullest(all []part, n need, customers float64) int {
	first, most := 0, math.Inf(-1)
	for i, one := range all {
		if s := one.share(n, customers); s > most { // not a number never is
			first, most = i, s
		}
	}
	return first
}

// others names what else does not fit.
func others(all []part, first int, n need, customers float64) string {
	text := ""
	for i, one := range all {
		if s := one.share(n, customers); i != first && s >= 1 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%s (%s)", one.name, percent(s))
		}
	}
	if text == "" {
		return ""
	}
	return " Full too: " + text + "."
}

// percent writes a share.
func percent(share float64) string {
	if math.IsNaN(share) {
		return "-"
	}
	return figure(100*share) + " %"
}

// mostCommands is the most that Redis was seen to execute in a second.
func (b *book) mostCommands() float64 {
	most := 0.0
	for _, r := range []*record.Run{b.overload, b.grants} {
		if r == nil {
			continue
		}
		for i := range r.Samples {
			if v, ok := commands(&r.Samples[i]); ok {
				most = max(most, v)
			}
		}
	}
	return most
}
