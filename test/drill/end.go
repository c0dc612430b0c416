package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// mend makes everything run and reach everything again.
func (s *system) mend() error {
	for _, k := range s.links.all {
		if err := k.heal(); err != nil {
			return err
		}
	}
	for _, n := range s.redis.nodes {
		n.thaw()
		if err := s.redis.start(n); err != nil {
			return err
		}
	}
	s.postgres.thaw()
	if err := s.postgres.start(); err != nil {
		return err
	}
	for _, p := range slices.Concat(s.workers, s.proxies) {
		p.running().thaw()
		if err := p.start(); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat(s.workers, s.proxies) {
		if err := p.awaitReady(time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// ending is what happens after the load and the faults.
type ending struct {
	sys    *system
	load   *load
	watch  *watcher
	within time.Duration // for each thing that has to happen by itself
	late   []string
}

// await waits for something to happen, and notes what does not.
func (e *ending) await(ctx context.Context, what string, ok func() error) {
	err := poll(e.within, func() error {
		if ctx.Err() != nil {
			return nil // nobody wants to know any more
		}
		return ok()
	})
	if err != nil {
		e.late = append(e.late, fmt.Sprintf("%s, not within %v: %v", what, e.within, err))
	}
}

// settle waits until every request has ended everywhere and its usage is in Postgres.
func (e *ending) settle(ctx context.Context) {
	e.await(ctx, "every request has ended at the simulator", func() error {
		if n := e.sys.sim.InFlight(); n > 0 {
			return fmt.Errorf("%d have not", n)
		}
		return nil
	})
	for _, p := range e.sys.proxies {
		e.await(ctx, p.name+" has nothing left to ship", func() error {
			m, err := p.metrics("token_proxy_journal_open", "token_proxy_usage_events_unacknowledged")
			if err == nil && m[0]+m[1] > 0 {
				err = fmt.Errorf("%.0f requests are open in its journal, %.0f events are not acknowledged", m[0], m[1])
			}
			return err
		})
	}
	e.await(ctx, "the usage stream is empty", func() error {
		n, err := e.sys.redis.client.XLen(ctx, contract.UsageStreamKey).Result()
		if err == nil && n > 0 {
			err = fmt.Errorf("%d entries are on it", n)
		}
		return err
	})
}

// agree waits until Redis says of every customer what Postgres says and, if that is
// wanted, holds nothing. What does not come to that is judged later.
func (e *ending) agree(ctx context.Context, nothingHeld bool) {
	_ = poll(e.within, func() error {
		if ctx.Err() != nil {
			return nil
		}
		records, err := e.watch.readRecords(ctx)
		if err != nil {
			return err
		}
		periods, err := e.watch.readPeriods(ctx)
		if err != nil {
			return err
		}
		for i, c := range e.load.customers {
			if p := periods[c.id]; records[i].settled != p.settled || nothingHeld && records[i].held != 0 {
				return fmt.Errorf("customer %d does not", i)
			}
		}
		return nil
	})
}

// serveLast asks for each customer one last thing that fits into what is left.
func (e *ending) serveLast(ctx context.Context, unserved []string) {
	periods, err := e.watch.readPeriods(ctx)
	if err != nil {
		e.late = append(e.late, err.Error())
		return
	}
	var wg sync.WaitGroup
	gate := make(chan struct{}, 8)
	for i, c := range e.load.customers {
		p := periods[c.id]
		if p.limit-p.settled < 2500 { // the largest body that do sends, and some output
			continue
		}
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			var a *attempt
			_ = poll(15*time.Second, func() error {
				a = e.load.requestOf(i, probeKind(), i%len(e.load.clients), e.load.random())
				if e.load.do(a); a.status != http.StatusOK {
					return fmt.Errorf("status %d", a.status)
				}
				return nil
			})
			if a.status != http.StatusOK {
				unserved[i] = fmt.Sprintf("a request of at most 2500 tokens is answered %d %s by %s although %d of %d are settled and nothing is in flight",
					a.status, a.refusal, e.sys.proxies[a.proxy].name, p.settled, p.limit)
			}
		})
	}
	wg.Wait()
}

// stopProxies ends the proxies in order, as a rollout would: nothing may be lost or held
// by that either.
func (e *ending) stopProxies() (crashes []string) {
	for _, p := range e.sys.proxies {
		if err := p.running().stop(syscall.SIGTERM, time.Minute); err != nil {
			crashes = append(crashes, fmt.Sprintf("%s, told to stop: %v", p.name, err))
		}
		damaged, _ := filepath.Glob(filepath.Join(p.journal, "journal.*-*"))
		for _, d := range damaged {
			crashes = append(crashes, p.name+" set a journal aside: "+filepath.Base(d))
		}
	}
	return crashes
}

// confessions are lines in the logs of the system's own programs that say that something
// is wrong with them.
func (s *system) confessions() (out []string) {
	for _, p := range slices.Concat(s.proxies, s.workers) {
		f, err := os.Open(p.spec.log)
		if err != nil {
			continue // it never said anything
		}
		lines := bufio.NewReader(f)
		for {
			line, err := lines.ReadString('\n')
			for _, word := range []string{"BUG:", "panic:", "fatal error:", "DATA RACE"} {
				if strings.Contains(line, word) {
					out = append(out, fmt.Sprintf("%s says: %.300s", p.name, strings.TrimSpace(line)))
					break
				}
			}
			if err != nil {
				break
			}
		}
		_ = f.Close()
	}
	return out
}

// verified asks the system itself whether its books agree.
func (e *ending) verified(ctx context.Context) (differs string) {
	if _, err := e.sys.command(ctx, "openclawctl", "ledger", "verify", "--wait", "5s"); err != nil {
		return err.Error()
	}
	return ""
}

// collect reads all that is to be compared.
func (e *ending) collect(ctx context.Context, unserved []string) (*facts, error) {
	f := &facts{late: e.late, verify: e.verified(ctx)}
	for _, a := range e.load.all() {
		if a.done {
			f.attempts = append(f.attempts, a)
		}
	}
	f.entries = e.sys.sim.Ledger()
	err := e.watch.query(ctx, `SELECT replica, seq, admitted_at, request_id, upstream_request_id, customer_id, model_asked,
		prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, settled_tokens, unbilled_tokens, reserved_tokens, basis, outcome
		FROM usage_events`, func(rows pgx.Rows) error {
		var r row
		err := rows.Scan(&r.replica, &r.seq, &r.admitted, &r.requestID, &r.upstreamID, &r.customer, &r.model,
			&r.prompt, &r.cached, &r.completion, &r.reasoning, &r.settled, &r.unbilled, &r.reserved, &r.basis, &r.outcome)
		f.rows = append(f.rows, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = e.watch.query(ctx, "SELECT stream_id, reason FROM dead_letters", func(rows pgx.Rows) error {
		var id, reason string
		err := rows.Scan(&id, &reason)
		f.deadLetters = append(f.deadLetters, id+": "+reason)
		return err
	})
	if err != nil {
		return nil, err
	}
	periods, err := e.watch.readPeriods(ctx)
	if err != nil {
		return nil, err
	}
	records, err := e.watch.readRecords(ctx)
	if err != nil {
		return nil, err
	}
	for i, c := range e.load.customers {
		b := books{id: c.id, limit: periods[c.id].limit, postgres: periods[c.id].settled, requests: periods[c.id].requests, unserved: unserved[i]}
		if records[i].there {
			b.redis, b.held = &records[i].settled, records[i].held
		}
		top := e.watch.ceilings[i]
		b.overBy, b.overAt, b.overWhere, b.limitMoved = top.overBy, top.overAt, top.overWhere, top.moved
		f.books = append(f.books, b)
	}
	return f, nil
}

// attemptsLeft says how many attempts never ended.
func attemptsLeft(l *load) int {
	n := 0
	for _, a := range l.all() {
		if !a.done {
			n++
		}
	}
	return n
}
