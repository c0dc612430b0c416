package quota_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// account returns an account of a customer nobody else uses.
func account(t testing.TB, limit int64) quota.Account {
	begin := time.Date(2031, 5, 1, 0, 0, 0, 0, time.UTC)
	return quota.Account{
		Customer:     t.Name(),
		Period:       contract.Period{ID: "2031-05", Start: begin, End: begin.AddDate(0, 1, 0)},
		Limit:        limit,
		LimitVersion: 1,
	}
}

// reserve asks as the proxy does: without I/O first.
func (r *replica) reserve(a quota.Account, tokens int64) (quota.Answer, error) {
	if out := r.TryReserve(a, tokens); out.Verdict != quota.Unknown {
		return out, nil
	}
	return r.Reserve(context.Background(), a, tokens)
}

// want reserves and compares the verdict.
func (r *replica) want(t testing.TB, a quota.Account, tokens int64, want quota.Verdict) quota.Answer {
	t.Helper()
	out, err := r.reserve(a, tokens)
	if err != nil {
		t.Fatalf("reserve %d: %v", tokens, err)
	}
	if out.Verdict != want {
		t.Fatalf("reserve %d: %+v, want verdict %d", tokens, out, want)
	}
	return out
}

func (r *replica) mustReserve(t testing.TB, a quota.Account, tokens int64) quota.Hold {
	t.Helper()
	return r.want(t, a, tokens, quota.Granted).Hold
}

// flush waits until everything that was used is settled in Redis.
func (r *replica) flush(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// wantUsage waits until the record is as it should be.
func (p *plane) wantUsage(t testing.TB, a quota.Account, limit, settled, held int64) {
	t.Helper()
	until(t, "the record is right", func() error {
		u, err := p.Usage(context.Background(), a)
		if err == nil && (u.Limit != limit || u.Settled != settled || u.Held != held) {
			return fmt.Errorf("limit %d, settled %d, held %d; want %d, %d, %d", u.Limit, u.Settled, u.Held, limit, settled, held)
		}
		return err
	})
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 100)
	p.add(t, acct)
	r := start(t, server, newDisk("a"), quick())
	if out := r.TryReserve(acct, 1); out.Verdict != quota.Unknown {
		t.Errorf("before the first lease: %+v", out)
	}
	a := r.mustReserve(t, acct, 60)
	out := r.want(t, acct, 101, quota.Exceeds)
	if out.Limit != 100 || out.Settled != 0 || out.Held != 60 || out.Left() != 100 || !out.Hold.IsZero() {
		t.Errorf("answer %+v", out)
	}
	r.want(t, acct, 41, quota.Held)
	b := r.mustReserve(t, acct, 40)
	if a != (quota.Hold{Customer: acct.Customer, PeriodID: acct.Period.ID, Tokens: 60}) || b.Tokens != 40 {
		t.Errorf("holds %+v and %+v", a, b)
	}
	r.j.use(a, 10)
	r.flush(t)
	r.want(t, acct, 91, quota.Exceeds)
	r.want(t, acct, 51, quota.Held)
	r.mustReserve(t, acct, 50)
	r.Release(b)
	r.Release(quota.Hold{})
	r.j.use(r.mustReserve(t, acct, 40), 40)
	r.flush(t)
	p.wantUsage(t, acct, 100, 50, 50)
	r.want(t, acct, 0, quota.Granted)
	u, err := r.Usage(context.Background(), acct)
	if want := (quota.Usage{Customer: acct.Customer, PeriodID: "2031-05", Limit: 100, Settled: 50, Held: 50}); err != nil || u != want {
		t.Errorf("usage %+v, %v", u, err)
	}
}

