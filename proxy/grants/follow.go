package grants

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const (
	// catchUpPage is how many changes are read at a time.
	catchUpPage = 512
	// floorMargin is how much longer than entries floors are kept.
	floorMargin = time.Minute
	// floorsPerEntry bounds the floors: with more, starting afresh is cheaper.
	floorsPerEntry = 2
)

// place is where a reader of the feed is: the newest change that it has applied. The
// text tells two histories apart that happen to have the same number, as after a loss
// of Redis' data.
type place struct {
	seq  int64
	text string
}

// follower is the state of Run.
type follower struct {
	*Cache
	at      place
	known   bool
	failed  bool // the last poll
	cleaned time.Duration
}

// Run follows the feed until ctx ends and then returns nil. Pub/sub messages wake it;
// what it relies on is the log, which it compares with its own place every poll
// interval and after each reconnection. Call it once.
func (c *Cache) Run(ctx context.Context) error {
	sub := c.client.Subscribe(ctx, contract.FeedChannel)
	defer sub.Close()
	wake := sub.ChannelWithSubscriptions(redis.WithChannelSize(1024))
	f := &follower{Cache: c}
	tick := time.NewTicker(c.opts.PollInterval)
	defer tick.Stop()
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { c.tellPosition(ctx) })
	f.poll(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f.poll(ctx)
			f.clean()
		case event, ok := <-wake:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("follow feed: subscription ended")
			}
			if message, ok := event.(*redis.Message); !ok || !f.next(message.Payload) {
				f.poll(ctx) // subscribed anew, or not the next change
			}
		}
	}
}

// next applies text if it is the change after the present place. It reports false if
// the log has to be read.
func (f *follower) next(text string) bool {
	change, err := contract.DecodeChange([]byte(text))
	if err != nil || !f.known {
		return false
	}
	if change.Seq <= f.at.seq {
		return change.Seq < f.at.seq || text == f.at.text
	}
	if change.Seq != f.at.seq+1 {
		return false
	}
	f.apply(change)
	f.move(place{change.Seq, text})
	f.tellMoved()
	return true
}

// poll compares the log with the present place and makes up for the difference.
func (f *follower) poll(ctx context.Context) {
	// Hearing counts from before the question: the answer may be that old.
	sent := f.now()
	if err := f.compare(ctx); err != nil {
		if ctx.Err() == nil && !f.failed {
			f.opts.Logger.Warn("configuration feed cannot be read; will retry", "error", err)
		}
		f.failed = true
		return
	}
	if f.failed {
		f.opts.Logger.Info("configuration feed is back", "seq", f.at.seq)
	}
	f.failed = false
	f.heard.Store(int64(sent))
	f.ready.Store(true)
	f.tellMoved()
}

func (f *follower) compare(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, f.opts.ReadTimeout)
	defer cancel()
	m, err := f.marks(timed)
	if err != nil {
		return err
	}
	// Noted last, so that a new mark is told from the one before the loss.
	defer func() { f.absence.believed(m, f.now()) }()
	newest, err := f.client.XRevRangeN(timed, contract.FeedLogKey, "+", "-", 1).Result()
	if err != nil {
		return fmt.Errorf("read newest change: %w", err)
	}
	top, err := topOf(newest)
	if err != nil {
		return err
	}
	switch {
	case !f.known:
		f.known = true
		f.move(top)
		return nil
	case top == f.at:
		return nil
	case top.seq > f.at.seq:
		if found, err := f.catchUp(ctx); found || err != nil {
			return err
		}
	default:
		f.absence.lose()
	}
	f.opts.Logger.Warn("changes of the configuration were missed; starting afresh",
		"seq", f.at.seq, "newest", top.seq)
	f.restart(top)
	return nil
}

