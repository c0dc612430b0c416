//go:build linux

package monitoring

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// redisHangs has Redis hang while a limit is changed, which can be saved, and not be published.
func (w *world) redisHangs() []fault {
	set := func(ctx context.Context, tokens string) (string, error) {
		return w.tryRun(ctx, filepath.Join(w.run, "openclawctl"), "quota", "set", "--customer", w.customer, "--limit", tokens, "--reason", "a test")
	}
	return []fault{{"Redis hangs", []string{"RedisDown", "FeedSilent", "QuotaNotReady", "ChangesUnpublished"}, func() func() {
		resume := w.frozen("redis")
		waits := w.while(1, func(ctx context.Context) { _, _ = set(ctx, "1900000") }) // it says that it is not published
		return func() {
			resume()
			waits()
			if out, err := set(w.t.Context(), "2000000"); err != nil {
				w.t.Errorf("Redis is back, and a limit cannot be set: %v\n%s", err, out)
			}
		}
	}}}
}

// redisSettings has someone change a Redis that runs, and its disk be full.
func (w *world) redisSettings() []fault {
	return []fault{
		{"Redis may evict", []string{"RedisMayLose"}, func() func() { return w.setting("maxmemory-policy", "allkeys-lru") }},
		{"Redis cannot write", []string{"RedisCannotWrite"}, func() func() {
			var size int64
			err := filepath.WalkDir(filepath.Join(w.run, "redis"), func(_ string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				info, err := d.Info()
				if err == nil {
					size = max(size, info.Size())
				}
				return err
			})
			if err != nil || size == 0 {
				w.t.Fatalf("Redis' append-only file is not found: %v", err)
			}
			var before unix.Rlimit
			pid := w.pid("redis")
			if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &before); err != nil {
				w.t.Fatal(err)
			}
			full := before
			full.Cur = uint64(size)
			if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &full, nil); err != nil {
				w.t.Fatal(err)
			}
			return func() {
				if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &before, nil); err != nil {
					w.t.Errorf("Redis may not write again: %v", err)
				}
			}
		}},
	}
}

// redisFills gives Redis little more memory than it has in use.
func (w *world) redisFills() []fault {
	return []fault{{"Redis is nearly full", []string{"RedisFilling"}, func() func() {
		client := w.redis()
		defer client.Close()
		info, err := client.Info(w.t.Context(), "memory").Result()
		if err != nil {
			w.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(info, "used_memory:")
		used, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
		if err != nil {
			w.t.Fatalf("how much memory Redis uses: %v", err)
		}
		return w.setting("maxmemory", fmt.Sprint(used*100/88))
	}}}
}

// setting changes one of a Redis that runs, until end is called.
func (w *world) setting(name, value string) (end func()) {
	w.t.Helper()
	client := w.redis()
	before, err := client.ConfigGet(w.t.Context(), name).Result()
	if err == nil {
		err = client.ConfigSet(w.t.Context(), name, value).Err()
	}
	if err != nil {
		client.Close()
		w.t.Fatal(err)
	}
	return func() {
		defer client.Close()
		if err := client.ConfigSet(context.Background(), name, before[name]).Err(); err != nil {
			w.t.Errorf("put back Redis' %s: %v", name, err)
		}
	}
}

// ledgerBehind has so much usage come at once that nobody can read that a slow Postgres takes long to park it.
func (w *world) ledgerBehind() []fault {
	return []fault{{"Postgres is slow, and much comes that cannot be booked", []string{"LedgerBacklog", "DeadLetters"}, func() func() {
		w.sql(`CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
			CREATE TRIGGER slowly BEFORE INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION slowly()`)
		client := w.redis()
		defer client.Close()
		for range 15 {
			batch := client.Pipeline()
			for range 1000 {
				batch.Do(w.t.Context(), "XADD", contract.UsageStreamKey, "*", contract.UsageField, "no batch")
			}
			if _, err := batch.Exec(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		}
		return func() { w.sql(`DROP TRIGGER slowly ON dead_letters; DROP FUNCTION slowly()`) }
	}}}
}
