package limits

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/store"
	"github.com/andreabadesso/openclaw-cloud/internal/faultpoint"
	"github.com/andreabadesso/openclaw-cloud/quota"
)

// Options of a Keeper. Zero values mean the default in parentheses.
type Options struct {
	// Every is how often it looks at Redis and, without being the leader, whether it can
	// be (250 ms).
	Every time.Duration
	// Grace is how long a replica that hears nothing from Redis may use what it leased; each
	// epoch says so, and a token-proxy whose own grace is shorter keeps to that (10 s).
	Grace time.Duration
	// Timeout bounds one Redis command (1 s).
	Timeout time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics; nil registers none.
	Registerer prometheus.Registerer

	// step, in tests, is called at each named step; an error ends Run there and then, as
	// a kill would. looked is called after each look.
	step   func(name string) error
	looked func()
}

func (o *Options) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Every, 250*time.Millisecond)
	def(&o.Grace, 10*time.Second)
	def(&o.Timeout, time.Second)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.step == nil {
		o.step = func(string) error { return nil }
	}
	if o.looked == nil {
		o.looked = func() {}
	}
}

const (
	lockName   = "limits"
	declaring  = 50 * time.Millisecond // how often it looks while replicas declare
	lookWithin = 10 * time.Second      // a look that begins no epoch
	recordPage = 500                   // records at once
	// endedAgo is how long ago a period may have ended whose record is made before it is
	// missed. Records of older ones are made when a replica misses them.
	endedAgo = 48 * time.Hour
	// limitsAgo reaches back over any transaction that sets a limit.
	limitsAgo = 2 * time.Minute

	repairLook  = time.Second      // how often to look whether a repair is needed
	repairEvery = 5 * time.Second  // at most
	noteBeats   = 5 * time.Second  // how often signs of life go to Postgres
	beatsEvery  = 3 * time.Second  // who beats more rarely is not there just now
	silentAfter = 30 * time.Second // from when on that deserves a word
	sayAfter    = 3 * time.Second  // how long an epoch may wait before that does
	sayEvery    = 30 * time.Second
)

// Keeper rules the epochs and the register. Create it with NewKeeper.
type Keeper struct {
	*Records
	opts    Options
	log     *slog.Logger
	metrics *metrics
	leftIt  *redis.Script

	mu   sync.Mutex
	note string // what operators should know; "" for nothing

	// Of this leadership, and its goroutine.
	heard     map[string]*heard
	strangers map[string]stranger // who beats and is not on the register
	shut      map[string]int64    // lost replica → epoch in which it was told
	begunAt   time.Time           // when this leader began the last epoch
	repairAt  time.Time           // when to look again whether a repair is needed
	notedAt   time.Time           // when signs of life went to Postgres
	waitsFrom time.Time           // since when the epoch waits for replicas
	saidAt    map[string]time.Time
	overdue   []string // lost replicas whose leases someone should have freed, as of the last look
}

// stranger is the first beat of a replica that was seen in an epoch while it was not registered.
type stranger struct {
	epoch int64
	beat  quota.Beat
}

// heard is what this leader saw of a replica's beats.
type heard struct {
	beat  quota.Beat
	at    time.Time // when it changed, or when this leadership began
	moved bool      // it changed since then
	waits bool      // Beat.Next was seen to wait between the last two looks
}

// NewKeeper returns a Keeper. The client must heed the deadlines of contexts.
func NewKeeper(st *store.Store, client redis.UniversalClient, o Options) (*Keeper, error) {
	o.setDefaults()
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("new keeper of limits: %w", err)
	}
	return &Keeper{Records: NewRecords(st, client, o.Timeout), opts: o, log: o.Logger, metrics: m, leftIt: redis.NewScript(leftScript)}, nil
}

// errKilled is what a test's step returned.
type errKilled struct{ error }

func (k *Keeper) step(name string) error {
	if err := k.opts.step(name); err != nil {
		return errKilled{err}
	}
	return nil
}

