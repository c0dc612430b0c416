package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// Servers is what a look at the Redis servers that hold records has found: one server, or all
// masters of a Cluster that have slots.
type Servers struct {
	// IDs of those that answered. A server has another one whenever it was started, or has
	// taken over from another, since the epoch began.
	IDs []string
	// Away are the addresses of those that did not answer.
	Away []string
	// Emptied are the addresses of those that have lost data without having been started:
	// somebody has removed it, as FLUSHALL does.
	Emptied []string
}

// Servers looks at them.
//
// The masters of a Cluster lose their data one by one, and the epoch is written on one of
// them only. So each has a mark of its own: a key in one of its slots, set when the epoch
// began. A mark moves with its slot; a master that has none is given one.
func (k *Keeper) Servers(ctx context.Context, e *Epoch) (Servers, error) {
	masters, err := k.masters(ctx)
	if err != nil {
		return Servers{}, unavailable("find Redis servers", ctx, err)
	}
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	ids := make([]string, len(masters))
	var asked sync.WaitGroup
	for i, m := range masters {
		asked.Go(func() { ids[i], _ = identify(timed, m) }) // who does not answer is away, why ever
	}
	var gone map[*redis.Client]bool
	asked.Go(func() { gone = k.readMarks(timed, e) })
	asked.Wait()
	if ctx.Err() != nil {
		return Servers{}, fmt.Errorf("look at Redis servers: %w", ctx.Err())
	}
	var s Servers
	var bare []*redis.Client
	for i, m := range masters {
		if ids[i] == "" {
			s.Away = append(s.Away, m.Options().Addr)
			continue
		}
		s.IDs = append(s.IDs, ids[i])
		if emptied, marked := gone[m]; emptied {
			s.Emptied = append(s.Emptied, m.Options().Addr)
		} else if !marked && e.Nodes[ids[i]] && !e.Building() {
			bare = append(bare, m)
		}
	}
	slices.Sort(s.IDs)
	slices.Sort(s.Away)
	slices.Sort(s.Emptied)
	if _, ok := k.client.(*redis.ClusterClient); !ok {
		return s, nil // the epoch itself is the mark
	}
	return s, k.addMarks(ctx, e, bare)
}

// AwayErr is an error that names the servers that are away; nil if there are none.
func (s *Servers) AwayErr() error {
	if len(s.Away) == 0 {
		return nil
	}
	return fmt.Errorf("%w: no answer from Redis at %s", ErrUnavailable, strings.Join(s.Away, ", "))
}

// masters returns a client for each Redis server that takes writes and has slots.
func (k *Keeper) masters(ctx context.Context) ([]*redis.Client, error) {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	var mu sync.Mutex
	var all []*redis.Client
	err := eachMaster(timed, k.client, func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
		return nil
	})
	return all, err
}

// eachMaster calls do for every Redis server that takes writes, at the same time.
func eachMaster(ctx context.Context, client redis.UniversalClient, do func(context.Context, *redis.Client) error) error {
	switch c := client.(type) {
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, c)
	default:
		return fmt.Errorf("unknown kind of client %T", c)
	}
}

// markField, with the number of a mark, is the epoch's field that says that it was set.
const markField = "mark:"

// markScript sets a mark, unless that of a newer epoch is there.
//
//	KEYS[1] QuotaMarkKey
//	ARGV: epoch
const markScript = `
if tonumber(redis.call('GET', KEYS[1]) or 0) <= tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
`

// readMarks says, for each server that has marks of the epoch, whether any of them is gone. Of
// one that does not answer nothing is known, and so none is.
func (k *Keeper) readMarks(ctx context.Context, e *Epoch) map[*redis.Client]bool {
	cluster, ok := k.client.(*redis.ClusterClient)
	if !ok {
		return nil
	}
	keys, values := make([]string, len(e.Marks)), make([]*redis.StringCmd, len(e.Marks))
	for i, n := range e.Marks {
		keys[i] = contract.QuotaMarkKey(n)
	}
	perServer(ctx, k.client, keys, func(c redis.Cmdable, i int) redis.Cmder {
		values[i] = c.Get(ctx, keys[i])
		return values[i]
	})
	out := map[*redis.Client]bool{}
	for i, v := range values {
		master, err := cluster.MasterForKey(ctx, keys[i])
		if err != nil {
			continue
		}
		known := v.Err() == nil || errors.Is(v.Err(), redis.Nil)
		out[master] = out[master] || known && v.Val() != strconv.FormatInt(e.Number, 10)
	}
	return out
}

// maxMark bounds the search for a mark in one of a server's slots.
const maxMark = 1 << 17

// marksOf returns the number of a mark for each of some masters, 0 for one where none is found.
func (k *Keeper) marksOf(ctx context.Context, masters []*redis.Client) []int {
	found := make([]int, len(masters))
	cluster, ok := k.client.(*redis.ClusterClient)
	if !ok {
		return found
	}
	left := len(masters)
	for n := 1; n <= maxMark && left > 0; n++ {
		master, err := cluster.MasterForKey(ctx, contract.QuotaMarkKey(n))
		if err != nil {
			break
		}
		if i := slices.Index(masters, master); i >= 0 && found[i] == 0 {
			found[i] = n
			left--
		}
	}
	return found
}

// newMarks returns the numbers of marks for all masters of a Cluster.
func (k *Keeper) newMarks(ctx context.Context) ([]int, error) {
	if _, ok := k.client.(*redis.ClusterClient); !ok {
		return nil, nil
	}
	masters, err := k.masters(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(k.marksOf(ctx, masters), func(n int) bool { return n == 0 }), nil
}

// addMarks gives masters marks that have none: slots were moved since the epoch began.
func (k *Keeper) addMarks(ctx context.Context, e *Epoch, bare []*redis.Client) error {
	for _, n := range k.marksOf(ctx, bare) {
		if n == 0 || slices.Contains(e.Marks, n) {
			continue
		}
		// In this order: a mark that the epoch knows of and that is not there means a loss.
		if err := k.setMarks(ctx, e.Number, []int{n}); err != nil {
			return unavailable("mark a Redis server", ctx, err)
		}
		if err := k.setEpoch(ctx, e.Number, markField+strconv.Itoa(n), e.Number); err != nil {
			return err
		}
		e.Marks = append(e.Marks, n)
	}
	return nil
}

func (k *Keeper) setMarks(ctx context.Context, epoch int64, marks []int) error {
	timed, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	keys, args := make([]string, len(marks)), make([][]any, len(marks))
	for i, n := range marks {
		keys[i], args[i] = contract.QuotaMarkKey(n), []any{epoch}
	}
	var errs []error
	for _, call := range runAll(timed, k.client, k.mark, keys, args) {
		errs = append(errs, call.Err())
	}
	return errors.Join(errs...)
}
