package quota_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// A replica that hears nothing goes on no longer than the control plane reckons with.
func TestGraceOfTheControlPlane(t *testing.T) {
	t.Parallel()
	server := testenv.Redis(t)
	p, acct := newPlane(t, server), account(t, 1000)
	p.add(t, acct)
	o := quick() // a minute of its own
	o.ReturnAfter = time.Hour
	r := start(t, server, newDisk("a"), o)
	r.Release(r.mustReserve(t, acct, 100))
	ctx := context.Background()
	if err := p.SetGrace(ctx, p.number()+1, time.Millisecond); err == nil {
		t.Error("set for an epoch that there is not")
	}
	if err := p.SetGrace(ctx, p.number(), 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	until(t, "the grace is there", func() error {
		e, err := p.Epoch(ctx)
		if err == nil && e.Grace != 1500*time.Millisecond {
			err = fmt.Errorf("%v", e.Grace)
		}
		return err
	})
	set := time.Now()
	until(t, "the replica has heard of it", func() error {
		since := time.Since(set)
		if heard := r.Stats().Heard; heard < 0 || heard >= since {
			return fmt.Errorf("heard %v ago", heard)
		}
		return nil
	})
	server.Pause()
	defer server.Resume()
	began := time.Now()
	until(t, "it does not serve any more", func() error {
		if r.Ready() == nil {
			return errors.New("it does")
		}
		return nil
	})
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("after %v", d)
	}
}
