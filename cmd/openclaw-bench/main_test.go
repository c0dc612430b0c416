package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/bench/record"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// programs puts built programs into one directory, as `make build` does, and returns the
// path of this one.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"token-proxy", "control", "openclaw-bench"} {
		built := testenv.BuildBinary(t, "./cmd/"+name)
		// Not a link: the program looks for the others beside itself.
		if err := os.Link(built, filepath.Join(dir, name)); err != nil {
			copyFile(t, built, filepath.Join(dir, name))
		}
	}
	return filepath.Join(dir, "openclaw-bench")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// The whole instrument once, small: the platform, token-proxy and two others, every phase,
// the report; then a trace.
func TestMeasuresEndToEnd(t *testing.T) {
	program, dir := programs(t), t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openclaw-bench %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
		}
		return string(out)
	}
	// Far below what the customers may send together, so that the rate refuses nothing.
	printed := run("compare", "--peers", "direct,fasthttp,token-proxy,token-proxy-tls", "--customers", "1000", "--rounds", "1", "--connections", "4",
		"--warmup", "200ms", "--requests", "300ms", "--half", "300ms", "--events", "500ms", "--streams", "10", "--memory-streams", "50", "--memory-time", "5s", "--memory-rounds", "1", "--retries", "0",
		"--scheduling-delay", "-1ms") // and no retries: other tests may need the processors
	if !strings.Contains(printed, "| CPU per request, connections always busy |") {
		t.Errorf("no table is printed: %s", printed)
	}
	r, err := record.Latest(filepath.Join(dir, "bench/results"), record.KindCompare)
	if err != nil || r == nil {
		t.Fatalf("the result: %v", err)
	}
	for _, peer := range []string{"direct", "fasthttp", "token-proxy", "token-proxy-tls"} {
		for _, phase := range []string{record.PhaseRequests, record.PhaseHalf, record.PhaseEvents, record.PhaseMemory} {
			if peer == "direct" && phase == record.PhaseMemory {
				continue
			}
			if !r.Has(peer, phase) {
				t.Errorf("%s has no %s", peer, phase)
				continue
			}
			if s := r.Of(peer, phase, record.Throughput); s.Median <= 0 {
				t.Errorf("%s did nothing in phase %s", peer, phase)
			}
			if s := r.Of(peer, phase, record.CPU); (s.Median <= 0) != (peer == "direct") {
				t.Errorf("%s: %v µs of CPU in phase %s", peer, s.Median, phase)
			}
		}
		// token-proxy may refuse what a busy machine is late with, but not most of it.
		failed, answers := int64(0), int64(0)
		for _, n := range r.Failures(peer) {
			failed += n
		}
		for _, s := range r.Samples {
			if s.Peer == peer {
				answers += s.Load.Answers
			}
		}
		if failed > 0 && (failed > answers/2 || !strings.HasPrefix(peer, "token-proxy")) {
			t.Errorf("%s: failures %v beside %d answers", peer, r.Failures(peer), answers)
		}
	}
	hour := filepath.Join(dir, "hour.jsonl")
	if err := os.WriteFile(hour, []byte(run("trace", "--requests", "60")), 0o600); err != nil {
		t.Fatal(err)
	}
	run("replay", "--trace", hour, "--speed", "10", "--tokens-per-second", "1000", "--spread", "0.1", "--ttft", "1ms", "--customers", "300", "--watch", "500ms")
	played, err := record.Latest(filepath.Join(dir, "bench/results"), record.KindReplay)
	if err != nil || len(played.Samples) != 1 || len(played.Series) == 0 || played.Series[0].Files == 0 {
		t.Fatalf("the replay: %+v, %v", played, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "bench/results", "latest-replay.json")); err != nil || bytes.Contains(text, []byte(dir)) || !bytes.Contains(text, []byte("hour.jsonl")) {
		t.Errorf("the result names a directory of this machine, or not the trace: %v", err)
	}
	if l := played.Samples[0].Load; l.Answers == 0 || l.Answers+l.Refused != 60 {
		t.Errorf("of 60 requests %d were answered and %d refused: %v", l.Answers, l.Refused, l.Failures)
	}
	run("report")
	text, err := os.ReadFile(filepath.Join(dir, "BENCHMARKS.md"))
	if err != nil || !strings.Contains(string(text), "token-proxy, TLS upstream") || !strings.Contains(string(text), "A trace of real traffic") {
		t.Errorf("the report: %s, %v", text, err)
	}
}

func TestTraceAndUsage(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{getenv: os.Getenv, stdout: &out, stderr: io.Discard, args: []string{"trace", "--requests", "3"}}
	if err := a.root().Execute(); err != nil {
		t.Fatal(err)
	}
	var line struct{ Timestamp, Input_length, Output_length int }
	if err := json.Unmarshal(out.Bytes()[:bytes.IndexByte(out.Bytes(), '\n')], &line); err != nil || line.Input_length == 0 || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("%s: %v", out.String(), err)
	}
	for _, args := range [][]string{{"replay", "--target", "https://h/v1"}, {"load", "--rate", "x"}} {
		a := &app{getenv: os.Getenv, stdout: io.Discard, stderr: io.Discard, args: args}
		if err := a.root().Execute(); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestCommandsOfOneMachineAreLeftOut(t *testing.T) {
	t.Parallel()
	got := portable([]string{"compare", "--quick", "--dir", "/x", "--results=/y", "--keep", "--token", "s", "--rounds", "3"})
	if strings.Join(got, " ") != "compare --quick --rounds 3" {
		t.Errorf("%q", got)
	}
	for _, args := range [][]string{{"replay", "--trace", "/x/hour.jsonl", "--speed", "20"}, {"replay", "--trace=/x/hour.jsonl", "--speed", "20"}} {
		if got := strings.Join(portable(args), " "); got != "replay --trace hour.jsonl --speed 20" {
			t.Errorf("%q", got)
		}
	}
}
