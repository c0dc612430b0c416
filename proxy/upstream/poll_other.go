//go:build !linux

package upstream

// poller is for Linux only.
type poller struct{}

func (r *Response) drainPolled([]byte) {}
