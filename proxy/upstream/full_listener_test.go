package upstream

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fullListener returns a listener with no room in its queue: further connects hang
// until their own limit.
func fullListener(t *testing.T) (net.Listener, []net.Conn) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	ln, err := net.FileListener(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	var fill []net.Conn
	for range 16 {
		c, err := net.DialTimeout("tcp", ln.Addr().String(), time.Second)
		if err != nil {
			return ln, fill
		}
		fill = append(fill, c)
	}
	t.Fatal("the listener's queue does not fill")
	return nil, nil
}
