package limits

import (
	"context"
	"errors"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// Owes returns with how many records of an epoch a replica has to do that left no events.
func Owes(ctx context.Context, r *Records, epoch int64, m control.Member) (int, error) {
	list, away, err := r.owes(ctx, epoch, m, nil)
	return len(list), errors.Join(away, err)
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

// PutWithin is how long a record may be under way to Redis.
const PutWithin = putWithin
