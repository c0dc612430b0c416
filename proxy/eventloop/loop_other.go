//go:build !linux

package eventloop

import "errors"

// Loop is for Linux only.
type Loop struct{}

// New fails: there is no event loop on this system.
func New() (*Loop, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (l *Loop) Close() error { return nil }
