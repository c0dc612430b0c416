package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/customers"
)

// watchRedis looks every interval whether Redis has lost its data, and then writes to
// it again what proxies need, until ctx ends.
func watchRedis(ctx context.Context, interval time.Duration, service *customers.Service, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		done, err := service.RepublishLost(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("cannot republish all that Redis should have", "error", err)
		}
		if done.Customers > 0 {
			log.Warn("Redis was new, had lost its data or had gone back; all grants are republished",
				"customers", done.Customers, "tokens", done.Tokens, "skipped", done.Skipped)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
