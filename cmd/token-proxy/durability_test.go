package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota/quotatest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// proxy is a token-proxy on one Redis, with nothing behind it.
type proxy struct {
	*testenv.Program
	admin, log string
}

func start(t *testing.T, redisURL string, allowUnsafe bool) *proxy {
	t.Helper()
	dir := t.TempDir()
	p := &proxy{admin: fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)), log: filepath.Join(dir, "log")}
	pepper, config := filepath.Join(dir, "pepper"), filepath.Join(dir, "config.json")
	cfg, err := json.Marshal(map[string]any{
		"listen": fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t)), "admin": p.admin, "redis_url": redisURL,
		"token_pepper_file": pepper, "allow_unsafe_redis": allowUnsafe, "journal_dir": filepath.Join(dir, "journal"),
		"upstreams": []any{map[string]any{
			"name": "nowhere", "face": "openai", "base_url": "http://127.0.0.1:1/v1", "allow_private": true,
			"models": map[string]string{"m": "m"}, "keys": []any{map[string]string{"name": "k", "secret": "sk-fake-key"}},
		}},
		"timeouts": map[string]any{"pre_stop": "10ms", "drain": "1s", "grace": "2s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{pepper: []byte("a pepper that is fake"), config: cfg} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.Program = testenv.Start(t, nil, p.log, testenv.BuildBinary(t, "./cmd/token-proxy"), "-config", config)
	t.Cleanup(func() { _ = p.Stop(5 * time.Second) })
	return p
}

func (p *proxy) said() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// readyz returns the status of /readyz, 0 while nobody listens, and its text.
func (p *proxy) readyz() (int, string) {
	r, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

func (p *proxy) await(t *testing.T, status int, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, said := p.readyz()
		if got == status && strings.Contains(said, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz: %d %s; want %d %s\n%s", got, said, status, text, p.said())
		}
	}
}

// An unsafe Redis is refused, also one that forbids CONFIG.
func TestRefusesAnUnsafeRedis(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--appendonly", "no"},
		{"--appendonly", "no", "--rename-command", "CONFIG", ""},
	} {
		p := start(t, testenv.Redis(t, testenv.RedisArgs(args...)).URL, false)
		for deadline := time.Now().Add(20 * time.Second); !p.Ended(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%v: still runs\n%s", args, p.said())
			}
		}
		if !strings.Contains(p.said(), `set "appendonly yes"`) {
			t.Errorf("%v: %s", args, p.said())
		}
	}
}

// Each master of a Cluster has to keep data, and where Sentinels watch, the present one.
func TestRefusesAnUnsafeMaster(t *testing.T) {
	t.Parallel()
	cluster, sentinel := testenv.RedisCluster(t), testenv.RedisSentinel(t)
	quotatest.New(t, cluster.Client())
	quotatest.New(t, sentinel.Client())
	start(t, cluster.URL, false).await(t, http.StatusOK, "ready")
	start(t, sentinel.URL, false).await(t, http.StatusOK, "ready")
	for url, master := range map[string]*testenv.RedisServer{cluster.URL: cluster.Masters[2], sentinel.URL: sentinel.Master()} {
		if err := master.Client().ConfigSet(t.Context(), "appendonly", "no").Err(); err != nil {
			t.Fatal(err)
		}
		p := start(t, url, false)
		for deadline := time.Now().Add(20 * time.Second); !p.Ended(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("still runs on %s\n%s", url, p.said())
			}
		}
		if !strings.Contains(p.said(), `set "appendonly yes"`) || url == cluster.URL && !strings.Contains(p.said(), master.Addr) {
			t.Errorf("%s: %s", url, p.said())
		}
	}
}

// Redis is away at the start: the proxy waits for it, and is not ready before it knows
// that this Redis keeps data.
func TestNotReadyUntilRedisIsKnownToKeepData(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t, testenv.RedisArgs("--appendonly", "no"))
	quotatest.New(t, redis.Client())
	redis.Stop()
	p := start(t, redis.URL, false)
	p.await(t, http.StatusServiceUnavailable, "ask Redis how it keeps data")
	redis.Start()
	p.await(t, http.StatusServiceUnavailable, "appendonly yes")
	if r, err := http.Get("http://" + p.admin + "/healthz"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %v, %v", r, err)
	}
	if err := redis.Client().ConfigSet(context.Background(), "appendonly", "yes").Err(); err != nil {
		t.Fatal(err)
	}
	p.await(t, http.StatusOK, "ready")
}

func TestUnsafeRedisAllowed(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t, testenv.RedisArgs("--appendonly", "no"))
	quotatest.New(t, redis.Client())
	p := start(t, redis.URL, true)
	p.await(t, http.StatusOK, "ready")
	if !strings.Contains(p.said(), "allow_unsafe_redis") {
		t.Errorf("no warning:\n%s", p.said())
	}
}
