//go:build !linux

package upstream

import "errors"

// poller is for Linux only.
type poller struct{}

func (r *Response) drainPolled([]byte) {}

func (*poller) readLink([]byte) (int, error)  { return 0, errors.ErrUnsupported }
func (*poller) writeLink([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (*link) wait() bool                      { return false }