// What nobody can have must not keep others from what they can have.
func TestImpossibleReservations(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1<<62)
	p.add(t, acct)
	a, b := start(t, server, newDisk("a"), quick()), start(t, server, newDisk("b"), quick())
	a.want(t, acct, 1<<62, quota.Exceeds)
	b.mustReserve(t, acct, 1<<50)
	acct.Limit, acct.LimitVersion = 0, 2
	p.setLimit(t, acct)
	a.want(t, acct, 1, quota.Exceeds)
	a.want(t, acct, 0, quota.Granted)
	acct.Limit, acct.LimitVersion = -5, 3
	a.want(t, acct, 1, quota.Exceeds)
}

func TestSettledIsAtMostReserved(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	r := start(t, server, newDisk("a"), quick())
	for _, used := range []int64{101, 1 << 60, -7} {
		r.j.use(r.mustReserve(t, acct, 100), used)
	}
	r.flush(t)
	p.wantUsage(t, acct, 1000, 200, 0) // idle tokens go back by themselves
}

func TestPeriodsAreApart(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, may := newPlane(t, server), account(t, 100)
	june := may
	june.Period = contract.Period{ID: "2031-06", Start: may.Period.End, End: may.Period.End.AddDate(0, 1, 0)}
	june.Limit = 200
	p.add(t, may)
	p.add(t, june)
	r := start(t, server, newDisk("a"), quick())
	a := r.mustReserve(t, may, 100)
	b := r.mustReserve(t, june, 200)
	r.want(t, may, 1, quota.Held)
	r.j.use(b, 1)
	r.j.use(a, 90) // of admission, whatever the clock says by then
	r.flush(t)
	p.wantUsage(t, may, 100, 90, 0)
	p.wantUsage(t, june, 200, 1, 0)
}

// A request gets what another replica leases and does not use, within the time that a
// proxy waits, and although that replica would keep it much longer.
func TestRecall(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	o := quick()
	o.ReturnAfter = time.Hour
	a, b, c := start(t, server, newDisk("a"), o), start(t, server, newDisk("b"), o), start(t, server, newDisk("c"), o)
	a.Release(a.mustReserve(t, acct, 400))
	b.Release(b.mustReserve(t, acct, 400))
	held := c.mustReserve(t, acct, 100)
	began := time.Now()
	h := c.await(t, acct, 900)
	t.Logf("recalled after %v", time.Since(began))
	a.want(t, acct, 1, quota.Held)
	c.j.use(h, 900)
	c.Release(held)
	a.j.use(a.await(t, acct, 100), 100)
	for _, r := range []*replica{a, b, c} {
		r.flush(t)
		r.awaitExceeds(t, acct, 1)
	}
	p.wantUsage(t, acct, 1000, 1000, 0)
}

// While others wait for tokens, a replica takes what its requests need and nothing spare.
func TestShyWhileOthersWait(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 100_000)
	p.add(t, acct)
	o := quick()
	o.ReturnAfter = time.Hour
	r := start(t, server, newDisk("a"), o)
	for range 5 {
		r.mustReserve(t, acct, 1000)
	}
	if rec, err := readRecord(p, acct); err != nil || rec.leases["a"] <= 5000 {
		t.Fatalf("nothing is spare: %+v, %v", rec, err)
	}
	until(t, "only what is held is leased", func() error {
		quota.Surrender(r.Leases, acct.Customer, acct.Period.ID)
		h := r.mustReserve(t, acct, 1000)
		rec, err := readRecord(p, acct)
		r.Release(h)
		if err == nil && rec.leases["a"] != 6000 {
			err = fmt.Errorf("%+v", rec) // the call before may have been under way
		}
		return err
	})
}

