package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type smoked struct {
	Check  string
	OK     bool
	Detail string
}

// A real api passes; what is wrong is named, with what to do. scripts/smoke does it with all of
// the system.
func TestSmoke(t *testing.T) {
	t.Parallel()
	e := newAPIEnv(t)
	e.vars = map[string]string{} // it signs in nowhere
	var results []smoked
	e.ok(&results, "smoke", "--url", e.customers, "--probes-url", e.probes)
	var names []string
	for _, r := range results {
		names = append(names, r.Check)
		if !r.OK || r.Detail == "" {
			t.Errorf("%+v", r)
		}
	}
	want := "api is alive, api is ready, api describes itself, api refuses strangers, api hides what is not public"
	if got := strings.Join(names, ", "); got != want {
		t.Errorf("checked were %s", got)
	}

	r := e.run("smoke", "--url", e.operators, "--timeout", "5s")
	for _, says := range []string{"describes itself", `of another api: "openclaw-cloud for operators"`, "should not be there", "kubectl -n platform"} {
		if !strings.Contains(r.stderr, says) {
			t.Errorf("nothing says %q:\n%s", says, r.stderr)
		}
	}
	if r.code != 1 || !strings.Contains(r.stdout, "FAILED") || !strings.Contains(r.stderr, "not yet: ") {
		t.Errorf("the operators' api: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	r = e.run("smoke", "--url", e.customers, "--revision", "0123456789abcdef", "--timeout", "5s")
	if r.code != 1 || !strings.Contains(r.stderr, "1 of 4 checks failed") || !strings.Contains(r.stderr, "not from 0123456789abcdef") || strings.Count(r.stdout, "\nok ") != 3 {
		t.Errorf("another revision: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// A command line that cannot be meant ends with 2, and shows no secret.
func TestSmokeUsage(t *testing.T) {
	t.Parallel()
	const secret = "not-a-token-but-secret"
	empty := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		vars map[string]string
		says string
	}{
		{"smoke", nil, `required flag(s) "url"`},
		{"smoke --url api.example.com", nil, "must be like https://"},
		{"smoke --url http://127.0.0.1:1 --timeout 0s", nil, "--timeout 0s"},
		{"smoke --url http://127.0.0.1:1 --revision abc", nil, "too short"},
		{"smoke --url http://127.0.0.1:1", map[string]string{"OPENCLAW_SMOKE_TOKEN": secret}, "needs the address of a token-proxy"},
		{"smoke --url http://127.0.0.1:1 --proxy-url http://127.0.0.1:1", map[string]string{"OPENCLAW_SMOKE_TOKEN": secret}, "is none"},
		{"smoke --url http://127.0.0.1:1 --proxy-url http://proxy.example.com", map[string]string{"OPENCLAW_SMOKE_TOKEN": secret}, "for everyone on the way to read"},
		{"smoke --url http://127.0.0.1:1", map[string]string{"OPENCLAW_SMOKE_TOKEN": secret, "OPENCLAW_SMOKE_TOKEN_FILE": empty}, "which one?"},
		{"smoke --url http://127.0.0.1:1", map[string]string{"OPENCLAW_SMOKE_TOKEN_FILE": empty}, "is empty"},
		{"smoke --url http://127.0.0.1:1", map[string]string{"OPENCLAW_SMOKE_TOKEN_FILE": empty + "-gone"}, "the proxy token: "},
	} {
		e := &env{t: t, vars: c.vars}
		r := e.run(strings.Fields(c.args)...)
		if r.code != 2 || !strings.Contains(r.stderr, c.says) || strings.Contains(r.stderr, secret) {
			t.Errorf("%s with %v: exit code %d, not %q\n%s%s", c.args, c.vars, r.code, c.says, r.stdout, r.stderr)
		}
	}
}
