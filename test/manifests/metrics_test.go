package manifests

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// foreign are metrics that others make: Prometheus itself, the collectors of client_golang, and
// redis_exporter.
var foreign = []string{
	"up", "process_cpu_seconds_total", "process_start_time_seconds", "process_resident_memory_bytes", "go_goroutines",
	"redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes", "redis_aof_last_write_status", "redis_commands_processed_total",
}

// literals are all texts in the sources of our programs.
func literals(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	for _, tree := range []string{"proxy", "quota", "control", "cmd"} {
		err := filepath.WalkDir(filepath.Join(root(t), tree), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						found[text] = true
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

var (
	promStrings  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	promLabels   = regexp.MustCompile(`\{[^{}]*\}|\b(?:by|on|without|ignoring)\s*\([^()]*\)|\[[^\[\]]*\]`)
	promNames    = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
	promKeywords = []string{"or", "and", "unless", "bool", "offset"}
)

// metricsOf returns the names of metrics in an expression of PromQL.
func metricsOf(expr string) []string {
	bare := promLabels.ReplaceAllString(promStrings.ReplaceAllString(expr, `""`), " ")
	var names []string
	for _, name := range promNames.FindAllString(bare, -1) {
		if name = strings.TrimSpace(name); !strings.HasSuffix(name, "(") && !slices.Contains(promKeywords, name) {
			names = append(names, name)
		}
	}
	return names
}

func TestMetricsOf(t *testing.T) {
	for expr, want := range map[string][]string{
		`sum by (le, route) (rate(a_bucket{route!~".*/(events|x)"}[$__rate_interval])) > 1`: {"a_bucket"},
		`max(a or b_c) > 0 or max(c{x="or d"}) > 0`:                                         {"a", "b_c", "c"},
		`time() - max(a_seconds) > 600`:                                                     {"a_seconds"},
		`absent(up{job="api"} == 1)`:                                                        {"up"},
	} {
		if got := metricsOf(expr); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", expr, got, want)
		}
	}
}

type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

type dashboard struct {
	UID    string `json:"uid"`
	Title  string `json:"title"`
	Panels []struct {
		ID      int    `json:"id"`
		Title   string `json:"title"`
		GridPos struct {
			X, Y, W, H int
		} `json:"gridPos"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

func rules(t *testing.T, r rendering) (text string, parsed ruleFile) {
	t.Helper()
	text = r.one(t, "ConfigMap", "monitoring", "prometheus").Data["rules.yaml"]
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	return text, parsed
}

// Every metric that an alert or a dashboard names is one that our programs, or those beside them, have.
func TestMetricsExist(t *testing.T) {
	texts := literals(t)
	exists := func(name string) bool {
		if slices.Contains(foreign, name) {
			return true
		}
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			base, ok := strings.CutSuffix(name, suffix)
			// Some of token-proxy's are put together of this and the rest (proxy/state.go).
			rest, ofProxy := strings.CutPrefix(base, "token_proxy_")
			if ok && (texts[base] || ofProxy && texts[rest]) {
				return true
			}
		}
		return false
	}
	if exists("token_proxy_no_such_metric") || exists("control_nothing_total") {
		t.Fatal("this test takes anything for a metric")
	}
	r := everything(t)
	expressions := make(map[string]string) // by where they are
	_, file := rules(t, r)
	for _, g := range file.Groups {
		for _, rule := range g.Rules {
			expressions["alert "+rule.Alert+" "+rule.Labels["job"]] = rule.Expr
		}
	}
	boards := r.one(t, "ConfigMap", "monitoring", "grafana-dashboards").Data
	for name, text := range boards {
		var d dashboard
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		ids, cells := make(map[int]bool), make(map[[2]int]string)
		for _, p := range d.Panels {
			if len(p.Targets) == 0 || p.Title == "" || ids[p.ID] {
				t.Errorf("%s: panel %d (%s) shows nothing, or is there twice", name, p.ID, p.Title)
			}
			ids[p.ID] = true
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %s lies over %q or beside the screen", name, p.Title, other)
					}
					cells[[2]int{x, y}] = p.Title
				}
			}
			for i, target := range p.Targets {
				expressions[name+": "+p.Title+" "+strconv.Itoa(i)] = target.Expr
			}
		}
	}
	if len(boards) < 4 || len(expressions) < 100 {
		t.Errorf("%d dashboards, %d expressions: this test looks at too little", len(boards), len(expressions))
	}
	for where, expr := range expressions {
		names := metricsOf(expr)
		if len(names) == 0 {
			t.Errorf("%s: %q names no metric", where, expr)
		}
		for _, name := range names {
			if !exists(name) {
				t.Errorf("%s: nobody makes %s", where, name)
			}
		}
	}
}

// The alert rules are played by Prometheus' own program: each fires when it should, and is silent when
// it should be. Alertmanager's checks what is done with them.
func TestAlertRules(t *testing.T) {
	r := usual(t)
	for _, program := range []string{"promtool", "amtool"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: run make deps", err)
		}
	}
	text, file := rules(t, r)
	played := string(read(t, "k8s/golden/promtool/rules_test.yaml"))
	for _, g := range file.Groups {
		for _, rule := range g.Rules {
			if n := strings.Count(played, "alertname: "+rule.Alert+"\n"); n < 2 {
				t.Errorf("%s is played %d times: once firing and once silent are the least", rule.Alert, n)
			}
			if s := rule.Labels["severity"]; s != "critical" && s != "warning" || rule.Annotations["summary"] == "" || rule.Annotations["action"] == "" {
				t.Errorf("%s: severity %q, annotations %v", rule.Alert, s, rule.Annotations)
			}
		}
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"rules.yaml": text, "rules_test.yaml": played,
		"alertmanager.yml": r.one(t, "ConfigMap", "monitoring", "alertmanager").Data["alertmanager.yml"],
		"prometheus.yml":   withoutCluster(t, r.one(t, "ConfigMap", "monitoring", "prometheus").Data["prometheus.yml"]),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"promtool", "check", "config", "prometheus.yml"}, {"promtool", "test", "rules", "rules_test.yaml"}, {"amtool", "check-config", "alertmanager.yml"}} {
		cmd := exec.Command(args[0], args[1:]...) // #nosec G204 -- of this table
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

// withoutCluster is Prometheus' configuration with the rules beside it, and fixed targets instead of the
// cluster's: promtool as Debian builds it knows no Kubernetes.
func withoutCluster(t *testing.T, text string) string {
	t.Helper()
	var conf map[string]any
	if err := yaml.Unmarshal([]byte(text), &conf); err != nil {
		t.Fatal(err)
	}
	if canonical(t, conf["rule_files"]) != `["/etc/prometheus/rules.yaml"]` {
		t.Errorf("Prometheus reads the rules in %v", conf["rule_files"])
	}
	conf["rule_files"] = []string{"rules.yaml"}
	jobs, _ := conf["scrape_configs"].([]any)
	if len(jobs) != 1 {
		t.Fatalf("Prometheus has %d jobs: want one for all pods", len(jobs))
	}
	job, _ := jobs[0].(map[string]any)
	if got := canonical(t, job["kubernetes_sd_configs"]); got != `[{"namespaces":{"names":["platform","monitoring"]},"role":"pod"}]` {
		t.Errorf("Prometheus looks for pods by %s", got)
	}
	delete(job, "kubernetes_sd_configs")
	job["static_configs"] = []any{map[string]any{"targets": []string{"127.0.0.1:1"}}}
	out, err := yaml.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
