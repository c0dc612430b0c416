package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// backups runs scripts/postgres-backup on the database of a stack.
type backups struct {
	t                          *testing.T
	s                          *stack.Stack
	dir, script, key, otherKey string
	recipient                  string
	env                        []string
}

func newBackups(t *testing.T, s *stack.Stack) *backups {
	t.Helper()
	root, err := testenv.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	b := &backups{t: t, s: s, dir: t.TempDir(), script: filepath.Join(root, "scripts", "postgres-backup")}
	b.env = append(os.Environ(), "PATH="+testenv.PostgresBin(t)+string(os.PathListSeparator)+os.Getenv("PATH"), "DATABASE_URL="+s.Postgres.URL)
	b.key, b.otherKey = filepath.Join(b.dir, "key"), filepath.Join(b.dir, "other-key")
	for _, key := range []string{b.key, b.otherKey} {
		b.run("age-keygen", "-o", key)
	}
	b.recipient = strings.TrimSpace(b.run("age-keygen", "-y", b.key))
	return b
}

// try runs a program and returns what it wrote.
func (b *backups) try(program string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...) // #nosec G204 -- of this test
	var out, errs strings.Builder
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (b *backups) run(program string, args ...string) string {
	b.t.Helper()
	stdout, stderr, err := b.try(program, args...)
	if err != nil {
		b.t.Fatalf("%s %v: %v\n%s%s (is something missing? make deps)", program, args, err, stdout, stderr)
	}
	return stdout
}

// refused wants a command of the script to fail with words of its own about it.
func (b *backups) refused(what, words string, args ...string) {
	b.t.Helper()
	if _, stderr, err := b.try(b.script, args...); err == nil || !strings.Contains(stderr, "postgres-backup: ") || !strings.Contains(stderr, words) {
		b.t.Errorf("%s: want an error about %q, got %v: %s", what, words, err, stderr)
	}
}

// text is the database as text: all definitions, rights, policies, rows and counters.
func (b *backups) text() []string {
	b.t.Helper()
	lines := strings.Split(b.run("pg_dump", "--no-password", "--dbname="+b.s.Postgres.URL), "\n")
	var kept []string
	for _, line := range lines {
		if !strings.HasPrefix(line, `\restrict `) && !strings.HasPrefix(line, `\unrestrict `) { // a number by chance in each dump
			kept = append(kept, line)
		}
	}
	return kept
}

func differOf(a, b []string) string {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return fmt.Sprintf("line %d of %d and %d: %.300q, and %.300q", i+1, len(a), len(b), a[min(i, len(a)):min(i+1, len(a))], b[min(i, len(b)):min(i+1, len(b))])
		}
	}
	return ""
}

