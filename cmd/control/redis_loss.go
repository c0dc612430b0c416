package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// restoreAfter says how long after a loss of Redis' data the limits are restored once
// more: what was used shortly before the loss comes to Postgres with a delay, and
// requests that it overtook are counted there only when they end.
func restoreAfter() []time.Duration {
	return []time.Duration{3 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}
}

// watchRedis looks every interval whether Redis has lost its data, and then writes to
// it again what proxies need, until ctx ends.
func watchRedis(ctx context.Context, interval time.Duration, service *customers.Service, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var again []time.Time
	for {
		done, err := service.RepublishLost(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("cannot republish all that Redis should have", "error", err)
		}
		if done.Customers > 0 {
			log.Warn("Redis was new, had lost its data or had gone back; all grants and limits are republished",
				"customers", done.Customers, "tokens", done.Tokens, "skipped", done.Skipped)
			again = again[:0]
			for _, d := range restoreAfter() {
				again = append(again, time.Now().Add(d))
			}
		}
		if len(again) > 0 && time.Now().After(again[0]) {
			if err := service.RestoreLimits(ctx); err == nil {
				again = again[1:]
			} else if ctx.Err() == nil {
				log.Warn("cannot restore limits", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
