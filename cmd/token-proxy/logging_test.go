package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// Nobody takes the log: whoever writes goes on, and what was lost is said as soon as somebody
// does.
func TestLogWriterWaitsForNobody(t *testing.T) {
	t.Parallel()
	r, out := io.Pipe()
	w := newLogWriter(out)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range logLines + 100 {
			fmt.Fprintf(w, "line %d\n", i)
		}
	}()
	select {
	case <-written:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits")
	}
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&got, r)
	}()
	w.flush(20 * time.Second)
	_ = out.Close()
	<-read
	text := got.String()
	if !strings.Contains(text, "line 0\n") || !strings.Contains(text, "lines of the log were lost") || !strings.Contains(text, fmt.Sprintf("line %d\n", logLines-1)) {
		t.Errorf("%.300s … %s", text, text[max(0, len(text)-300):])
	}
}

func TestLogWriterFlushes(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	w := newLogWriter(&got)
	fmt.Fprint(w, "one\n")
	fmt.Fprint(w, "two\n")
	w.flush(20 * time.Second)
	if got.String() != "one\ntwo\n" {
		t.Errorf("%q", got.String())
	}
}
