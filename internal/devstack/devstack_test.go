package devstack

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPortsComeFromTheEnvironment(t *testing.T) {
	t.Parallel()
	lookup := func(env map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	}
	p := DefaultPorts()
	if err := p.Override(lookup(map[string]string{"OPENCLAW_PROXY_PORT": "18080", "OPENCLAW_REDIS_PORT": ""})); err != nil {
		t.Fatal(err)
	}
	if want := (Ports{18080, 9090, 8082, 8000, 8001, 8083, 3000, 3001, 8085, 8086, 9100, 16379, 15432, 16443, 12379, 12380, 20257, 20259, 8084, 9101, 9102}); p != want {
		t.Fatalf("%+v", p)
	}
	for _, bad := range []string{"0", "65536", "http", "-1"} {
		if err := p.Override(lookup(map[string]string{"OPENCLAW_ADMIN_PORT": bad})); err == nil || !strings.Contains(err.Error(), "OPENCLAW_ADMIN_PORT") {
			t.Errorf("port %q: %v", bad, err)
		}
	}
	said := p.Environment()
	if len(said) != 21 || said[0] != "OPENCLAW_PROXY_PORT=18080" || !slices.Contains(said, "OPENCLAW_TELEGRAMSIM_PORT=9102") {
		t.Errorf("it says %v", said)
	}
	p.Admin = p.Proxy
	if err := p.distinct(); err == nil {
		t.Error("two servers on one port were accepted")
	}
}

// sleeper starts a process that ends on SIGTERM only if it is told to.
func sleeper(t *testing.T, script string) (process, string) {
	t.Helper()
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "x.pid")
	p, ended, err := startDetached(command{
		program: "/bin/sh", args: []string{"-c", script}, env: os.Environ(), dir: dir, log: filepath.Join(dir, "x.log"),
	}, pidFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(p.pid, syscall.SIGKILL); <-ended })
	return p, pidFile
}

func TestProcessIsFoundAgainAndStopped(t *testing.T) {
	t.Parallel()
	started, pidFile := sleeper(t, "exec sleep 600")
	p, running, err := readPID(pidFile)
	if err != nil || !running || p != started {
		t.Fatalf("%+v, %v, %v instead of %+v", p, running, err, started)
	}
	if killed, err := p.stop(syscall.SIGTERM, 10*time.Second); err != nil || killed {
		t.Fatalf("killed %v, %v", killed, err)
	}
	if _, running, err := readPID(pidFile); err != nil || running {
		t.Fatalf("after the stop: running %v, %v", running, err)
	}
}

func TestStubbornProcessIsKilled(t *testing.T) {
	t.Parallel()
	p, pidFile := sleeper(t, `trap "" TERM; echo set; while :; do sleep 0.05; done`)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if said, err := os.ReadFile(filepath.Join(filepath.Dir(pidFile), "x.log")); err == nil && len(said) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not say that the trap is set")
		}
	}
	if killed, err := p.stop(syscall.SIGTERM, 200*time.Millisecond); err != nil || !killed {
		t.Fatalf("killed %v, %v", killed, err)
	}
	if running, err := p.running(); err != nil || running {
		t.Fatalf("running %v, %v", running, err)
	}
}

// A process id is used again after a while, in particular after a restart of
// the machine: what has it then must not be touched.
func TestReusedProcessIDIsLeftAlone(t *testing.T) {
	t.Parallel()
	p, pidFile := sleeper(t, "exec sleep 600")
	if err := writePrivate(pidFile, strconv.Itoa(p.pid)+" another-start\n"); err != nil {
		t.Fatal(err)
	}
	other, running, err := readPID(pidFile)
	if err != nil || running {
		t.Fatalf("running %v, %v", running, err)
	}
	if _, err := other.stop(syscall.SIGKILL, time.Second); err != nil {
		t.Fatal(err)
	}
	if running, err := p.running(); err != nil || !running {
		t.Fatalf("the other process was ended: running %v, %v", running, err)
	}
}

func TestBrokenPIDFileIsAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.pid")
	for _, content := range []string{"", "0 x", "1 x", "-5 x", "123", "x y"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readPID(file); err == nil {
			t.Errorf("%q was accepted", content)
		}
	}
}

func TestOneCommandAtATime(t *testing.T) {
	t.Parallel()
	cfg := Config{RunDir: t.TempDir(), BinDir: "/nowhere", Ports: DefaultPorts(), Out: io.Discard}
	if _, err := open(cfg, false); !errors.Is(err, ErrNotSetUp) {
		t.Fatalf("an empty directory: %v", err)
	}
	s, err := open(cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := open(cfg, true); err == nil {
		t.Fatal("two commands at once")
	}
	for _, name := range []string{"secrets.json", "token-pepper", "jwt-secret", "box-secrets-key", "operator-key"} {
		info, err := os.Stat(cfg.path(name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestRunningStackIsNotMixedWithOtherSettings(t *testing.T) {
	t.Parallel()
	cfg := Config{RunDir: t.TempDir(), BinDir: "/nowhere", Ports: DefaultPorts(), Out: io.Discard}
	s, err := open(cfg, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.checkSettings(); err != nil {
		t.Fatal(err)
	}
	_, pidFile := sleeper(t, "exec sleep 600")
	if err := os.Rename(pidFile, s.pidFile("redis")); err != nil {
		t.Fatal(err)
	}
	if err := s.checkSettings(); err != nil {
		t.Errorf("the same settings: %v", err)
	}
	for what, key := range map[string]*string{"Kimi": &s.cfg.KimiAPIKey, "Stripe": &s.cfg.StripeSecretKey, "bot": &s.cfg.TelegramBotToken} {
		*key = "sk-fake-other"
		if err := s.checkSettings(); err == nil || !strings.Contains(err.Error(), "make down") {
			t.Errorf("another %s: %v", what, err)
		}
		*key = ""
	}
	if b, _ := os.ReadFile(cfg.path("settings.json")); strings.Contains(string(b), "sk-fake") {
		t.Error("the settings file holds the key")
	}
}

func TestQuoteGivesOneWord(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain/path.x", "two words", "it's", `$HOME "x" \ ;`, "a\nb"} {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+quote(text)).Output()
		if err != nil || string(out) != text {
			t.Errorf("%q became %q, %v", text, out, err)
		}
	}
}
