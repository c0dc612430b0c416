package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/limits"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// event returns a valid event that settles 15 tokens.
func event(customer, period string, seq int64) contract.Event {
	return contract.Event{
		Replica: "r1", Seq: seq, AdmittedAt: time.Now().UTC().Truncate(time.Microsecond), PeriodID: period,
		RequestID: fmt.Sprintf("req-%d", seq), CustomerID: customer, BoxID: "b1", TokenID: "t1", Tier: "starter", ModelAsked: "k2",
		ModelServed: "k2", Face: contract.FaceOpenAI, Upstream: "sim", Prompt: 10, Completion: 5, Settled: 15, Reserved: 20,
		Basis: contract.BasisUpstream, Outcome: contract.OutcomeOK, Status: 200,
	}
}

// record writes events as the ledger would.
func (e *env) record(dead []control.DeadLetter, events ...contract.Event) {
	e.t.Helper()
	var list []control.Delivery
	for i, ev := range events {
		payload, err := json.Marshal(ev)
		if err != nil {
			e.t.Fatal(err)
		}
		list = append(list, control.Delivery{StreamID: fmt.Sprintf("1-%d", ev.Seq), Index: i, Payload: payload, Event: ev})
	}
	if _, err := e.store.RecordUsage(e.t.Context(), list, dead); err != nil {
		e.t.Fatal(err)
	}
}

func (e *env) audit() string {
	return strings.TrimSpace(e.pg.Query("SELECT string_agg(action || '/' || actor, ' ' ORDER BY id) FROM audit_log WHERE action LIKE 'ledger.%'"))
}

type verified struct {
	Periods   int
	Repaired  int
	Different []struct {
		CustomerID string `json:"customer_id"`
		Recorded   control.UsageTotals
		Counted    control.UsageTotals
		Redis      *int64 `json:"redis_settled"`
	}
}

