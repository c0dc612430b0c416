package limits_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// member returns what the register has of a replica.
func (e *env) member(id string) (m control.Member, there bool) {
	e.t.Helper()
	epoch, err := e.store.QuotaEpoch(context.Background())
	if err != nil {
		e.t.Fatal(err)
	}
	members, err := e.store.Members(context.Background(), epoch.Number)
	if err != nil {
		e.t.Fatal(err)
	}
	i := slices.IndexFunc(members, func(m control.Member) bool { return m.ID == id })
	if i < 0 {
		return m, false
	}
	return members[i], true
}

func (e *env) awaitOff(id string) {
	e.t.Helper()
	until(e.t, "the replica is off the register", func() error {
		if m, there := e.member(id); there {
			return fmt.Errorf("%+v\n%s", m, e.log)
		}
		return nil
	})
}

// gauge reads a metric.
func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name })
	if i < 0 {
		t.Fatalf("no metric %s", name)
	}
	return families[i].GetMetric()[0].GetGauge().GetValue()
}

// A replica comes, goes, and comes back with the same journal, all in one epoch.
func TestReplicaComesGoesAndComesBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	registry := prometheus.NewRegistry()
	o := e.options()
	o.Registerer = registry
	e.keep(o)
	first := e.awaitOpen(1)
	r := e.replica(nil)
	if m, there := e.member(r.name); !there || !m.InEpoch || m.Base != 0 {
		t.Errorf("member %+v", m)
	}
	until(t, "the metric", func() error {
		if n := gauge(t, registry, "control_quota_registered_replicas"); n != 1 {
			return fmt.Errorf("%v replicas", n)
		}
		return nil
	})
	r.use(a, 5, 10)
	r.retire()
	e.awaitOff(r.name)
	e.awaitUsage(a, 10_000, 50, 0)
	r = e.replica(r.journal)
	if m, there := e.member(r.name); !there || m.Base != 5 {
		t.Errorf("member %+v", m)
	}
	r.use(a, 5, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitAgreement(a)
	if got := e.awaitOpen(1); got.Number != first.Number {
		t.Errorf("epoch %d instead of %d\n%s", got.Number, first.Number, e.log)
	}
	e.redis.FlushAll()
	e.awaitOpen(first.Number + 1)
	r.use(a, 1, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitSettled(a, 10_000, 110)
}

// held is what is leased of a.
func (e *env) held(a quotaAccount) int64 {
	e.t.Helper()
	u, err := e.usage(a)
	if err != nil {
		e.t.Fatal(err)
	}
	return u.Held
}

// A replica that retires before Postgres has all its events stays registered until then.
func TestRetiredReplicaWhoseEventsAreLate(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	e.keep(e.options())
	e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 3, 10)
	until(t, "Postgres has them", func() error {
		if n := e.settled(a); n != 30 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	r.stopBilling()
	r.use(a, 2, 10)
	r.retire()
	until(t, "the keeper has seen it", func() error {
		if !strings.Contains(e.log.String(), "stays registered until Postgres has all its events") {
			return errors.New("nothing in the log")
		}
		return nil
	})
	if _, there := e.member(r.name); !there {
		t.Error("it is off the register")
	}
	e.record(r.events[3:]...)
	e.awaitOff(r.name)
	e.awaitUsage(a, 10_000, 50, 0)
}

// Events of who is not registered are in no record until all are made anew.
func TestEventsThatNobodySettles(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	e.record(event("gone", 1, a, 5))
	e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 1, 10)
	e.awaitUsage(a, 10_000, 15, 0)
	e.record(event("gone", 2, a, 7), event("gone", 4, a, 1))
	e.awaitOpen(first.Number + 1)
	e.awaitUsage(a, 10_000, 23, 0)
	// Once more, the gap, and somebody unknown.
	e.record(event("gone", 3, a, 100), event("new", 1, a, 1000))
	e.awaitUsage(a, 10_000, 1123, 0)
	if !strings.Contains(e.log.String(), "events of replica gone came after the epoch began") {
		t.Error("the log does not say why")
	}
}

// While a registered replica is away, a repair would stop all others: it waits.
func TestRepairWaitsForReplicas(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	registry := prometheus.NewRegistry()
	o := e.options()
	o.Registerer = registry
	e.keep(o)
	first := e.awaitOpen(1)
	r, other := e.replica(nil), e.replica(nil)
	r.use(a, 1, 10)
	r.kill()
	time.Sleep(5 * time.Second) // who was not heard of for 3 s is away
	e.record(event("gone", 1, a, 5))
	until(t, "the repair waits", func() error {
		if gauge(t, registry, "control_quota_repair_waiting") != 1 {
			return errors.New(e.log.String())
		}
		return nil
	})
	other.use(a, 1, 100)
	if epoch := e.awaitOpen(1); epoch.Number != first.Number {
		t.Errorf("epoch %d", epoch.Number)
	}
	e.replica(r.journal)
	e.awaitOpen(first.Number + 1)
	e.awaitUsage(a, 10_000, 115, 0)
}

// A replica comes back whose journal holds events that the present records contain, and
// others that they do not: it is served in the next epoch.
func TestReplicaThatFitsIntoNoRecord(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	j := &journal{name: "back", changed: make(chan struct{})}
	r := &replica{journal: j}
	for range 4 {
		j.spend(holdOf(a, 10), 10)
	}
	e.record(r.events[0], r.events[2]) // the second one has not come
	e.keep(e.options())
	first := e.awaitOpen(1)
	e.awaitUsage(a, 10_000, 20, 0)
	e.postgresAway = true
	r = e.replica(j)
	e.awaitOpen(first.Number + 1)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitUsage(a, 10_000, 40, 0)
	e.record(r.events...)
	e.awaitAgreement(a)
}

// A replica is killed and started again within an epoch in which its journal has
// forgotten some of what it settled, and not yet settled other events.
func TestReplicaIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	e.keep(e.options())
	first := e.awaitOpen(1)
	r := e.replica(nil)
	r.use(a, 5, 10)
	until(t, "the journal has forgotten them", func() error {
		if n := r.Forgotten(); n != 5 {
			return fmt.Errorf("%d are forgotten", n)
		}
		return nil
	})
	hold := r.reserve(a, 10)
	_ = r.guarded.Close() // it can settle nothing from now on
	r.spend(hold, 10)
	until(t, "Postgres has it", func() error {
		if n := e.settled(a); n != 60 {
			return fmt.Errorf("settled %d", n)
		}
		return nil
	})
	r.kill()
	r = e.replica(r.journal)
	r.use(a, 1, 10)
	until(t, "all is settled", func() error { return flushed(r) })
	e.awaitAgreement(a)
	if epoch := e.awaitOpen(1); epoch.Number != first.Number {
		t.Errorf("epoch %d", epoch.Number)
	}
	if n := e.settled(a); n != 70 {
		t.Errorf("settled %d", n)
	}
}

