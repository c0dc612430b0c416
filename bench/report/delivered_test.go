package report

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the report says of other parts of the project is still so there.
func TestWhatIsDelivered(t *testing.T) {
	t.Parallel()
	for file, all := range map[string][]string{
		"k8s/golden/30-platform-token-proxy.yaml": {
			fmt.Sprintf("maxReplicas: %d\n", mostReplicas), fmt.Sprintf("minReplicas: %d\n", leastReplicas),
			fmt.Sprintf("averageUtilization: %.0f\n", 100*coresOfReplica), "cpu: \"1\"\n",
		},
		"k8s/golden/30-platform-redis.yaml": {fmt.Sprintf("maxmemory %dmb\n", redisMiB)},
		"proxy/config.go":                   {"setDefault(&l.Connections, 20_000)"},
		"control/operator/openclaw/MEASURED.md": {
			fmt.Sprintf("holds about **%d idle gateways", boxesPerNode), fmt.Sprintf("| Starter | 50m / %d MiB |", boxMiB),
		},
		"control/operator/env_test.go": {"500 boxes"},
		"quota/dirty.go":               {"routine = 10\n", "spread = 4\n"},
		"quota/leases.go":              {"def(&o.SettleEvery, 100*time.Millisecond)", "def(&o.ReturnAfter, 5*time.Second)", "def(&o.Grace, 10*time.Second)"},
		"quota/rates.go":               {"DefaultSyncInterval = 200 * time.Millisecond"},
		"internal/contract/keys.go":    {`return "oc:quota:{" + customer + "}:" + period`, `return "oc:rate:{" + customer + "}"`, `return "oc:{feed}:grant:" + d.Hex()`, `UsageStreamKey = "oc:{usage}:events"`},
		"Makefile":                     {"bin/openclaw-bench syscalls\n", "bench-control:", "drill:", "promises:"},
	} {
		text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range all {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s has no %q any more: say in the report what it has", file, want)
			}
		}
	}
}

// Rows that tests count name tests that exist, and no figure.
func TestWhatTestsCount(t *testing.T) {
	t.Parallel()
	text, _ := write(t, run(1))
	inPackage := regexp.MustCompile("`([a-z0-9/]+)` (Test[A-Za-z0-9]+(?:, Test[A-Za-z0-9]+)*)")
	for _, g := range tested {
		if got := row(t, text, g.what); !strings.HasSuffix(got, "| counted by tests |\n") {
			t.Error(got)
		}
		found := inPackage.FindAllStringSubmatch(g.measured, -1)
		if len(found) == 0 {
			t.Errorf("%s: no test is named", g.what)
		}
		for _, m := range found {
			for _, name := range strings.Split(m[2], ", ") {
				if !hasTest(t, m[1], name) {
					t.Errorf("%s: %s has no %s", g.what, m[1], name)
				}
			}
		}
	}
	for _, what := range []string{"heap allocations", "tokens over a limit", "tokens lost or billed twice", "the last byte of a revoked token"} {
		if !strings.Contains(section(t, text, "## What is to be reached"), what) {
			t.Errorf("there is no row about %q", what)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// The most in a column is the first bottleneck; what was not measured is none.
func TestBottlenecks(t *testing.T) {
	t.Parallel()
	all := parts()
	at := map[string]int{}
	for i, one := range all {
		at[one.name] = i
	}
	n := need{cores: 2.8, in: 100, out: 400, streams: 16_000, redis: 20_000, grants: 512, around: 4}
	for name, want := range map[string]float64{
		"Kubernetes for the boxes": 0.1, "cores of token-proxy": 0.5, "network of token-proxy": 0.5, "connections and descriptors of token-proxy": 0.1,
		"commands of Redis": 0.2, "memory of Redis": 0.5, "Postgres": 0.5,
	} {
		if got := all[at[name]].share(n, 10_000); math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v is used, want %v", name, got, want)
		}
	}
	n.redis, n.grants, n.around = 90_000, math.NaN(), math.NaN()
	if got := all[fullest(all, n, 10_000)].name; got != "commands of Redis" {
		t.Errorf("%s is full first", got)
	}

	// 57,167 events of 20 µs, and 5.6 cores.
	p := &page{}
	bottlenecks(p, rates{perRequest: 1, events: []perEvent{{1, 20}}, around: math.NaN(), redis: 4, perGrant: math.NaN()}, 12_345)
	for _, want := range []string{
		"| **20.4 %** | **204 %** | **2,042 %** |", "| 10.0 % | 100 % | 1,000 % |", "| 0.67 % | 6.67 % | 66.7 % |", "| - | - | - |",
		"Redis executed 12,345 commands per second at most",
		"- **10,000 customers** (boxes on 500 nodes, with 6,875 GiB): nothing is full; first would be cores of token-proxy, at 20.4 %. Of what only a change of the code gets past, Kubernetes for the boxes comes first (10.0 %).\n",
		"- **100,000 customers** (boxes on 5,000 nodes, with 68,750 GiB): the first bottleneck is cores of token-proxy, at 204 %. Full too: Kubernetes for the boxes (100 %).",
	} {
		if !strings.Contains(p.String(), want) {
			t.Errorf("there is no %q in %s", want, p)
		}
	}
}
