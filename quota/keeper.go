package quota

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// recordKept is how long a record outlives its period, for late settlements.
const recordKept = 35 * 24 * time.Hour

// Keeper is the control plane's side of the limit. It makes records, and rules epochs:
//
// An epoch begins when Redis is new, was restarted, has taken over from another, or has
// lost its data; its number is kept in Postgres and grows. Begin makes all older records
// void. Then every record is made anew from what Postgres has settled, except the events
// whose numbers lie above their replica's base: those the replicas settle anew. Once each
// registered replica has declared what it leases, the epoch is opened, and leases may grow
// again. Whoever calls Begin, Declare and Open must be alone.
//
// The methods fail with ErrUnavailable (wrapped), or the context's error. Safe for
// concurrent use.
type Keeper struct {
	client  redis.UniversalClient
	timeout time.Duration
	put     *redis.Script
	open    *redis.Script
	limit   *redis.Script
	lose    *redis.Script
	retire  *redis.Script
	join    *redis.Script
	mark    *redis.Script
}

// NewKeeper returns a Keeper. Each of its commands may take timeout; 0 means 2 s.
func NewKeeper(client redis.UniversalClient, timeout time.Duration) *Keeper {
	if timeout <= 0 {
		timeout = 2 * time.Second
	}
	return &Keeper{
		client: client, timeout: timeout,
		put: redis.NewScript(putScript), open: redis.NewScript(openScript), limit: redis.NewScript(limitScript), lose: redis.NewScript(loseScript),
		retire: redis.NewScript(retireScript), join: redis.NewScript(joinScript), mark: redis.NewScript(markScript),
	}
}

// Epoch is what Redis has of the epoch.
type Epoch struct {
	Number   int64 // 0 if there is none
	State    string
	Members  map[string]int64 // registered replicas → base; lost ones are not among them
	Declared map[string]bool  // replicas that have declared in this epoch
	Nodes    map[string]bool  // ids of the Redis servers that are trusted
	Marks    []int            // numbers of the marks that were set; see Servers
	Grace    time.Duration    // what SetGrace said; 0 for nothing
}

// Building reports whether records are still being made.
func (e *Epoch) Building() bool { return e.State != stateDeclaring && e.State != stateOpen }

// IsOpen reports whether leases may grow.
func (e *Epoch) IsOpen() bool { return e.State == stateOpen }

// Undeclared lists the registered replicas that have not declared their leases yet.
func (e *Epoch) Undeclared() (replicas []string) {
	for r := range e.Members {
		if !e.Declared[r] {
			replicas = append(replicas, r)
		}
	}
	slices.Sort(replicas)
	return replicas
}

// Epoch reads it.
func (k *Keeper) Epoch(ctx context.Context) (Epoch, error) {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	fields, err := k.client.HGetAll(timed, contract.QuotaEpochKey).Result()
	if err != nil {
		return Epoch{}, unavailable("read epoch", ctx, err)
	}
	e := Epoch{State: fields["state"], Members: map[string]int64{}, Declared: map[string]bool{}, Nodes: map[string]bool{}}
	e.Number, _ = strconv.ParseInt(fields["epoch"], 10, 64) // 0 if there is none
	for name, value := range fields {
		kind, id, _ := strings.Cut(name, ":")
		switch kind {
		case "m":
			if base, err := strconv.ParseInt(value, 10, 64); err == nil {
				e.Members[id] = base
			}
		case "d":
			e.Declared[id] = value == fields["epoch"]
		case "node":
			e.Nodes[id] = value == fields["epoch"]
		case "mark":
			if n, err := strconv.Atoi(id); err == nil && value == fields["epoch"] {
				e.Marks = append(e.Marks, n)
			}
		}
	}
	slices.Sort(e.Marks)
	ms, _ := strconv.ParseInt(fields["grace"], 10, 64) // 0 if there is none
	e.Grace = time.Duration(ms) * time.Millisecond
	return e, nil
}

