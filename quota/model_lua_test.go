package quota

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// The scripts and the model of them answer alike, and leave alike records, whatever they
// are given.
func TestScriptsEqualTheirModel(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	records := 600
	if testing.Short() {
		records = 60
	}
	statuses := map[string]int{}
	for i := range records {
		compareRecord(t, client, rng, "record"+strconv.Itoa(i), statuses)
		if t.Failed() {
			return
		}
	}
	t.Logf("answers: %v", statuses)
	for _, want := range []string{"sync 1", "sync 0", "sync -1", "sync -2", "sync -3", "put 1", "put 0", "put -1", "open 1", "open 0", "limit 1", "limit 0", "lose"} {
		if statuses[want] == 0 {
			t.Errorf("no answer %q was ever given", want)
		}
	}
}

// luaRecord is a record in Redis and its model.
type luaRecord struct {
	client *redis.Client
	key    string
	head   recordHead
	parts  map[string]*recordPart
}

// compareRecord does many things to one record.
func compareRecord(t *testing.T, client *redis.Client, rng *rand.Rand, key string, statuses map[string]int) {
	r := &luaRecord{client, key, recordHead{}, map[string]*recordPart{"a": {lease: never, mark: never}, "b": {lease: never, mark: never}}}
	// Small numbers meet each other often; large ones try the width of Lua's.
	scale := []int64{6, 6, 6, 1000, maxTokens / 8}[rng.IntN(5)]
	number := func() int64 { return rng.Int64N(scale) }
	version := func() int64 {
		if rng.IntN(3) == 0 {
			return rng.Int64() // longer than a double
		}
		return rng.Int64N(12)
	}
	calls := map[string]int64{}
	for range 40 {
		epoch := 1 + rng.Int64N(3)
		name := []string{"a", "b"}[rng.IntN(2)]
		var got, want []int64
		var op string
		switch n := rng.IntN(20); {
		case n < 13:
			op = "sync"
			c := call{
				epoch: epoch, base: rng.Int64N(4), floor: number(), least: number(), need: number(), spare: number(), limit: number(), version: version(),
			}
			if r.head.epoch > 0 && rng.IntN(4) > 0 {
				c.epoch = r.head.epoch
			}
			calls[name]++
			c.number = callNumber(1+uint64(rng.IntN(2)), max(calls[name]-rng.Int64N(3), 0))
			seq := rng.Int64N(8)
			for range rng.IntN(4) {
				seq += 1 + rng.Int64N(2)
				c.batch = append(c.batch, spend{seq, number()})
			}
			got = r.run(t, syncScript, c.args(name)...)
			want = replyNumbers(modelSync(&r.head, r.parts[name], &c, flawNone))
		case n < 16:
			op = "put"
			limit, version, settled, sealed := number(), version(), number(), rng.IntN(2) == 0
			flag := 0
			if sealed {
				flag = 1
			}
			got = r.run(t, putScript, epoch, limit, version, settled, int64(1)<<42, flag)
			made := modelPut(&r.head, epoch, limit, version, settled, sealed)
			if made == 1 {
				*r.parts["a"], *r.parts["b"] = unheard(), unheard()
			}
			want = []int64{made}
		case n < 18:
			op = "open"
			got = r.run(t, openScript, epoch)
			want = []int64{modelOpen(&r.head, epoch)}
		case n < 19:
			op = "limit"
			limit, version := number(), version()
			got = r.run(t, limitScript, limit, version)
			want = []int64{modelLimit(&r.head, limit, version)}
		case rng.IntN(3) == 0:
			got = r.run(t, loseScript, name)
			want = []int64{modelLose(&r.head, r.parts[name])}
			op = "lose"
		default:
			continue
		}
		if op == "lose" {
			statuses[op]++
		} else {
			statuses[op+" "+strconv.FormatInt(want[0], 10)]++
		}
		if len(got) != len(want) {
			t.Errorf("%s of %s: Redis answers %v, the model %v", op, key, got, want)
			return
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s of %s: Redis answers %v, the model %v", op, key, got, want)
				return
			}
		}
		r.compare(t)
		if t.Failed() {
			return
		}
	}
}

func (r *luaRecord) run(t *testing.T, script string, args ...any) []int64 {
	t.Helper()
	out, err := redis.NewScript(script).Run(context.Background(), r.client, []string{r.key}, args...).Result()
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := out.(int64); ok {
		return []int64{n}
	}
	parsed, err := parseReply(out.([]any))
	if err != nil {
		t.Fatal(err)
	}
	return replyNumbers(parsed)
}

func replyNumbers(r reply) []int64 {
	return []int64{r.status, r.number, r.limit, r.version, r.settled, r.others, r.lease, r.mark}
}

// compare reads the record in Redis.
func (r *luaRecord) compare(t *testing.T) {
	t.Helper()
	fields, err := r.client.HGetAll(context.Background(), r.key).Result()
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string, absent int64) int64 {
		text, ok := fields[name]
		if !ok {
			return absent
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Errorf("field %s is %q", name, text)
		}
		return n
	}
	head := recordHead{number("epoch", 0), number("limit", 0), number("limit_version", 0), number("settled", 0), number("leased", 0)}
	if head != r.head {
		t.Errorf("Redis has %+v, the model %+v", head, r.head)
	}
	for name, part := range r.parts {
		_, lost := fields["x:"+name]
		if got := (recordPart{number("l:"+name, never), number("n:"+name, 0), number("w:"+name, never), lost}); got != *part {
			t.Errorf("Redis has %+v of %s, the model %+v", got, name, *part)
		}
	}
}
