package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Prometheus asks everything; nothing is alerted while all is well; each fault that is staged fires its
// alerts, which go where they should, and are over after it; and at the end every dashboard has had
// something to show.
func TestWatchedSystem(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	var uses sync.WaitGroup
	defer uses.Wait()
	defer stop()
	uses.Go(func() { w.chats(ctx, "hello") })
	uses.Go(func() { w.callAPI(ctx) })

	w.eventually("all targets are up", time.Minute, func() string {
		up, err := w.query("up")
		if err != nil {
			return err.Error()
		}
		var jobs []string
		for _, s := range up {
			if s.Value[1] == "1" {
				jobs = append(jobs, s.Metric["job"])
			}
		}
		slices.Sort(jobs)
		if want := "alertmanager api billing-worker operator prometheus redis token-proxy"; strings.Join(jobs, " ") != want {
			return fmt.Sprintf("%v are up, want %s", jobs, want)
		}
		return ""
	})
	// For longer than any rule waits here, for at first nothing is alerted in any case.
	calm := time.Now()
	w.eventually("nothing is alerted while all is well", 2*time.Minute, func() string {
		switch a := w.alerts(); {
		case len(a) > 0:
			calm = time.Now()
			return strings.Join(a, ", ")
		case time.Since(calm) < 20*time.Second:
			return "it is not known yet"
		}
		return ""
	})

	for _, f := range w.faults() {
		began := time.Now()
		end := f.stage()
		w.eventually(f.what+": alerts", 90*time.Second, func() string { return lacks(w.alerts(), f.alerts) })
		fired := time.Since(began)
		// One that is over before anybody was told of it is told to nobody.
		for _, alert := range f.alerts {
			w.told(alert, "FIRING", "trigger")
		}
		end()
		ended := time.Now()
		w.eventually(f.what+" is over", 90*time.Second, func() string { return strings.Join(w.alerts(), ", ") })
		t.Logf("%s: %v after %v, over %v after its end", f.what, f.alerts, fired.Round(time.Second), time.Since(ended).Round(time.Second))
		for _, alert := range f.alerts {
			w.told(alert, "RESOLVED", "resolve")
		}
	}
	// So that the operator has something to put right.
	w.ctl("kubectl", "delete", "networkpolicy", "customer-isolation", "-n", "customer-"+w.read("customer"))
	w.dashboards()
}

// fault is staged until the function that stage returns is called.
type fault struct {
	what   string
	alerts []string // name, or name and job
	stage  func() (end func())
}

func (w *world) faults() []fault {
	freeze := func(name string) func() func() { return func() func() { return w.frozen(name) } }
	customer := w.read("customer")
	limit := func(tokens string) {
		w.ctl("openclawctl", "quota", "set", "--customer", customer, "--limit", tokens, "--reason", "a test")
	}
	return []fault{
		{"token-proxy hangs", []string{"ServiceDown token-proxy"}, freeze("token-proxy")},
		{"the api hangs", []string{"ServiceDown api"}, freeze("api")},
		{"the billing-worker hangs", []string{"ServiceDown billing-worker"}, freeze("billing-worker")},
		{"the operator hangs", []string{"ServiceDown operator"}, freeze("box-operator")},
		{"Redis hangs", []string{"RedisDown", "FeedSilent", "QuotaNotReady"}, freeze("redis")},
		{"Redis may evict", []string{"RedisMayLose"}, func() func() {
			w.redisPolicy("allkeys-lru")
			return func() { w.redisPolicy("noeviction") }
		}},
		{"Kimi fails", []string{"UpstreamErrors"}, func() func() {
			ctx, stop := context.WithCancel(w.t.Context())
			var failing sync.WaitGroup
			failing.Go(func() { w.chats(ctx, `[[sim:{"non2xx_html":true}]]`) })
			return func() { stop(); failing.Wait() }
		}},
		{"a limit is reached", []string{"CustomersAtLimit"}, func() func() {
			limit("1")
			return func() { limit("2000000") }
		}},
	}
}

// redisPolicy changes what a running Redis does when it is full.
func (w *world) redisPolicy(policy string) {
	w.t.Helper()
	var secrets struct {
		Redis string `json:"redis_password"`
	}
	if err := json.Unmarshal([]byte(w.read("secrets.json")), &secrets); err != nil {
		w.t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: w.address("REDIS"), Password: secrets.Redis})
	defer client.Close()
	if err := client.ConfigSet(w.t.Context(), "maxmemory-policy", policy).Err(); err != nil {
		w.t.Fatal(err)
	}
}

// alerts are those that Alertmanager has now, and tells of: name, and job if there is one.
func (w *world) alerts() []string {
	var found []struct{ Labels map[string]string }
	if err := ask(w.alertmanager+"/api/v2/alerts?active=true&silenced=false&inhibited=false", &found); err != nil {
		return []string{err.Error()}
	}
	names := make(map[string]bool)
	for _, a := range found {
		names[strings.TrimSpace(a.Labels["alertname"]+" "+a.Labels["job"])] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// lacks names those of want that are not there.
func lacks(have, want []string) string {
	var missing []string
	for _, alert := range want {
		if !slices.Contains(have, alert) {
			missing = append(missing, alert)
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("%v do not fire, but %v", missing, have)
}

// told wants the beginning or the end of an alert to have been told to Slack, which calls that slack, and to
// PagerDuty, which calls it pager, if it is critical.
func (w *world) told(alert, slack, pager string) {
	w.t.Helper()
	name, job, of := strings.Cut(alert, " ")
	about := ""
	if of {
		about = "No pod of " + job + " answers"
	}
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name   string
					Labels map[string]string
				}
			}
		}
	}
	if err := ask(w.prometheus+"/api/v1/rules?type=alert", &rules); err != nil {
		w.t.Fatal(err)
	}
	severity := ""
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			if r.Name == name {
				severity = r.Labels["severity"]
			}
		}
	}
	w.eventually(alert+" is told: "+slack, 20*time.Second, func() string {
		switch {
		case !w.slack.has(slack+": "+name+" ("+severity+")", about):
			return "Slack does not know"
		case severity == "critical" && !w.pagerduty.has(`"`+pager+`"`, name+": ", about):
			return "PagerDuty does not know"
		case severity != "critical" && w.pagerduty.has(name+": "):
			return "PagerDuty is told, though it can wait until the morning"
		}
		return ""
	})
}

// callAPI has an operator look at its customers, now and then, until ctx ends.
func (w *world) callAPI(ctx context.Context) {
	for ctx.Err() == nil {
		_, _ = w.tryRun(ctx, filepath.Join(w.run, "openclawctl"), "customer", "list") // while the api hangs it fails
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

// chats asks for completions on both faces, with a message, four a second.
func (w *world) chats(ctx context.Context, message string) {
	client := &http.Client{Timeout: 5 * time.Second}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		path := "/v1/chat/completions"
		if n%2 == 1 {
			path = "/v1/messages"
		}
		body := fmt.Sprintf(`{"model":"kimi-k2.6","stream":%v,"max_tokens":50,"messages":[{"role":"user","content":%q}]}`, n%4 < 2, message)
		target := url.URL{Scheme: "http", Host: w.address("PROXY"), Path: path}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(body))
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+w.token)
		req.Header.Set("Content-Type", "application/json")
		if resp, err := client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
