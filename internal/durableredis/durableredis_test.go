package durableredis_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/durableredis"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"safe", nil, nil},
		{"evicts", []string{"--maxmemory-policy", "allkeys-lru"}, []string{"maxmemory-policy noeviction"}},
		{"no append-only file", []string{"--appendonly", "no"}, []string{"appendonly yes"}},
		{"both", []string{"--appendonly", "no", "--maxmemory-policy", "volatile-ttl"}, []string{"appendonly yes", "maxmemory-policy noeviction"}},
		{"CONFIG is forbidden", []string{"--rename-command", "CONFIG", "", "--appendonly", "no"}, []string{"appendonly yes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantUnsafe(t, durableredis.Check(context.Background(), testenv.Redis(t, testenv.RedisArgs(c.args...)).Client()), c.want)
		})
	}
}

// Each master of a Cluster is asked, and named.
func TestCluster(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := testenv.RedisCluster(t)
	if err := durableredis.Check(ctx, r.Client()); err != nil {
		t.Fatalf("a safe cluster: %v", err)
	}
	if err := r.Masters[1].Client().ConfigSet(ctx, "appendonly", "no").Err(); err != nil {
		t.Fatal(err)
	}
	wantUnsafe(t, durableredis.Check(ctx, r.Client()), []string{r.Masters[1].Addr, "appendonly yes"})
	if err := r.Masters[2].Client().ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	wantUnsafe(t, durableredis.Check(ctx, r.Client()), []string{r.Masters[1].Addr, "appendonly yes", r.Masters[2].Addr, "noeviction"})

	r.Masters[2].Pause()
	short, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	wantUnsafe(t, durableredis.Check(short, r.Client()), []string{r.Masters[1].Addr})
	if err := r.Masters[1].Client().ConfigSet(ctx, "appendonly", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	short, cancel = context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	if err := durableredis.Check(short, r.Client()); err == nil || errors.Is(err, durableredis.ErrUnsafe) || !strings.Contains(err.Error(), r.Masters[2].Addr) {
		t.Errorf("a master that does not answer: %v", err)
	}
	r.Masters[2].Resume()

	wantUnsafe(t, durableredis.Check(ctx, r.Masters[0].Client()), []string{"redis-cluster://"})
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	r := testenv.RedisSentinel(t)
	if err := durableredis.Check(ctx, r.Client()); err != nil {
		t.Fatalf("a safe master: %v", err)
	}
	if err := r.Master().Client().ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	wantUnsafe(t, durableredis.Check(ctx, r.Client()), []string{"noeviction"})
}

func wantUnsafe(t *testing.T, err error, want []string) {
	t.Helper()
	if errors.Is(err, durableredis.ErrUnsafe) != (want != nil) || want == nil && err != nil {
		t.Fatalf("Check: %v", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Check: %v; want %q in it", err, w)
		}
	}
}

// Versions that cannot be installed here: a server that answers every command alike.
func TestVersions(t *testing.T) {
	t.Parallel()
	const old = "6.2 or newer"
	for _, c := range []struct {
		version string
		want    []string
	}{
		{"6.2.0", nil}, {"7.0.15", nil}, {"10.0", nil}, {"6.10.1", nil},
		{"6.0.16", []string{"6.0.16", old}}, {"5.0.14", []string{old}}, {"", []string{old}}, {"x.y", []string{old}}, {"7", []string{old}},
	} {
		client := redis.NewClient(&redis.Options{Addr: answering(t, fmt.Sprintf(
			"# Server\r\nredis_version:%s\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n", c.version)), Protocol: 2, DisableIdentity: true})
		t.Cleanup(func() { _ = client.Close() })
		wantUnsafe(t, durableredis.Check(context.Background(), client), c.want)
	}
}

func TestNotAnswered(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := durableredis.Check(ctx, client); err == nil || errors.Is(err, durableredis.ErrUnsafe) {
		t.Errorf("nobody there: %v", err)
	}
}

// answering returns the address of a server that answers INFO with text, and every
// other command with an error, as a server of before the command would.
func answering(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					answer := ""
					switch word := strings.ToLower(lines.Text()); {
					case word == "info":
						answer = fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
					case word == "hello", word == "client":
						answer = "-ERR unknown command\r\n"
					}
					if _, err := conn.Write([]byte(answer)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// A Redis that is reading its append-only file says that it has none. That is no answer yet.
func TestLoadingIsNoAnswer(t *testing.T) {
	t.Parallel()
	const keys = 20_000
	r := testenv.Redis(t, testenv.RedisArgs("--key-load-delay", "100"))
	ctx := t.Context()
	client := r.Client()
	if _, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range keys {
			p.Set(ctx, fmt.Sprint(i), "x", 0)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r.Stop()
	started := make(chan struct{})
	go func() { defer close(started); r.Start() }()
	loading := 0
	for done, ended := false, false; !done; {
		select {
		case <-started:
			ended = true // it answers from now on, or could not be started
		default:
		}
		err := durableredis.Check(ctx, client)
		if err != nil && strings.Contains(err.Error(), "still loading") {
			loading++
		}
		if done = err == nil || ended || errors.Is(err, durableredis.ErrUnsafe); done && err != nil {
			t.Error(err)
		}
	}
	<-started
	if loading == 0 {
		t.Error("it was never seen loading: the test shows nothing")
	}
}
