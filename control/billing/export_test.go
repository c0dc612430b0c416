package billing

// WithStep returns o with a function that is called at each step of the ledger:
// "read" before a transaction, "committed" before its acknowledgement,
// "acknowledged" after it. An error ends Run there and then, as a kill would.
func WithStep(o Options, step func(string) error) Options {
	o.step = step
	return o
}
