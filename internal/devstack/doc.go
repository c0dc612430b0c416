// Package devstack runs the whole system on one machine for development: Redis,
// Postgres, the Kimi simulator, token-proxy and the control plane's roles, as
// ordinary processes on loopback; and a Kubernetes control plane if it is asked to.
//
// Everything it makes is in one run directory: data, logs, configuration,
// secrets (readable by the owner only) and, for each process, a file with its
// id and start time. A process is only ever ended when both still match, so a
// reused process id is never hit. Data stays after Down.
//
// Up is level-triggered: it starts what does not run and leaves alone what
// does. The functions must not run twice at once on one run directory; a lock
// file sees to that.
package devstack
