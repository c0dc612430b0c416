package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/peers"
	"github.com/andreabadesso/openclaw-cloud/bench/platform"
	"github.com/andreabadesso/openclaw-cloud/bench/record"
)

// Watch notes the state of a token-proxy at once and then each time every has passed, until
// stop is called, which returns what was noted.
func Watch(ctx context.Context, r *peers.Running, every time.Duration) (stop func() ([]record.Point, error)) {
	ctx, cancel := context.WithCancel(ctx)
	began := time.Now()
	var points []record.Point
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			p, err := point(ctx, r)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				failed = err
				return
			}
			p.Seconds = time.Since(began).Seconds()
			points = append(points, p)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() ([]record.Point, error) {
		cancel()
		<-done
		return points, failed
	}
}

func point(ctx context.Context, r *peers.Running) (record.Point, error) {
	var p record.Point
	var err error
	if p.PSS, err = r.Proc.Memory(); err != nil {
		return p, err
	}
	text, err := platform.Get(ctx, "http://"+r.Admin+"/metrics")
	if err != nil {
		return p, fmt.Errorf("metrics of %s: %w", r.Name, err)
	}
	for name, to := range map[string]*int64{"go_goroutines": &p.Goroutines, "process_open_fds": &p.Files, "token_proxy_streams": &p.Streams} {
		v, err := peers.Metric(text, name)
		if err != nil {
			return p, err
		}
		*to = int64(v)
	}
	return p, nil
}
