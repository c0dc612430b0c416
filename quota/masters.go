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
	// Away are the addresses of those that did not answer, or that refuse all commands, as
	// those of a Cluster do for some seconds after a start.
	Away []string
	// Emptied are the addresses of those that have lost data without having been started:
	// somebody has removed it, as FLUSHALL does.
	Emptied []string
	// Unmarked are the addresses of those of which that would not show: their slots have
	// been moved since the epoch began.
	Unmarked []string
}

// Servers looks at them.
//
// The masters of a Cluster lose their data one by one, and the epoch is written on one of
// them only. So each has a mark of its own: a key in one of its slots, set when the epoch
// began, and never later. A mark moves with its slot.
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
		asked.Go(func() { ids[i] = k.serving(timed, m) })
	}
	var marks map[*redis.Client]markState
	asked.Go(func() { marks = k.readMarks(timed, e) })
	asked.Wait()
	if ctx.Err() != nil {
		return Servers{}, fmt.Errorf("look at Redis servers: %w", ctx.Err())
	}
	var s Servers
	_, isCluster := k.client.(*redis.ClusterClient)
	for i, m := range masters {
		addr := m.Options().Addr
		if ids[i] == "" {
			s.Away = append(s.Away, addr)
			continue
		}
		s.IDs = append(s.IDs, ids[i])
		switch mark, ok := marks[m]; {
		case mark == markGone:
			s.Emptied = append(s.Emptied, addr)
		case isCluster && !ok: // elsewhere the epoch itself is the mark
			s.Unmarked = append(s.Unmarked, addr)
		}
	}
	for _, list := range [][]string{s.IDs, s.Away, s.Emptied, s.Unmarked} {
		slices.Sort(list)
	}
	return s, nil
}

// serving returns the id of a server, "" if it does not serve, why ever.
func (k *Keeper) serving(ctx context.Context, m *redis.Client) string {
	id, err := identify(ctx, m)
	if _, ok := k.client.(*redis.ClusterClient); ok && err == nil {
		var state string
		if state, err = m.ClusterInfo(ctx).Result(); field(state, "cluster_state") != "ok" {
			return ""
		}
	}
	if err != nil {
		return ""
	}
	return id
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

// markState says what is known of the marks of one server.
type markState int

const (
	markUnknown markState = iota // it does not answer
	markThere                    // one is there, and none is gone
	markGone
)

// readMarks reads the marks of the epoch, for each server that has any.
func (k *Keeper) readMarks(ctx context.Context, e *Epoch) map[*redis.Client]markState {
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
	out := map[*redis.Client]markState{}
	for i, v := range values {
		master, err := cluster.MasterForKey(ctx, keys[i])
		if err != nil {
			continue
		}
		state := markUnknown
		switch {
		case v.Err() == nil && v.Val() == strconv.FormatInt(e.Number, 10):
			state = markThere
		case v.Err() == nil || errors.Is(v.Err(), redis.Nil):
			state = markGone
		}
		out[master] = max(out[master], state)
	}
	return out
}

// maxMark bounds the search for marks. Each slot has some of the numbers up to here.
const maxMark = 1 << 18

// newMarks returns the number of a mark for each master of a Cluster.
func (k *Keeper) newMarks(ctx context.Context) ([]int, error) {
	cluster, ok := k.client.(*redis.ClusterClient)
	if !ok {
		return nil, nil
	}
	masters, err := k.masters(ctx)
	if err != nil {
		return nil, err
	}
	var marks []int
	for n := 1; len(masters) > 0; n++ {
		if n > maxMark {
			return nil, fmt.Errorf("BUG: no mark falls to Redis at %s", masters[0].Options().Addr)
		}
		master, err := cluster.MasterForKey(ctx, contract.QuotaMarkKey(n))
		if err != nil {
			return nil, err
		}
		if i := slices.Index(masters, master); i >= 0 {
			masters, marks = slices.Delete(masters, i, i+1), append(marks, n)
		}
	}
	return marks, nil
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
