package grants

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

const (
	// loadAttempts is how often a read that a change overtook is repeated.
	loadAttempts = 4
	// overtakenPause is how long to wait for a read that is older than what the feed
	// has announced: the grant is written first, so this is an odd replica or a restart.
	overtakenPause = 10 * time.Millisecond
	// failingFor is how long after a failed read entries past their soft age are used
	// without another attempt.
	failingFor = 200 * time.Millisecond
)

// read waits for the shared read of digest. The read goes on for the others, and for
// the cache, when ctx ends.
func (c *Cache) read(ctx context.Context, digest contract.Digest) (*contract.Grant, error) {
	result := c.flight.DoChan(string(digest[:]), func() (any, error) {
		// Another read may have ended after the caller had looked into memory.
		if m := c.recall(&digest, c.now()); m.fresh != nil {
			return m.fresh, nil
		}
		return c.load(digest)
	})
	timeout := time.NewTimer(c.opts.ReadTimeout + c.opts.ReadTimeout/4)
	defer timeout.Stop()
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		// A change may have been applied since the read was checked.
		e := r.Val.(*entry)
		announced := c.floors.get(&digest)
		if announced != nil && announced.Status == contract.StatusRevoked {
			return announced, nil
		}
		if !e.good(&digest, c.gen.Load(), version(announced)) {
			return nil, fmt.Errorf("%w: it changed while it was read", ErrUnavailable)
		}
		if e.grant == nil {
			return nil, ErrUnknownToken
		}
		return e.grant, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("look up grant: %w", ctx.Err())
	case <-timeout.C:
		c.failing.Store(int64(c.now() + failingFor))
		return nil, fmt.Errorf("%w: no answer in time", ErrUnavailable)
	}
}

// refresh reads digest again in the background, unless that is under way or was tried in
// vain a moment ago.
func (c *Cache) refresh(digest contract.Digest) {
	if c.now() < time.Duration(c.failing.Load()) {
		return
	}
	if _, busy := c.again.LoadOrStore(digest, nil); busy {
		return
	}
	go func() {
		defer c.again.Delete(digest)
		_, _ = c.read(c.ctx, digest) // what it found is remembered; what failed is tried again
	}()
}

// spareTime is how long an entry may be used after its soft age while Redis is away.
// The feed is out of reach after one grace of that; the other one is for an entry that
// was past its age, unused, when it began.
func (c *Cache) spareTime() time.Duration { return 2 * c.opts.Grace }

// version returns g's version, 0 without a grant.
func version(g *contract.Grant) int64 {
	if g == nil {
		return 0
	}
	return g.Version
}

// load reads the grant of digest until it is not older than what the feed announced,
// and remembers it.
func (c *Cache) load(digest contract.Digest) (*entry, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: cache is closed", ErrUnavailable)
	}
	c.loads.Add(1)
	c.mu.Unlock()
	defer c.loads.Done()

	ctx, cancel := context.WithTimeout(c.ctx, c.opts.ReadTimeout)
	defer cancel()
	for range loadAttempts {
		gen := c.gen.Load()
		sent := c.now()
		grant, err := c.get(ctx, digest)
		if err != nil {
			c.failing.Store(int64(c.now() + failingFor))
			return nil, err
		}
		// Ages count from before the read, so that one that took long is old.
		e := &entry{digest: digest, grant: grant, gen: gen, soft: sent + c.opts.PositiveTTL}
		if grant == nil {
			e.soft = sent + c.opts.NegativeTTL
		}
		e.hard = e.soft + c.spareTime()
		if !e.good(&digest, c.gen.Load(), version(c.floors.get(&digest))) || c.now() >= e.hard {
			select {
			case <-ctx.Done():
			case <-time.After(overtakenPause):
			}
			continue
		}
		if grant == nil {
			there, steady, m, err := c.lookAgain(ctx, digest)
			if err != nil {
				c.failing.Store(int64(c.now() + failingFor))
				return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			if there {
				continue
			}
			if believed := c.absence.believed(m, c.now()); !believed || !steady {
				return nil, fmt.Errorf("%w: Redis has lost its data, the grant may be published again", ErrUnavailable)
			}
		}
		c.remember(e)
		return e, nil
	}
	return nil, fmt.Errorf("%w: what Redis has is older than the feed", ErrUnavailable)
}

// lookAgain looks for a grant that was not found once more, between two looks at the marks, and
// reports whether these are the same and the feed has what was applied last, in the same words. Found missing before
// the grants were written anew, and judged by the marks of after that, it would be taken for one
// that does not exist; so would one that went with Redis' last writes, before the follower has
// seen that the feed went back.
func (c *Cache) lookAgain(ctx context.Context, digest contract.Digest) (there, steady bool, m marks, err error) {
	var before, after *redis.SliceCmd
	var exists *redis.IntCmd
	var own *redis.XMessageSliceCmd
	// First: the feed only ever grows, unless it is lost. Then its numbers may have been given out again.
	applied := c.place.Load()
	_, err = c.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		if applied != nil && applied.seq > 0 {
			at := strconv.FormatInt(applied.seq, 10)
			own = p.XRange(ctx, contract.FeedLogKey, at, at)
		}
		before = p.HMGet(ctx, contract.FeedStateKey, contract.FeedComplete, contract.FeedRebuild)
		exists = p.Exists(ctx, contract.GrantKey(digest))
		after = p.HMGet(ctx, contract.FeedStateKey, contract.FeedComplete, contract.FeedRebuild)
		return nil
	})
	if err != nil {
		return false, false, marks{}, fmt.Errorf("read whether all grants are there: %w", err)
	}
	m = marksOf(after.Val())
	steady = marksOf(before.Val()) == m
	if own != nil {
		there, err := topOf(own.Val())
		if err != nil {
			return false, false, marks{}, err
		}
		steady = steady && there == *applied
	}
	return exists.Val() > 0, steady, m, nil
}

// get is the read itself; no grant is no error.
func (c *Cache) get(ctx context.Context, digest contract.Digest) (*contract.Grant, error) {
	encoded, err := c.client.Get(ctx, contract.GrantKey(digest)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	grant, err := contract.DecodeGrant(encoded)
	if err != nil {
		c.opts.Logger.Error("a stored grant cannot be used", "error", err)
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return grant, nil
}

// remember puts e into its cache, and waits until it is visible there, so that who
// comes right after this read finds it. Nothing depends on that it stays.
func (c *Cache) remember(e *entry) {
	store := c.known
	if e.grant == nil {
		store = c.unknown
	}
	store.Set(binary.LittleEndian.Uint64(e.digest[:]), e, 1)
	store.Wait()
}
