package operator_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control/operator"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// Whoever cannot renew the lease stops before another one may have it.
func TestLeaderStopsBeforeItsLeaseEnds(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.LeaseFor = 9 * time.Second
	began, stopped := make(chan struct{}), make(chan time.Time, 1)
	opts.WhileLeading = func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		stopped <- time.Now()
		return nil
	}
	op, err := operator.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- op.Run(t.Context()) }()
	<-began
	time.Sleep(3 * time.Second) // and renews
	e.kube.PauseAPIServer()
	defer e.kube.ResumeAPIServer()
	paused := time.Now()
	select {
	case at := <-stopped:
		if after := at.Sub(paused); after >= opts.LeaseFor {
			t.Errorf("it worked on for %s after it could not renew a lease of %s", after, opts.LeaseFor)
		}
	case <-time.After(soon):
		t.Fatal("it works on without its lease")
	}
	select {
	case err := <-ended:
		if !errors.Is(err, operator.ErrLost) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(soon):
		t.Fatal("it goes on without its lease")
	}
}

// While nothing changes the Lease is all that is written, and is written seldom.
func TestLeaseIsSeldomRenewed(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.LeaseFor = 9 * time.Second // so it is renewed every 3
	op := e.run(opts)
	leads(e, op)
	versions := make(map[string]bool)
	for began := time.Now(); time.Since(began) < 15*time.Second; time.Sleep(200 * time.Millisecond) {
		if version := e.field(operator.OperatorSpace, "lease/"+operator.LeaseName, ".metadata.resourceVersion"); version != "" {
			versions[version] = true
		}
	}
	if n := len(versions); n < 3 || n > 7 {
		t.Errorf("in 15 s a lease of 9 s had %d versions", n)
	}
	if note := op.Note(); note != "this process leads" {
		t.Error(note)
	}
}

// However long a Lease is: who is told to end gives it away, and the next one leads within seconds.
func TestALongLeaseIsGivenAway(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testenv.DedicatedKubernetes(t), testenv.Postgres(t))
	opts := e.options()
	opts.LeaseFor = 0 // the default
	first := e.run(opts)
	leads(e, first)
	next := e.run(e.another(opts))
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	leads(e, next)
}

// leads waits until an operator leads.
func leads(e *env, op *running) {
	e.t.Helper()
	e.until(soon, func() string {
		if note := op.Note(); note != "this process leads" {
			return note
		}
		return ""
	})
}
