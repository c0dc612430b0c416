package localserver

import "strconv"

// RedisArgs returns the arguments of redis-server for a private instance on
// loopback that keeps its data in dir. It has the two settings that the durable
// keys of this system need: an append-only file and no eviction. The extra
// arguments come last, so that they win.
//
// A command acknowledged to a client survives SIGKILL of the server: it was
// written to the file, though perhaps not yet to the disk.
func RedisArgs(dir string, port int, extra ...string) []string {
	args := []string{
		"--bind", "127.0.0.1",
		"--port", strconv.Itoa(port),
		"--dir", dir,
		"--appendonly", "yes",
		// With everysec a write may wait in the process for up to two seconds, and a
		// kill loses it although it was acknowledged.
		"--appendfsync", "no",
		"--maxmemory-policy", "noeviction",
		"--save", "",
		"--daemonize", "no",
	}
	return append(args, extra...)
}
