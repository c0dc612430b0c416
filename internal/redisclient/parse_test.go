package redisclient_test

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
)

func open(t *testing.T, url string, o redisclient.Options) redis.UniversalClient {
	t.Helper()
	target, err := redisclient.Parse(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	client := target.Open(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestSingle(t *testing.T) {
	t.Parallel()
	c, ok := open(t, "redis://u:p%40ss@h:7000/3?pool_size=7&read_timeout=3s", redisclient.Options{}).(*redis.Client)
	if !ok {
		t.Fatal("not a client of one server")
	}
	o := c.Options()
	if o.Addr != "h:7000" || o.Username != "u" || o.Password != "p@ss" || o.DB != 3 || o.PoolSize != 7 || o.ReadTimeout != 3*time.Second || !o.ContextTimeoutEnabled || o.TLSConfig != nil {
		t.Errorf("options %+v", o)
	}
	c = open(t, "rediss://h?pool_size=7", redisclient.Options{Timeout: time.Minute, MaxRetries: -1, DialerRetries: 1, PoolSize: 2, IdleTime: time.Second}).(*redis.Client)
	o = c.Options()
	if o.Addr != "h:6379" || o.DialTimeout != time.Minute || o.ReadTimeout != time.Minute || o.WriteTimeout != time.Minute || o.MaxRetries != 0 || o.DialerRetries != 1 || o.PoolSize != 2 || o.ConnMaxIdleTime != time.Second {
		t.Errorf("the caller's options: %+v", o)
	}
	if o.TLSConfig == nil || o.TLSConfig.ServerName != "h" {
		t.Errorf("TLS %+v", o.TLSConfig)
	}
	// An unescaped @ of a password was understood before there were lists of hosts.
	if o := open(t, "redis://:p@ss@h:1/0", redisclient.Options{}).(*redis.Client).Options(); o.Password != "p@ss" {
		t.Errorf("password %q", o.Password)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c, ok := open(t, "redis-cluster://u:p%2Fw@h1:7000,h2,[::1]:7002?max_redirects=8&pool_size=7", redisclient.Options{
		Timeout: time.Second, MaxRetries: -1, DialerRetries: 1,
	}).(*redis.ClusterClient)
	if !ok {
		t.Fatal("not a client of a Cluster")
	}
	o := c.Options()
	if !slices.Equal(o.Addrs, []string{"h1:7000", "h2:6379", "[::1]:7002"}) || o.Username != "u" || o.Password != "p/w" {
		t.Errorf("addresses %v, user %q, password %q", o.Addrs, o.Username, o.Password)
	}
	if o.MaxRedirects != 8 || o.PoolSize != 7 || o.ReadTimeout != time.Second || o.DialTimeout != time.Second || !o.ContextTimeoutEnabled || o.DialerRetries != 1 || o.ReadOnly {
		t.Errorf("options %+v", o)
	}
	if o.ClusterStateReloadInterval > 5*time.Second {
		t.Errorf("where keys are is asked every %v: a fail-over would outlast the grace", o.ClusterStateReloadInterval)
	}
	// One host is enough to find the others, and the case of a scheme does not matter.
	if o := open(t, "Redis-Cluster://h1/0", redisclient.Options{}).(*redis.ClusterClient).Options(); !slices.Equal(o.Addrs, []string{"h1:6379"}) {
		t.Errorf("addresses %v", o.Addrs)
	}
	wantOwnNames(t, open(t, "rediss-cluster://h1,h2", redisclient.Options{}).(*redis.ClusterClient).Options().TLSConfig)
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	c, ok := open(t, "redis-sentinel://u:p%2Fw@h1,h2:7000/3?master=m&sentinel_username=su&sentinel_password=s%3Aw&pool_size=7", redisclient.Options{Timeout: time.Second}).(*redis.Client)
	if !ok {
		t.Fatal("not a client of a master")
	}
	o := c.Options()
	if o.Addr != "FailoverClient" || o.DB != 3 || o.Username != "u" || o.Password != "p/w" || o.PoolSize != 7 || o.ReadTimeout != time.Second || !o.ContextTimeoutEnabled {
		t.Errorf("options %+v", o)
	}
	target, err := redisclient.Parse("redis-sentinel://u:p%2Fw@h1,h2:7000/3?master=m&sentinel_username=su&sentinel_password=s%3Aw")
	if err != nil {
		t.Fatal(err)
	}
	f := redisclient.Sentinel(target)
	if !slices.Equal(f.SentinelAddrs, []string{"h1:26379", "h2:7000"}) || f.MasterName != "m" || f.SentinelUsername != "su" || f.SentinelPassword != "s:w" {
		t.Errorf("Sentinels %v, master %q, user %q, password %q", f.SentinelAddrs, f.MasterName, f.SentinelUsername, f.SentinelPassword)
	}
	target, err = redisclient.Parse("rediss-sentinel://:pw@h1/?master=m")
	if err != nil {
		t.Fatal(err)
	}
	f = redisclient.Sentinel(target)
	if f.SentinelUsername != "" || f.SentinelPassword != "" || f.Username != "" || f.Password != "pw" {
		t.Errorf("users %q and %q, passwords %q and %q", f.Username, f.SentinelUsername, f.Password, f.SentinelPassword)
	}
	wantOwnNames(t, f.TLSConfig)
}

// wantOwnNames wants each server's certificate to be checked for its own name.
func wantOwnNames(t *testing.T, c *tls.Config) {
	t.Helper()
	if c == nil || c.ServerName != "" || c.InsecureSkipVerify {
		t.Errorf("TLS %+v", c)
	}
}

func TestWrongURLs(t *testing.T) {
	t.Parallel()
	const pw = "hunter2"
	for _, c := range []struct{ url, want string }{
		{"", "redis-cluster://"},
		{pw, "redis-cluster://"},
		{"h:6379", "redis-cluster://"},
		{"http://u:" + pw + "@h", "redis-sentinel://"},
		{pw + "://h", "redis-sentinel://"},
		{"redis://u:" + pw + "@h:1,h:2/0", "begins with redis-cluster://"},
		{"redis://u:" + pw + "@h:port/0", "the host has no port"},
		{"redis://u:" + pw + "@h:1:2/0", "the host is not like host:port"},
		{"redis://u:" + pw, "the host has no port"},
		{"redis://u:" + pw + "%zz@h/0", "malformed"},
		{"redis://u:x/" + pw + "@h/0", "%2F"},
		{"redis://u:x?" + pw + "@h/0", "%3F"},
		{"redis://u:x#" + pw + "@h/0", "%23"},
		{"redis://u:" + pw + "@h/zero", `database number: "zero"`},
		{"redis://u:" + pw + "@h/0?pool=1", "unexpected option: pool"},
		{"redis://u:" + pw + "@h/0?pool_size=many", "pool_size"},
		{"redis://u:" + pw + "@h/0?x=%zz", "malformed"},
		{"redis-cluster://", "host 1 of the list is missing"},
		{"redis-cluster://u:" + pw + "@h1,,h2", "host 2 of the list is missing"},
		{"redis-cluster://u:" + pw, "host 1 of the list has no port"},
		{"redis-cluster://h1,u:" + pw + "@h2:7000,", "host 2 of the list is missing"},
		{"redis-cluster://h1,h2:0", "host 2 of the list has no port from 1 to 65535"},
		{"redis-cluster://h1:1:2", "host 1 of the list is not like host:port"},
		{"redis-cluster://u:" + pw + "@h1,u:" + pw + "@h2", "only @"},
		{"redis-cluster://u:" + pw + "@h1,h2/1", "no databases"},
		{"redis-cluster://h1?addr=h2:1", "addr cannot be used"},
		{"redis-cluster://h1?read_only=true", "read_only cannot be used"},
		{"redis-cluster://h1?route_randomly=true", "route_randomly cannot be used"},
		{"redis-cluster://u:" + pw + "@h1?tls=1", "unexpected option: tls"},
		{"redis-sentinel://u:" + pw + "@h1,h2/0", "?master="},
		{"redis-sentinel://h1/0?master=", "?master= is empty"},
		{"redis-sentinel://h1/0?master=m&password=" + pw, "password cannot be used"},
		{"redis-sentinel://h1/0?master=m&replica_only=true", "replica_only cannot be used"},
		{"redis-sentinel://h1/0?master=m&route_by_latency=true", "route_by_latency cannot be used"},
		{"redis-sentinel://u:" + pw + "%zz@h1/0?master=m", "malformed"},
		{"redis-sentinel://u:" + pw + "@h1/zero?master=m", `database number: "zero"`},
		{"redis-sentinel://h1/0?master=m&sentinel_password=" + pw + "&x=1", "unexpected option: x"},
	} {
		target, err := redisclient.Parse(c.url)
		if err == nil || target != nil {
			t.Errorf("%s is understood", c.url)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", c.url, err, c.want)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), pw) {
			t.Errorf("%s: the password is in: %v", c.url, err)
		}
	}
}
