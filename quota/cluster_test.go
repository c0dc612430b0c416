package quota_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// On a Redis Cluster records are on several servers, and scripts and pipelines go to each.
// One server that is restarted ends the epoch for all.
func TestCluster(t *testing.T) {
	t.Parallel()
	server := testenv.RedisCluster(t)
	client := func() *redis.ClusterClient {
		c := server.Client()
		return c
	}
	guarded := func(plain redis.UniversalClient) *redis.ClusterClient {
		o := *client().Options()
		o.OnConnect = quota.NewGuard(plain).Check
		c := redis.NewClusterClient(&o)
		t.Cleanup(func() { c.Close() })
		return c
	}
	p := newPlaneOn(t, client())
	accts := make([]quota.Account, 24)
	for i := range accts {
		accts[i] = account(t, 1000)
		accts[i].Customer = fmt.Sprintf("c%d", i)
		p.add(t, accts[i])
	}
	begin := func(d *disk) *replica {
		plain := client()
		return startWith(t, plain, guarded(plain), d, quick())
	}
	d := newDisk("a")
	a, b := begin(d), begin(newDisk("b"))
	for i, acct := range accts {
		a.j.use(a.reserveAnyway(t, acct, 500), int64(100+i))
		a.Release(a.reserveAnyway(t, acct, 300))
		b.j.use(b.await(t, acct, int64(900-i)), 1) // needs what is idle at a
	}
	a.j.begin(a.mustReserve(t, accts[0], 50)).used = 20
	a.kill()
	a = begin(d)
	a.flush(t)
	b.flush(t)
	for i, acct := range accts {
		used := int64(101 + i)
		if i == 0 {
			used += 20
		}
		p.wantUsage(t, acct, 1000, used, 0)
	}

	p.pause(true)
	server.Masters[1].Stop()
	server.Masters[1].Start()
	until(t, "one of them is not trusted", func() error {
		for _, acct := range accts {
			if _, err := b.Reserve(context.Background(), acct, 1); errors.Is(err, quota.ErrUntrusted) {
				return nil
			} else if err != nil {
				return err
			}
		}
		time.Sleep(50 * time.Millisecond)
		return errors.New("all are")
	})
	p.pause(false)
	a.untilOpen(t, 2)
	b.untilOpen(t, 2)
	for i, acct := range accts {
		used := int64(101 + i)
		if i == 0 {
			used += 20
		}
		a.reserveAnyway(t, acct, 999-used)
		b.awaitExceeds(t, acct, 1001-used)
	}
	a.flush(t)
	b.flush(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Error(err)
	}
}
