package grants

import (
	"context"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// tellEvery is how often Redis is told at most. Changes that come faster are told together,
// and while nothing changes nothing is sent.
const tellEvery = 10 * time.Millisecond

// tellMoved wakes tellPosition. What is before the position is in force by now.
func (f *follower) tellMoved() {
	select {
	case f.moved <- struct{}{}:
	default: // it is about to look
	}
}

// tellPosition tells Redis how far the feed was applied, until ctx ends; then nobody need
// wait for this replica any more, and it says so. It is only for
// whoever wants to know when a change is in force: nothing here waits for it, and what
// cannot be told is not told again before the next change.
func (c *Cache) tellPosition(ctx context.Context) {
	if c.opts.Replica == "" {
		return
	}
	defer func() {
		timed, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opts.ReadTimeout)
		defer cancel()
		_ = c.client.HDel(timed, contract.FeedAppliedKey, c.opts.Replica).Err()
	}()
	for told := int64(-1); ; {
		select {
		case <-ctx.Done():
			return
		case <-c.moved:
		}
		at := c.position.Load()
		if at == told {
			continue
		}
		told = at
		timed, cancel := context.WithTimeout(ctx, c.opts.ReadTimeout)
		err := c.client.HSet(timed, contract.FeedAppliedKey, c.opts.Replica, at).Err()
		cancel()
		if err != nil {
			c.opts.Logger.Debug("cannot tell how far the feed was applied", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(tellEvery):
		}
	}
}
