//go:build !linux

package upstream

import "syscall"

// socketProbe knows nothing here: a dead idle connection is noticed when its request
// fails, and is then not retried unless nothing was written.
type socketProbe struct{}

func (*socketProbe) init(syscall.RawConn)                    {}
func (*socketProbe) quiet(syscall.RawConn) bool              { return true }
func (*socketProbe) unreceived(syscall.RawConn, uint64) bool { return false }
