package limits

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/andreabadesso/openclaw-cloud/quota"
)

// releaseAgain is how long nothing is freed after a part of Redis was found away: each try
// reads all records.
const releaseAgain = 5 * time.Second

// releases frees the leases of lost replicas whom nobody else frees, one after the other,
// beside the looks: it may have to read every record, and meanwhile others must be
// registered and the leader be heard of. One goroutine may use it.
type releases struct {
	records *Records
	log     *slog.Logger
	ended   chan struct{} // closed when it has ended; nil while none is under way
	stop    context.CancelFunc
	turn    int
	notYet  time.Time            // a part of Redis was away: begin nothing before then
	saidAt  map[string]time.Time // when a replica was said to have to wait for a part of Redis
}

// next begins to free what one of the replicas leased, unless one is under way.
func (r *releases) next(ctx context.Context, overdue []string) {
	if r.ended != nil {
		select {
		case <-r.ended:
			r.stop()
			r.ended = nil
		default:
			return
		}
	}
	if len(overdue) == 0 || time.Now().Before(r.notYet) {
		return
	}
	replica := overdue[r.turn%len(overdue)]
	r.turn++
	ctx, r.stop = context.WithCancel(ctx)
	r.ended = make(chan struct{})
	go func(ended chan<- struct{}) {
		defer close(ended)
		_, err := r.records.release(ctx, replica)
		if errors.Is(err, quota.ErrUnavailable) {
			r.notYet = time.Now().Add(releaseAgain)
		}
		switch {
		case err == nil:
			r.log.Warn("the leases of a lost replica are free; whoever declared it lost did not live to free them", "replica", replica)
		case ctx.Err() != nil:
		case errors.Is(err, quota.ErrUnavailable) && time.Since(r.saidAt[replica]) < sayEvery:
		default:
			r.saidAt[replica] = time.Now()
			r.log.Warn("cannot free the leases of a lost replica; will retry", "replica", replica, "error", err)
		}
	}(r.ended)
}

// end stops what is under way, and waits for that.
func (r *releases) end() {
	if r.ended != nil {
		r.stop()
		<-r.ended
	}
}
