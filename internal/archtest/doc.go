// Package archtest holds the rules of this repository's layout as tests: which
// package may import which, where each outside system has its home, who may
// read the environment, and what a source file must not contain.
//
// Each rule is a function from parsed files to a list of complaints, so that
// the rules themselves are tested on small made-up trees: a rule that cannot
// complain is worth nothing. A complaint says what to do instead.
package archtest
