package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testLayout() layout {
	return layout{
		proxies: 3, workers: 2, nodes: 1, limited: 5, customers: 9, links: []string{"proxy 0 to redis", "worker 0 to postgres"},
		proxyPoints: []string{"journal.begin.before", "journal.recover.before"}, workerPoints: []string{"store.commit.before"},
	}
}

func TestThePlanFollowsFromTheSeed(t *testing.T) {
	a, b := makePlan(7, 10*time.Minute, testLayout()), makePlan(7, 10*time.Minute, testLayout())
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed gave two plans")
	}
	if reflect.DeepEqual(a, makePlan(8, 10*time.Minute, testLayout())) {
		t.Error("two seeds gave the same plan")
	}
}

func TestALongPlanHasEverything(t *testing.T) {
	for seed := range uint64(20) {
		layout, want := testLayout(), int(faultKinds)
		if seed%2 == 0 {
			layout.nodes = clusterNodes
		} else {
			want-- // there are no slots
		}
		plan := makePlan(seed+1, 30*time.Minute, layout)
		kinds, nets, kills := map[faultKind]int{}, map[netFault]int{}, 0
		for _, f := range plan {
			if kinds[f.kind]++; f.kind == breakLink {
				nets[f.net]++
			}
			if f.kind < drainProxy {
				kills++
			}
			if f.at < firstFault || f.at > 30*time.Minute-lastFault {
				t.Errorf("seed %d: %s is not within the load", seed, f)
			}
			if strings.Contains(f.point, ".recover.") && !f.atStart {
				t.Errorf("seed %d: %s never happens", seed, f)
			}
		}
		if len(kinds) != want || len(nets) != int(netFaults) {
			t.Errorf("seed %d: %d of %d kinds, %d of %d network faults", seed, len(kinds), want, len(nets), netFaults)
		}
		if kills < 120 {
			t.Errorf("seed %d: only %d kills in 30 minutes", seed, kills)
		}
	}
}

func TestAShortPlanHasMostOfIt(t *testing.T) {
	kinds := map[faultKind]bool{}
	for _, f := range makePlan(3, time.Minute, testLayout()) {
		kinds[f.kind] = true
	}
	if len(kinds) < 9 {
		t.Errorf("only %d kinds in a minute", len(kinds))
	}
}

// No target has two faults at the same time.
func TestFaultsDoNotOverlap(t *testing.T) {
	until := map[string]time.Duration{}
	for _, f := range makePlan(11, time.Hour, testLayout()) {
		class := map[faultKind]string{
			killProxy: "proxy", killProxyAt: "proxy", loseProxy: "proxy", drainProxy: "proxy", pauseProxy: "proxy",
			killWorker: "worker", killWorkerAt: "worker", pauseWorker: "worker",
			killRedis: "redis", emptyRedis: "redis", oldRedis: "redis", pauseRedis: "redis", flushRedis: "redis",
			killPostgres: "postgres", crashPostgres: "postgres", pausePostgres: "postgres", breakLink: f.link, moveLimit: "limit",
		}[f.kind]
		if class == "" {
			continue
		}
		if class = fmt.Sprint(class, f.target); until[class] > f.at {
			t.Errorf("%s comes while another fault is at work", f)
		}
		until[class] = f.at + f.lasts
	}
}

func TestPointsAreFoundInTheSource(t *testing.T) {
	proxy, worker, err := findPoints("../..")
	if err != nil {
		t.Fatal(err)
	}
	has := func(list []string, want string) bool {
		return strings.Contains(" "+strings.Join(list, " ")+" ", " "+want+" ")
	}
	for _, p := range []string{"journal.begin.before", "journal.commit.after", "meter.add.before", "meter.add.after"} {
		if !has(proxy, p) || has(worker, p) {
			t.Errorf("%s should be a point of token-proxy alone", p)
		}
	}
	for _, p := range []string{"store.commit.before", "store.commit.after", "billing.acknowledge.after"} {
		if !has(worker, p) || has(proxy, p) {
			t.Errorf("%s should be a point of the billing-worker alone", p)
		}
	}
	for _, p := range append(proxy, worker...) {
		if n := strings.Split(p, "."); len(n) != 3 || n[2] != "before" && n[2] != "during" && n[2] != "after" {
			t.Errorf("the point %s is not named <part>.<step>.before, during or after", p)
		}
	}
}

func TestOptions(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	o, err := parse([]string{"-seconds", "90"}, env("DRILL_SECONDS", "300", "DRILL_SEED", "5", "DRILL_CLUSTER", "1"))
	if err != nil || o.seconds != 90 || o.seed != 5 || !o.cluster {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse(nil, env()); err != nil || o.seed == 0 {
		t.Errorf("without a seed: %+v, %v", o, err)
	}
	for _, bad := range []struct {
		args []string
		env  []string
	}{{args: []string{"-seconds", "5"}}, {args: []string{"x"}}, {env: []string{"DRILL_SEED", "abc"}}, {args: []string{"-small", "40"}}} {
		if _, err := parse(bad.args, env(bad.env...)); err == nil {
			t.Errorf("%v %v is accepted", bad.args, bad.env)
		}
	}
}

func TestTraceparentCarriesTheAttempt(t *testing.T) {
	for _, id := range []int{1, 255, 1 << 30} {
		if got, ok := attemptOf(traceparent(id)); !ok || got != id {
			t.Errorf("%d became %d, %v", id, got, ok)
		}
	}
	if _, ok := attemptOf("something else"); ok {
		t.Error("nonsense is an attempt")
	}
}

func TestTokensAreCounted(t *testing.T) {
	for text, want := range map[string]int64{
		`[1,2]`: 0,
		`{"choices":[{"delta":{"content":"tok1 "}}]}`:                                                    1,
		`{"choices":[{"message":{"content":"tok2","reasoning_content":"tok1 "}}]}`:                       2,
		`{"delta":{"type":"text_delta","text":"tok1 tok2 tok3 "}}`:                                       3,
		`{"content":[{"type":"thinking","thinking":"a b "},{"type":"text","text":"c d"}]}`:               4,
		`{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{ \"a\": 1, } "}}]}}]}`: 4,
	} {
		if got := tokensIn([]byte(text)); got != want {
			t.Errorf("%s: %d tokens, want %d", text, got, want)
		}
	}
}
