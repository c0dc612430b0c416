package grants_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/proxy/grants"
)

// set and del change what Redis says of itself.
func (p *publisher) set(field, value string) {
	p.t.Helper()
	if err := p.client.HSet(context.Background(), contract.FeedStateKey, field, value).Err(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *publisher) del(field string) {
	p.t.Helper()
	if err := p.client.HDel(context.Background(), contract.FeedStateKey, field).Err(); err != nil {
		p.t.Fatal(err)
	}
}

// lossReader is a reader with changes up to number 3 and a clock that can be put on.
func lossReader(t *testing.T, server testenv.AnyRedis) (r *reader, p *publisher, later func(time.Duration)) {
	t.Helper()
	p = newPublisher(t, server)
	var ahead atomic.Int64
	r = start(t, server, grants.Options{
		PollInterval: 10 * time.Millisecond, NegativeTTL: time.Millisecond, Grace: time.Hour,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	for range 3 {
		p.put(newDigest(), grant(1, contract.StatusActive))
	}
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 3 })
	r.wantError(t, newDigest(), grants.ErrUnknownToken)
	return r, p, func(d time.Duration) { ahead.Add(int64(d)) }
}

// Redis went back, and the control plane sees no reason for a new mark: changes that are
// published again are believed after a while.
func TestAbsenceAfterGoingBackWithoutANewMark(t *testing.T) {
	t.Parallel()
	r, p, later := lossReader(t, testenv.Redis(t))
	if err := p.client.Del(context.Background(), contract.FeedLogKey).Err(); err != nil {
		t.Fatal(err)
	}
	p.seq = 0
	<-r.reloads
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	later(time.Hour / 2) // an empty log says nothing, however long
	r.wantError(t, newDigest(), grants.ErrUnavailable)

	found := newDigest()
	p.put(found, grant(1, contract.StatusActive))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 1 })
	r.want(t, found, 1, contract.StatusActive)
	stored := newDigest()
	p.store(stored, grant(1, contract.StatusActive)) // not announced
	r.want(t, stored, 1, contract.StatusActive)
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	later(50 * time.Second)
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	later(11 * time.Second)
	eventually(t, "believed", func() bool {
		_, err := r.Lookup(context.Background(), newDigest())
		return errors.Is(err, grants.ErrUnknownToken)
	})
	r.want(t, stored, 1, contract.StatusActive)
}

// The mark is gone with the data: absences are doubted before the feed is asked again,
// and while grants are written anew, whatever the feed says meanwhile.
func TestAbsenceAfterLossOfTheMark(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		r, p, later := lossReader(t, server)
		eventually(t, "mark seen", func() bool {
			_, err := r.Lookup(context.Background(), newDigest())
			return errors.Is(err, grants.ErrUnknownToken)
		})
		server.FlushAll()
		r.wantError(t, newDigest(), grants.ErrUnavailable)
		<-r.reloads
		r.wantError(t, newDigest(), grants.ErrUnavailable)

		p.set(contract.FeedRebuild, "second")
		seq := p.announce(contract.Change{Kind: contract.ChangeReload}) // numbers go on
		eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
		r.wantError(t, newDigest(), grants.ErrUnavailable)
		p.del(contract.FeedRebuild)
		later(30 * time.Minute) // it went away in the middle
		r.wantError(t, newDigest(), grants.ErrUnavailable)
		p.set(contract.FeedComplete, "second")
		eventually(t, "believed", func() bool {
			_, err := r.Lookup(context.Background(), newDigest())
			return errors.Is(err, grants.ErrUnknownToken)
		})
	})
}

// A grant was looked for before the control plane had written it anew, and the marks after that.
func TestAbsenceFromBeforeTheRebuild(t *testing.T) {
	t.Parallel()
	testenv.SingleAndCluster(t, func(t *testing.T, server testenv.AnyRedis) {
		r, p, _ := lossReader(t, server)
		server.FlushAll()
		<-r.reloads
		d := newDigest()
		release := r.holdReads()
		found := make(chan error, 1)
		go func() {
			_, err := r.Lookup(context.Background(), d)
			found <- err
		}()
		<-r.held
		p.store(d, grant(1, contract.StatusActive))
		p.set(contract.FeedComplete, "second")
		release()
		if err := <-found; err != nil {
			t.Errorf("a token that there is: %v", err)
		}
	})
}

