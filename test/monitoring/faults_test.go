//go:build linux

package monitoring

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// notStaged are the rules that no fault here makes fire, and why.
var notStaged = map[string]string{
	"ProxyPanics": "a panic is a bug, and none is known; a switch in token-proxy that makes one would be a fault of its own",
}

// Prometheus asks everything; nothing is alerted while all is well; each fault that is staged fires its
// alerts, which go where they should, and are over after it; of all rules there is one that does, or a reason
// why not; and at the end every dashboard has had something to show.
func TestWatchedSystem(t *testing.T) {
	chosen := regexp.MustCompile(*only)
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	var uses sync.WaitGroup
	defer uses.Wait()
	defer stop()
	uses.Go(func() { w.chats(ctx, w.address("PROXY"), "hello", 250*time.Millisecond) })
	uses.Go(func() { w.callAPI(ctx) })

	w.eventually("all targets are up", time.Minute, func() string {
		up, err := w.query("up")
		if err != nil {
			return err.Error()
		}
		var pods []string
		for _, s := range up {
			if s.Value[1] == "1" {
				pods = append(pods, s.Metric["pod"])
			}
		}
		slices.Sort(pods)
		if want := "alertmanager-0 api-0 billing-worker-0 onboarding-agent-0 operator-0 prometheus-0 redis-0 token-proxy-0 token-proxy-1 web-0"; strings.Join(pods, " ") != want {
			return fmt.Sprintf("%v are up, want %s", pods, want)
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

	staged := 0
	for _, round := range w.rounds() {
		round = slices.DeleteFunc(round, func(f fault) bool { return !chosen.MatchString(f.what) })
		staged += len(round)
		if len(round) > 0 {
			whole := t.Run(round[0].what, func(t *testing.T) {
				w.t = t
				defer func() { w.t = w.root }()
				w.play(round)
			})
			if !whole {
				t.Fatal("what is left of these faults would spoil the others: they were not staged")
			}
		}
	}
	if *only != "" {
		t.Logf("%d faults, %q, were staged: the other rules and the dashboards were not looked at", staged, *only)
		if staged == 0 {
			t.Errorf("no fault is called %q", *only)
		}
		return
	}
	w.allRules()
	// So that the operator has something to put right: what it has done for the first time since its start
	// is no rate yet.
	for n := 1; n <= 2; n++ {
		w.ctl("kubectl", "delete", "networkpolicy", "customer-isolation", "-n", "customer-"+w.customer, "--ignore-not-found")
		w.eventually("the operator makes the network policy again", 30*time.Second, func() string {
			if found, err := w.query(fmt.Sprintf(`sum(operator_step_seconds_count{step="network"}) >= %d`, n)); err != nil || len(found) == 0 {
				return fmt.Sprintf("it was not made %d times: %v", n, err)
			}
			return ""
		})
	}
	w.dashboards()
}

// fault is staged until the function that stage returns is called.
type fault struct {
	what   string
	alerts []string // rules, as w.rules names them
	stage  func() (end func())
}

// rounds are the faults. Those of a round are staged together, for each takes its time and has its own
// alerts; what is told of a round is told of the first of them.
func (w *world) rounds() [][]fault {
	return [][]fault{
		w.hanging(),
		append(w.redisHangs(), w.unlooked()...),
		w.redisSettings(),
		slices.Concat(w.moneyFaults(), w.kimiAnswersWrongly(), w.redisFills(), w.noRoom()),
		append(w.kimiAway(), w.nodeLost()...),
		append(w.replicaAway(), w.leaseTaken()...),
		slices.Concat(w.ledgerBehind(), w.atLimit(), w.restarts()),
		w.overloaded(),
		w.postgresHangs(),
	}
}

// Bounds of a round: until all alerts fire, until Slack and PagerDuty know, and until all are over.
const (
	firesWithin = 110 * time.Second
	toldWithin  = 20 * time.Second
	overWithin  = 2 * time.Minute
)

// play stages faults together, and wants each to fire its alerts, which need not be at the same time. Others
// may fire as well, that follow from them; after the faults' end none may.
func (w *world) play(round []fault) {
	w.t.Helper()
	w.slack.empty()
	w.pagerduty.empty()
	var names, want []string
	var ends []func()
	// Each is called once, also if one of them, or what follows, ends the test.
	var end func()
	end = func() {
		if n := len(ends); n > 0 {
			last := ends[n-1]
			ends = ends[:n-1]
			defer end()
			last()
		}
	}
	defer end()
	fired := w.sightings()
	defer fired.stop()
	for _, f := range round {
		names, want = append(names, f.what), append(want, f.alerts...)
		ends = append(ends, f.stage())
	}
	missing := within(firesWithin, func() string {
		return strings.Join(slices.DeleteFunc(slices.Clone(want), fired.has), ", ")
	})
	if missing != "" {
		w.t.Errorf("%s: after %v these do not fire: %s", strings.Join(names, "; "), firesWithin, missing)
	}
	// One that is over before anybody was told of it is told to nobody.
	good := make(map[string]bool)
	for _, alert := range want {
		good[alert] = fired.has(alert) && w.told(alert, "FIRING", "trigger")
	}
	fired.stop()
	end()
	ended := time.Now()
	left := within(overWithin, func() string { return strings.Join(w.alerts(), ", ") })
	if left != "" {
		w.t.Errorf("%s: %v after the end these still fire: %s", strings.Join(names, "; "), overWithin, left)
	}
	over := time.Since(ended).Round(time.Second)
	for _, alert := range want {
		if good[alert] && !slices.Contains(strings.Split(left, ", "), alert) && w.told(alert, "RESOLVED", "resolve") {
			w.seen[alert] = true
		}
	}
	text := ""
	for _, alert := range slices.Sorted(maps.Keys(fired.first)) {
		beside := ""
		if !slices.Contains(want, alert) {
			beside = " (beside)"
		}
		text += fmt.Sprintf("\n  %s after %v%s", alert, fired.first[alert], beside)
	}
	w.t.Logf("%s: over %v after the end:%s", strings.Join(names, "; "), over, text)
}

// sightings are the alerts that were seen firing, and how long after the beginning first. It looks until it
// is stopped, also while faults are staged, which takes its time.
type sightings struct {
	stop func()

	mu    sync.Mutex
	first map[string]time.Duration
}

func (w *world) sightings() *sightings {
	s := &sightings{first: make(map[string]time.Duration)}
	began := time.Now()
	end := w.while(1, func(ctx context.Context) {
		for ctx.Err() == nil {
			firing := w.alerts()
			s.mu.Lock()
			for _, alert := range firing {
				if _, known := s.first[alert]; !known {
					s.first[alert] = time.Since(began).Round(time.Second)
				}
			}
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	s.stop = sync.OnceFunc(end)
	return s
}

func (s *sightings) has(alert string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.first[alert]
	return ok
}

// allRules wants each rule to have fired and ended in a fault that was staged for it, or a reason why none is.
func (w *world) allRules() {
	w.t.Helper()
	rules := w.rules()
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		switch reason := notStaged[name]; {
		case w.seen[name] && reason != "":
			w.t.Errorf("%s is staged after all: take it out of notStaged", name)
		case !w.seen[name] && reason == "":
			w.t.Errorf("no fault made %s fire and end: stage one, or say in notStaged why there is none", name)
		case reason != "":
			w.t.Logf("not staged: %s: %s", name, reason)
		}
	}
	for name := range notStaged {
		if _, there := rules[name]; !there {
			w.t.Errorf("there is no rule %s: take it out of notStaged", name)
		}
	}
	w.t.Logf("%d of %d rules fired and ended in a staged fault", len(w.seen), len(rules))
}

// rules are the severities of all rules by their names. Those of one name that are about several services
// have the service behind it.
func (w *world) rules() map[string]string {
	w.t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name   string
					Labels map[string]string
				}
			}
		}
	}
	if err := ask(w.prometheus+"/api/v1/rules?type=alert", &answer); err != nil {
		w.t.Fatal(err)
	}
	rules := make(map[string]string)
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			rules[strings.TrimSpace(r.Name+" "+r.Labels["job"])] = r.Labels["severity"]
		}
	}
	return rules
}

// alerts are those that Alertmanager has now, and tells of, as rules names them.
func (w *world) alerts() []string {
	var found []struct{ Labels map[string]string }
	if err := ask(w.alertmanager+"/api/v2/alerts?active=true&silenced=false&inhibited=false", &found); err != nil {
		return []string{err.Error()}
	}
	names := make(map[string]bool)
	for _, a := range found {
		name := a.Labels["alertname"]
		if name == serviceDown {
			name += " " + a.Labels["job"]
		}
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// serviceDown is the one name of several rules.
const serviceDown = "ServiceDown"

// told wants the beginning or the end of an alert to have been told to Slack, which calls that slack, and to
// PagerDuty, which calls it pager, if it is critical. It reports whether it was.
func (w *world) told(alert, slack, pager string) bool {
	w.t.Helper()
	severity := w.rules()[alert]
	name, job, of := strings.Cut(alert, " ")
	about := ""
	if of {
		about = "No pod of " + job + " answers"
	}
	missing := within(toldWithin, func() string {
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
	if missing != "" {
		w.t.Errorf("%s is not told within %v: %s: %s", alert, toldWithin, slack, missing)
	}
	return missing == ""
}
