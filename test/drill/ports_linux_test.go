package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// The port of a link is noted as taken, so that no test program beside the drill is given it
// while the link is cut.
func TestPortsAreNoted(t *testing.T) {
	t.Parallel()
	l := newLinks()
	defer l.close()
	k, err := l.add("a to b", 1)
	if err != nil {
		t.Fatal(err)
	}
	k.stop()
	book, err := os.Open(filepath.Join(os.TempDir(), "openclaw-ports-"+strconv.Itoa(os.Getuid()))) // see localserver.FreePort
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	// A lock of an open file excludes those of processes, also of this one.
	const ofdGetLock = 36
	lock := syscall.Flock_t{Type: syscall.F_RDLCK, Start: int64(k.port), Len: 1}
	if err := syscall.FcntlFlock(book.Fd(), ofdGetLock, &lock); err != nil {
		t.Fatal(err)
	}
	if lock.Type != syscall.F_WRLCK {
		t.Errorf("port %d is not noted: lock of type %d", k.port, lock.Type)
	}
}
