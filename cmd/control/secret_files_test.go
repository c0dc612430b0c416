package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secretFlags are the secrets of each role, with values that it takes.
var secretFlags = map[string]map[string]string{
	"migrate":      {"database-url": "postgres://x:secret@127.0.0.1:1/x"},
	"add-operator": {"database-url": "postgres://x:secret@127.0.0.1:1/x"},
	"add-login":    {"database-url": "postgres://x:secret@127.0.0.1:1/x"},
	"billing-worker": {
		"database-url": "postgres://x:secret@127.0.0.1:1/x", "redis-url": "redis://:secret@127.0.0.1:1/0",
		"stripe-secret-key": "sk_test_fake", "smtp-password": "fake",
	},
	"api": {
		"database-url": "postgres://x:secret@127.0.0.1:1/x", "redis-url": "redis://:secret@127.0.0.1:1/0",
		"jwt-secret": strings.Repeat("fake ", 20), "openclaw-token-pepper": strings.Repeat("fake ", 20),
		"stripe-secret-key": "rk_test_fake", "stripe-webhook-secrets": "whsec_fake,\nwhsec_fake_too",
		"box-secrets-key": fakeSeal, "operator-key": "fake",
	},
	"operator": {
		"database-url": "postgres://x:secret@127.0.0.1:1/x", "redis-url": "redis://:secret@127.0.0.1:1/0",
		"openclaw-token-pepper": strings.Repeat("fake ", 20), "box-secrets-key": fakeSeal, "operator-key": "fake",
	},
	"reseal": {"database-url": "postgres://x:secret@127.0.0.1:1/x", "box-secrets-key": fakeSeal},
}

// fakeSeal is two keys that seal, neither of them a secret.
const fakeSeal = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f, ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="

// otherSettings are what the roles need besides.
var otherSettings = map[string][]string{
	"migrate": nil, "billing-worker": nil, "reseal": nil,
	"add-operator": {"--email", "ada@example.com"},
	"add-login":    {"--customer", "c1234567890abcdef"},
	"operator":     {"--gateway-image", "registry.test/gateway@sha256:" + strings.Repeat("0f", 32)},
	"api":          {"--public-url", "https://app.example.com", "--operator-url", "http://operator:8081"},
}

// Every role takes every secret from a file, and says which one it cannot read or has twice.
func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	aFlag := regexp.MustCompile(`(?m)^ +--([a-z-]+)`)
	looksSecret := regexp.MustCompile(`secret|password|pepper|key|^database-url$|^redis-url$`)
	for role, secrets := range secretFlags {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			fromFiles := append([]string{role, "--check-config"}, otherSettings[role]...)
			all := make(map[string][]string) // the arguments of each
			for flag, value := range secrets {
				path := filepath.Join(dir, flag)
				if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				all[flag] = []string{"--" + flag + "-file", path}
				fromFiles = append(fromFiles, all[flag]...)
			}
			if code, out := run(t, nil, fromFiles...); code != 0 {
				t.Fatalf("all from files: exit code %d, %s", code, out)
			}
			empty := filepath.Join(dir, "empty")
			if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			for flag, value := range secrets {
				without := append([]string{role, "--check-config"}, otherSettings[role]...)
				for other, args := range all {
					if other != flag {
						without = append(without, args...)
					}
				}
				variable := strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
				for want, args := range map[string][]string{
					"--" + flag + "-file: open":          {"--" + flag + "-file", filepath.Join(dir, "none")},
					"--" + flag + "-file are both given": {"--" + flag + "-file", empty, "--" + flag, value},
					"empty is empty":                     {"--" + flag + "-file", empty},
				} {
					code, out := run(t, nil, append(append([]string(nil), without...), args...)...)
					if code != 2 || !strings.Contains(out, want) || strings.Contains(out, ":secret@") {
						t.Errorf("%v: exit code %d, %s", args, code, out)
					}
				}
				// By the environment, both ways.
				for name, v := range map[string]string{variable: value, variable + "_FILE": all[flag][1]} {
					if code, out := run(t, map[string]string{name: v}, without...); code != 0 {
						t.Errorf("$%s: exit code %d, %s", name, code, out)
					}
				}
			}
			// No secret was forgotten here.
			_, help := run(t, nil, role, "--help")
			for _, m := range aFlag.FindAllStringSubmatch(help, -1) {
				name, isFile := strings.CutSuffix(m[1], "-file")
				if _, ok := secrets[name]; !ok && !isFile && looksSecret.MatchString(name) {
					t.Errorf("--%s is not looked at", name)
				}
			}
		})
	}
}

// What is no secret key of Stripe's is refused when a role starts, and not with the first payment.
func TestStripeKeyIsChecked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("pk_test_fake\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"api", "billing-worker"} {
		for _, args := range [][]string{{"--stripe-secret-key", "pk_test_fake"}, {"--stripe-secret-key-file", path}} {
			env := map[string]string{"STRIPE_WEBHOOK_SECRETS": "whsec_fake"}
			for flag, value := range secretFlags[role] {
				if flag != "stripe-secret-key" {
					env[strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))] = value
				}
			}
			code, out := run(t, env, append(append([]string{role, "--check-config"}, otherSettings[role]...), args...)...)
			if code != 2 || !strings.Contains(out, "neither sk_ nor rk_") || strings.Contains(out, "pk_test_fake") {
				t.Errorf("%s %v: exit code %d, %s", role, args, code, out)
			}
		}
	}
}