// A replica is told to stop before it has noticed that it is registered: it takes its
// sign of life back, and no epoch waits for it.
func TestReplicaLeavesBeforeItServes(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	e.keep(e.options())
	first := e.awaitOpen(1)
	ms := 0
	until(t, "it is registered", func() error {
		ms++
		e.client.HSet(t.Context(), contract.QuotaBeatsKey, "brief", fmt.Sprintf("%d|1|0|0|live", ms))
		if _, there := e.awaitOpen(1).Members["brief"]; !there {
			return errors.New(e.log.String())
		}
		return nil
	})
	e.client.HDel(t.Context(), contract.QuotaBeatsKey, "brief")
	e.awaitOff("brief")
	e.redis.FlushAll()
	e.awaitOpen(first.Number + 1)
	e.awaitUsage(a, 10_000, 0, 0)
	// An event that it had after all is in the records sooner or later.
	e.record(event("brief", 1, a, 5))
	e.awaitUsage(a, 10_000, 5, 0)
}

// Names that no replica has do no harm.
func TestStrangeNames(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(10_000)
	e.keep(e.options())
	e.awaitOpen(1)
	names := []string{"", "\xff", "a\x00b", strings.Repeat("x", 150), strings.Repeat("x", 5000), "m:x"}
	ms := 0
	until(t, "those that can be are registered", func() error {
		ms++ // who beats lives
		for _, name := range names {
			e.client.HSet(t.Context(), contract.QuotaBeatsKey, name, fmt.Sprintf("%d|1|0|0|live", ms))
		}
		if _, there := e.awaitOpen(1).Members["m:x"]; !there {
			return errors.New(e.log.String())
		}
		return nil
	})
	for _, name := range names {
		e.client.SAdd(t.Context(), contract.QuotaMissingKey, name+" "+name)
	}
	r := e.replica(nil)
	r.use(a, 1, 10)
	until(t, "nothing is missing", func() error {
		if n := e.client.SCard(t.Context(), contract.QuotaMissingKey).Val(); n != 0 {
			return fmt.Errorf("%d names\n%s", n, e.log)
		}
		return nil
	})
	e.awaitAgreement(a)
}