// await reserves as the proxy does, but with more patience.
func (r *replica) await(t testing.TB, a quota.Account, tokens int64) quota.Hold {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		changed := r.Changed(a.Customer)
		out, err := r.reserve(a, tokens)
		switch {
		case err != nil:
			t.Fatalf("reserve %d: %v", tokens, err)
		case out.Verdict == quota.Granted:
			return out.Hold
		case out.Verdict != quota.Held || time.Now().After(deadline):
			t.Fatalf("reserve %d: %+v", tokens, out)
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestIdleTokensGoBack(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	r := start(t, server, newDisk("a"), quick())
	h := r.mustReserve(t, acct, 300)
	r.Release(r.mustReserve(t, acct, 200))
	p.wantUsage(t, acct, 1000, 0, 300) // what a request holds is kept, however long it takes
	r.Release(h)
	p.wantUsage(t, acct, 1000, 0, 0)
}

// Whoever waits for a long answer is not silent: with its end the lease is renewed, not returned, so that the next
// request, which comes soon, needs no trip.
func TestLongAnswerKeepsTheLease(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 10_000)
	p.add(t, acct)
	o := quick()
	o.ReturnAfter = 3 * time.Second
	r := start(t, server, newDisk("a"), o)
	for name, end := range map[string]func(h quota.Hold){"used": func(h quota.Hold) { r.j.use(h, 100) }, "released": r.Release} {
		h := r.mustReserve(t, acct, 3000)
		r.Release(r.mustReserve(t, acct, 500))
		until(t, "what is idle is returned meanwhile", func() error {
			if s := r.Stats(); s.Leased != s.Held {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		ended := time.Now()
		end(h)
		r.flush(t)
		time.Sleep(o.ReturnAfter * 2 / 3)                                                                       // it is looked for silent ones meanwhile
		if out := r.TryReserve(acct, 2000); out.Verdict != quota.Granted && time.Since(ended) < o.ReturnAfter { // else it is silent
			t.Errorf("%s: the next request has to ask Redis: %+v", name, r.Stats())
		} else if out.Verdict == quota.Granted {
			r.Release(out.Hold)
		}
	}
}

func TestCloseReturnsEverything(t *testing.T) {
	testenv.NoLeaks(t)
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	o := quick()
	o.ReturnAfter = time.Hour
	r := start(t, server, newDisk("a"), o)
	r.j.use(r.mustReserve(t, acct, 300), 120)
	r.Release(r.mustReserve(t, acct, 200))
	r.close(t)
	p.wantUsage(t, acct, 1000, 120, 0)
	until(t, "it is off the register", func() error {
		e, err := p.Epoch(context.Background())
		if err == nil && len(e.Members) > 0 {
			return fmt.Errorf("members %v", e.Members)
		}
		return err
	})
	if _, err := r.Reserve(context.Background(), acct, 5000); !errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("reserved after Close: %v", err)
	}
	if err := r.Close(context.Background()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

// Close says what it could not do, and the next life does it.
func TestCloseInVain(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	d := newDisk("a")
	r := start(t, server, d, quick())
	h := r.mustReserve(t, acct, 300)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("close with a request in flight: %v", err)
	}
	r.j.begin(h).used = 70
	r.j.closed.Store(true)
	e, err := p.Epoch(context.Background())
	if _, ok := e.Members["a"]; err != nil || !ok {
		t.Errorf("members %v, %v", e.Members, err)
	}
	start(t, server, d, quick()).close(t)
	p.wantUsage(t, acct, 1000, 70, 0)
}

func TestWaitersWake(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 100)
	p.add(t, acct)
	r := start(t, server, newDisk("a"), quick())
	for _, end := range []func(quota.Hold){r.Release, func(h quota.Hold) { r.j.use(h, 1) }} {
		h := r.mustReserve(t, acct, 90)
		c := r.Changed(acct.Customer)
		select {
		case <-c:
			t.Error("woken without a change")
		default:
		}
		end(h)
		select {
		case <-c:
		case <-time.After(patience):
			t.Error("not woken")
		}
	}
	if n := quota.Waiters(r.Leases); n > 1 {
		t.Errorf("%d channels are kept", n)
	}
}

func TestReserveHeedsItsContext(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 100)
	p.add(t, acct)
	r := start(t, server, newDisk("a"), quick())
	r.Release(r.mustReserve(t, acct, 10))
	server.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := r.Reserve(ctx, acct, 90)
	server.Resume()
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, quota.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
	// What the call brought after all is not lost.
	r.await(t, acct, 100)
}