// Begin makes epoch the one that is being built, on Redis servers with the given ids.
// From its return on, replicas forget no events that were acknowledged later.
//
// Members are the registered replicas: for as long as the epoch is being built, they go on
// with what they lease. Nothing of it may be given to others before each has declared it,
// or was declared lost and told so later than by Begin. Lost ones are told that they are.
func (k *Keeper) Begin(ctx context.Context, epoch int64, servers, members, lost []string) error {
	values := []any{"epoch", epoch, "state", stateBuilding}
	for _, id := range servers {
		values = append(values, "node:"+id, epoch)
	}
	for _, id := range members {
		values = append(values, "m:"+id, memberComing)
	}
	for _, id := range lost {
		values = append(values, "m:"+id, memberLost)
	}
	marks, err := k.newMarks(ctx)
	if err != nil {
		return unavailable("begin epoch", ctx, err)
	}
	for _, m := range marks {
		values = append(values, markField+strconv.Itoa(m), epoch)
	}
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	_, err = k.client.TxPipelined(timed, func(p redis.Pipeliner) error {
		p.Del(timed, contract.QuotaEpochKey)
		p.HSet(timed, contract.QuotaEpochKey, values...)
		return nil
	})
	if err == nil {
		err = k.setMarks(ctx, epoch, marks)
	}
	if err != nil {
		return unavailable("begin epoch", ctx, err)
	}
	return nil
}

// Record is what Postgres knows of one customer and period.
type Record struct {
	Account
	Settled int64 // without the events above their replica's base
}

// Build makes records of an epoch that has begun and waits for no declarations yet, where
// there are none, and tells those that are there of a newer limit. Only who called Begin
// may call it, and must not call Declare after an error: the epoch is never to be opened.
func (k *Keeper) Build(ctx context.Context, epoch int64, records []Record) error {
	_, errs := k.write(ctx, epoch, records, false)
	return errors.Join(errs...)
}

// Put makes records of an epoch where there are none, and tells those that are there of a
// newer limit. It answers for each whether it was made. A record that this epoch had
// before, and that is missing again, must not be made again: what replicas lease of it is
// not known any more. Redis has lost data then, and a new epoch must begin.
//
// Leases grow as soon as there is a record and the epoch is open. If Redis lost all its
// data just before, though, replicas may believe for a moment that the epoch still holds.
// So records are made sealed, and opened when the epoch was found to hold after that, on
// the server that has the record too.
func (k *Keeper) Put(ctx context.Context, epoch int64, records []Record) ([]bool, error) {
	made, errs := k.PutEach(ctx, epoch, records)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return made, nil
}

// PutEach is Put for records of which, in a Redis Cluster, some may be out of reach: it
// answers, or says what went wrong, for each.
func (k *Keeper) PutEach(ctx context.Context, epoch int64, records []Record) (made []bool, errs []error) {
	made, errs = make([]bool, len(records)), make([]error, len(records))
	if len(records) == 0 {
		return made, errs
	}
	if err := k.expect(ctx, epoch); err != nil {
		return made, repeat(fmt.Errorf("put quota records: %w", err), errs)
	}
	made, errs = k.write(ctx, epoch, records, true)
	var which []int
	var opening []Record
	for i := range records {
		if made[i] {
			which, opening = append(which, i), append(opening, records[i])
		}
	}
	if len(opening) == 0 {
		return made, errs
	}
	held := k.holds(ctx, epoch, opening)
	answers, failed := k.each(ctx, k.open, opening, held, func(*Record) []any { return []any{epoch} })
	for n, i := range which {
		if errs[i] = failed[n]; errs[i] == nil && answers[n] != 1 {
			errs[i] = fmt.Errorf("open quota record of %s: %w: it is gone", records[i].Customer, ErrUnavailable)
		}
		made[i] = errs[i] == nil
	}
	return made, errs
}

// write makes records, sealed or not.
func (k *Keeper) write(ctx context.Context, epoch int64, records []Record, sealed bool) (made []bool, errs []error) {
	seal := 0
	if sealed {
		seal = 1
	}
	answers, errs := k.each(ctx, k.put, records, make([]error, len(records)), func(r *Record) []any {
		limit, version := knownLimit(r.Account)
		end := max(time.Now().UnixMilli(), periodEnd(r.Account)) + recordKept.Milliseconds()
		return []any{epoch, limit, version, min(max(r.Settled, 0), maxTokens), end, seal}
	})
	made = make([]bool, len(records))
	for i, n := range answers {
		if errs[i] == nil && n < 0 {
			errs[i] = fmt.Errorf("put quota record of %s: %w: a newer epoch has begun", records[i].Customer, ErrUnavailable)
		}
		made[i] = errs[i] == nil && n == 1
	}
	return made, errs
}

