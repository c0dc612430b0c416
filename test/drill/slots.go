package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// moveSlot moves the slot of a key, with all its keys, to the next master of the Cluster, as
// an operator does who spreads them anew. All masters must run.
func (r *redisServer) moveSlot(key string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	clients, ids := make([]*redis.Client, len(r.nodes)), make([]string, len(r.nodes))
	for i, n := range r.nodes {
		clients[i] = n.direct()
		defer clients[i].Close()
		if ids[i], err = clients[i].ClusterMyID(ctx).Result(); err != nil {
			return fmt.Errorf("move a slot: %w", err)
		}
	}
	slot, err := clients[0].ClusterKeySlot(ctx, key).Result()
	if err != nil {
		return fmt.Errorf("move a slot: %w", err)
	}
	ranges, err := clients[0].ClusterSlots(ctx).Result()
	if err != nil {
		return fmt.Errorf("move a slot: %w", err)
	}
	from := -1
	for _, s := range ranges {
		if s.Start <= int(slot) && int(slot) <= s.End {
			from = slices.Index(ids, s.Nodes[0].ID)
		}
	}
	if from < 0 {
		return fmt.Errorf("move a slot: nobody has slot %d", slot)
	}
	to := (from + 1) % len(r.nodes)
	setSlot := func(i int, args ...any) {
		if e := clients[i].Do(ctx, append([]any{"CLUSTER", "SETSLOT", slot}, args...)...).Err(); e != nil && err == nil {
			err = fmt.Errorf("move slot %d: %w", slot, e)
		}
	}
	setSlot(to, "IMPORTING", ids[from])
	setSlot(from, "MIGRATING", ids[to])
	for err == nil {
		keys, e := clients[from].ClusterGetKeysInSlot(ctx, int(slot), 100).Result()
		if e != nil || len(keys) == 0 {
			err = e
			break
		}
		// What an older copy of its data has left there is replaced.
		args := []any{"MIGRATE", "127.0.0.1", r.nodes[to].port, "", 0, 1000, "REPLACE", "KEYS"}
		for _, k := range keys {
			args = append(args, k)
		}
		err = clients[from].Do(ctx, args...).Err()
	}
	if err != nil {
		// As before, as far as that goes.
		return errors.Join(err, clients[to].Do(ctx, "CLUSTER", "SETSLOT", slot, "STABLE").Err(), clients[from].Do(ctx, "CLUSTER", "SETSLOT", slot, "STABLE").Err())
	}
	setSlot(to, "NODE", ids[to])
	for i := range r.nodes {
		setSlot(i, "NODE", ids[to])
	}
	return err
}
