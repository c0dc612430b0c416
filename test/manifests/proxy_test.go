package manifests

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/proxy"
)

// proxyConfig reads token-proxy's configuration as token-proxy does.
func proxyConfig(t *testing.T, r rendering) proxy.Config {
	t.Helper()
	text := r.one(t, "ConfigMap", "platform", "token-proxy").Data["token-proxy.json"]
	file := filepath.Join(t.TempDir(), "token-proxy.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := proxy.LoadConfig(file, func(v string) (string, error) {
		switch v {
		case "env:REDIS_URL":
			return "redis://:fake@redis:6379/0", nil
		case "env:KIMI_API_KEY":
			return "sk-fake", nil
		case "":
			return "", nil
		}
		return "", fmt.Errorf("%q is a secret in a ConfigMap, or a variable that the pod has not", v)
	})
	if err != nil {
		t.Fatalf("%s: %v", r.name, err)
	}
	return cfg
}

// bytesOf reads a size as Kubernetes or Go's runtime writes it.
func bytesOf(t *testing.T, size string) int64 {
	t.Helper()
	for unit, n := range map[string]int64{"Mi": 1 << 20, "MiB": 1 << 20, "Gi": 1 << 30} {
		if number, ok := strings.CutSuffix(size, unit); ok {
			if v, err := strconv.ParseInt(number, 10, 64); err == nil {
				return v * n
			}
		}
	}
	t.Fatalf("%q is no size", size)
	return 0
}

// What Kubernetes gives token-proxy is what token-proxy needs.
func TestTokenProxyFits(t *testing.T) {
	for _, r := range renderings(t) {
		cfg, w := proxyConfig(t, r), r.workload(t, "platform", "token-proxy")
		c := w.pod.Containers[0]

		// proxy.Drain: the three times, then up to 6 s to cut, 2 s to close, and the process' end.
		drain := time.Duration(cfg.Timeouts.PreStop + cfg.Timeouts.Drain + cfg.Timeouts.Flush)
		if grace := time.Duration(w.pod.TerminationGracePeriodSeconds) * time.Second; grace < drain+15*time.Second || grace > drain+time.Minute {
			t.Errorf("%s: a pod gets %s to end, and token-proxy takes up to %s, and some seconds", r.name, grace, drain)
		}

		if _, port, _ := strings.Cut(cfg.Listen, ":"); port != strconv.Itoa(w.port("http")) {
			t.Errorf("%s: it listens at %s, and its pods show %d", r.name, cfg.Listen, w.port("http"))
		}
		// Probes and Prometheus come from outside of the pod.
		if host, port, _ := strings.Cut(cfg.Admin, ":"); host != "" || port != strconv.Itoa(w.port("admin")) || port != w.notes["prometheus.io/port"] {
			t.Errorf("%s: admin listens at %s", r.name, cfg.Admin)
		}

		in := func(path string) volume {
			for _, m := range c.VolumeMounts {
				if strings.HasPrefix(path, m.MountPath+"/") {
					return w.pod.Volumes[slices.IndexFunc(w.pod.Volumes, func(v volume) bool { return v.Name == m.Name })]
				}
			}
			t.Errorf("%s: %s is in no volume", r.name, path)
			return volume{}
		}
		if v := in(cfg.TokenPepperFile); v.Secret == nil || !slices.ContainsFunc(v.Secret.Items, func(i item) bool { return i.Path == filepath.Base(cfg.TokenPepperFile) }) {
			t.Errorf("%s: the pepper is not at %s", r.name, cfg.TokenPepperFile)
		}
		if i := slices.Index(c.Args, "-config"); i < 0 || in(c.Args[i+1]).ConfigMap == nil {
			t.Errorf("%s: starts with %v", r.name, c.Args)
		}
		// A kilobyte for each slot. A pod whose volume gets larger than its limit is evicted.
		need := cfg.Limits.JournalBytes + int64(cfg.Limits.JournalSlots)<<10
		limit, _ := in(cfg.JournalDir + "/x").EmptyDir["sizeLimit"].(string)
		if mib, err := strconv.ParseInt(strings.TrimSuffix(limit, "Mi"), 10, 64); err != nil || mib<<20 < 2*need {
			t.Errorf("%s: the journal takes %d bytes, twice that while it is written anew, and may take %s", r.name, need, limit)
		}

		// Bodies live twice until garbage is collected; and it is collected before the kernel ends the process.
		most, soft := bytesOf(t, c.Resources.Limits["memory"]), bytesOf(t, c.env()["GOMEMLIMIT"])
		if cfg.Limits.InFlightBytes > most/4 || soft > most*92/100 || soft < most/2 {
			t.Errorf("%s: bodies of %d bytes and GOMEMLIMIT=%d in a pod that may have %d", r.name, cfg.Limits.InFlightBytes, soft, most)
		}

		// Who reckons with it.
		settings := r.workload(t, "platform", "operator").pod.Containers[0].env()
		key, value, _ := strings.Cut(settings["TOKEN_PROXY_LABELS"], "=")
		if w.labels[key] != value || value == "" || settings["TOKEN_PROXY_PORT"] != strconv.Itoa(w.port("http")) || settings["TOKEN_PROXY_NAMESPACE"] != w.Metadata.Namespace {
			t.Errorf("%s: the operator lets boxes reach pods with %s at %s, which have %v and %d", r.name, settings["TOKEN_PROXY_LABELS"], settings["TOKEN_PROXY_PORT"], w.labels, w.port("http"))
		}
		at, err := url.Parse(settings["TOKEN_PROXY_URL"])
		service := r.one(t, "Service", "platform", "token-proxy")
		if err != nil || at.Hostname() != service.Metadata.Name+".platform.svc.cluster.local" || at.Port() != strconv.Itoa(w.port("http")) {
			t.Errorf("%s: the operator tells boxes that token-proxy is at %s", r.name, at)
		}
		if grace := r.workload(t, "platform", "billing-worker").pod.Containers[0].env()["REPLICA_GRACE"]; grace != cfg.Timeouts.Grace.String() {
			t.Errorf("%s: the billing-worker reckons with a grace of %s, token-proxy has %s", r.name, grace, cfg.Timeouts.Grace)
		}
		for _, u := range cfg.Upstreams {
			if u.Models[settings["MODEL"]] == "" {
				t.Errorf("%s: boxes ask for the model %s, which upstream %s has not", r.name, settings["MODEL"], u.Name)
			}
		}
		if r.name == "everything" && len(cfg.TrustedProxies) == 0 {
			t.Errorf("%s: behind the ingress controller all callers would be one address", r.name)
		}
	}
}

