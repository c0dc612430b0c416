package quota_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// plane is a control plane: it rules the epochs with a Keeper, and has what Postgres would
// have. Its methods are safe for concurrent use.
type plane struct {
	*quota.Keeper
	client redis.UniversalClient

	mu       sync.Mutex
	epoch    int64
	accounts map[string]quota.Account // by customer and period
	ledger   map[string]*ledger       // by replica
	lost     map[string]bool
	disks    map[string]*disk // of replicas that retire, and whose events are not all billed otherwise
	paused   bool
	failed   error // the last failure of a round
}

// ledger is what Postgres has of a replica.
type ledger struct {
	events     []contract.Event // without gaps
	registered bool
	life       uint64 // the newest one that is known
}

func newPlane(t testing.TB, server *testenv.RedisServer) *plane {
	return newPlaneOn(t, newClient(t, server), 5*time.Second)
}

func newPlaneOn(t testing.TB, client redis.UniversalClient, timeout time.Duration) *plane {
	p := &plane{
		Keeper: quota.NewKeeper(client, timeout), client: client,
		accounts: map[string]quota.Account{}, ledger: map[string]*ledger{}, lost: map[string]bool{},
	}
	stop := workers(1, func(_ int, done <-chan struct{}) {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
			p.mu.Lock()
			if !p.paused {
				p.failed = p.round()
			}
			p.mu.Unlock()
		}
	})
	t.Cleanup(stop)
	p.awaitOpen(t, 1)
	return p
}

func name(a quota.Account) string { return a.Customer + " " + a.Period.ID }

// add makes the record of an account.
func (p *plane) add(t testing.TB, a quota.Account) {
	t.Helper()
	p.mu.Lock()
	p.accounts[name(a)] = a
	p.mu.Unlock()
	until(t, "the record is made", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, err := p.Put(context.Background(), p.epoch, []quota.Record{{Account: a, Settled: p.settled(a)}})
		return err
	})
}

// setLimit changes an account, as an operator would.
func (p *plane) setLimit(t testing.TB, a quota.Account) {
	t.Helper()
	p.mu.Lock()
	p.accounts[name(a)] = a
	p.mu.Unlock()
	if err := p.SetLimit(context.Background(), a); err != nil {
		t.Fatal(err)
	}
}

// pause stops all rounds, as if the control plane were away.
func (p *plane) pause(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = yes
}

// bill takes over what the journal on d has, up to number n.
func (p *plane) bill(d *disk, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(d.name).take(d, n)
}

// take takes over the events of d up to number n.
func (l *ledger) take(d *disk, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n = min(n, int64(len(d.events))); int64(len(l.events)) < n {
		l.events = slices.Clone(d.events[:n])
	}
}

// acked is the number up to which Postgres has the events of d.
func (p *plane) acked(d *disk) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(len(p.of(d.name).events))
}

// lose declares a replica lost, and returns how much it leased.
func (p *plane) lose(t testing.TB, replica string) (sum int64) {
	t.Helper()
	ctx := context.Background()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost[replica] = true
	p.of(replica).registered = false
	if err := p.Shut(ctx, p.epoch, replica); err != nil {
		t.Fatal(err)
	}
	for _, a := range p.accounts {
		n, err := p.Release(ctx, replica, []quota.Account{a})
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// awaitOpen waits until an epoch is open that is not older than number.
func (p *plane) awaitOpen(t testing.TB, number int64) {
	t.Helper()
	until(t, "the epoch is open", func() error {
		e, err := p.Epoch(context.Background())
		if err == nil && (e.Number < number || !e.IsOpen()) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return fmt.Errorf("epoch %d (%d here) is %s, undeclared %v, last round: %v", e.Number, p.epoch, e.State, e.Undeclared(), p.failed)
		}
		return err
	})
}

func (p *plane) number() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

// of returns the ledger of a replica. p.mu is held, here and below.
func (p *plane) of(replica string) *ledger {
	l := p.ledger[replica]
	if l == nil {
		l = &ledger{}
		p.ledger[replica] = l
	}
	return l
}

// settled is what a record of this epoch begins with: all that is known, since every
// replica's base is all that is known of it.
func (p *plane) settled(a quota.Account) (sum int64) {
	for _, l := range p.ledger {
		for i := range l.events {
			if e := &l.events[i]; e.CustomerID == a.Customer && e.PeriodID == a.Period.ID {
				sum += e.Settled
			}
		}
	}
	return sum
}

// round does what there is to do.
func (p *plane) round() error {
	ctx := context.Background()
	e, err := p.Epoch(ctx)
	if err != nil {
		return err
	}
	servers, err := p.Servers(ctx, &e)
	if err != nil {
		return err
	}
	trusted := !slices.ContainsFunc(servers.IDs, func(id string) bool { return !e.Nodes[id] })
	fit := e.Number == p.epoch && p.epoch != 0 && trusted && len(servers.Emptied)+len(servers.Unmarked) == 0 && !e.Building()
	if !fit && len(servers.Away) > 0 {
		return servers.AwayErr() // not all records could be made
	}
	if !fit {
		return p.begin(ctx, servers.IDs)
	}
	beats, err := p.Beats(ctx)
	if err != nil {
		return err
	}
	for replica, b := range beats {
		l := p.of(replica)
		_, member := e.Members[replica]
		switch {
		case p.lost[replica]:
		case b.Retired && (b.Life < l.life || b.Epoch != p.epoch && e.Members[replica] < b.Last):
			// It, or its next life, has to say so again.
			if err := p.Disbelieve(ctx, replica, b); err != nil {
				return err
			}
		case b.Retired:
			// Only now: should Redis lose its data, nobody settles anew what Postgres lacks.
			if d := p.disks[replica]; d != nil {
				l.take(d, b.Last)
			}
			if gone, err := p.Retire(ctx, p.epoch, replica, b); err != nil {
				return err
			} else if gone {
				l.registered = false
			}
		case !member:
			l.registered, l.life = true, max(l.life, b.Life) // first: what Redis has may be lost
			if err := p.Join(ctx, p.epoch, replica, int64(len(l.events))); err != nil {
				return err
			}
		}
	}
	if !e.IsOpen() {
		if e, err = p.Epoch(ctx); err != nil || len(e.Undeclared()) > 0 {
			return err
		}
		for replica, b := range beats {
			l := p.of(replica)
			l.life = max(l.life, b.Life)
		}
		return p.Open(ctx, p.epoch)
	}
	return nil
}

// begin rebuilds everything in a new epoch.
func (p *plane) begin(ctx context.Context, servers []string) error {
	p.epoch++
	bases := map[string]int64{}
	for replica, l := range p.ledger {
		if l.registered {
			bases[replica] = int64(len(l.events))
		}
	}
	lost := slices.Collect(maps.Keys(p.lost))
	if err := p.Begin(ctx, p.epoch, servers, slices.Collect(maps.Keys(bases)), lost); err != nil {
		return err
	}
	var records []quota.Record
	for _, a := range p.accounts {
		records = append(records, quota.Record{Account: a, Settled: p.settled(a)})
	}
	if _, err := p.Put(ctx, p.epoch, records); err != nil {
		return err
	}
	return p.Declare(ctx, p.epoch, bases, lost)
}
