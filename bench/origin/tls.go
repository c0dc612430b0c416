package origin

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// ServeTLS serves TLS connections of l until ctx ends, with a goroutine for each: what it
// costs more than Server costs all proxies that are compared over TLS alike.
func ServeTLS(ctx context.Context, l net.Listener, cfg *tls.Config) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	s := &tlsServer{scripts: [2]*scripts{makeScripts(false), makeScripts(true)}}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("origin: accept: %w", err)
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s.serve(tls.Server(c, cfg))
		})
	}
}

type tlsServer struct{ scripts [2]*scripts }

// serve answers requests until the connection ends.
func (s *tlsServer) serve(c *tls.Conn) {
	var dec decoder
	var pl planner
	buf := make([]byte, 32<<10)
	var out []byte
	for {
		r, ok, err := dec.next(&pl)
		switch {
		case !ok && err != nil:
			return
		case !ok:
			n, err := c.Read(buf)
			if err != nil {
				return // the peer is gone, or this server ends
			}
			dec.add(buf[:n])
			continue
		case err != nil:
			out = appendError(out[:0], err.Error())
		case r.stream:
			if s.stream(c, r) != nil {
				return
			}
			continue
		default:
			time.Sleep(r.plan.ttft + time.Duration(r.plan.tokens)*r.plan.interval)
			out = appendWhole(out[:0], r.anthropic, r.usage)
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// stream plays a stream at its pace.
func (s *tlsServer) stream(c io.Writer, r request) error {
	sc := s.scripts[0]
	if r.plan.stamp {
		sc = s.scripts[1]
	}
	script := &sc.openAI
	if r.anthropic {
		script = &sc.anthropic
	}
	begin := time.Now().Add(r.plan.ttft)
	time.Sleep(r.plan.ttft)
	out := append([]byte(nil), eventHead...)
	out = script.first.append(out, time.Now().UnixNano())
	for i := range r.plan.tokens {
		if _, err := c.Write(out); err != nil {
			return err
		}
		if r.plan.interval > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(i+1) * r.plan.interval)))
		}
		out = script.token.append(out[:0], time.Now().UnixNano())
	}
	out = script.last(out, r.usage, time.Now().UnixNano())
	_, err := c.Write(out)
	return err
}
