package monitoring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

var devstack = flag.String("devstack", "", "the program devstack, with the others beside it: make monitoring gives it")

func TestMain(m *testing.M) { testenv.Main(m) }

// Ports of the stack, as devstack has them from the environment.
var portNames = []string{
	"PROXY", "ADMIN", "BILLING", "API", "OPERATORS", "API_PROBES", "KIMISIM", "REDIS", "POSTGRES",
	"KUBERNETES", "ETCD", "ETCD_PEERS", "CONTROLLERS", "SCHEDULER", "BOXES",
}

// world is the stack and what watches it.
type world struct {
	t                        *testing.T
	dir, run                 string // run: what devstack keeps
	env                      []string
	ports                    map[string]int
	token                    string // the first customer's
	prometheus, alertmanager string // URLs
	slack, pagerduty         *inbox
}

// newWorld starts everything. Nothing of it is left when the test ends.
func newWorld(t *testing.T) *world {
	t.Helper()
	if *devstack == "" {
		t.Fatal("run make monitoring, which builds the programs and says where they are")
	}
	dir := t.TempDir()
	w := &world{t: t, dir: dir, run: filepath.Join(dir, "run"), ports: make(map[string]int), slack: newInbox(t), pagerduty: newInbox(t)}
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "REDIS_URL", "DATABASE_URL", "KIMI_API_KEY", "KIMI_BASE_URL":
		default:
			w.env = append(w.env, v)
		}
	}
	w.env = append(w.env, "OPENCLAW_RUN_DIR="+w.run)
	for _, name := range portNames {
		w.ports[name] = testenv.FreePort(t)
		w.env = append(w.env, fmt.Sprintf("OPENCLAW_%s_PORT=%d", name, w.ports[name]))
	}
	t.Cleanup(func() {
		if out, err := w.tryRun(context.Background(), *devstack, "clean"); err != nil {
			t.Errorf("devstack clean: %v\n%s", err, out)
		}
	})
	if out, err := w.tryRun(t.Context(), *devstack, "up-cluster"); err != nil {
		t.Fatalf("devstack up-cluster: %v\n%s", err, out)
	}
	w.token = w.read("token")
	w.watch()
	return w
}

func (w *world) tryRun(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	root, err := testenv.ModuleRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...) // #nosec G204 -- of this test
	cmd.Env, cmd.Dir = w.env, root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ctl runs openclawctl, or kubectl, as devstack has written them for this stack.
func (w *world) ctl(program string, args ...string) string {
	w.t.Helper()
	out, err := w.tryRun(w.t.Context(), filepath.Join(w.run, program), args...)
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return out
}

func (w *world) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.run, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (w *world) address(port string) string { return "127.0.0.1:" + strconv.Itoa(w.ports[port]) }

// signal sends a signal to a process of the stack, by its name there.
func (w *world) signal(name string, sig syscall.Signal) {
	w.t.Helper()
	pid, err := strconv.Atoi(strings.Fields(w.read(name + ".pid"))[0])
	if err == nil {
		err = syscall.Kill(pid, sig)
	}
	if err != nil {
		w.t.Fatalf("signal %s: %v", name, err)
	}
}

// frozen stops a process, which neither answers nor is gone, until the test lets it go on.
func (w *world) frozen(name string) (resume func()) {
	w.t.Helper()
	w.signal(name, syscall.SIGSTOP)
	resume = sync.OnceFunc(func() { w.signal(name, syscall.SIGCONT) })
	w.t.Cleanup(resume) // or devstack would have to kill it
	return resume
}

func (w *world) start(name string, env []string, programs []string, args ...string) {
	w.t.Helper()
	for _, program := range programs {
		if path, err := exec.LookPath(program); err == nil {
			log := filepath.Join(w.dir, name+".log")
			testenv.Start(w.t, append(os.Environ(), env...), log, path, args...)
			w.t.Cleanup(func() {
				if text, err := os.ReadFile(log); err == nil && w.t.Failed() {
					w.t.Logf("%s: %s", name, text[max(0, len(text)-2000):])
				}
			})
			return
		}
	}
	w.t.Fatalf("%s is missing: make monitoring installs it", programs[0])
}

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
)

// quick is the rules with seconds for minutes, and half a minute for whatever they look back on. What they
// compare with what is as it was.
func quick(rules string) string {
	return ranges.ReplaceAllString(waits.ReplaceAllString(rules, "${1}s$2"), "[30s]")
}

// watch starts the exporter of Redis, Alertmanager and Prometheus, with the configuration of the manifests,
// but for addresses and times.
func (w *world) watch() {
	w.t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(w.t)) }
	prometheus, alertmanager, exporter := address(), address(), address()
	w.prometheus, w.alertmanager = "http://"+prometheus, "http://"+alertmanager

	var secrets struct {
		Redis string `json:"redis_password"`
	}
	if err := json.Unmarshal([]byte(w.read("secrets.json")), &secrets); err != nil {
		w.t.Fatal(err)
	}
	w.start("redis-exporter", []string{
		"REDIS_ADDR=redis://" + w.address("REDIS"), "REDIS_PASSWORD=" + secrets.Redis,
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
	conf["rule_files"] = []string{w.write("rules.yaml", quick(data["rules.yaml"]))}
	targets := func(address string) map[string]any { return map[string]any{"targets": []string{address}} }
	conf["alerting"] = map[string]any{"alertmanagers": []any{map[string]any{"static_configs": []any{targets(alertmanager)}}}}
	var asked []any
	for pod, address := range map[string]string{
		"platform/token-proxy": w.address("ADMIN"), "platform/api": w.address("API_PROBES"), "platform/billing-worker": w.address("BILLING"),
		"platform/operator": w.address("BOXES"), "platform/redis": exporter,
		"monitoring/prometheus": prometheus, "monitoring/alertmanager": alertmanager,
	} {
		space, job, _ := strings.Cut(pod, "/")
		target := targets(address)
		// As relabelling in the cluster has them.
		target["labels"] = map[string]string{"job": job, "namespace": space, "pod": job + "-0", "instance": job + "-0"}
		asked = append(asked, target)
	}
	conf["scrape_configs"] = []any{map[string]any{"job_name": "pods", "static_configs": asked}}
	w.start("prometheus", nil, []string{"prometheus"},
		"--config.file="+w.write("prometheus.yml", conf), "--storage.tsdb.path="+filepath.Join(w.dir, "prometheus"), "--web.listen-address="+prometheus)
}

func (w *world) yaml(text string, into any) {
	w.t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		w.t.Fatal(err)
	}
}

// write makes a file of text, or of what is YAML, and returns its path.
func (w *world) write(name string, content any) string {
	w.t.Helper()
	text, ok := content.(string)
	if !ok {
		b, err := yaml.Marshal(content)
		if err != nil {
			w.t.Fatal(err)
		}
		text = string(b)
	}
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// eventually waits for what becomes so, at most limit. ok says what is missing; "" if nothing.
func (w *world) eventually(what string, limit time.Duration, ok func() string) {
	w.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		missing := ok()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not within %v: %s: %s", limit, what, missing)
		}
	}
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
