package testenv

import (
	"net"
	"testing"
)

// Serve runs a server that a test has made on a port of loopback, which it returns, until the
// test ends. Serve of the server returns once Close is called.
func Serve(t testing.TB, server interface {
	Serve(l net.Listener) error
	Close() error
}) (port int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // ends with Close
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
	return listener.Addr().(*net.TCPAddr).Port
}
