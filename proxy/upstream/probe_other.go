//go:build !linux

package upstream

import "syscall"

// socketProbe knows nothing here: a dead idle connection is noticed when its request
// fails, and a POST is then not retried unless nothing was written, because there is
// no proof that the peer did not read it. Production runs on Linux.
type socketProbe struct{}

func (*socketProbe) init(syscall.RawConn)                    {}
func (*socketProbe) quiet(syscall.RawConn) bool              { return true }
func (*socketProbe) unreceived(syscall.RawConn, uint64) bool { return false }