// knows asks a proxy for its models, which costs nothing.
func knows(t *testing.T, p *stack.Proxy, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", p.URL+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// The database is lost and put back as of an older backup, as nix/README.md tells it, while Redis and a
// token-proxy go on. Everything is there as it was at the backup; what was used meanwhile is booked; what is
// lost is told to the token; a token that was revoked since stays so. What is not whole is not restored.
func TestPostgresIsPutBack(t *testing.T) {
	t.Parallel()
	var journal string
	s := stack.New(t, stack.Options{Proxy: func(c map[string]any) { journal, _ = c["journal_dir"].(string) }})
	b := newBackups(t, s)
	tok, revoked := s.Customer(`O'Hara "é" \ %41 ; --`, "starter"), s.Customer("Rey", "starter")
	serve := func(n int) {
		t.Helper()
		for range n {
			if got := ask(s.Proxies[0], tok.Raw); got != http.StatusOK {
				t.Fatalf("status %d", got)
			}
		}
	}
	rows := func() string { return s.Postgres.Query("SELECT count(*) FROM usage_events") }
	endBilling := func() {
		t.Helper()
		if err := s.Billing.Stop(20 * time.Second); err != nil {
			t.Fatalf("the billing-worker ended with %v", err)
		}
	}
	serve(3)
	settledDown(t, s)

	// A backup needs no standstill. To compare, nothing may be written between it and the text.
	endBilling()
	file := filepath.Join(b.dir, "backup.age")
	b.run(b.script, "save", file, b.recipient)
	before := b.text()
	b.refused("a second one of the same name", "never overwritten", "save", file, b.recipient)
	if left, err := filepath.Glob(filepath.Join(b.dir, ".postgres-backup.*")); err != nil || len(left) > 0 {
		t.Errorf("save has left %v, %v", left, err)
	}
	if raw, err := os.ReadFile(file); err != nil || strings.Contains(string(raw), "O'Hara") || !strings.HasPrefix(string(raw), "age-encryption.org/") {
		t.Errorf("the backup is not encrypted: %v", err)
	}
	b.refused("a database that is not empty", "not empty", "restore", file, b.key)
	s.RestartBilling()

	// After the backup: usage that is booked and forgotten by the journal, and a revocation.
	serve(1)
	settledDown(t, s)
	s.Ctl(nil, "token", "revoke", revoked.ID)
	s.Eventually("the revoked token is refused", 10*time.Second, func() bool { return knows(t, s.Proxies[0], revoked.Raw) == http.StatusUnauthorized })
	s.Eventually("the journal knows that Postgres has everything", 20*time.Second, func() bool {
		acked := s.Redis.UniversalClient().HVals(t.Context(), contract.UsageAckedKey).Val()
		return len(acked) == 1 && acked[0] == "4"
	})

	endBilling()
	s.Postgres.Lose()
	serve(2) // nobody who is served needs Postgres
	s.Postgres.Empty()

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte(nil), whole...)
	changed[len(changed)/2] ^= 1
	for what, content := range map[string][]byte{
		"cut off at the end": whole[:len(whole)-20], "cut off within": whole[:len(whole)/2], "empty": {}, "changed": changed, "no backup": []byte("age-encryption.org/v1\nhello\n"),
	} {
		bad := filepath.Join(b.dir, "bad.age")
		if err := os.WriteFile(bad, content, 0o600); err != nil {
			t.Fatal(err)
		}
		b.refused(what, "damaged", "check", bad, b.key)
		b.refused(what, "Nothing was changed", "restore", bad, b.key)
	}
	b.refused("the key of somebody else", "encrypted for other keys", "restore", file, b.otherKey)
	if n := s.Postgres.Query("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"); n != "0" {
		t.Errorf("what was refused has left %s tables and indexes", n)
	}

	t.Log(strings.TrimSpace(b.run(b.script, "check", file, b.key)))
	t.Log(strings.TrimSpace(b.run(b.script, "restore", file, b.key)))
	if diff := differOf(before, b.text()); diff != "" || len(before) < 1000 {
		t.Errorf("restored is something else than was saved: %s", diff)
	}
	if n := rows(); n != "3" {
		t.Errorf("%s rows of usage are restored, want 3", n)
	}

	// Before anything works again: what is charged in Redis, and not in the books.
	var inAll int64
	for _, e := range s.Sim.Ledger() {
		if e.Kind == "chat" {
			inAll += int64(e.PromptTokens + e.CompletionTokens)
		}
	}
	s.Eventually("ledger verify tells what the books lack", 20*time.Second, func() bool {
		var v billing.Verified
		s.Ctl(&v, "ledger", "verify", "--customer", tok.Customer, "--wait", "0s")
		return len(v.Different) == 0 && len(v.OnTheWay) == 1 && v.OnTheWay[0].Redis != nil && *v.OnTheWay[0].Redis == inAll && v.OnTheWay[0].Counted.Requests == 3
	})

	s.RestartBilling()
	s.Eventually("what was used meanwhile is booked", 30*time.Second, func() bool { return rows() == "5" })
	s.Ctl(nil, "feed", "republish")
	serve(1)
	if got := knows(t, s.Proxies[0], revoked.Raw); got != http.StatusUnauthorized {
		t.Errorf("the token that was revoked after the backup gets %d", got)
	}

	// The journal waits for events that no database has: another one, as a new pod has.
	if err := s.Proxies[0].Stop(20 * time.Second); err != nil {
		t.Fatalf("token-proxy ended with %v", err)
	}
	if err := os.RemoveAll(journal); err != nil {
		t.Fatal(err)
	}
	s.Restart(0)
	serve(1)
	s.Eventually("all that was used is booked, but for what is lost", 30*time.Second, func() bool { return rows() == "7" })
	var replicas []control.Replica
	s.Ctl(&replicas, "ledger", "replicas")
	if len(replicas) != 2 {
		t.Fatalf("there are %d replicas, want the old journal and the new one", len(replicas))
	}
	for _, r := range replicas {
		if r.Acked == r.Highest {
			continue
		}
		if r.Acked != 3 || r.Highest != 7 {
			t.Errorf("of the old journal Postgres has %d, and up to %d", r.Acked, r.Highest)
		}
		s.Ctl(nil, "ledger", "declare-lost", r.ID, "--reason", "the database was put back", "--grace", "1s")
	}

	// A new epoch makes the limits of what the books have.
	s.Redis.Stop()
	s.Redis.Start()
	s.Eventually("Redis and the books agree", time.Minute, func() bool {
		var v billing.Verified
		s.Ctl(&v, "ledger", "verify", "--wait", "1s")
		return len(v.Different) == 0 && len(v.OnTheWay) == 0 && v.Periods > 0
	})
	s.Eventually("it is served", 20*time.Second, func() bool { return ask(s.Proxies[0], tok.Raw) == http.StatusOK })
	if got := knows(t, s.Proxies[0], revoked.Raw); got != http.StatusUnauthorized {
		t.Errorf("in a new epoch the token that was revoked after the backup gets %d", got)
	}
}