// Run works until ctx ends, and then returns nil. While Redis or Postgres is away it
// keeps trying. Call it once.
func (k *Keeper) Run(ctx context.Context) error {
	failed := false
	for ctx.Err() == nil {
		err := k.store.Lead(ctx, lockName, k.opts.Every, func(ctx context.Context, l *store.Leader) error {
			failed = false
			return k.lead(ctx, l)
		})
		if killed := (errKilled{}); errors.As(err, &killed) {
			return killed.error
		}
		if ctx.Err() != nil {
			break
		}
		if !failed {
			k.log.Warn("cannot keep the limits in Redis; will retry", "error", err)
			failed = true
		}
		pause(ctx, k.opts.Every)
	}
	return nil
}

// Note says what an operator should know of the limits; "" if there is nothing, or if
// another process leads.
func (k *Keeper) Note() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.note
}

func (k *Keeper) setNote(note string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note = note
}

// lead looks again and again, until it leads no more.
func (k *Keeper) lead(ctx context.Context, l *store.Leader) error {
	k.log.Info("this process keeps the limits in Redis from now on")
	k.heard, k.strangers, k.shut, k.saidAt = map[string]*heard{}, map[string]stranger{}, map[string]int64{}, map[string]time.Time{}
	k.begunAt, k.repairAt, k.notedAt, k.waitsFrom = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	k.metrics.leader.Set(1)
	defer func() {
		k.metrics.leader.Set(0)
		k.metrics.reset()
		k.setNote("")
	}()
	failed := ""
	frees := &releases{records: k.Records, log: k.log, saidAt: map[string]time.Time{}}
	defer frees.end()
	for {
		open, err := k.look(ctx, l)
		frees.next(ctx, k.overdue)
		k.opts.looked()
		if errors.As(err, &errKilled{}) || ctx.Err() != nil {
			return err
		}
		if !l.Alive() {
			return fmt.Errorf("no longer the leader: %w", err)
		}
		if err != nil {
			if failed == "" {
				k.log.Warn("cannot keep the limits in Redis; will retry", "error", err)
			}
			failed = err.Error()
		} else if failed != "" {
			k.log.Info("the limits in Redis can be kept again", "last_error", failed)
			failed = ""
		}
		switch wait := k.opts.Every; {
		case err != nil:
			pause(ctx, 2*wait) // each try may begin an epoch
		case !open:
			pause(ctx, min(wait, declaring))
		default:
			pause(ctx, wait)
		}
	}
}

// look does what is to be done at this moment. It reports whether the epoch is open.
func (k *Keeper) look(ctx context.Context, l *store.Leader) (open bool, err error) {
	timed, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	known, err := l.Epoch(timed)
	if err != nil {
		return false, err
	}
	have, err := k.quota.Epoch(timed)
	if err != nil {
		return false, err
	}
	servers, err := k.quota.Servers(timed, &have)
	if err != nil {
		return false, err
	}
	r := &register{Keeper: k, leader: l, epoch: have}
	reason := unfit(known, have, servers)
	if reason == "" {
		k.metrics.epoch.Set(float64(have.Number))
		if have.Grace != k.opts.Grace { // another leader had another one
			if err := k.quota.SetGrace(timed, have.Number, k.opts.Grace); err != nil {
				return false, err
			}
		}
		if err := r.keep(timed); err != nil {
			return false, err
		}
		if reason, err = k.missing(timed, l, have.Number); err != nil {
			return false, err
		}
	}
	if reason == "" {
		if reason, err = r.repair(timed); err != nil {
			return false, err
		}
	}
	if reason == "" {
		reason = r.entered()
	}
	away := servers.AwayErr()
	if away != nil {
		k.setNote(away.Error())
	} else if have.IsOpen() {
		k.setNote("")
	}
	switch {
	case reason != "" && away != nil:
		// Not all records could be made, and until they are no lease could grow, of those
		// customers either whose records are fine.
		k.setNote(fmt.Sprintf("a new epoch has to wait (%s): %v", reason, away))
		if k.say("away") {
			k.log.Error("ALERT: a new epoch has to wait until all Redis masters answer", "reason", reason, "away", list(servers.Away))
		}
		return false, fmt.Errorf("a new epoch has to wait (%s): %w", reason, away)
	case reason != "":
		return false, k.begin(ctx, l, have.Number, servers.IDs, reason)
	case have.IsOpen():
		k.metrics.open.Set(1)
		k.metrics.undeclared.Set(0)
		k.waitsFrom = time.Time{}
		return true, away
	}
	k.metrics.open.Set(0)
	open, err = r.open(timed)
	return open, errors.Join(err, away)
}

