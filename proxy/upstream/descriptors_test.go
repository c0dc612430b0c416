package upstream

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// That this process has no descriptor left says nothing about the upstream.
func TestNoDescriptorsLeaveTheBreakerClosed(t *testing.T) {
	t.Parallel()
	emfile := os.NewSyscallError("socket", syscall.EMFILE)
	for name, tc := range map[string]struct {
		err  error
		open bool
	}{
		"socket":   {&net.OpError{Op: "dial", Net: "tcp", Err: emfile}, false},
		"system":   {&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.ENFILE)}, false},
		"resolver": {&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "dial udp: " + emfile.Error(), Name: "api.example.com"}}, false},
		"refused":  {&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, true},
		"no name":  {&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "api.example.com"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig("http://127.0.0.1:1/v1")
			cfg.BreakerFailures, cfg.BreakerOpen = 1, Duration(time.Hour)
			pool := newTestPool(t, Options{}, cfg)
			pool.endpoints[0].dial = func(context.Context, string) (net.Conn, error) { return nil, tc.err }
			_, _, err := call(t, pool, body)
			if e := asError(t, err); e.Phase != PhaseDial || e.Sent {
				t.Errorf("%+v", e)
			}
			if s := pool.Stats()[0]; s.BreakerOpen != tc.open || s.Open != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}
