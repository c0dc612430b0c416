package limits_test

import (
	"fmt"
	"testing"
	"time"
)

// While records are made, replicas are known to be registered.
func TestReplicasGoOnWhileRecordsAreMade(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	var r *replica
	step, arm, sprung := once("put", func() error {
		began := time.Now()
		return e.within(func() error {
			if s := r.Stats(); s.Heard < 0 || s.Heard >= time.Since(began) {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	})
	e.keep(e.options().WithStep(step))
	first := e.awaitOpen(1)
	r = e.replica(nil)
	r.reserve(a, 10)
	arm()
	e.redis.FlushAll()
	<-sprung
	e.awaitOpen(first.Number + 1)
}

// within is until for another goroutine than the test's.
func (e *env) within(check func() error) error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return nil
		}
	}
	e.t.Errorf("still not after %v: %v", patience, err)
	return err
}

// A replica is declared lost just before an epoch begins, which does not know that yet and
// lets it go on while records are made, until long after it was to be told. The epoch opens,
// and its leases are freed, only when it cannot use them any more since then.
func TestLostReplicaGoesOnWhileRecordsAreMade(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	a := e.customer(1000)
	var r *replica
	step, arm, sprung := once("put", func() error {
		e.declareLost(r.name)
		e.pg.Query("UPDATE replicas SET shut_at = now(), free_at = now() - interval '1 minute' WHERE id = '" + r.name + "'")
		return nil
	})
	e.keep(e.options().WithStep(step))
	first := e.awaitOpen(1)
	r = e.replica(nil)
	r.reserve(a, 500)
	arm()
	e.redis.FlushAll()
	<-sprung
	e.awaitOpen(first.Number + 1)
	until(t, "that it is open is noted", func() error {
		got := e.pg.Query("SELECT e.opened_at >= r.free_at AND r.free_at > e.taken_at FROM replicas r, quota_epochs e WHERE r.id = '" + r.name +
			"' AND e.opened_at IS NOT NULL ORDER BY number DESC LIMIT 1")
		if got != "t" {
			return fmt.Errorf("%q\n%s", got, e.log)
		}
		return nil
	})
}