// unfit returns why the epoch in Redis is none to go on with; "" if it is one.
func unfit(known control.QuotaEpoch, have quota.Epoch, servers quota.Servers) string {
	switch {
	case known.Number == 0:
		return "there was none before"
	case have.Number == 0:
		return "Redis is new or has lost its data"
	case have.Number != known.Number:
		return fmt.Sprintf("Redis is at epoch %d, Postgres at %d", have.Number, known.Number)
	case have.Building() || !known.Based:
		return "the last one was not finished"
	case len(servers.Emptied) > 0:
		return "somebody has removed the data of Redis at " + list(servers.Emptied)
	}
	for _, id := range servers.IDs {
		if !have.Nodes[id] {
			return "a Redis was started, or has taken over, since the last one began"
		}
	}
	if len(servers.Unmarked) > 0 {
		return "slots of Redis at " + list(servers.Unmarked) + " were moved"
	}
	return ""
}

// begin makes all records anew. Whoever dies in the middle leaves an epoch that is being
// built, or one that Redis and Postgres do not agree on: the next look begins another.
func (k *Keeper) begin(ctx context.Context, l *store.Leader, have int64, servers []string, reason string) error {
	start := time.Now()
	k.metrics.open.Set(0)
	faultpoint.At("epoch.take.before")
	epoch, err := l.TakeEpoch(ctx, have, reason)
	if err != nil {
		return err
	}
	faultpoint.At("epoch.take.after")
	k.metrics.begun.Inc()
	k.begunAt = start
	k.log.Warn("a new epoch of the limits begins", "epoch", epoch, "reason", reason)
	if err := k.step("taken"); err != nil {
		return err
	}
	// Replicas forget nothing from here on that the bases could miss.
	going, err := k.found(ctx, l, epoch, servers)
	if err != nil {
		return err
	}
	faultpoint.At("epoch.begin.after")
	if err := k.step("begun"); err != nil {
		return err
	}
	bases, err := l.SetBases(ctx, epoch)
	if err != nil {
		return err
	}
	faultpoint.At("epoch.bases.after")
	if err := k.step("based"); err != nil {
		return err
	}
	records := 0
	err = l.EachRecord(ctx, epoch, start.Add(-endedAgo), recordPage, func(page []control.QuotaRecord) error {
		records += len(page)
		return k.putPage(ctx, epoch, page)
	})
	if err != nil {
		return err
	}
	// What was set while its record was not there yet. Whoever sets a limit after this
	// look finds the record.
	set, err := k.store.LimitsSet(ctx, time.Since(start)+limitsAgo)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(set, recordPage) {
		if err := errors.Join(k.setLimits(ctx, page), l.Ping(ctx)); err != nil {
			return err
		}
	}
	if err := k.step("limits"); err != nil {
		return err
	}
	if err := k.declare(ctx, l, epoch, bases, going); err != nil {
		return err
	}
	k.log.Info("all records of the limits are made", "epoch", epoch, "records", records, "replicas", len(bases),
		"took", time.Since(start).Round(time.Millisecond).String())
	return k.step("declared")
}

