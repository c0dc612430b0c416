// Package quotatest is a control plane for tests: what quota.Leases needs of it, on one
// Redis, with a truth that is kept in memory instead of Postgres.
//
//	plane := quotatest.New(t, redis.Client())
//	plane.Put(quota.Account{…}) // before the account's first reservation
//
// It registers every replica that beats, makes the records that replicas miss, and begins
// a new epoch when Redis was restarted or has lost its data. Only tests may import it.
package quotatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

const (
	// every is how often the plane looks at Redis.
	every = 20 * time.Millisecond
	// patience bounds one command, and how long a test waits for the plane.
	patience = 10 * time.Second
)

// Plane is a running control plane. Its methods are safe for concurrent use, and fail the
// test when they cannot do what they say.
type Plane struct {
	t      testing.TB
	client redis.UniversalClient
	keeper *quota.Keeper
	stop   context.CancelFunc
	done   chan struct{}
	paused sync.Mutex // held while the plane looks

	mu       sync.Mutex // guards the truth
	epoch    int64
	accounts map[account]*quota.Record
	made     map[account]int64          // the newest epoch that has the record
	events   map[string]map[int64]event // replica → number → what Postgres has
	replicas map[string]bool            // that were registered and have not retired
	lives    map[string]uint64          // the newest one of each that is known
	lost     map[string]bool
}

type account struct{ customer, period string }

// event is what is billed of one.
type event struct {
	account
	settled int64
}

// New starts a control plane, and returns once the first epoch is open. It ends with the test.
func New(t testing.TB, client redis.UniversalClient) *Plane {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p := &Plane{
		t: t, client: client, keeper: quota.NewKeeper(client, patience), stop: stop, done: make(chan struct{}),
		accounts: map[account]*quota.Record{}, made: map[account]int64{}, events: map[string]map[int64]event{},
		replicas: map[string]bool{}, lives: map[string]uint64{}, lost: map[string]bool{},
	}
	go p.run(ctx)
	t.Cleanup(p.Close)
	p.Await("the first epoch is open", func(e quota.Epoch) bool { return e.IsOpen() })
	return p
}

// Close ends the plane, as Postgres or its leader would be away. What it said stays in force.
func (p *Plane) Close() {
	p.stop()
	<-p.done
}

// Pause keeps the plane from doing anything until resume is called.
func (p *Plane) Pause() (resume func()) {
	p.paused.Lock()
	return p.paused.Unlock
}

// Await waits until what Redis has of the epoch is as the test wants it.
func (p *Plane) Await(what string, ok func(quota.Epoch) bool) quota.Epoch {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		e, err := p.keeper.Epoch(p.t.Context())
		if err == nil && ok(e) {
			return e
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("quotatest: not within %v: %s: %+v, %v", patience, what, e, err)
		}
	}
}

// Put makes the record of an account, or tells it of a newer limit. A record that was not
// put is made when a replica misses it, and learns its limit from the replica's grant.
func (p *Plane) Put(acct quota.Account) {
	p.t.Helper()
	put := func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		r := p.record(account{acct.Customer, acct.Period.ID})
		if acct.LimitVersion >= r.LimitVersion {
			r.Account = acct
		}
		return p.put(p.t.Context(), []quota.Record{*r})
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := put()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("quotatest: %v", err)
		}
	}
}

// put makes records in the present epoch. p.mu is held.
func (p *Plane) put(ctx context.Context, records []quota.Record) error {
	if _, err := p.keeper.Put(ctx, p.epoch, records); err != nil {
		return err
	}
	for _, r := range records {
		p.made[account{r.Customer, r.Period.ID}] = p.epoch
	}
	return nil
}

// SetLimit is Put for a record that is there, which also asks replicas for idle tokens.
func (p *Plane) SetLimit(acct quota.Account) {
	p.t.Helper()
	p.Put(acct)
	if err := p.keeper.SetLimit(p.t.Context(), acct); err != nil {
		p.t.Fatalf("quotatest: %v", err)
	}
}

// Usage returns what Redis has of an account.
func (p *Plane) Usage(acct quota.Account) quota.Usage {
	p.t.Helper()
	u, err := p.keeper.Usage(p.t.Context(), acct)
	if err != nil {
		p.t.Fatalf("quotatest: %v", err)
	}
	return u
}

// Bill takes events into the truth, as the billing-worker takes them into Postgres: each
// counts once. It acknowledges them to their replicas.
func (p *Plane) Bill(events []contract.Event) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		if p.events[e.Replica] == nil {
			p.events[e.Replica] = map[int64]event{}
		}
		p.events[e.Replica][e.Seq] = event{account{e.CustomerID, e.PeriodID}, e.Settled}
	}
	for replica := range p.events {
		if err := p.client.HSet(p.t.Context(), contract.UsageAckedKey, replica, p.base(replica)).Err(); err != nil {
			p.t.Fatalf("quotatest: acknowledge: %v", err)
		}
	}
}

// Lose declares a replica lost, and returns how many tokens that freed.
func (p *Plane) Lose(replica string) int64 {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost[replica] = true
	delete(p.replicas, replica)
	if err := p.keeper.Shut(p.t.Context(), p.epoch, replica); err != nil {
		p.t.Fatalf("quotatest: %v", err)
	}
	var accounts []quota.Account
	for _, r := range p.accounts {
		accounts = append(accounts, r.Account)
	}
	n, err := p.keeper.Release(p.t.Context(), replica, accounts)
	if err != nil {
		p.t.Fatalf("quotatest: %v", err)
	}
	return n
}