// Redis keeps what it is given, within the memory that its container has.
func TestRedisFits(t *testing.T) {
	r := usual(t)
	conf := r.one(t, "ConfigMap", "platform", "redis").Data["redis.conf"]
	for _, line := range []string{"appendonly yes", "maxmemory-policy noeviction"} {
		if !slices.Contains(strings.Split(conf, "\n"), line) {
			t.Errorf("redis.conf lacks %q: our programs would not start", line)
		}
	}
	w := r.workload(t, "platform", "redis")
	mib := func(text, unit string) int {
		n, err := strconv.Atoi(strings.TrimSuffix(text, unit))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		return n
	}
	limits := make(map[string]string)
	for _, c := range w.pod.Containers {
		limits[c.Name] = c.Resources.Limits["memory"]
	}
	found := regexp.MustCompile(`maxmemory (\d+mb)\n`).FindStringSubmatch(conf)
	if found == nil {
		t.Fatal("redis.conf has no maxmemory")
	}
	if data, limit := mib(found[1], "mb"), mib(limits["redis"], "Mi"); limit < data*3/2 {
		t.Errorf("Redis may keep %d MiB, and is ended with %d: while it writes its file anew, it needs half as much again", data, limit)
	}
	if !slices.Contains(w.templates, "data") {
		t.Error("Redis' file is in no volume of its own")
	}
	for _, c := range w.pod.Containers {
		for _, e := range c.Env {
			if strings.Contains(e.Name, "PASSWORD") && e.ValueFrom.SecretKeyRef == nil {
				t.Errorf("container %s has %s in the manifest", c.Name, e.Name)
			}
		}
	}
}
