package journal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// The test's binary, started with these in the environment, is the process to be killed.
const (
	victimDir = "JOURNAL_TEST_DIR"
	victimRun = "JOURNAL_TEST_RUN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		run, err := strconv.Atoi(os.Getenv(victimRun))
		if err == nil {
			err = victim(dir, run)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// said is a line that the victim writes before and after each call.
type said struct {
	Call  string          `json:"c"` // open, begin, sent, advance, complete, abandon, shipped, forget
	Done  bool            `json:"d"` // the call returned
	ID    string          `json:"i,omitempty"`
	N     int64           `json:"n,omitempty"`
	Event *contract.Event `json:"e,omitempty"`
}

// victim works on the journal with many goroutines until it is killed.
func victim(dir string, run int) error {
	var mu sync.Mutex
	// One write each, so that a line is either said or not.
	say := func(s said) {
		line, err := json.Marshal(s)
		if err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
			os.Exit(2)
		}
	}
	say(said{Call: "open"})
	j, err := Open(dir, Options{Slots: 64, LogBytes: 256 << 10})
	if err != nil {
		return err
	}
	say(said{Call: "open", Done: true})
	for g := range 32 {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(run), uint64(g)))
			for n := 0; ; n++ {
				victimRequest(j, say, rng, fmt.Sprintf("%d-%d-%d", run, g, n))
			}
		}()
	}
	// A second reader, so that two are at work.
	go func() {
		for at := int64(0); ; {
			if events, err := j.Next(at, 3); err == nil && len(events) > 0 {
				at = events[len(events)-1].Seq
			} else if err := j.Wait(context.Background(), at); err != nil {
				return
			}
		}
	}()
	for after := j.Forgotten(); ; {
		if err := j.Wait(context.Background(), after); err != nil {
			return err
		}
		events, err := j.Next(after, 10)
		if err != nil {
			return err
		}
		for _, e := range events {
			say(said{Call: "shipped", Done: true, Event: &e})
			after = e.Seq
		}
		upTo := after - int64(run%5)
		if err := j.Forget(upTo); err != nil {
			return err
		}
		say(said{Call: "forget", Done: true, N: upTo})
	}
}

func victimRequest(j *Journal, say func(said), rng *rand.Rand, id string) {
	in := testIntent(id)
	say(said{Call: "begin", ID: id})
	s, err := j.Begin(&in)
	if err != nil {
		if !errors.Is(err, ErrFull) {
			panic(err)
		}
		time.Sleep(time.Millisecond)
		return
	}
	if rng.IntN(10) == 0 {
		say(said{Call: "abandon", ID: id})
		s.Abandon()
		say(said{Call: "abandon", Done: true, ID: id})
		return
	}
	say(said{Call: "sent", ID: id})
	s.Sent()
	say(said{Call: "sent", Done: true, ID: id})
	completion := int64(0)
	for range rng.IntN(8) {
		completion += 1 + rng.Int64N(400)
		say(said{Call: "advance", ID: id, N: completion})
		s.Advance(700*(completion%2), 100, completion, completion/2, true)
		say(said{Call: "advance", Done: true, ID: id, N: completion})
	}
	e := testEvent(&in, completion)
	say(said{Call: "complete", ID: id, N: completion})
	s.Complete(&e)
	say(said{Call: "complete", Done: true, ID: id, N: completion})
}

// hear brings what a victim said into the oracle.
func (o *oracle) hear(s said) {
	p := called
	if s.Done {
		p = returned
	}
	if s.Call == "begin" && o.requests[s.ID] == nil {
		o.requests[s.ID] = &request{intent: testIntent(s.ID)}
	}
	r := o.requests[s.ID]
	switch s.Call {
	case "begin":
		r.begin = p
	case "sent":
		r.sent = p
	case "abandon":
		r.abandon = p
	case "advance":
		if r.advCalled = s.N; s.Done {
			r.advReturned = s.N
		}
	case "complete":
		r.complete, r.event = p, testEvent(&r.intent, s.N)
	case "shipped":
		o.shipped[s.Event.Seq] = *s.Event
	}
}

// TestKilledProcesses kills a busy process again and again, at any moment, also while
// it recovers from the kill before, and compares what is left with what it was told.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const runs = 40
	o := newOracle()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(1, seed))
	open, recovered := 0, 0
	for run := range runs {
		lines := killOne(t, self, dir, run, rng)
		busy := false
		for _, s := range lines {
			o.hear(s)
			busy = busy || s.Call == "open" && s.Done
		}
		if busy {
			open++
		}
		if run%4 == 3 {
			continue // let the next one find two kills at once
		}
		j, err := Open(dir, Options{Slots: 64, LogBytes: 256 << 10})
		if err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		if err := o.check(j); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		if len(j.Aside()) > 0 {
			t.Fatalf("run %d: set aside %v", run, j.Aside())
		}
		recovered += len(j.Recovered())
		settleOracle(&script{t: t, j: j, o: o})
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d of them after open, %d requests, %d events, %d recovered when opened here", runs, open, len(o.requests), len(o.shipped), recovered)
	if open < runs/3 || recovered == 0 {
		t.Fatalf("only %d of %d kills found the process at work, and %d requests were recovered", open, runs, recovered)
	}
}

// killOne starts a victim, kills it at a random moment, and returns what it said.
func killOne(t *testing.T, self, dir string, run int, rng *rand.Rand) []said {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimRun+"="+strconv.Itoa(run))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []said
	r := bufio.NewReader(out)
	// Kill after so many lines, or soon after the first: then it is being opened.
	after, delay := rng.IntN(1500), time.Duration(0)
	if run%3 == 0 {
		after, delay = 1, time.Duration(rng.IntN(400))*time.Microsecond
	}
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			break // the pipe of a dead process ends, with half a line at most
		}
		var s said
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		lines = append(lines, s)
		if len(lines) == max(after, 1) {
			time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("the process ended by itself: %v", err)
	}
	return lines
}
