// Package limits is the control plane's side of the monthly limit: it makes the records
// in Redis that replicas lease from, out of what Postgres has. Package quota has the
// protocol between the two; package store has the tables.
//
// A record is made once per epoch. It contains what its customer had settled when the
// epoch began, except the events above each replica's base, which the replica settles
// itself; and from then on only replicas change it. To make it again within the same
// epoch would forget what was settled since. So Postgres knows in which epoch each record
// was made, and where one is missing that was, Redis has lost it, and whatever else: then
// another epoch begins, as it does when Redis is new, was restarted, has taken over from
// another, or went back.
//
// Everything that an epoch's records are computed from is fixed, in Postgres, when the
// epoch begins: the base of each replica. So it does not matter who makes a record, or
// when, or twice at once: it comes out the same, and Redis takes the first.
//
// Keeper is the loop that rules epochs and the register of replicas. Any number of
// processes run it; one at a time leads, under a lock in Postgres that belongs to the one
// connection over which it reads and writes. A leader that lost the lock can do nothing in
// Postgres, and next to nothing in Redis: what it says there names its epoch, and counts
// only while that is the newest. Each step may be the last before a crash: whatever an
// unfinished epoch was, the next leader begins another.
//
// Records is what other processes do to single records: make one for a new period before
// anybody is told of it, set a limit, free what a lost replica leased.
package limits
