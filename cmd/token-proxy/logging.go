package main

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// logLines are how many lines wait at most for whoever takes the log.
const logLines = 4096

// logWriter passes lines on without ever making their writer wait: an event loop that logs
// drives many streams. When nobody takes them for so long that too many wait, lines are lost, and
// that is said. Safe for concurrent use.
type logWriter struct {
	lines chan []byte
	lost  atomic.Int64
	done  chan struct{} // closed when the line before an empty one is written
}

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{lines: make(chan []byte, logLines), done: make(chan struct{})}
	go w.pass(out)
	return w
}

// Write takes one line.
func (w *logWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- bytes.Clone(line):
	default:
		w.lost.Add(1)
	}
	return len(line), nil
}

func (w *logWriter) pass(out io.Writer) {
	defer close(w.done)
	for line := range w.lines {
		if len(line) == 0 {
			return
		}
		if n := w.lost.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(out, `{"time":%q,"level":"WARN","msg":"lines of the log were lost: nobody took them in time","lines":%d}`+"\n",
				time.Now().Format(time.RFC3339Nano), n)
		}
		_, _ = out.Write(line) // where should that be told?
	}
}

// flush waits for what was written before, within some time. Nothing is written any more.
func (w *logWriter) flush(within time.Duration) {
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case w.lines <- nil:
	case <-t.C:
		return
	}
	select {
	case <-w.done:
	case <-t.C:
	}
}
