package manifests

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// programs are what the images of ours start. Arguments in the manifests come after it.
var programs = map[string]string{
	"token-proxy": "token-proxy", "api": "control", "operator": "control", "billing-worker": "control",
	"onboarding-agent": "control", "web": "control",
}

// fakes are values as the Secrets have them.
var fakes = map[string]string{
	"postgres_url": "postgresql://openclaw:fake@10.0.0.30:5432/openclaw", "redis_url": "redis://:fake@redis:6379/0",
	"kimi_api_key": "sk-fake", "stripe_secret_key": "sk_test_fake", "stripe_webhook_secret": "whsec_fake",
	"jwt_secret":      strings.Repeat("0f", 32),
	"token_pepper":    strings.Repeat("1e", 32),
	"box_secrets_key": strings.Repeat("0123456789abcdef", 4),
	"operator_key":    strings.Repeat("3c", 32),
	"smtp_password":   "fake",

	"onboarding_proxy_token": "oc_fake", "telegram_bot_token": "7000000001:" + strings.Repeat("A", 35),
}

func run(t *testing.T, program string, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = append([]string{"PATH=/nowhere"}, env...), t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Each program takes the settings that its container gives it, and knows every variable: one that it
// does not know would be passed over.
func TestProgramsTakeTheirSettings(t *testing.T) {
	binaries := map[string]string{"control": testenv.BuildBinary(t, "./cmd/control"), "token-proxy": testenv.BuildBinary(t, "./cmd/token-proxy")}
	known := regexp.MustCompile(`\[\$([A-Z0-9_]+)\]`)
	seen := make(map[string]bool)
	for _, r := range renderings(t) {
		for _, w := range r.workloads(t) {
			for _, c := range w.pod.all() {
				image, ok := ours(c.Image)
				if !ok {
					continue
				}
				seen[c.Name] = true
				if len(c.Command) > 0 {
					t.Errorf("%v: container %s names its program: the image does", w, c.Name)
				}
				args, env := slices.Clone(c.Args), []string{}
				for _, e := range c.Env {
					value := e.Value
					if ref := e.ValueFrom.SecretKeyRef; ref != nil {
						if value = fakes[ref.Key]; value == "" {
							t.Fatalf("%v: this test has no value for %s", w, ref.Key)
						}
					}
					env = append(env, e.Name+"="+value)
				}
				if programs[image] == "token-proxy" {
					args[slices.Index(args, "-config")+1] = proxyFile(t, r)
				} else {
					help, err := run(t, binaries["control"], nil, append(slices.Clone(args), "--help")...)
					if err != nil {
						t.Fatalf("%v: %v: %s", w, err, help)
					}
					var names []string
					for _, found := range known.FindAllStringSubmatch(help, -1) {
						names = append(names, found[1])
					}
					for _, e := range c.Env {
						if !slices.Contains(names, e.Name) {
							t.Errorf("%v: container %s sets %s, which \"control %s\" does not know", w, c.Name, e.Name, args[0])
						}
					}
				}
				if out, err := run(t, binaries[programs[image]], env, append(args, "-check-config")...); err != nil || !strings.Contains(out, "configuration is valid") {
					t.Errorf("%v: container %s does not start: %v: %s", w, c.Name, err, out)
				}
			}
		}
	}
	for _, name := range []string{"token-proxy", "api", "operator", "billing-worker", "migrate", "onboarding-agent", "web"} {
		if !seen[name] {
			t.Errorf("container %s was not looked at", name)
		}
	}
}

// proxyFile is token-proxy's configuration, with the pepper where this test can have it.
func proxyFile(t *testing.T, r rendering) string {
	t.Helper()
	dir := t.TempDir()
	pepper := filepath.Join(dir, "token-pepper")
	const mounted = "/run/secrets/openclaw/token-pepper"
	text := r.one(t, "ConfigMap", "platform", "token-proxy").Data["token-proxy.json"]
	if !strings.Contains(text, mounted) {
		t.Fatalf("token-proxy.json does not name %s", mounted)
	}
	file := filepath.Join(dir, "token-proxy.json")
	for path, content := range map[string]string{pepper: fakes["token_pepper"], file: strings.ReplaceAll(text, mounted, pepper)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}
