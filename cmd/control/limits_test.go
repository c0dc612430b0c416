package main_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The worker that keeps the limits in Redis is killed, and the next one is stopped:
// another takes over, and a loss of Redis' data is made good.
func TestAnotherKeepsTheLimits(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	client := world.redis.Client()
	open := func() bool { return client.HGet(context.Background(), contract.QuotaEpochKey, "state").Val() == "open" }
	workers := []*worker{startWorker(t, world.env), startWorker(t, world.env), startWorker(t, world.env)}
	all := func() (said string) {
		for _, w := range workers {
			said += w.said()
		}
		return said
	}
	const leads = "this process keeps the limits in Redis from now on"
	leader := func(than ...*worker) (found *worker) {
		await(t, "a leader", func() bool {
			for _, w := range workers {
				is := strings.Contains(w.said(), leads)
				for _, other := range than {
					is = is && w != other
				}
				if is {
					found = w
					return true
				}
			}
			return false
		}, all)
		return found
	}
	first := leader()
	await(t, "the epoch", open, all)
	first.end(syscall.SIGKILL)
	killed := time.Now()
	second := leader(first)
	t.Logf("killed: another leads after %v", time.Since(killed).Round(time.Millisecond))
	lose := func() {
		world.redis.FlushAll()
		await(t, "the limit", func() bool {
			return open() && client.HGet(context.Background(), contract.QuotaKey(world.customer, world.period), "limit").Val() == "1000"
		}, all)
	}
	lose()
	if err := second.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	third := leader(first, second)
	t.Logf("stopped: another leads after %v", time.Since(stopped).Round(time.Millisecond))
	lose()
	if err := second.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	lose()
	if code := third.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, third.said())
	}
	await(t, "the second to lead again", func() bool { return strings.Count(second.said(), leads) == 2 }, all)
}

// A replica that is registered and gone keeps limits from being leased after a loss. That
// is said where operators look.
func TestReadinessTellsOfAbsentReplicas(t *testing.T) {
	t.Parallel()
	world := newWorld(t)
	w := startWorker(t, world.env)
	ctx, client := context.Background(), world.redis.Client()
	await(t, "the epoch", func() bool { return client.HGet(ctx, contract.QuotaEpochKey, "state").Val() == "open" }, w.said)
	ms := 0
	await(t, "the register", func() bool {
		ms++
		client.HSet(ctx, contract.QuotaBeatsKey, "r9", fmt.Sprintf("%d|1|0|0|live", ms))
		return client.HExists(ctx, contract.QuotaEpochKey, "m:r9").Val()
	}, w.said)
	world.redis.FlushAll()
	await(t, "the note", func() bool {
		code, body := w.get("/readyz")
		return code == 200 && strings.HasPrefix(body, "ready\nnote: no lease can grow: epoch ") && strings.Contains(body, "waits for replicas r9")
	}, w.said)
	if _, body := w.get("/metrics"); !strings.Contains(body, "\ncontrol_quota_undeclared_replicas 1\n") || !strings.Contains(body, "\ncontrol_quota_epoch_open 0\n") {
		t.Errorf("metrics\n%s", body)
	}
	if !strings.Contains(w.said(), "ALERT") {
		t.Error("no alert")
	}
}
