// Package smoke checks an installation from outside, after a deployment: that what should answer
// does, in the revision that was deployed, and that what should refuse does that too.
//
// It knows addresses and no sessions, databases or clusters, so that it sees what a customer
// would. A check that fails is tried again until the context ends, for pods of a roll-out may
// come late; it fails for good only then. Every request goes over a connection of its own, so
// that load balancers choose anew. Nothing that is checked is changed, but for completions of
// a few tokens, three at most, which need a proxy token and are charged to its customer.
package smoke