// catchUp applies what the log has after the present place. It reports false if the
// log does not have the place itself, or has gaps.
func (f *follower) catchUp(ctx context.Context) (found bool, err error) {
	for {
		timed, cancel := context.WithTimeout(ctx, f.opts.ReadTimeout)
		from := strconv.FormatInt(f.at.seq, 10)
		page, err := f.client.XRangeN(timed, contract.FeedLogKey, from, "+", catchUpPage).Result()
		cancel()
		if err != nil {
			return true, fmt.Errorf("read changes from %s: %w", from, err)
		}
		start := f.at
		if start.seq > 0 {
			if len(page) == 0 {
				return false, nil
			}
			own, err := placeOf(page[0])
			if err != nil {
				return false, err
			}
			if own.seq == start.seq && own != start {
				f.absence.lose()
			}
			if own != start {
				return false, nil
			}
		}
		for _, message := range page {
			p, err := placeOf(message)
			if err != nil {
				return true, err
			}
			if p.seq == f.at.seq {
				continue
			}
			if p.seq != f.at.seq+1 {
				return false, nil
			}
			change, err := contract.DecodeChange([]byte(p.text))
			if err != nil {
				// Written by something newer than we are: whatever it changed, read it anew.
				f.opts.Logger.Error("a change of the configuration cannot be read; starting afresh", "seq", p.seq, "error", err)
				f.restart(p)
				continue
			}
			f.apply(change)
			f.move(p)
		}
		if len(page) < catchUpPage {
			return true, nil
		}
	}
}

// topOf returns the place of the newest entry, or the zero place of an empty log.
func topOf(newest []redis.XMessage) (place, error) {
	if len(newest) == 0 {
		return place{}, nil
	}
	return placeOf(newest[0])
}

func placeOf(m redis.XMessage) (place, error) {
	number, _, _ := strings.Cut(m.ID, "-")
	seq, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return place{}, fmt.Errorf("feed log has entry %q: %w", m.ID, err)
	}
	for _, v := range m.Values { // it has one field
		if text, ok := v.(string); ok {
			return place{seq, text}, nil
		}
	}
	return place{}, fmt.Errorf("feed log entry %q is empty", m.ID)
}

func (f *follower) move(to place) {
	f.at = to
	f.place.Store(&to)
	f.position.Store(to.seq)
	if to.seq > 0 {
		f.absence.published(f.now())
	}
}

// apply makes one change effective, and tells.
func (f *follower) apply(change contract.Change) {
	if change.Kind == contract.ChangeReload {
		f.drop(true)
		f.tellReload()
		return
	}
	digest, err := contract.ParseDigest(change.Digest)
	if err != nil {
		return // DecodeChange has parsed it
	}
	if !f.floors.raise(digest, change.Grant, f.now()) {
		return
	}
	f.mu.Lock()
	tell := slices.Clone(f.onChange)
	f.mu.Unlock()
	for _, call := range tell {
		call(digest, change.Grant)
	}
}

// restart forgets everything but revocations and goes on from place to. What is at a place is in
// force before anybody can see that it is reached.
func (f *follower) restart(to place) {
	f.drop(true)
	f.move(to)
	f.tellReload()
}

func (f *follower) tellReload() {
	f.mu.Lock()
	tell := slices.Clone(f.onReload)
	f.mu.Unlock()
	for _, call := range tell {
		call()
	}
}

// drop begins a new generation. Entries and reads of the old one are void by it; only
// then may the floors go that kept some of them from use. Those of revoked grants are kept where
// Redis may have gone back to before the revocation: until it is published again, Redis says
// that such a grant is active.
func (c *Cache) drop(keepRevoked bool) {
	c.gen.Add(1)
	c.floors.forget(math.MaxInt64, keepRevoked)
	c.reloads.Add(1)
}

// clean forgets floors that no entry can be under any more.
func (f *follower) clean() {
	if f.floors.size.Load() > floorsPerEntry*f.opts.MaxEntries {
		f.drop(false)
		return
	}
	now := f.now()
	if keep := f.opts.PositiveTTL + f.spareTime() + floorMargin; now-f.cleaned > keep/8 {
		f.cleaned = now
		f.floors.forget(now-keep, false)
	}
}
