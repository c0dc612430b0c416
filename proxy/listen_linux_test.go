package proxy

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A peer that vanished is noticed within a minute, whether something is on its way to it
// or not: of a connection as it is accepted, so much is set. That it suffices was seen in
// a network namespace whose route to the client was taken away in mid-stream: 45 s, with
// events coming and without.
func TestConnectionsNoticeVanishedPeers(t *testing.T) {
	t.Parallel()
	ln, err := listen("127.0.0.1:0", 10, 10, func(netip.Addr) bool { return false }, watcher(t), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ln.uploads = &uploads{}
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rc, err := conn.(*clientConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	option := func(level, name int) (v int) {
		if cerr := rc.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		return v
	}
	unacknowledged := time.Duration(option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)) * time.Millisecond
	if unacknowledged <= 0 || unacknowledged > 50*time.Second {
		t.Errorf("TCP_USER_TIMEOUT is %v", unacknowledged)
	}
	idle, interval, count := option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	if silence := idle + interval*count; option(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 || silence > 55 {
		t.Errorf("keep-alive after %d s, every %d s, %d times", idle, interval, count)
	}
	if option(unix.IPPROTO_TCP, unix.TCP_NODELAY) == 0 {
		t.Error("events wait for others: TCP_NODELAY is off")
	}
}
