package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// Under load `openclawctl quota set` is in force on all of three proxies when it returns, which
// is within a second, and it prints how long that took. A proxy that hears nothing is named,
// and is not taken for one that does.
func TestQuotaSetIsInForceWhenItReturns(t *testing.T) {
	const replicas = 3
	s := stack.New(t, stack.Options{Replicas: replicas})
	api := s.StartAPI()
	tok := s.Customer("Quot", "team")
	load := newTraffic(s, newPlatform(t, s, usual).several(12), 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { load.run(ctx); close(ended) }()
	defer func() { stop(); <-ended }()

	said := regexp.MustCompile(`(?m)^All 3 proxies apply it, the last one after ([0-9.]+) ms \([0-9., ]+\)\.$`)
	var printed, whole latencies
	began := time.Now()
	for round := range full(8, 100) {
		pause(ctx, 300*time.Millisecond) // a customer may send ten requests per second
		limit, want := int64(0), http.StatusTooManyRequests
		if round%2 == 1 {
			limit, want = 20_000_000+int64(round), http.StatusOK
		}
		at := time.Now()
		code, out, errs := api.Ctl("quota", "set", "--customer", tok.Customer, "--limit", fmt.Sprint(limit), "--reason", "test")
		took := time.Since(at)
		m := said.FindStringSubmatch(out)
		if code != 0 || errs != "" || m == nil {
			t.Fatalf("round %d: exit code %d\n%s%s", round, code, out, errs)
		}
		ms, err := strconv.ParseFloat(m[1], 64)
		if err != nil || ms <= 0 || ms >= float64(aSecond().Milliseconds()) || ms > float64(took.Milliseconds()+1) {
			t.Errorf("round %d: it printed %s ms and took %v", round, m[1], took)
		}
		printed, whole = append(printed, time.Duration(ms*1e6)), append(whole, took)
		for i, p := range s.Proxies {
			if got := ask(p, tok.Raw); got != want {
				t.Errorf("round %d: proxy %d answers %d under a limit of %d", round, i, got, limit)
			}
		}
	}
	during := load.between(began, time.Now())
	if n := statuses(during)["200"]; n < 100 {
		t.Errorf("hardly a load: %v", statuses(during))
	}
	stop()
	<-ended
	t.Logf("printed %v; the whole command %v; beside %d requests", printed, whole, len(during))

	if err := s.Proxies[1].Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	code, out, errs := api.Ctl("quota", "set", "--customer", tok.Customer, "--limit", "5", "--reason", "test")
	if code != 3 || !strings.Contains(out, "2 of 3 proxies apply it after ") || !strings.Contains(errs, "the change holds, but it is not applied there yet") {
		t.Errorf("with a stopped proxy: exit code %d\n%s%s", code, out, errs)
	}
	if err := s.Proxies[1].Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}
