package quota

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Guard checks that a connection leads to a Redis whose data the epoch trusts: one that
// was restarted, failed over or put back may have lost some. Give Check to the guarded
// client as its OnConnect. Safe for concurrent use.
//
// What is trusted is trusted in the epoch of the call for which the connection is made, and
// in later ones, never in an earlier one: the control plane trusts a Redis that was put
// back as soon as a new epoch begins, while its old records are still there and some
// replicas still make calls of the old epoch.
//
// A server that was found trusted in an epoch stays so in that epoch, whatever becomes of the
// one server of a Redis Cluster that knows the epoch.
type Guard struct {
	client redis.UniversalClient
	newest atomic.Int64 // epoch of the replica, see entered

	mu      sync.Mutex
	trusted map[string]struct{} // servers that were found trusted in epoch in
	in      int64
}

// NewGuard returns a Guard that reads the epoch through client, which must not be the
// guarded one.
func NewGuard(client redis.UniversalClient) *Guard {
	return &Guard{client: client}
}

// ErrUntrusted says that a Redis was restarted or has taken over since the epoch began.
var ErrUntrusted = errors.New("this Redis was started after the quota's epoch began: waiting for the control plane to rebuild the limits")

type epochOfCall struct{}

// inEpoch tells Check the epoch of the call that ctx is for.
func inEpoch(ctx context.Context, epoch int64) context.Context {
	return context.WithValue(ctx, epochOfCall{}, epoch)
}

// Check reports ErrUntrusted unless conn leads to a trusted Redis.
func (g *Guard) Check(ctx context.Context, conn *redis.Conn) error {
	epoch, ok := ctx.Value(epochOfCall{}).(int64)
	if !ok {
		// A Cluster's client that looks for its servers. Calls may use the connection later,
		// so it must not be trusted in a newer epoch than theirs.
		epoch = g.newest.Load()
	}
	id, err := identify(ctx, conn)
	if err != nil {
		return fmt.Errorf("check Redis: %w", err)
	}
	if g.known(epoch, id) {
		return nil
	}
	values, err := g.client.HMGet(ctx, contract.QuotaEpochKey, "epoch", "node:"+id).Result()
	if err != nil {
		return fmt.Errorf("check Redis: %w", err)
	}
	want := strconv.FormatInt(epoch, 10)
	if epoch <= 0 || values[0] != want || values[1] != want {
		return ErrUntrusted
	}
	g.trust(epoch, id)
	return nil
}

// entered says that the replica makes calls of an epoch from now on. Calls alone would not
// tell: if all of them go to a server that has been replaced, no connection is made for any,
// and the client is not let to a server that knows the new one. A nil Guard is told nothing.
func (g *Guard) entered(epoch int64) {
	if g != nil {
		g.newest.Store(epoch)
	}
}

func (g *Guard) known(epoch int64, id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.trusted[id]
	return ok && g.in == epoch
}

func (g *Guard) trust(epoch int64, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch < g.in {
		return
	}
	if epoch > g.in {
		g.in, g.trusted = epoch, map[string]struct{}{}
	}
	g.trusted[id] = struct{}{}
}

// identify returns what names the data of a Redis server while it loses none of it: its run
// id, which is another one whenever it starts, and the id of its history, which is another
// one whenever it has been a replica and is not any more. The latter also changes now and
// then when replicas come and go.
func identify(ctx context.Context, c redis.Cmdable) (string, error) {
	var about, history *redis.StringCmd
	_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		about, history = p.Info(ctx, "server"), p.Info(ctx, "replication")
		return nil
	})
	if err != nil {
		return "", err
	}
	run := field(about.Val(), "run_id")
	if run == "" {
		return "", errors.New("INFO has no run_id")
	}
	return run + "/" + field(history.Val(), "master_replid"), nil
}

// field returns a field of an answer to INFO, "" if it has none.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
