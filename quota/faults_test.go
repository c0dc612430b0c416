package quota_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// fault is what happens to a trip to Redis.
type fault uint8

const (
	fine   fault = iota
	lost         // Redis never hears it
	mute         // Redis hears it, its answer is lost
	double       // Redis hears it twice, and the second answer counts
	late         // Redis hears it only when the test says so; the caller gives up before
)

// faults makes trips to Redis fail as choose says. It is a hook of a client.
type faults struct {
	choose func() fault

	mu      sync.Mutex
	delayed []func() // late trips, in the order in which they were made
}

var errFault = errors.New("fault of the test")

// newFaults returns a guarded client whose trips fail as choose says. It is asked by one
// trip at a time.
func newFaults(t testing.TB, server *testenv.RedisServer, plain redis.UniversalClient, choose func() fault) (*faults, *redis.Client) {
	f := &faults{choose: choose}
	client := guardedClient(t, server, plain)
	client.AddHook(f)
	return f, client
}

// deliver lets Redis hear what is late.
func (f *faults) deliver() {
	f.mu.Lock()
	delayed := f.delayed
	f.delayed = nil
	f.mu.Unlock()
	for _, send := range delayed {
		send()
	}
}

func (f *faults) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (f *faults) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return f.trip([]redis.Cmder{cmd}, func(cmds []redis.Cmder) error { return next(ctx, cmds[0]) },
			func(cmds []redis.Cmder) { _ = next(context.WithoutCancel(ctx), cmds[0]) })
	}
}

func (f *faults) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return f.trip(cmds, func(cmds []redis.Cmder) error { return next(ctx, cmds) },
			func(cmds []redis.Cmder) { _ = next(context.WithoutCancel(ctx), cmds) })
	}
}

func (f *faults) trip(cmds []redis.Cmder, now func([]redis.Cmder) error, later func([]redis.Cmder)) error {
	// Connections are checked with commands of their own.
	if name := cmds[0].Name(); name != "evalsha" && name != "eval" {
		return now(cmds)
	}
	f.mu.Lock()
	choice := f.choose()
	f.mu.Unlock()
	copies := func() []redis.Cmder {
		c := make([]redis.Cmder, len(cmds))
		for i, cmd := range cmds {
			c[i] = redis.NewCmd(context.Background(), cmd.Args()...)
		}
		return c
	}
	switch choice {
	case mute:
		_ = now(copies())
	case double:
		_ = now(copies())
		return now(cmds)
	case late:
		c := copies()
		f.mu.Lock()
		f.delayed = append(f.delayed, func() { later(c) })
		f.mu.Unlock()
	case lost:
	default:
		return now(cmds)
	}
	for _, cmd := range cmds {
		cmd.SetErr(errFault)
	}
	return errFault
}

// script returns a choose that plays the given faults once, and then nothing but fine.
func script(faults ...fault) func() fault {
	return func() fault {
		if len(faults) == 0 {
			return fine
		}
		f := faults[0]
		faults = faults[1:]
		return f
	}
}

// sleepUntil is time.Sleep for those who wait for a time to pass and for nothing else.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
