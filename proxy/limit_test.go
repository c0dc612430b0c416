package proxy_test

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// gauges reads a metric of the admin listener: label value → number.
func (r *replica) gauges(name string) map[string]float64 {
	r.w.t.Helper()
	resp, err := client.Get(r.admin.URL + "/metrics")
	if err != nil {
		r.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.w.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(?:\{\w+="(\w+)"\})? (\S+)$`).FindAllStringSubmatch(string(b), -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			r.w.t.Fatal(err)
		}
		out[m[1]] = v
	}
	return out
}

func (r *replica) gauge(name string) float64 {
	r.w.t.Helper()
	v, ok := r.gauges(name)[""]
	if !ok {
		r.w.t.Fatalf("no metric %s", name)
	}
	return v
}

func TestLimitMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(patientUpstream)
	tok, g := w.token(nil)
	end := r.occupy(faces[0], tok, 500)
	hold := r.leases.Stats().Held
	for state, want := range map[string]float64{"leased": float64(hold), "held": float64(hold), "unsettled": 0} {
		if got, ok := r.gauges("token_proxy_lease_tokens")[state]; !ok || got < want || state == "held" && got != want {
			t.Errorf("%v tokens are %s, want %v", got, state, want)
		}
	}
	if n := r.gauge("token_proxy_quota_epoch"); n < 1 {
		t.Errorf("epoch %v", n)
	}
	if n := r.gauge("token_proxy_quota_heard_seconds"); n < 0 || n > 5 {
		t.Errorf("heard %v s ago", n)
	}
	if n := r.gauge("token_proxy_quota_ready"); n != 1 {
		t.Errorf("ready is %v", n)
	}
	if n := r.gauge("token_proxy_journal_open"); n != 1 {
		t.Errorf("%v requests are open in the journal", n)
	}
	end()
	r.nothingHeld(g)
	eventually(t, "nothing is leased", func() bool {
		all := r.gauges("token_proxy_lease_tokens")
		return all["leased"] == 0 && all["held"] == 0 && all["unsettled"] == 0 && r.gauge("token_proxy_settlements_pending") == 0
	})
}

// A replica is not ready before the control plane has taken note of it, and stays ready
// when Redis goes away.
func TestReadyOnceRegistered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	resume := w.plane.Pause()
	r := w.start(func(c *proxy.Config) { c.Timeouts.Grace = proxy.Duration(3 * time.Second) })
	tok, _ := w.token(nil)
	eventually(t, "it waits for its registration", func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "not registered")
	})
	for _, f := range faces {
		refusal{status: 503, typ: "quota_unavailable", retry: "2"}.check(t, f, r.post(f, tok, chat(false, "hello")))
	}
	if n := r.gauge("token_proxy_quota_heard_seconds"); n != -1 {
		t.Errorf("heard %v s ago", n)
	}
	if n := r.gauge("token_proxy_quota_ready"); n != 0 {
		t.Errorf("ready is %v", n)
	}
	resume()
	eventually(t, "it is ready", func() bool { return r.Ready() == nil })
	r.served(faces[0], tok)
	w.redis.Stop()
	eventually(t, "tokens cannot be reserved any more", func() bool { return r.gauge("token_proxy_quota_ready") == 0 })
	if err := r.Ready(); err != nil {
		t.Errorf("without Redis it is not ready: %v", err)
	}
	w.redis.Start()
	eventually(t, "it serves again", func() bool { return r.post(faces[0], tok, chat(false, "hello")).status == http.StatusOK })
}

// A replica that was declared lost serves nothing more and takes itself out.
func TestNotReadyWhenLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, _ := w.token(nil)
	r.served(faces[0], tok)
	w.plane.Lose(r.name)
	eventually(t, "it is not ready", func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "declared lost")
	})
	for _, f := range faces {
		refusal{status: 503, typ: "quota_unavailable", retry: "2"}.check(t, f, r.post(f, tok, chat(false, "hello")))
	}
	if !strings.Contains(w.logs.String(), "ALERT") {
		t.Error("nobody is told")
	}
}

// Whatever panics, what is in the journal keeps its hold until it is settled, and what is
// not gives it back.
func TestPanicsKeepJournalAndHoldsTogether(t *testing.T) {
	t.Parallel()
	nowhere := func(c *proxy.Config) {
		for i := range c.Upstreams {
			c.Upstreams[i].BaseURL = "http://127.0.0.1:1/v1"
		}
	}
	for _, c := range []struct {
		name   string
		config option
		breaks func(*proxy.Metrics)
		sim    kimisim.Behavior
		events int
	}{
		{"the upstream refuses", func(*proxy.Config) {}, (*proxy.Metrics).BreakUpstreamErrors, kimisim.Behavior{Error: "500 server error"}, 1},
		{"nobody is there", nowhere, (*proxy.Metrics).BreakUpstreamErrors, kimisim.Behavior{}, 0},
		{"after the end", func(*proxy.Config) {}, (*proxy.Metrics).BreakTTFB, kimisim.Behavior{OutputTokens: 20}, 1},
	} {
		for _, f := range faces {
			t.Run(c.name+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				r := w.replica(c.config)
				tok, g := w.token(nil)
				c.breaks(r.metrics)
				if a := r.post(f, tok, chat(false, sim(c.sim))); a.status != http.StatusInternalServerError {
					t.Errorf("status %d: %s", a.status, a.body)
				}
				if n := r.gauge("token_proxy_panics_total"); n != 1 {
					t.Fatalf("%v panics", n)
				}
				events := w.events(c.events)
				if n := r.journal.Stats().Open; n != 0 {
					t.Errorf("%d requests are open in the journal", n)
				}
				settled := r.nothingHeld(g)
				if n := r.leases.Stats().Held; n != 0 {
					t.Errorf("%d tokens are held", n)
				}
				var want int64
				for _, e := range events {
					want += e.Settled
				}
				if settled != want {
					t.Errorf("%d tokens are settled, the events say %d", settled, want)
				}
			})
		}
	}
}

// A request that the journal does not take gives its tokens back.
func TestRefusedIntentReleasesItsHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica()
	tok, g := w.token(func(g *contract.Grant) { g.BoxID = strings.Repeat("x", 100) }) // longer than the journal takes
	for _, f := range faces {
		refusal{status: 503, typ: "quota_unavailable", retry: "2"}.check(t, f, r.post(f, tok, chat(false, "hello")))
	}
	if n := r.leases.Stats().Held; n != 0 {
		t.Errorf("%d tokens are held", n)
	}
	if n := r.nothingHeld(g); n != 0 || len(w.chats()) != 0 {
		t.Errorf("%d tokens are settled, %d requests forwarded", n, len(w.chats()))
	}
}
