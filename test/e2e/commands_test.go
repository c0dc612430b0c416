package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/kimi/kimisim"
	"github.com/andreabadesso/openclaw-cloud/test/stack"
)

// Redis gets as many commands however many requests come: their number depends on time, on
// replicas and on active customers only. One of the customers asks for far more than its
// rate all the time.
func TestRedisCommandsDoNotGrowWithRequests(t *testing.T) {
	var (
		replicas  = full(1, 3)
		customers = full(2, 4)
		slow      = full(150.0, 1_000)
		fast      = full(5_000.0, 10_000)
		window    = full(6*time.Second, time.Minute)
	)
	s := stack.New(t, stack.Options{
		Replicas: replicas, Sim: kimisim.Config{MaxLedger: 1000, Defaults: kimisim.Behavior{OutputTokens: 1}},
		Proxy: func(c map[string]any) { c["log_level"] = "warn" },
	})
	p := newPlatform(t, s, func(t *control.Tier) {
		t.RequestsPerSecond, t.Burst, t.Concurrent = 100_000, 100_000, 64
		if t.Name == "starter" {
			t.RequestsPerSecond, t.Burst = 20, 20
		}
	})
	tokens := []stack.Token{p.customerOf("starter", "limited", 1e12)}
	for i := range customers {
		tokens = append(tokens, p.customer(fmt.Sprint("customer ", i), 1e12))
	}
	few, servedFew, allFew := commandsDuring(t, s, tokens, slow, window)
	many, servedMany, allMany := commandsDuring(t, s, tokens, fast, window)
	t.Logf("%d replicas, %d customers, one of them limited by its rate: commands per second in %v", replicas, len(tokens), window)
	t.Logf("%-18s %10.0f %10.0f", "REQUESTS ANSWERED", allFew, allMany)
	t.Logf("%-18s %10.0f %10.0f", "REQUESTS SERVED", servedFew, servedMany)
	for _, name := range slices.Sorted(maps.Keys(many)) {
		t.Logf("%-18s %10.1f %10.1f", name, few[name], many[name])
	}
	ratio := many["all"] / few["all"]
	t.Logf("%.2f times the requests, %.2f times the commands", servedMany/servedFew, ratio)
	if servedMany < 2*servedFew {
		t.Errorf("only %.0f requests/s were reached: nothing to compare with %.0f", servedMany, servedFew)
	}
	if ratio > 1.2 {
		t.Errorf("%.0f commands/s at %.0f requests/s, but %.0f at %.0f", many["all"], servedMany, few["all"], servedFew)
	}
	// Where all is starved, what is done by the clock is done more rarely.
	if *long && ratio < 0.8 {
		t.Errorf("%.0f commands/s at %.0f requests/s, %.0f at %.0f: not the same within a fifth", many["all"], servedMany, few["all"], servedFew)
	}
}

// commandsDuring sends perSecond requests per second, over all replicas and customers, and
// returns, per second, what Redis did by command, and how many requests were served and
// answered at all.
func commandsDuring(t *testing.T, s *stack.Stack, tokens []stack.Token, perSecond float64, window time.Duration) (commands map[string]float64, served, all float64) {
	t.Helper()
	connections := 4 * len(s.Proxies) * len(tokens)
	depth := max(1, int(perSecond/2_500)) // so many at a time that this machine keeps up
	var good, refused atomic.Int64
	var failure atomic.Value
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			p, tok := s.Proxies[i%len(s.Proxies)], tokens[i/len(s.Proxies)%len(tokens)]
			every := time.Duration(float64(connections*depth) / perSecond * float64(time.Second))
			time.Sleep(every * time.Duration(i) / time.Duration(connections)) // evenly spread
			err := hurl(p, tok.Raw, depth, every, stop, &good, &refused)
			if err != nil {
				failure.CompareAndSwap(nil, err)
			}
		})
	}
	time.Sleep(3 * time.Second) // until leases and rates have got used to it
	before, ok, not, began := commandStats(t, s), good.Load(), refused.Load(), time.Now()
	time.Sleep(window)
	after, took := commandStats(t, s), time.Since(began).Seconds()
	ok, not = good.Load()-ok, refused.Load()-not
	close(stop)
	wg.Wait()
	if err := failure.Load(); err != nil {
		t.Fatal(err)
	}
	if not == 0 {
		t.Error("nothing was refused for its rate")
	}
	commands = map[string]float64{}
	for name, n := range after {
		if d := n - before[name]; d > 0 {
			commands[name] = float64(d) / took
			commands["all"] += commands[name]
		}
	}
	return commands, float64(ok) / took, float64(ok+not) / took
}

// hurl sends requests over one connection, depth at a time and so often, until stop is
// closed. It spends as little time as possible on each.
func hurl(p *stack.Proxy, token string, depth int, every time.Duration, stop <-chan struct{}, good, refused *atomic.Int64) error {
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	body := `{"model":"kimi-k2.5","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`
	one := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
	some := bytes.Repeat([]byte(one), depth)
	r := bufio.NewReaderSize(conn, 16<<10)
	for next := time.Now(); ; next = next.Add(every) {
		if late := time.Since(next); late > time.Second {
			next = next.Add(late) // what cannot be reached is not made up for
		}
		select {
		case <-stop:
			return nil
		case <-time.After(time.Until(next)):
		}
		if _, err := conn.Write(some); err != nil {
			return err
		}
		for range depth {
			ok, err := skipAnswer(r)
			if err != nil {
				return err
			}
			if ok {
				good.Add(1)
			} else {
				refused.Add(1)
			}
		}
	}
}

// skipAnswer reads one answer and reports whether its status is 200.
func skipAnswer(r *bufio.Reader) (ok bool, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	ok = bytes.HasPrefix(line, []byte("HTTP/1.1 200 "))
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return false, err
			}
		}
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return ok, err
}

// commandStats returns how often Redis was given each command so far.
func commandStats(t *testing.T, s *stack.Stack) map[string]int64 {
	t.Helper()
	info, err := s.Redis.UniversalClient().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	stats := map[string]int64{}
	for line := range strings.Lines(info) {
		// cmdstat_hset:calls=12,usec=…
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		calls, _, _ := strings.Cut(rest, ",")
		n, err := strconv.ParseInt(calls, 10, 64)
		if err != nil {
			t.Fatalf("commandstats: %q: %v", line, err)
		}
		stats[name] = n
	}
	return stats
}