func TestLedgerVerify(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c, idle created
	e.ok(&c, "customer", "create", "--name", "Ada")
	e.ok(&idle, "customer", "create", "--name", "Idle")
	id, period := c.Customer.ID, c.Period.ID
	e.record(nil, event(id, period, 1), event(id, period, 2))
	settled := func(n int) {
		if err := e.redis.Client().HSet(t.Context(), contract.QuotaKey(id, period), "settled", n).Err(); err != nil {
			t.Fatal(err)
		}
	}
	settled(30)
	var v verified
	e.ok(&v, "ledger", "verify")
	if v.Periods != 2 || len(v.Different) != 0 {
		t.Errorf("all agree: %+v", v)
	}

	settled(31)
	r := e.run("ledger", "verify", "--wait", "0s", "--output", "json")
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.code != 4 || !strings.Contains(r.stderr, "1 of 2 periods") {
		t.Fatalf("exit code %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if len(v.Different) != 1 || v.Different[0].CustomerID != id || *v.Different[0].Redis != 31 || v.Different[0].Counted.Settled != 30 {
		t.Errorf("Redis ahead: %+v", v)
	}
	e.ok(&v, "ledger", "verify", "--customer", idle.Customer.ID)
	settled(30)

	e.pg.Query("UPDATE usage_periods SET settled_tokens = 99, requests = 7 WHERE customer_id = '" + id + "'")
	r = e.run("ledger", "verify", "--customer", id, "--period", period)
	if r.code != 4 {
		t.Errorf("exit code %d", r.code)
	}
	for _, row := range []string{
		id + "  " + period + "  requests  7       2", id + "  " + period + "  settled   99      30      30",
	} {
		if !strings.Contains(r.stdout, row) {
			t.Errorf("no %q in\n%s", row, r.stdout)
		}
	}
	e.ok(&v, "ledger", "verify", "--repair-totals")
	if v.Repaired != 1 || len(v.Different) != 0 || e.audit() != "ledger.repair_totals/ada" {
		t.Errorf("repaired: %+v, audit log %s", v, e.audit())
	}
	if r := e.run("ledger", "verify"); r.code != 0 || !strings.Contains(r.stdout, "verified 2 periods, 0 differ") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	// What could not be compared is not said to agree.
	e.redis.Stop()
	if r := e.run("ledger", "verify"); r.code != 1 || !strings.Contains(r.stderr, "ask Redis") {
		t.Errorf("without Redis: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

func TestLedgerDeadLetters(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	good, early := event(c.Customer.ID, c.Period.ID, 1), event("c1", "p1", 2)
	e.record([]control.DeadLetter{{StreamID: "2-1", Index: -1, Payload: []byte("\x1b[2Jx\xff"), Reason: "not JSON"}}, good, early)

	var list []control.DeadLetter
	e.ok(&list, "ledger", "deadletters", "list")
	if len(list) != 2 || list[1].Replica != "r1" || list[1].Seq != 2 || list[1].Reason != "unknown customer" || list[0].Index != -1 {
		t.Fatalf("dead letters %+v", list)
	}
	waits, junk := fmt.Sprint(list[1].ID), fmt.Sprint(list[0].ID)
	if r := e.run("ledger", "deadletters", "list"); r.code != 0 || !strings.Contains(r.stdout, "r1-2") || !strings.Contains(r.stdout, "unknown customer") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var shown struct {
		control.DeadLetter
		Text string
	}
	e.ok(&shown, "ledger", "deadletters", "show", waits)
	if shown.ID != list[1].ID || !strings.Contains(shown.Text, `"request_id":"req-2"`) {
		t.Errorf("shown %+v", shown)
	}
	if r := e.run("ledger", "deadletters", "show", junk); r.code != 0 || strings.Contains(r.stdout, "\x1b") || !strings.Contains(r.stdout, "[2Jx") {
		t.Errorf("exit code %d\n%q%s", r.code, r.stdout, r.stderr)
	}

	// Refused again: each says why, and stays.
	r := e.run("ledger", "deadletters", "replay", waits, junk)
	if r.code != 1 || !strings.Contains(r.stderr, "unknown customer") || !strings.Contains(r.stderr, "dead letter "+junk) {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	e.pg.Query("INSERT INTO customers (id, name, tier) VALUES ('c1', 'x', 'starter')")
	r = e.run("ledger", "deadletters", "replay", waits, junk, "--output", "json")
	var done []struct{ ID, Inserted, Duplicates, Parked int64 }
	if err := json.Unmarshal([]byte(r.stdout), &done); err != nil || r.code != 1 || len(done) != 1 || done[0].ID != list[1].ID || done[0].Inserted != 1 {
		t.Errorf("exit code %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if got := e.redis.Client().HGet(t.Context(), contract.UsageAckedKey, "r1").Val(); got != "2" {
		t.Errorf("acked %q", got)
	}
	if r := e.run("ledger", "deadletters", "replay", waits); r.code != 1 || !strings.Contains(r.stderr, "it was replayed") {
		t.Errorf("replayed twice: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	var dropped struct{ Dropped []int64 }
	e.ok(&dropped, "ledger", "deadletters", "drop", junk, "--reason", "noise")
	if len(dropped.Dropped) != 1 || dropped.Dropped[0] != list[0].ID {
		t.Errorf("dropped %+v", dropped)
	}
	e.ok(&list, "ledger", "deadletters", "list")
	if len(list) != 0 {
		t.Errorf("waiting %+v", list)
	}
	var all []control.DeadLetter
	e.ok(&all, "ledger", "deadletters", "list", "--all", "--limit", "2")
	if len(all) != 2 || all[0].DroppedAt.IsZero() || all[1].ReplayedAt.IsZero() || all[0].ReplayedAt != all[1].DroppedAt {
		t.Errorf("all %+v", all)
	}
	if e.audit() != "ledger.replay/ada ledger.drop/ada" {
		t.Errorf("audit log %s", e.audit())
	}
	if got := strings.TrimSpace(e.pg.Query("SELECT detail->>'reason' FROM audit_log WHERE action = 'ledger.drop'")); got != "noise" {
		t.Errorf("reason %q", got)
	}
}

// Without Redis a replay is recorded all the same, and says that replicas wait.
func TestLedgerReplayWithoutRedis(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.record(nil, event("c1", "p1", 1))
	e.pg.Query("INSERT INTO customers (id, name, tier) VALUES ('c1', 'x', 'starter')")
	e.redis.Stop()
	id := strings.TrimSpace(e.pg.Query("SELECT id FROM dead_letters"))
	if r := e.run("ledger", "deadletters", "replay", id); r.code != 0 || !strings.Contains(r.stderr, "do not know yet") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got := strings.TrimSpace(e.pg.Query("SELECT requests FROM usage_periods")); got != "1" {
		t.Errorf("%s requests", got)
	}
}

func TestLedgerReplicas(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	e.record(nil, event(c.Customer.ID, c.Period.ID, 1), event(c.Customer.ID, c.Period.ID, 2), event(c.Customer.ID, c.Period.ID, 5))
	var list []control.Replica
	e.ok(&list, "ledger", "replicas")
	if len(list) != 1 || list[0].ID != "r1" || list[0].Acked != 2 || list[0].Highest != 5 || list[0].Status != control.ReplicaLive {
		t.Errorf("replicas %+v", list)
	}
	var lost struct {
		control.Replica
		Released *int64 `json:"released_tokens"`
	}
	e.ok(&lost, "ledger", "declare-lost", "r1", "--reason", "node burnt down")
	if lost.Status != control.ReplicaLost || lost.LostReason != "node burnt down" || lost.Released == nil || *lost.Released != 0 {
		t.Errorf("lost %+v", lost)
	}
	r := e.run("ledger", "replicas")
	if r.code != 0 || !strings.Contains(r.stdout, "lost") || !strings.Contains(r.stdout, "node burnt down") || e.audit() != "ledger.declare_lost/ada" {
		t.Errorf("exit code %d, audit log %s\n%s%s", r.code, e.audit(), r.stdout, r.stderr)
	}
}

// keep runs what keeps the limits in Redis, as the billing-worker does.
func (e *env) keep() {
	e.t.Helper()
	k, err := limits.NewKeeper(e.store, e.redis.Client(), limits.Options{Every: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	e.t.Cleanup(func() { cancel(); <-ended })
}

func (e *env) await(what string, ok func() bool) {
	e.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.t.Fatal("timed out waiting for " + what)
		}
	}
}

// A replica is given up that leases tokens of two customers.
func TestLedgerDeclareLost(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var ada, bob created
	e.ok(&ada, "customer", "create", "--name", "Ada")
	e.ok(&bob, "customer", "create", "--name", "Bob")
	e.keep()
	ctx, client := context.Background(), e.redis.Client()
	beat := func(n int) { client.HSet(ctx, contract.QuotaBeatsKey, "r1", fmt.Sprintf("%d|1|2|0|live", n)) }
	e.await("the epoch", func() bool { return client.HGet(ctx, contract.QuotaEpochKey, "state").Val() == "open" })
	stop := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				stop <- struct{}{}
				return
			case <-time.After(20 * time.Millisecond):
				beat(n)
			}
		}
	}()
	e.await("the register", func() bool { return client.HGet(ctx, contract.QuotaEpochKey, "m:r1").Val() == "0" })
	lease := func(c created, settled, leased, last int) {
		client.HSet(ctx, contract.QuotaKey(c.Customer.ID, c.Period.ID), "settled", settled, "leased", leased, "l:r1", leased, "n:r1", 1, "w:r1", last)
	}
	e.record(nil, event(ada.Customer.ID, ada.Period.ID, 1), event(ada.Customer.ID, ada.Period.ID, 2))
	lease(ada, 15, 100, 1) // the second event is not settled
	lease(bob, 0, 50, 0)

	if r := e.run("ledger", "declare-lost", "r1", "--reason", "x"); r.code != 1 || !strings.Contains(r.stderr, "gives signs of life") {
		t.Errorf("alive: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	stop <- struct{}{}
	<-stop
	e.await("the note of its beat", func() bool {
		list, err := e.store.Replicas(ctx, 10)
		return err == nil && len(list) == 1 && !list[0].RegisteredAt.IsZero() && !list[0].LastBeat.IsZero()
	})

	r := e.run("ledger", "declare-lost", "r1", "--reason", "node burnt down", "--grace", "1s")
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for _, row := range []string{ada.Customer.ID + "  " + ada.Period.ID + "  15       85", bob.Customer.ID + "  " + bob.Period.ID + "  0        50", "15       135"} {
		if !strings.Contains(r.stdout, row) {
			t.Errorf("no %q in\n%s", row, r.stdout)
		}
	}
	for _, c := range []struct {
		created
		settled int64
	}{{ada, 30}, {bob, 0}} {
		var p period
		e.ok(&p, "quota", "show", "--customer", c.Customer.ID)
		if p.Redis == nil || p.Redis.Settled != c.settled || p.Redis.Held != 0 {
			t.Errorf("customer %s: %+v", c.Customer.Name, p.Redis)
		}
	}
	if got := client.HGet(ctx, contract.QuotaEpochKey, "m:r1").Val(); got != "lost" {
		t.Errorf("Redis says %q of it", got)
	}
	var lost struct {
		Released int64 `json:"released_tokens"`
		Settled  int64 `json:"settled_tokens"`
		Leases   []control.Released
	}
	e.ok(&lost, "ledger", "declare-lost", "r1", "--reason", "again")
	if lost.Released != 135 || lost.Settled != 15 || len(lost.Leases) != 2 {
		t.Errorf("again: %+v", lost)
	}
	var v verified
	e.ok(&v, "ledger", "verify")
	if len(v.Different) != 0 {
		t.Errorf("verified %+v", v)
	}
}

// Tokens above a limit that nobody reported to be billed are named, without a word from Stripe.
func TestLedgerVerifyFindsWhatWasNotReported(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	id, period := c.Customer.ID, c.Period.ID
	e.record(nil, event(id, period, 1), event(id, period, 2))
	if err := e.redis.Client().HSet(t.Context(), contract.QuotaKey(id, period), "settled", 30).Err(); err != nil {
		t.Fatal(err)
	}
	// All but ten tokens of the limit are paid for one by one.
	e.pg.Query("UPDATE usage_periods SET overage_tokens = limit_tokens - 10, overage_most = limit_tokens - 10, included_tokens = 10 WHERE customer_id = '" + id + "'")
	if r := e.run("ledger", "verify"); r.code != 0 {
		t.Errorf("used a moment ago: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	e.pg.Query("UPDATE usage_events SET recorded_at = recorded_at - interval '11 minutes'")
	r := e.run("ledger", "verify")
	if r.code != 4 || !strings.Contains(r.stderr, "of 1 periods something else was reported") || !strings.Contains(r.stdout, id+"  "+period) {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	r = e.run("ledger", "verify", "--customer", id, "--output", "json")
	var v struct {
		Reports []control.OverageCheck `json:"overage_reports"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.code != 4 || len(v.Reports) != 1 || v.Reports[0].Due != 20 || v.Reports[0].Reported != 0 {
		t.Errorf("exit code %d, %v, %+v", r.code, err, v)
	}
	e.pg.Query("INSERT INTO subscriptions (id, customer_id, status, tier, period_start, period_end, read_at) VALUES ('sub_1', '" + id +
		"', 'active', 'starter', now(), now() + interval '1 month', now())")
	reports := func(upTo string) {
		e.pg.Query("DELETE FROM meter_reports")
		e.pg.Query("INSERT INTO meter_reports (id, customer_id, subscription_id, period_id, tokens_from, tokens_to, cents_per_million) VALUES ('m1', '" +
			id + "', 'sub_1', '" + period + "', 0, " + upTo + ", 300)")
	}
	for upTo, code := range map[string]int{"19": 4, "20": 0, "21": 4} {
		reports(upTo)
		if r := e.run("ledger", "verify"); r.code != code || strings.Contains(r.stdout, "sub_1") != (code != 0) {
			t.Errorf("reported up to %s: exit code %d\n%s%s", upTo, r.code, r.stdout, r.stderr)
		}
	}
	reports("21")
	e.pg.Query("UPDATE usage_periods SET starts_at = now() - interval '70 days', ends_at = now() - interval '40 days' WHERE customer_id = '" + id + "'")
	for within, code := range map[string]int{"840h": 0, "2160h": 4} {
		if r := e.run("ledger", "verify", "--overage-within", within); r.code != code || strings.Contains(r.stdout, "sub_1") != (code != 0) {
			t.Errorf("ended 40 days ago, within %s: exit code %d\n%s%s", within, r.code, r.stdout, r.stderr)
		}
	}
	e.pg.Query("UPDATE usage_periods SET starts_at = now() - interval '3 years' WHERE customer_id = '" + id + "'")
	if r := e.run("ledger", "verify", "--overage-within", "2160h"); r.code != 0 {
		t.Errorf("began before what is kept: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// Redis has settled what Postgres does not have yet: no alarm, but no silence either.
func TestLedgerVerifyWhileEventsAreOnTheWay(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	var c created
	e.ok(&c, "customer", "create", "--name", "Ada")
	e.record(nil, event(c.Customer.ID, c.Period.ID, 1))
	key := contract.QuotaKey(c.Customer.ID, c.Period.ID)
	e.redis.Client().HSet(t.Context(), key, "settled", 45, "w:r1", 3)
	r := e.run("ledger", "verify", "--wait", "0s")
	if want := "Redis has settled events of replica r1 up to 3, Postgres has them up to 1"; r.code != 0 || !strings.Contains(r.stdout, want) {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	e.record(nil, event(c.Customer.ID, c.Period.ID, 2), event(c.Customer.ID, c.Period.ID, 3))
	r = e.run("ledger", "verify", "--wait", "0s")
	if r.code != 0 || strings.Contains(r.stdout, "not compared") {
		t.Errorf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
}
