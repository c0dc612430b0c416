package limits

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