// holds answers for each record whether the epoch is still the one that holds, and the
// server of the record has lost nothing since it began.
func (k *Keeper) holds(ctx context.Context, epoch int64, records []Record) []error {
	errs := make([]error, len(records))
	e, err := k.Epoch(ctx)
	if err == nil && e.Number != epoch {
		err = notHeld(epoch)
	}
	if err != nil {
		return repeat(fmt.Errorf("open quota records: %w", err), errs)
	}
	cluster, ok := k.client.(*redis.ClusterClient)
	if !ok {
		return errs
	}
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	marks := k.readMarks(timed, &e)
	for i, r := range records {
		master, err := cluster.MasterForKey(timed, contract.QuotaKey(r.Customer, r.Period.ID))
		if err != nil || marks[master] != markThere {
			errs[i] = fmt.Errorf("open quota record of %s: %w: its Redis may have lost data", r.Customer, errors.Join(ErrUnavailable, err))
		}
	}
	return errs
}

// expect fails if an epoch is not the one that holds.
func (k *Keeper) expect(ctx context.Context, epoch int64) error {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	have, err := k.client.HGet(timed, contract.QuotaEpochKey, "epoch").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return unavailable("read epoch", ctx, err)
	}
	if have != strconv.FormatInt(epoch, 10) {
		return notHeld(epoch)
	}
	return nil
}

// notHeld is the error for what was to be done in an epoch.
func notHeld(epoch int64) error {
	return fmt.Errorf("%w: the epoch is not %d any more", ErrUnavailable, epoch)
}

