//go:build linux

package monitoring

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"
)

// overloaded asks the second token-proxy, which may use one processor when nobody else wants it, from more
// connections than it can answer in time.
func (w *world) overloaded() []fault {
	return []fault{{"there is more to do than processors can", []string{"Overloaded"}, func() func() {
		const connections = 2500
		address := w.address("SECOND")
		request := []byte("GET /v1/models HTTP/1.1\r\nHost: " + address + "\r\nAuthorization: Bearer " + w.token + "\r\n\r\n")
		dialing := make(chan struct{}, 50)
		var mu sync.Mutex
		statuses := make(map[string]int)
		end := w.while(connections, func(ctx context.Context) {
			for ctx.Err() == nil {
				dialing <- struct{}{}
				conn, err := net.DialTimeout("tcp", address, 10*time.Second)
				<-dialing
				if err != nil {
					return
				}
				closed := context.AfterFunc(ctx, func() { conn.Close() })
				own := repeat(conn, request)
				closed()
				conn.Close()
				mu.Lock()
				for status, n := range own {
					statuses[status] += n
				}
				mu.Unlock()
			}
		})
		began := time.Now()
		return func() {
			end()
			w.t.Logf("answers within %v, by status: %v", time.Since(began).Round(time.Second), statuses)
		}
	}}}
}

// repeat sends a request again and again over a connection, until that is closed, and returns how many
// answers there were by their status.
func repeat(conn net.Conn, request []byte) (statuses map[string]int) {
	statuses = make(map[string]int)
	buf := make([]byte, 8<<10)
	for {
		if _, err := conn.Write(request); err != nil {
			return statuses
		}
		status, err := answer(conn, buf)
		if err != nil {
			return statuses
		}
		statuses[status]++
	}
}

// answer reads one whole answer, which fits into buf and says how long it is.
func answer(conn net.Conn, buf []byte) (status string, err error) {
	const named = "\r\nContent-Length: "
	for n := 0; ; {
		more, err := conn.Read(buf[n:])
		if err != nil {
			return "", err
		}
		n += more
		head, body, whole := bytes.Cut(buf[:n], []byte("\r\n\r\n"))
		if !whole {
			continue
		}
		_, rest, ok := bytes.Cut(head, []byte(named))
		length, _, _ := bytes.Cut(rest, []byte("\r\n"))
		size, err := strconv.Atoi(string(length))
		if !ok || err != nil || len(head) < 12 {
			return "", errors.New("an answer that does not say how long it is")
		}
		if len(body) >= size {
			return string(head[9:12]), nil
		}
	}
}
