//go:build !linux

package proxy

import (
	"errors"
	"fmt"

	"github.com/valyala/fasthttp"
)

// loops are for Linux only.
type loops struct{}

func newLoops(driver string) (*loops, error) {
	if driver == streamsByLoop {
		return nil, fmt.Errorf("streams: %w", errors.ErrUnsupported)
	}
	return nil, nil
}

// loopStream is a stream that a loop drives.
type loopStream struct{}

func (*loopStream) inherit() {}

func (*loopStream) forsake() {}

func (*loops) close() error { return nil }

func (*Server) handOver(*fasthttp.RequestCtx, *call) bool { return false }