// repeat sets all of errs to err, and returns them.
func repeat(err error, errs []error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// each runs a script for the key of each record that has no error in before. It returns
// the answers, and before with what has failed besides.
func (k *Keeper) each(ctx context.Context, script *redis.Script, records []Record, before []error, args func(*Record) []any) ([]int, []error) {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	var which []int
	var keys []string
	var lists [][]any
	for i := range records {
		if r := &records[i]; before[i] == nil {
			which, keys, lists = append(which, i), append(keys, contract.QuotaKey(r.Customer, r.Period.ID)), append(lists, args(r))
		}
	}
	answers := make([]int, len(records))
	for n, call := range runAll(timed, k.client, script, keys, lists) {
		i := which[n]
		var err error
		if answers[i], err = call.Int(); err != nil {
			before[i] = unavailable("write quota record of "+records[i].Customer, ctx, err)
		}
	}
	return answers, before
}

// Declare ends the making of records: replicas may declare. bases are the registered
// replicas; lost ones are told that they are.
func (k *Keeper) Declare(ctx context.Context, epoch int64, bases map[string]int64, lost []string) error {
	var values []any
	for _, id := range slices.Sorted(maps.Keys(bases)) {
		values = append(values, "m:"+id, bases[id])
	}
	for _, id := range lost {
		values = append(values, "m:"+id, memberLost)
	}
	return k.setEpoch(ctx, epoch, append(values, "state", stateDeclaring)...)
}

// SetGrace tells the replicas of an epoch for how long they may use what they lease without
// hearing from Redis, if their own grace is longer: whoever declares one of them lost
// reckons with that. Say it before Declare, which lets replicas in. After one that is shorter
// than before, a replica that does not hear of it goes on as before.
func (k *Keeper) SetGrace(ctx context.Context, epoch int64, grace time.Duration) error {
	return k.setEpoch(ctx, epoch, "grace", grace.Milliseconds())
}

// Open lets leases grow. Every registered replica must have declared.
func (k *Keeper) Open(ctx context.Context, epoch int64) error {
	return k.setEpoch(ctx, epoch, "state", stateOpen)
}

// Join puts a replica on the register of an epoch, with the number of its newest event
// that records of the epoch contain. The register in Postgres comes first.
func (k *Keeper) Join(ctx context.Context, epoch int64, replica string, base int64) error {
	return k.setEpoch(ctx, epoch, "m:"+replica, base)
}

// joinScript sets fields of the epoch that is expected, and of no other.
//
//	KEYS[1] QuotaEpochKey
//	ARGV: epoch, field, value, …
const joinScript = `
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
`

// setEpoch sets fields, given as names and values, in their order.
func (k *Keeper) setEpoch(ctx context.Context, epoch int64, fields ...any) error {
	// Lua unpacks some thousands of values at most.
	for some := range slices.Chunk(fields, 2000) {
		if err := k.setSome(ctx, epoch, some); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) setSome(ctx context.Context, epoch int64, fields []any) error {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	n, err := k.join.Run(timed, k.client, []string{contract.QuotaEpochKey}, append([]any{epoch}, fields...)...).Int()
	if err != nil {
		return unavailable("set epoch", ctx, err)
	}
	if n == 0 {
		return fmt.Errorf("set epoch: %w: it is not %d any more", ErrUnavailable, epoch)
	}
	return nil
}

// SetLimit tells the record of acct of its limit, if that is newer and there is a record,
// and asks replicas to return what they do not use of it.
func (k *Keeper) SetLimit(ctx context.Context, acct Account) error {
	limit, version := knownLimit(acct)
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	if err := k.limit.Run(timed, k.client, []string{contract.QuotaKey(acct.Customer, acct.Period.ID)}, limit, version).Err(); err != nil {
		return unavailable("set limit", ctx, err)
	}
	if err := recalls(k.client).Publish(timed, contract.RecallChannel, acct.Customer+" "+acct.Period.ID).Err(); err != nil {
		return unavailable("set limit", ctx, err)
	}
	return nil
}

// Usage reads the record of acct. Without one it has the limit of acct and no use.
func (k *Keeper) Usage(ctx context.Context, acct Account) (Usage, error) {
	u, _, err := readUsage(ctx, k.client, k.timeout, acct, "")
	return u, err
}

// Missing returns the records that replicas did not find, as customer and period.
func (k *Keeper) Missing(ctx context.Context) ([][2]string, error) {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	names, err := k.client.SMembers(timed, contract.QuotaMissingKey).Result()
	if err != nil {
		return nil, unavailable("read missing records", ctx, err)
	}
	out := make([][2]string, 0, len(names))
	for _, n := range names {
		c, p, _ := strings.Cut(n, " ")
		out = append(out, [2]string{c, p})
	}
	return out, nil
}

// Found takes a record off the list of missing ones.
func (k *Keeper) Found(ctx context.Context, customer, period string) error {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	if err := k.client.SRem(timed, contract.QuotaMissingKey, customer+" "+period).Err(); err != nil {
		return unavailable("forget missing record", ctx, err)
	}
	return nil
}

// readUsage also returns the number of the replica's last event that is settled, 0 if none is.
func readUsage(ctx context.Context, client redis.UniversalClient, timeout time.Duration, acct Account, replica string) (u Usage, mark int64, err error) {
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	fields, err := client.HMGet(timed, contract.QuotaKey(acct.Customer, acct.Period.ID), "limit", "limit_version", "settled", "leased", "w:"+replica).Result()
	if err != nil {
		return u, 0, unavailable("read usage", ctx, err)
	}
	var n [5]int64
	for i, f := range fields {
		s, ok := f.(string)
		if !ok {
			n[i] = -1
			continue
		}
		if n[i], err = strconv.ParseInt(s, 10, 64); err != nil {
			return u, 0, fmt.Errorf("read usage of %s: %w", acct.Customer, err)
		}
	}
	u = Usage{Customer: acct.Customer, PeriodID: acct.Period.ID, Limit: n[0], Settled: max(n[2], 0), Held: max(n[3], 0)}
	if limit, version := knownLimit(acct); n[0] < 0 || version > n[1] {
		u.Limit = limit
	}
	return u, max(n[4], 0), nil
}

func knownLimit(acct Account) (limit, version int64) {
	return min(max(acct.Limit, 0), maxTokens), max(acct.LimitVersion, 0)
}

func periodEnd(acct Account) int64 {
	if acct.Period.End.IsZero() {
		return 0
	}
	return max(acct.Period.End.UnixMilli(), 0)
}
