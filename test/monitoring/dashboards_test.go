//go:build linux

package monitoring

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// unseen are expressions that have nothing to show here, by dashboard, panel and number, and why.
var unseen = map[string]string{
	"token-proxy: Upstream: retries, cooling keys, breaker 0": "Kimi has one upstream for each face, so there is no other one to try",
}

// dashboards asks Prometheus what each panel of each dashboard asks.
func (w *world) dashboards() {
	w.t.Helper()
	expressions := make(map[string]string)
	for name, text := range configMap(w.t, "30-monitoring-grafana.yaml", "grafana-dashboards") {
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			w.t.Fatalf("%s: %v", name, err)
		}
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				// Grafana puts in what fits the screen; here all that was.
				expressions[fmt.Sprintf("%s: %s %d", strings.TrimSuffix(name, ".json"), p.Title, i)] = strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			}
		}
	}
	if len(expressions) < 80 {
		w.t.Errorf("the dashboards have %d expressions: this test looks at too little", len(expressions))
	}
	var empty map[string]bool
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Second) {
		empty = make(map[string]bool)
		for where, expr := range expressions {
			found, err := w.query(expr)
			if err != nil {
				w.t.Fatalf("%s: %q: %v", where, expr, err)
			}
			if !slices.ContainsFunc(found, func(s sample) bool { return s.Value[1] != "NaN" }) {
				empty[where] = true
			}
		}
		same := len(empty) == len(unseen)
		for where := range empty {
			same = same && unseen[where] != ""
		}
		if same || time.Now().After(deadline) {
			break
		}
	}
	for where := range empty {
		if unseen[where] == "" {
			w.t.Errorf("nothing to show: %s: %s", where, expressions[where])
		}
	}
	for where := range unseen {
		if !empty[where] {
			w.t.Errorf("%s has something to show, or is not there: it is no reason to leave it out any more that %s", where, unseen[where])
		}
	}
	w.t.Logf("%d expressions of the dashboards have data, %d have none here", len(expressions)-len(empty), len(empty))
}
