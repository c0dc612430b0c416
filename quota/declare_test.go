package quota_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// declareHook counts how often a replica reads the epoch, and how often it declares. Before
// it declares in the second one for the first time, there is another.
type declareHook struct {
	plain          redis.UniversalClient
	looks, declare atomic.Int64
}

func (h *declareHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *declareHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return slices.Contains(c.Args(), any("m:a")) }) {
			h.looks.Add(1)
		}
		return next(ctx, cmds)
	}
}

func (h *declareHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); slices.Contains(args, any("d:a")) && slices.Contains(args, any(int64(2))) {
			if h.declare.Add(1) == 1 {
				if err := h.plain.HSet(ctx, contract.QuotaEpochKey, "epoch", 3, "state", "building", "m:a", "-").Err(); err != nil {
					return err
				}
				h.looks.Store(0)
			}
		}
		return next(ctx, cmd)
	}
}

// A replica that comes to declare in an epoch when another one has begun tries again when it
// may have heard of that, and not all the time.
func TestDeclarationInAnotherEpoch(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	plain := newClient(t, server)
	hook := &declareHook{plain: p.client}
	plain.AddHook(hook)
	o := quick()
	o.FollowEvery = 100 * time.Millisecond
	r := startWith(t, plain, guardedClient(t, server, p.client), newDisk("a"), o)
	r.untilOpen(t, 1)
	p.pause(true)
	ctx := t.Context()
	e, err := p.Epoch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	servers, err := p.Servers(ctx, &e)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Begin(ctx, 2, servers.IDs, []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Build(ctx, 2, []quota.Record{{Account: acct}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Declare(ctx, 2, map[string]int64{"a": 0}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, "it has looked some times since", func() error {
		if d, n := hook.declare.Load(), hook.looks.Load(); d == 0 || n < 10 {
			return errors.New("not yet")
		}
		return nil
	})
	if d, n := hook.declare.Load(), hook.looks.Load(); d > 3*n {
		t.Errorf("it tried %d times to declare, and looked %d times at the epoch", d, n)
	}
	// It does in the epoch that there is.
	if err := p.Build(ctx, 3, []quota.Record{{Account: acct}}); err != nil {
		t.Fatal(err)
	}
	if err := p.Declare(ctx, 3, map[string]int64{"a": 0}, nil); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.epoch = 3
	p.mu.Unlock()
	p.pause(false)
	r.untilOpen(t, 3)
}
