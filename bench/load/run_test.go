package load

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/origin"
)

// startOrigin runs an upstream until the test ends.
func startOrigin(t *testing.T) string {
	t.Helper()
	s, err := origin.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String()
}

// post makes a request of a body.
func post(path, body string) func(uint64) Job {
	b := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	return func(uint64) Job { return Job{Head: b} }
}

const directed = `{"model":"kimi-k2.6","stream":%v,"messages":[{"role":"user","content":"[[sim:{\"output_tokens\":%d,\"tokens_per_second\":%d,\"stamp\":true}]]"}]}`

func TestClosedLoad(t *testing.T) {
	t.Parallel()
	began, ended := 0, 0
	r, err := Run(t.Context(), Config{
		Target: startOrigin(t), Jobs: post("/v1/chat/completions", `{"model":"kimi-k2.6"}`), Closed: true,
		Connections: 8, Threads: 2, Warmup: 50 * time.Millisecond, Duration: 3 * time.Second,
		Begin: func() { began++ }, End: func() { ended++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	// Answers to what was asked for before counting are counted, but have no time; after it, the other way round.
	if r.Answers < 10 || len(r.Failures) != 0 || r.Latency.Count > r.Answers+8 || r.Latency.Count < r.Answers-8 || r.Latency.P50 <= 0 || r.Events != 0 || r.Lag.Count != 0 {
		t.Errorf("%+v", r)
	}
	if began != 1 || ended != 1 {
		t.Errorf("Begin was called %d times, End %d times", began, ended)
	}
}

func TestStreamsOfBothFaces(t *testing.T) {
	t.Parallel()
	target := startOrigin(t)
	for path, events := range map[string]int64{"/v1/chat/completions": 23, "/v1/messages": 25} {
		// One request: its answer has a begin, 20 tokens and an end.
		r, err := Run(t.Context(), Config{
			Target: target, Jobs: post(path, fmt.Sprintf(directed, true, 20, 10)), Arrivals: []time.Duration{0},
			Connections: 1, Timeout: 10 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.Answers != 1 || r.Events != events || len(r.Failures) != 0 {
			t.Errorf("%s: %+v, want %d events", path, r, events)
		}
		// 20 tokens at 10/s begin at once and take 2 s.
		if r.Latency.P50 < 1_900_000 || r.TTFB.P50 >= r.Latency.P50 {
			t.Errorf("%s: answered within %v µs, first byte after %v", path, r.Latency.P50, r.TTFB.P50)
		}
		// [DONE] has no stamp.
		if stamped := r.Lag.Count; stamped != 23-1 && path[4] == 'c' || stamped != 25 && path[4] == 'm' || r.Lag.P50 > 5e6 {
			t.Errorf("%s: %d events had a stamp, half of them older than %v µs", path, stamped, r.Lag.P50)
		}
	}
}

// An answer that is late makes those behind it late, although they are sent later.
func TestLatencyCountsFromTheIntendedTime(t *testing.T) {
	t.Parallel()
	// Each takes 100 ms, arrives every 10 ms, and there is one connection.
	r, err := Run(t.Context(), Config{
		Target: startOrigin(t), Jobs: post("/v1/chat/completions", fmt.Sprintf(directed, false, 1, 10)), Connections: 1,
		Arrivals: []time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond}, Timeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Answers != 5 || r.Latency.Max < 460_000*0.99 || r.Latency.P50 < 280_000*0.99 {
		t.Errorf("5 requests in a row of 100 ms each: %+v", r)
	}
}

func TestEachArrivalIsSentOnce(t *testing.T) {
	t.Parallel()
	r, err := Run(t.Context(), Config{
		Target: startOrigin(t), Jobs: post("/v1/chat/completions", "{}"), Connections: 9, Threads: 2, Timeout: 10 * time.Second,
		Arrivals: slices.Repeat([]time.Duration{0}, 25),
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Answers != 25 || r.Offered != 25 || r.Seconds > 5 {
		t.Errorf("%+v", r)
	}
}

func TestOpenLoadKeepsItsRate(t *testing.T) {
	t.Parallel()
	r, err := Run(t.Context(), Config{
		Target: startOrigin(t), Jobs: post("/v1/chat/completions", `{}`), Rate: 500, Poisson: true, Seed: 7,
		Connections: 16, Threads: 2, Warmup: 50 * time.Millisecond, Duration: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	// 500 ± 5 standard deviations.
	if sent := r.Offered + r.Backlog; sent < 390 || sent > 610 {
		t.Errorf("%d requests in a second at 500/s: %+v", sent, r)
	}
}

// What the warm-up could not send or get answered is no part of what is counted.
func TestOpenLoadCountsItsOwnArrivals(t *testing.T) {
	t.Parallel()
	// Each takes 100 ms, 50 arrive per second, and there is one connection: 40 of them wait when counting begins.
	r, err := Run(t.Context(), Config{
		Target: startOrigin(t), Jobs: post("/v1/chat/completions", fmt.Sprintf(directed, false, 1, 10)), Rate: 50,
		Connections: 1, Warmup: time.Second, Duration: 3 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	// Of those that arrive 30 are answered, or as many of the warm-up's, and the others wait besides.
	if all := r.Answers + r.Backlog; r.Answers < 15 || all < 148 || all > 152 {
		t.Errorf("%d requests became of the 150 of three seconds: %+v", all, r)
	}
	if r.Latency.Count > r.Offered {
		t.Errorf("answers to what was asked for before have a time: %+v", r)
	}
}

func TestFailuresAreCountedByKind(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]Config{
		"connect":    {Target: "127.0.0.1:1", Jobs: post("/", "")},
		"status 400": {Target: startOrigin(t), Jobs: post("/v1/chat/completions", "[[sim:wrong]]")},
	} {
		cfg.Closed, cfg.Connections, cfg.Duration = true, 1, 3*time.Second
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r.Failures[want] == 0 || len(r.Failures) != 1 || r.Answers != 0 {
			t.Errorf("want only failures of kind %q: %+v", want, r)
		}
	}
	r, err := Run(t.Context(), Config{
		Target: startOrigin(t), Jobs: post("/v1/chat/completions", fmt.Sprintf(directed, true, 100, 1)), Arrivals: []time.Duration{0},
		Timeout: 300 * time.Millisecond, Connections: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Failures["timeout"]+r.Failures["no answer at the end"] != 1 || r.Answers != 0 {
		t.Errorf("an answer of 100 s within 300 ms: %+v", r)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	jobs := post("/", "")
	for name, cfg := range map[string]Config{
		"no kind of load": {Jobs: jobs, Duration: 1},
		"two kinds":       {Jobs: jobs, Duration: 1, Closed: true, Rate: 1},
		"no duration":     {Jobs: jobs, Closed: true},
		"no jobs":         {Duration: 1, Closed: true},
	} {
		if _, err := Run(t.Context(), cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
