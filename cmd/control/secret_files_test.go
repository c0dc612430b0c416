package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The billing-worker takes the secrets of Stripe and of the mail server from files, and says
// which one it cannot read or has twice.
func TestWorkerSecretsFromFiles(t *testing.T) {
	t.Parallel()
	env := map[string]string{"DATABASE_URL": "postgres://x@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1/0"}
	fake := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(fake, []byte("sk_test_fake\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"stripe-secret-key", "smtp-password"} {
		for want, args := range map[string][]string{
			"--" + flag + "-file: open":          {"--" + flag + "-file", fake + ".none"},
			"--" + flag + "-file are both given": {"--" + flag + "-file", fake, "--" + flag, "sk_test_fake"},
		} {
			if code, out := run(t, env, append([]string{"billing-worker"}, args...)...); code == 0 || !strings.Contains(out, want) {
				t.Errorf("%v: exit code %d, %s", args, code, out)
			}
		}
	}
}
