// Package localserver finds and prepares the Redis and Postgres programs that
// are installed on this machine, so that a private instance can be run on
// loopback: by tests (internal/testenv) and by the development stack
// (internal/devstack).
//
// It only locates programs, writes their data directories, builds their command
// lines and chooses ports. Whoever calls it starts, watches and ends the processes. All
// functions are safe for concurrent use.
package localserver
