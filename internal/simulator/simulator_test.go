package simulator_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/simulator"
)

func TestOnlyThisMachine(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{"127.0.0.1:0": true, "[::1]:1": true, "localhost:9101": true, ":9101": false, "0.0.0.0:1": false, "192.0.2.1:1": false, "localhost.example.com:1": false, "127.0.0.1": false} {
		if err := simulator.CheckAddress(address); (err == nil) != ok {
			t.Errorf("address %q: %v", address, err)
		}
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		code int
		said string
	}{{nil, 0, ""}, {simulator.ErrUsage, 2, ""}, {errors.New("no room"), 1, "no room\n"}} {
		var said bytes.Buffer
		if code := simulator.ExitCode(c.err, &said); code != c.code || said.String() != c.said {
			t.Errorf("%v: %d, %q", c.err, code, said.String())
		}
	}
}

// What is in hand is answered, what would go on by itself is told, and nothing is listened to any more.
func TestServeEndsInOrder(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun, closing := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-closing
		_, _ = io.WriteString(w, "done")
	})
	ctx, end := context.WithCancel(t.Context())
	ended, answered := make(chan error, 1), make(chan string, 1)
	go func() { ended <- simulator.Serve(ctx, "test", listener, handler, func() { close(closing) }) }()
	url := "http://" + listener.Addr().String()
	go func() {
		res, err := http.Get(url)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		answered <- string(body)
		if err != nil {
			t.Error(err)
		}
	}()
	<-begun
	end()
	select {
	case body := <-answered:
		if body != "done" {
			t.Errorf("what was in hand is answered with %q", body)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("what was in hand is not answered")
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("it still answers")
	}
}