// Redis went back to an older copy of its data: its mark is the old one and says nothing.
func TestAbsenceAfterGoingBack(t *testing.T) {
	t.Parallel()
	r, p, _ := lossReader(t, testenv.Redis(t))
	if err := p.client.XDel(context.Background(), contract.FeedLogKey, "3-0").Err(); err != nil {
		t.Fatal(err)
	}
	<-r.reloads
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	seq := p.announce(contract.Change{Kind: contract.ChangeReload}) // as in the middle of a rebuild
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	p.set(contract.FeedComplete, "second")
	eventually(t, "believed", func() bool {
		_, err := r.Lookup(context.Background(), newDigest())
		return errors.Is(err, grants.ErrUnknownToken)
	})
}

// blindReader is a reader with changes up to number 3 that does not look at the feed by itself.
func blindReader(t *testing.T) (*reader, *publisher) {
	t.Helper()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	r := start(t, server, grants.Options{PollInterval: time.Hour, NegativeTTL: time.Millisecond})
	for range 3 {
		p.put(newDigest(), grant(1, contract.StatusActive))
	}
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == 3 })
	r.wantError(t, newDigest(), grants.ErrUnknownToken)
	return r, p
}

// Redis came back without its last writes, and the follower has not looked yet.
func TestAbsenceBeforeTheFollowerLooks(t *testing.T) {
	t.Parallel()
	r, p := blindReader(t)
	if err := p.client.XDel(context.Background(), contract.FeedLogKey, "3-0").Err(); err != nil {
		t.Fatal(err)
	}
	r.wantError(t, newDigest(), grants.ErrUnavailable) // it may be the third one's
}

// Redis came back without its last write, another change was published under its number, and the
// follower has not looked yet.
func TestAbsenceUnderANumberGivenOutAgain(t *testing.T) {
	t.Parallel()
	r, p := blindReader(t)
	// As if it was lost, and the other was published while the connection for messages was away.
	for _, err := range []error{
		p.client.XDel(context.Background(), contract.FeedLogKey, "3-0").Err(),
		p.client.Do(context.Background(), "XSETID", contract.FeedLogKey, "2-0").Err(),
		p.client.XAdd(context.Background(), &redis.XAddArgs{Stream: contract.FeedLogKey, ID: "3-0", Values: []string{"c", `{"seq":3,"kind":"reload"}`}}).Err(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.wantError(t, newDigest(), grants.ErrUnavailable) // it may be the lost one's
}

// A revocation that the proxy has heard of holds, although Redis went back to before it.
func TestRevocationOutlivesGoingBack(t *testing.T) {
	t.Parallel()
	r, p, _ := lossReader(t, testenv.Redis(t))
	d := newDigest()
	p.put(d, grant(1, contract.StatusActive))
	seq := p.put(d, grant(2, contract.StatusRevoked))
	eventually(t, "applied", func() bool { return r.Stats().FeedSeq == seq })
	r.want(t, d, 2, contract.StatusRevoked)
	p.client.Del(context.Background(), contract.GrantKey(d))
	p.store(d, grant(1, contract.StatusActive))
	if err := p.client.XDel(context.Background(), contract.FeedLogKey, strconv.FormatInt(seq, 10)+"-0").Err(); err != nil {
		t.Fatal(err)
	}
	<-r.reloads
	r.want(t, d, 2, contract.StatusRevoked)
}

// A proxy that starts over an empty Redis, or in the middle of a rebuild, never saw what
// was lost.
func TestAbsenceAtStart(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p := newPublisher(t, server)
	p.del(contract.FeedComplete)
	r := start(t, server, grants.Options{NegativeTTL: time.Millisecond})
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	p.set(contract.FeedRebuild, "first")
	p.set(contract.FeedComplete, "first")
	r.wantError(t, newDigest(), grants.ErrUnavailable)
	p.del(contract.FeedRebuild)
	r.wantError(t, newDigest(), grants.ErrUnknownToken)
}
