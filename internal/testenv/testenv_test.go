package testenv_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/localserver"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// childMode makes the test binary play a test process that is killed.
const childMode = "OPENCLAW_TESTENV_CHILD"

func TestMain(m *testing.M) { testenv.Main(m) }

func TestRedisKeepsDataThroughAKill(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := testenv.Redis(t)
	c := s.Client()
	if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if conn, err := net.DialTimeout("tcp", s.Addr, time.Second); err == nil {
		conn.Close()
		t.Fatal("Redis still accepts connections after Stop")
	}
	s.Start()
	if got, err := c.Get(ctx, "k").Result(); err != nil || got != "v" {
		t.Fatalf("after the restart: %q, %v", got, err)
	}
	if got := c.ConfigGet(ctx, "maxmemory-policy").Val()["maxmemory-policy"]; got != "noeviction" {
		t.Fatalf("maxmemory-policy is %q", got)
	}
	s.FlushAll()
	if n := c.DBSize(ctx).Val(); n != 0 {
		t.Fatalf("%d keys after FlushAll", n)
	}
	if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.StartEmpty()
	if n := c.DBSize(ctx).Val(); n != 0 {
		t.Fatalf("%d keys after StartEmpty", n)
	}
}

func TestRedisPauseAnswersNothing(t *testing.T) {
	t.Parallel()
	s := testenv.Redis(t, testenv.RedisArgs("--maxmemory", "20mb"))
	c := s.Client()
	if got := c.ConfigGet(context.Background(), "maxmemory").Val()["maxmemory"]; got != "20971520" {
		t.Fatalf("maxmemory is %q", got)
	}
	s.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx).Err(); err == nil {
		t.Fatal("a paused Redis answered")
	}
	s.Resume()
	if err := c.Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresGivesEachCallADatabase(t *testing.T) {
	t.Parallel()
	a, b := testenv.Postgres(t), testenv.Postgres(t)
	if a.URL == b.URL {
		t.Fatal("two calls gave the same database")
	}
	a.Query("CREATE TABLE t (n int)")
	if got := b.Query("SELECT count(*) FROM pg_tables WHERE tablename = 't'"); got != "0" {
		t.Fatalf("the other database has %s tables t", got)
	}
}

func TestPreparedPostgresIsPreparedOnce(t *testing.T) {
	t.Parallel()
	times := 0
	prepare := func(url string) error {
		times++
		programs, err := localserver.FindPostgres()
		if err == nil {
			_, err = localserver.Psql(t.Context(), programs, url, "CREATE TABLE prepared (n int)")
		}
		return err
	}
	a, b := testenv.PreparedPostgres(t, t.Name(), prepare), testenv.PreparedPostgres(t, t.Name(), prepare)
	a.Query("INSERT INTO prepared VALUES (1)")
	if got := b.Query("SELECT count(*) FROM prepared"); got != "0" || times != 1 && os.Getenv("DATABASE_URL") == "" {
		t.Errorf("the other database has %s rows, and was prepared %d times", got, times)
	}
}

func TestDedicatedPostgresStopsPausesAndRestarts(t *testing.T) {
	t.Parallel()
	s := testenv.DedicatedPostgres(t)
	s.Query("CREATE TABLE t (n int); INSERT INTO t VALUES (7)")
	s.Stop()
	s.Start()
	if got := s.Query("SELECT n FROM t"); got != "7" {
		t.Fatalf("after the restart: %q", got)
	}
	s.Pause()
	answered := make(chan string, 1)
	go func() { answered <- s.Query("SELECT 1") }()
	select {
	case <-answered:
		t.Error("a paused Postgres answered")
	case <-time.After(300 * time.Millisecond):
	}
	s.Resume()
	if got := <-answered; got != "1" {
		t.Fatalf("after Resume: %q", got)
	}
}

func TestBuildBinaryBuildsOnce(t *testing.T) {
	t.Parallel()
	a := testenv.BuildBinary(t, "./internal/testenv/testdata/hello")
	if b := testenv.BuildBinary(t, "./internal/testenv/testdata/hello"); a != b {
		t.Fatalf("two paths: %s, %s", a, b)
	}
	out, err := exec.Command(a).Output()
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("%q, %v", out, err)
	}
}

// The result of a test that builds a program must not outlive a change of the program: go test
// has to be told what it is built from.
func TestBuildBinaryTellsOfItsSources(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	if out, err := exec.Command(os.Args[0], "-test.run=^TestBuildBinaryBuildsOnce$", "-test.testlogfile="+log).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	asked, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"internal/testenv/testdata/hello/main.go", "go.mod", "go.sum"} {
		if !strings.Contains(string(asked), "/"+file+"\n") {
			t.Errorf("the test did not ask for %s:\n%s", file, asked)
		}
	}
}

// TestKilledTestLeavesNothing starts this binary as a test that is then killed,
// and looks for its servers and files.
func TestKilledTestLeavesNothing(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	for dir := tmp; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childMode+"=1", "TMPDIR="+tmp, "DATABASE_URL=")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ports []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if ready, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			ports = strings.Fields(ready)
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if len(ports) != 2 {
		t.Fatalf("the child reported the ports %v", ports)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		entries, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		// The book of ports, an empty file, stays: another may be about to lock it.
		entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), "openclaw-ports-") })
		var open []string
		for _, port := range ports {
			if conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second); err == nil {
				conn.Close()
				open = append(open, port)
			}
		}
		if len(entries) == 0 && len(open) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %v, open ports %v", entries, open)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestChild is the process that TestKilledTestLeavesNothing kills.
func TestChild(t *testing.T) {
	if os.Getenv(childMode) == "" {
		return
	}
	r := testenv.Redis(t)
	p := testenv.Postgres(t)
	port := p.Query("SHOW port")
	if _, err := os.Stdout.WriteString("ready " + strconv.Itoa(r.Port) + " " + port + "\n"); err != nil {
		t.Fatal(err)
	}
	select {}
}

// recorder is a testing.TB that only notes that it failed.
type recorder struct {
	testing.TB
	cleanups []func()
	failed   bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Failed() bool          { return r.failed }
func (r *recorder) Cleanup(f func())      { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func TestNoLeaksSeesWhatStays(t *testing.T) {
	clean := &recorder{TB: t}
	testenv.NoLeaks(clean)
	slow := make(chan struct{})
	go func() { time.Sleep(100 * time.Millisecond); close(slow) }()
	clean.end()
	if clean.failed {
		t.Error("a goroutine that ends soon counts as a leak")
	}

	goroutine := &recorder{TB: t}
	testenv.NoLeaksWithin(goroutine, 100*time.Millisecond)
	block := make(chan struct{})
	go func() { <-block }()
	goroutine.end()
	close(block)
	if !goroutine.failed {
		t.Error("a blocked goroutine was not seen")
	}

	file := &recorder{TB: t}
	testenv.NoLeaksWithin(file, 100*time.Millisecond)
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	file.end()
	if err := errors.Join(syscall.Close(fds[0]), syscall.Close(fds[1])); err != nil {
		t.Fatal(err)
	}
	if !file.failed {
		t.Error("an open pipe was not seen")
	}
}

func TestNoLeaksAllowsServers(t *testing.T) {
	testenv.NoLeaks(t)
	testenv.Postgres(t)
	testenv.Kubernetes(t).Namespace()
	if err := testenv.Redis(t).Client().Ping(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
}
