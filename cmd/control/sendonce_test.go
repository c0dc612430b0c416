package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/redisclient"
)

// A command whose connection breaks before the answer may have been done: the worker's
// clients do not send it again by themselves.
func TestCommandsAreSentOnce(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var serving sync.WaitGroup
	seen := 0
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					switch word := strings.ToLower(lines.Text()); word {
					case "hello", "client":
						if _, err := io.WriteString(conn, "-ERR unknown command\r\n"); err != nil {
							return
						}
					case "incr":
						mu.Lock()
						seen++
						mu.Unlock()
						return
					}
				}
			})
		}
	})
	target, err := redisclient.Parse("redis://" + listener.Addr().String() + "/0")
	if err != nil {
		t.Fatal(err)
	}
	client := target.Open(sendOnce)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.Incr(ctx, "n").Err(); err == nil {
		t.Error("no error")
	}
	_ = client.Close()
	_ = listener.Close()
	serving.Wait()
	if seen != 1 {
		t.Errorf("the command was sent %d times", seen)
	}
}