// record returns the truth of an account. p.mu is held.
func (p *Plane) record(k account) *quota.Record {
	r := p.accounts[k]
	if r == nil {
		r = &quota.Record{Account: quota.Account{Customer: k.customer, Period: contract.Period{ID: k.period}}}
		p.accounts[k] = r
	}
	return r
}

// base returns the number up to which the truth has all of a replica's events. p.mu is held.
func (p *Plane) base(replica string) (n int64) {
	for {
		if _, ok := p.events[replica][n+1]; !ok {
			return n
		}
		n++
	}
}

func (p *Plane) run(ctx context.Context) {
	defer close(p.done)
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		p.paused.Lock()
		err := p.look(ctx)
		p.paused.Unlock()
		if err != nil && ctx.Err() == nil && !errors.Is(err, quota.ErrUnavailable) {
			p.t.Errorf("quotatest: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// look does once what a control plane does all the time.
func (p *Plane) look(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, err := p.keeper.Epoch(ctx)
	if err != nil {
		return err
	}
	servers, err := p.keeper.Servers(ctx, &e)
	if err != nil {
		return err
	}
	trusted := !slices.ContainsFunc(servers.IDs, func(id string) bool { return !e.Nodes[id] })
	fit := e.Number == p.epoch && p.epoch != 0 && trusted && len(servers.Emptied)+len(servers.Unmarked) == 0 && !e.Building()
	if !fit && len(servers.Away) > 0 {
		return servers.AwayErr() // not all records could be made
	}
	if !fit {
		p.epoch = max(p.epoch, e.Number) + 1
		if err := p.begin(ctx, servers.IDs); err != nil {
			return err
		}
		if e, err = p.keeper.Epoch(ctx); err != nil {
			return err
		}
	}
	beats, err := p.keeper.Beats(ctx)
	if err != nil {
		return err
	}
	for replica, beat := range beats {
		switch {
		case p.lost[replica]:
		case beat.Retired && (beat.Life < p.lives[replica] || beat.Epoch != p.epoch && e.Members[replica] < beat.Last):
			// It, or its next life, has to say so again.
			if err := p.keeper.Disbelieve(ctx, replica, beat); err != nil {
				return err
			}
		case beat.Retired:
			if done, err := p.keeper.Retire(ctx, p.epoch, replica, beat); err != nil {
				return err
			} else if done {
				delete(p.replicas, replica)
			}
		default:
			p.replicas[replica] = true
			p.lives[replica] = max(p.lives[replica], beat.Life)
			if _, ok := e.Members[replica]; ok {
				continue
			}
			if err := p.keeper.Join(ctx, p.epoch, replica, p.base(replica)); err != nil {
				return err
			}
		}
	}
	if e, err = p.keeper.Epoch(ctx); err != nil {
		return err
	}
	if e.Number == p.epoch && !e.IsOpen() && len(e.Undeclared()) == 0 {
		if err := p.keeper.Open(ctx, p.epoch); err != nil {
			return err
		}
	}
	return p.find(ctx)
}

// begin starts the next epoch: records from the truth, and the replicas that are known.
// p.mu is held.
func (p *Plane) begin(ctx context.Context, servers []string) error {
	lost := slices.Collect(maps.Keys(p.lost))
	if err := p.keeper.Begin(ctx, p.epoch, servers, slices.Collect(maps.Keys(p.replicas)), lost); err != nil {
		return err
	}
	bases := map[string]int64{}
	for replica := range p.replicas {
		bases[replica] = p.base(replica)
	}
	for _, r := range p.accounts {
		r.Settled = 0
	}
	for replica, events := range p.events {
		_, registered := bases[replica]
		for seq, e := range events {
			// What lies above the base is settled anew by the replica.
			if !registered || seq <= bases[replica] {
				p.record(e.account).Settled += e.settled
			}
		}
	}
	var records []quota.Record
	for _, r := range p.accounts {
		records = append(records, *r)
	}
	if err := p.put(ctx, records); err != nil {
		return err
	}
	return p.keeper.Declare(ctx, p.epoch, bases, lost)
}

// find makes the records that replicas missed. p.mu is held.
func (p *Plane) find(ctx context.Context) error {
	missing, err := p.keeper.Missing(ctx)
	if err != nil {
		return err
	}
	for _, m := range missing {
		k := account{m[0], m[1]}
		there, err := p.client.Exists(ctx, contract.QuotaKey(k.customer, k.period)).Result()
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", quota.ErrUnavailable, err)
		case there != 0: // missed before it was made
		case p.made[k] == p.epoch:
			// It was there, so Redis has lost data, and nobody knows what is leased.
			return p.keeper.Begin(ctx, p.epoch, nil, nil, nil) // of which the next look makes a new epoch
		default:
			if err := p.put(ctx, []quota.Record{*p.record(k)}); err != nil {
				return err
			}
		}
		if err := p.keeper.Found(ctx, m[0], m[1]); err != nil {
			return err
		}
	}
	return nil
}
