package trace

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// Request is one line of a trace.
type Request struct {
	At     time.Duration // since the beginning
	Input  int           // tokens of the prompt
	Output int           // tokens of the answer
}

// line is how a request is written.
type line struct {
	Timestamp int64 `json:"timestamp"`
	Input     int   `json:"input_length"`
	Output    int   `json:"output_length"`
}

// Longest prompt and answer that are believed: above it a file is no such trace.
const maxTokens = 10_000_000

// Read reads a trace. Its first error ends it, with the number of the line.
func Read(r io.Reader) ([]Request, error) {
	var all []Request
	s := bufio.NewScanner(r)
	s.Buffer(nil, 16<<20)
	for n := 1; s.Scan(); n++ {
		text := bytes.TrimSpace(s.Bytes())
		if len(text) == 0 {
			continue
		}
		l := line{Timestamp: -1, Input: -1, Output: -1}
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("trace, line %d: %w", n, err)
		}
		if l.Timestamp < 0 || l.Input < 0 || l.Output < 0 || l.Input > maxTokens || l.Output > maxTokens {
			return nil, fmt.Errorf("trace, line %d: want timestamp, input_length and output_length, each 0 or more", n)
		}
		q := Request{At: time.Duration(l.Timestamp) * time.Millisecond, Input: l.Input, Output: l.Output}
		if len(all) > 0 && q.At < all[len(all)-1].At {
			return nil, fmt.Errorf("trace, line %d: it arrives before the line above it", n)
		}
		all = append(all, q)
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("trace: it has no requests")
	}
	return all, nil
}

// Write writes a trace as Read reads it.
func Write(w io.Writer, all []Request) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for _, q := range all {
		if err := enc.Encode(line{Timestamp: q.At.Milliseconds(), Input: q.Input, Output: q.Output}); err != nil {
			return fmt.Errorf("trace: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}

// Grid is the distance of arrivals in Mooncake's trace.
const Grid = 3 * time.Second

// Play returns the requests with their arrivals spread evenly at random over jitter, which
// should be the trace's grid, and everything then speed times as fast, in order of arrival.
// The same seed gives the same.
func Play(all []Request, jitter time.Duration, speed float64, seed uint64) []Request {
	random := rand.New(rand.NewPCG(seed, 0))
	played := slices.Clone(all)
	for i := range played {
		at := played[i].At
		if jitter > 0 {
			at += time.Duration(random.Int64N(int64(jitter)))
		}
		played[i].At = time.Duration(float64(at) / speed)
	}
	slices.SortStableFunc(played, func(a, b Request) int { return int(a.At - b.At) })
	return played
}

// Totals of a trace.
type Totals struct {
	Requests      int
	Input, Output int64 // tokens
	Length        time.Duration
}

// Sum adds a trace up.
func Sum(all []Request) Totals {
	t := Totals{Requests: len(all)}
	for _, q := range all {
		t.Input += int64(q.Input)
		t.Output += int64(q.Output)
		t.Length = max(t.Length, q.At)
	}
	return t
}

//go:embed sample.jsonl
var sample []byte

// Sample is the trace that is shipped.
func Sample() []Request {
	all, err := Read(bytes.NewReader(sample))
	if err != nil {
		panic(err) // a test reads it
	}
	return all
}