// putPage makes records at the beginning of an epoch. They are noted as made before they
// are: if that fails, the epoch is never finished.
func (k *Keeper) putPage(ctx context.Context, epoch int64, page []control.QuotaRecord) error {
	keys := make([]control.QuotaKey, len(page))
	for i := range page {
		keys[i] = page[i].Key()
	}
	if _, err := k.store.MarkRecords(ctx, epoch, keys, true); err != nil {
		return err
	}
	if err := k.step("marked"); err != nil {
		return err
	}
	faultpoint.At("epoch.record.before")
	if err := k.quota.Build(ctx, epoch, quotaRecords(page)); err != nil {
		return err
	}
	faultpoint.At("epoch.record.after")
	return k.step("put")
}

// missing makes records that replicas miss, and those that someone did not live to make.
// It returns a reason to begin another epoch if Redis has lost some. Where some are out of
// reach, it makes the others, and they stay missed.
func (k *Keeper) missing(ctx context.Context, l *store.Leader, epoch int64) (reason string, err error) {
	names, err := k.quota.Missing(ctx)
	if err != nil {
		return "", err
	}
	unmade, err := k.store.UnmadeRecords(ctx, epoch, time.Second, recordPage)
	if err != nil {
		return "", err
	}
	if reason, err = k.remake(ctx, epoch, unmade); reason != "" || err != nil && !errors.Is(err, quota.ErrUnavailable) {
		return reason, err
	}
	if err := l.Ping(ctx); err != nil { // while a part of Redis is silent, each step takes its time
		return "", err
	}
	slices.SortFunc(names, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for page := range slices.Chunk(names, recordPage) {
		var keys []control.QuotaKey
		for _, n := range page {
			if validText(n[0]) && validText(n[1]) {
				keys = append(keys, control.QuotaKey{CustomerID: n[0], PeriodID: n[1]})
			}
		}
		found := page
		reason, err = k.remake(ctx, epoch, keys)
		switch {
		case reason != "":
			return reason, nil
		case errors.Is(err, quota.ErrUnavailable):
			if err := l.Ping(ctx); err != nil {
				return "", err
			}
			found = k.thoseThere(ctx, epoch, page, keys)
		case err != nil:
			return "", err
		}
		// Page by page: what this look does not come to, the next one does.
		if err := k.quota.FoundAll(ctx, found); err != nil {
			return "", err
		}
		if err := l.Ping(ctx); err != nil {
			return "", err
		}
	}
	return "", nil
}

// remake makes the records of keys that are missing. It returns a reason to begin another
// epoch if Redis has lost some.
func (k *Keeper) remake(ctx context.Context, epoch int64, keys []control.QuotaKey) (reason string, err error) {
	if len(keys) == 0 {
		return "", nil
	}
	lost, err := k.restore(ctx, epoch, keys)
	if err != nil {
		return "", err
	}
	if len(lost) > 0 {
		return fmt.Sprintf("Redis has lost the record of customer %s, period %s, and whatever else", lost[0].CustomerID, lost[0].PeriodID), nil
	}
	return "", k.step("restored")
}

// thoseThere returns those of names that nobody needs to miss any more: that have a record, or
// can have none. keys are the others.
func (k *Keeper) thoseThere(ctx context.Context, epoch int64, names [][2]string, keys []control.QuotaKey) [][2]string {
	there, _, _ := k.absent(ctx, epoch, keys)
	return slices.DeleteFunc(slices.Clone(names), func(n [2]string) bool {
		key := control.QuotaKey{CustomerID: n[0], PeriodID: n[1]}
		return slices.Contains(keys, key) && !slices.Contains(there, key)
	})
}

// say reports whether it is time to say something again that is so for long.
func (k *Keeper) say(what string) bool {
	if time.Since(k.saidAt[what]) < sayEvery {
		return false
	}
	k.saidAt[what] = time.Now()
	return true
}

func list(replicas []string) string { return strings.Join(replicas, ", ") }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
