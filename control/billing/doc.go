// Package billing turns what proxies metered into what customers are billed for.
//
// Its first part is the Ledger: it reads the usage stream in Redis and writes
// Postgres. Promise: each event on the stream becomes one row and counts once, or is
// parked where operators see it, through kill -9 of any worker at any time, outages
// of Redis and of Postgres, and duplicate deliveries. Any number of workers may run.
//
// How: an entry of the stream is acknowledged, and removed, only after the
// transaction that wrote it was committed; until then it stays on the list of its
// consumer's pending entries, from where the same worker repeats it, or another one
// claims it. So entries come at least once, and Postgres' unique key makes it once.
//
// The Ledger also tells each replica up to which number all of its events are in
// Postgres, so that its journal may forget them. That number moves forward in the
// transaction that writes the rows, and goes to Redis with the acknowledgement and
// again every few seconds: it may be late, and never too high.
//
// Books is what operators do to the ledger by hand.
package billing
