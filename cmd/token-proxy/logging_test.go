package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Nobody takes the log: whoever writes goes on, and what was lost is said as soon as somebody
// does.
func TestLogWriterWaitsForNobody(t *testing.T) {
	t.Parallel()
	r, out := io.Pipe()
	w := newLogWriter(out)
	const size, n = 1000, 3 * logBytes / 1000
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range n {
			fmt.Fprintf(w, "%*d\n", size-1, i)
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
	whole, lost := 0, 0
	for line := range strings.Lines(got.String()) {
		if m := regexp.MustCompile(`^{.*"lines of the log were lost.*"lines":(\d+)}\n$`).FindStringSubmatch(line); m != nil {
			k, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			lost += k
			continue
		}
		if k, err := strconv.Atoi(strings.TrimSpace(line)); err != nil || len(line) != size || k != whole {
			t.Fatalf("line %d: %q", whole, line)
		}
		whole++
	}
	if lost == 0 || whole+lost != n || whole < logBytes/size {
		t.Errorf("%d lines came and %d are said to be lost, of %d", whole, lost, n)
	}
}

// Many write at once while the log is taken: each line comes whole and once, those of one
// writer in order, and soon.
func TestLogWriterPassesLinesOn(t *testing.T) {
	t.Parallel()
	r, out := io.Pipe()
	w := newLogWriter(out)
	const writers, each = 8, 2000
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for k := range each {
				fmt.Fprintf(w, "%d %d\n", i, k)
			}
		})
	}
	var next [writers]int
	buf := make([]byte, 1<<20)
	var rest []byte
	for total := 0; total < writers*each; {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		rest = append(rest, buf[:n]...)
		for {
			line, more, ok := bytes.Cut(rest, []byte("\n"))
			if !ok {
				break
			}
			rest = more
			var i, k int
			if _, err := fmt.Sscanf(string(line), "%d %d", &i, &k); err != nil || next[i] != k {
				t.Fatalf("%q: want number %d", line, next[i])
			}
			next[i]++
			total++
		}
	}
	wg.Wait()
	w.flush(20 * time.Second)
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
