package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// logBytes is how much of the log waits at most for whoever takes it.
	logBytes = 4 << 20
	// logPause is for how long lines are gathered: to write each by itself would cost a
	// request a system call and the waking of a goroutine.
	logPause = 10 * time.Millisecond
)

// logWriter passes lines on without ever making their writer wait: an event loop that logs
// drives many streams. When nobody takes them for so long that too much waits, lines are lost, and
// that is said. Safe for concurrent use.
type logWriter struct {
	some chan struct{} // there is something to pass on
	stop chan struct{} // closed by flush
	done chan struct{} // closed when all is written

	mu    sync.Mutex
	lines []byte
	lost  int
}

func newLogWriter(out io.Writer) *logWriter {
	w := &logWriter{some: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go w.pass(out)
	return w
}

// Write takes whole lines.
func (w *logWriter) Write(lines []byte) (int, error) {
	w.mu.Lock()
	first := len(w.lines) == 0
	if len(w.lines)+len(lines) <= logBytes {
		w.lines = append(w.lines, lines...)
	} else {
		w.lost += bytes.Count(lines, []byte("\n"))
	}
	w.mu.Unlock()
	if first {
		select {
		case w.some <- struct{}{}:
		default:
		}
	}
	return len(lines), nil
}

func (w *logWriter) pass(out io.Writer) {
	defer close(w.done)
	var spare []byte
	for stopped := false; !stopped; {
		select {
		case <-w.some:
		case <-w.stop:
		}
		t := time.NewTimer(logPause)
		select {
		case <-t.C:
		case <-w.stop:
			t.Stop()
			stopped = true
		}
		w.mu.Lock()
		lines, lost := w.lines, w.lost
		w.lines, w.lost = spare[:0], 0
		w.mu.Unlock()
		if len(lines) > 0 {
			_, _ = out.Write(lines) // where should that be told?
		}
		if lost > 0 {
			_, _ = fmt.Fprintf(out, `{"time":%q,"level":"WARN","msg":"lines of the log were lost: nobody took them in time","lines":%d}`+"\n",
				time.Now().Format(time.RFC3339Nano), lost)
		}
		if spare = lines; cap(spare) > logBytes/16 {
			spare = nil
		}
	}
}

// flush waits for what was written before, within some time. Nothing is written any more. It
// is called once.
func (w *logWriter) flush(within time.Duration) {
	close(w.stop)
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C:
	}
}
