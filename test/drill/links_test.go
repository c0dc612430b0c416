package main

import (
	"io"
	"net"
	"testing"
	"time"
)

// A link whose connections nobody can get hold of is given up, and passes bytes again.
func TestStuckLinkIsRenewed(t *testing.T) {
	t.Parallel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	l := newLinks()
	k, err := l.add("a to b", echo.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	say := func() error {
		c, err := net.Dial("tcp", local(k.port))
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := io.WriteString(c, "x"); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 1))
		return err
	}
	if err := say(); err != nil {
		t.Fatal(err)
	}
	k.proxy.Toxics.Lock() // as one that waits for a frozen peer
	if say() == nil {
		t.Fatal("the link is not stuck")
	}
	stopped := make(chan struct{})
	go func() { k.stop(); close(stopped) }()
	select {
	case <-stopped:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for ever")
	}
	if err := k.heal(); err != nil {
		t.Fatal(err)
	}
	if err := say(); err != nil {
		t.Error(err)
	}
}
