package limits

import (
	"context"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Owes returns with how many records of an epoch a replica has to do that left no events.
func Owes(ctx context.Context, r *Records, epoch int64, m control.Member) (int, error) {
	list, err := r.owes(ctx, epoch, m, nil)
	return len(list), err
}

// WithStep returns o with a function that is called at each step of a Keeper; an error of
// it ends Run there and then, as a kill would.
func (o Options) WithStep(step func(name string) error) Options {
	o.step = step
	return o
}

// GraceMargin is added to the grace.
const GraceMargin = graceMargin

// WithLook returns o with a function that is called whenever the leader has looked.
func (o Options) WithLook(look func()) Options {
	o.looked = look
	return o
}
