//go:build linux

package monitoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// configMap returns the data of a ConfigMap of the manifests.
func configMap(t *testing.T, file, name string) map[string]string {
	t.Helper()
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "k8s", "golden", file))
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
			Data     map[string]string
		}
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			t.Fatalf("%s has no ConfigMap %s", file, name)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if o.Kind == "ConfigMap" && o.Metadata.Name == name {
			return o.Data
		}
	}
}

var (
	waits  = regexp.MustCompile(`(?m)^(\s*for: "?\d+)m("?)$`)
	ranges = regexp.MustCompile(`\[\d+[mh]\]`)
	// sweeps is the one threshold that is changed: nothing but ten minutes make it ten minutes since the last
	// sweep. Where what is too old is in Postgres, it is made old there.
	sweeps = strings.NewReplacer("operator_last_sweep_timestamp_seconds > 0) > 600", "operator_last_sweep_timestamp_seconds > 0) > 30")
)

// quick is the rules with seconds for minutes, half a minute for whatever they look back on, and for the ten
// minutes of SweepOld. What the others compare with what is as it was.
func quick(rules string) string {
	return sweeps.Replace(ranges.ReplaceAllString(waits.ReplaceAllString(rules, "${1}s$2"), "[30s]"))
}

// watch starts the exporter of Redis, Alertmanager and Prometheus, with the configuration of the manifests,
// but for addresses and times.
func (w *world) watch() {
	w.t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(w.t)) }
	prometheus, alertmanager, exporter := address(), address(), address()
	w.prometheus, w.alertmanager = "http://"+prometheus, "http://"+alertmanager

	password, _ := w.passwords()
	w.start("redis-exporter", []string{
		"REDIS_ADDR=redis://" + w.address("REDIS"), "REDIS_PASSWORD=" + password,
		"REDIS_EXPORTER_WEB_LISTEN_ADDRESS=" + exporter, "REDIS_EXPORTER_CONNECTION_TIMEOUT=300ms",
	}, []string{"prometheus-redis-exporter", "redis_exporter"})

	const mounted = "/run/secrets/alertmanager/"
	text := configMap(w.t, "30-monitoring-alertmanager.yaml", "alertmanager")["alertmanager.yml"]
	if strings.Count(text, mounted) != 2 {
		w.t.Fatalf("alertmanager.yml does not read two secrets in %s", mounted)
	}
	var alerting map[string]any
	w.yaml(strings.ReplaceAll(text, mounted, w.dir+"/"), &alerting)
	route, _ := alerting["route"].(map[string]any)
	route["group_wait"], route["group_interval"] = "1s", "1s"
	alerting["global"] = map[string]any{"pagerduty_url": w.pagerduty.url}
	w.write("slack-webhook-url", w.slack.url)
	w.write("pagerduty-routing-key", strings.Repeat("0", 32))
	w.start("alertmanager", nil, []string{"prometheus-alertmanager", "alertmanager"},
		"--config.file="+w.write("alertmanager.yml", alerting), "--storage.path="+filepath.Join(w.dir, "alertmanager"),
		"--web.listen-address="+alertmanager, "--cluster.listen-address=")

	data := configMap(w.t, "30-monitoring-prometheus.yaml", "prometheus")
	var conf map[string]any
	w.yaml(data["prometheus.yml"], &conf)
	conf["global"] = map[string]any{"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"}
	rules := quick(data["rules.yaml"])
	if !strings.Contains(rules, "> 0) > 30") {
		w.t.Fatal("the threshold of SweepOld is not what it was")
	}
	conf["rule_files"] = []string{w.write("rules.yaml", rules)}
	targets := func(address string) map[string]any { return map[string]any{"targets": []string{address}} }
	conf["alerting"] = map[string]any{"alertmanagers": []any{map[string]any{"static_configs": []any{targets(alertmanager)}}}}
	var asked []any
	for pod, address := range map[string]string{
		"platform/token-proxy-0": w.address("ADMIN"), "platform/token-proxy-1": w.address("SECOND_ADMIN"),
		"platform/api-0": w.address("API_PROBES"), "platform/billing-worker-0": w.address("BILLING"),
		"platform/operator-0": w.address("BOXES"), "platform/redis-0": exporter,
		"platform/onboarding-agent-0": w.address("ONBOARDING"), "platform/web-0": w.address("WEB_PROBES"),
		"monitoring/prometheus-0": prometheus, "monitoring/alertmanager-0": alertmanager,
	} {
		space, pod, _ := strings.Cut(pod, "/")
		target := targets(address)
		// As relabelling in the cluster has them.
		target["labels"] = map[string]string{"job": pod[:strings.LastIndexByte(pod, '-')], "namespace": space, "pod": pod, "instance": pod}
		asked = append(asked, target)
	}
	conf["scrape_configs"] = []any{map[string]any{"job_name": "pods", "static_configs": asked}}
	w.start("prometheus", nil, []string{"prometheus"},
		"--config.file="+w.write("prometheus.yml", conf), "--storage.tsdb.path="+filepath.Join(w.dir, "prometheus"), "--web.listen-address="+prometheus)
}

// start starts the first of programs that is there.
func (w *world) start(name string, env []string, programs []string, args ...string) {
	w.t.Helper()
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			w.programs[name] = testenv.Start(w.root, append(os.Environ(), env...), w.logOf(name), path, args...)
			w.root.Cleanup(func() { w.showLogs(name) })
			return
		}
	}
	w.t.Fatalf("%s is missing: make monitoring installs it", programs[0])
}

func (w *world) yaml(text string, into any) {
	w.t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		w.t.Fatal(err)
	}
}

// textOf is content, as YAML unless it is text.
func textOf(t *testing.T, content any) string {
	t.Helper()
	if text, ok := content.(string); ok {
		return text
	}
	b, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ask gets JSON.
func ask(url string, into any) error {
	client := &http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	return err
}

// sample is one of what a query answers.
type sample struct {
	Metric map[string]string
	Value  [2]any // time, and the value as text
}

func (w *world) query(expr string) ([]sample, error) {
	var answer struct {
		Status string
		Data   struct{ Result []sample }
	}
	err := ask(w.prometheus+"/api/v1/query?query="+url.QueryEscape(expr), &answer)
	return answer.Data.Result, err
}

// inbox keeps what is posted to it, as Slack and PagerDuty would get it.
type inbox struct {
	url  string
	mu   sync.Mutex
	mail []string
}

func newInbox(t *testing.T) *inbox {
	i := &inbox{}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.mail = append(i.mail, string(body))
		rw.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(rw, "{}")
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

// empty forgets what came so far.
func (i *inbox) empty() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mail = nil
}

// has reports whether one message has all of words in it.
func (i *inbox) has(words ...string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, m := range i.mail {
		all := true
		for _, word := range words {
			all = all && strings.Contains(m, word)
		}
		if all {
			return true
		}
	}
	return false
}
