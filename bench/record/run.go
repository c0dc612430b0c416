package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/bench/load"
)

// Format is the version of the files. A reader refuses others.
const Format = 1

// Kinds of runs.
const (
	KindCompare  = "compare"
	KindStreams  = "streams"
	KindOverload = "overload"
	KindGrants   = "grants"
	KindReplay   = "replay"
	KindSyscalls = "syscalls"
	KindControl  = "control"
)

// Run is one run of openclaw-bench.
type Run struct {
	Format   int       `json:"format"`
	Kind     string    `json:"kind"`
	At       time.Time `json:"at"`
	Seconds  float64   `json:"seconds"`            // that it took
	Revision string    `json:"revision,omitempty"` // of the measured code, as the go command stamps it
	Command  string    `json:"command"`            // that repeats it
	Machine  Machine   `json:"machine"`
	Settings []Setting `json:"settings"`
	Peers    []Peer    `json:"peers"`
	Missing  []string  `json:"missing,omitempty"` // peers that were not measured, and why
	Samples  []Sample  `json:"samples"`
	Series   []Point   `json:"series,omitempty"` // of a long run
}

// Point is the state of a token-proxy at one time of a long run.
type Point struct {
	Seconds    float64 `json:"seconds"`
	PSS        int64   `json:"pss_bytes"`
	Goroutines int64   `json:"goroutines"`
	Files      int64   `json:"files"` // open descriptors
	Streams    int64   `json:"streams"`
}

// Setting is one parameter of a run.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Peer is one that was measured.
type Peer struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Version string `json:"version,omitempty"`
	TLS     bool   `json:"tls,omitempty"`
	Gateway bool   `json:"gateway,omitempty"`
}

// Phases of a comparison, and what they are named in samples of other runs.
const (
	PhaseRequests = "requests" // closed load of whole answers
	PhaseOne      = "one"      // closed load of whole answers, all of one customer
	PhaseHalf     = "half"     // open load at half of what the slower of two takes
	PhaseEvents   = "events"   // paced streams
	PhaseFew      = "few"      // a tenth of them, which slow gateways can follow
	PhaseMemory   = "memory"   // open streams, few events
	PhaseCapacity = "capacity" // closed load, to know what overload is
	PhaseOverload = "overload" // open load of Step times that
	PhaseStorm    = "storm"    // closed load of Step connections that do not wait as they are told
	PhaseRates    = "rates"    // open load of Step times what the customers may send
	PhaseRedis    = "redis"    // open load of Step requests per second, for Redis' commands
	PhaseReplay   = "replay"   // a trace
)

// Together is the name of a phase in which a peer and what it is compared with were under that load at the
// same time, each under half of it.
func Together(phase string) string { return phase + " together" }

// Sample is what one peer did in one phase of one round.
type Sample struct {
	Round int     `json:"round"` // from 0
	Peer  string  `json:"peer"`
	Phase string  `json:"phase"`
	Step  float64 `json:"step,omitempty"` // what a run varies: grants, streams, times the load
	// Block tells which measurements of a round were made in turns, or at the same time; 0 is none.
	Block int `json:"block,omitempty"`
	// Offered is how many requests per second were to arrive, in an open load.
	Offered float64 `json:"offered,omitempty"`

	Load load.Result `json:"load"`
	// CPUMicros is the processor time of the proxy's own processes per answer, or per event
	// where there are streams; 0 without a proxy.
	CPUMicros float64 `json:"cpu_us,omitempty"`
	// AroundMicros is that of Redis, Postgres and the billing-worker, from the beginning of the
	// load until they have done all that it left to them, per answer or event of all that time.
	// (Older files have "around_us": what they did while it was counted, a part of that.)
	AroundMicros float64 `json:"around_settled_us,omitempty"`
	// Tries is how often it was measured, of which the least disturbed is kept; 0 in older files.
	Tries int `json:"tries,omitempty"`
	// SettleSeconds is how long, in all tries, was waited for what earlier requests and these have left.
	SettleSeconds float64 `json:"settle_seconds,omitempty"`
	// Stolen is how many processors the machine's host has withheld meanwhile. Not known where
	// Tries is 0.
	Stolen float64 `json:"stolen_cores,omitempty"`
	// Switches are context switches of the proxy's threads, per answer or event.
	Switches float64 `json:"switches,omitempty"`
	// Foreign is how many processors were busy meanwhile with what is no part of the
	// measurement. It is known to about 0.1.
	Foreign float64 `json:"foreign_cores,omitempty"`
	// Syscalls are system calls per answer or event, by name.
	Syscalls map[string]float64 `json:"syscalls,omitempty"`
	// StreamBytes is memory per open stream, after they have been open for a while, and
	// PeakBytes the most that it was.
	StreamBytes float64 `json:"stream_bytes,omitempty"`
	PeakBytes   float64 `json:"peak_bytes,omitempty"`
	// MemoryBytes is the process's (PSS), and RedisBytes that of Redis' data.
	MemoryBytes int64 `json:"memory_bytes,omitempty"`
	RedisBytes  int64 `json:"redis_bytes,omitempty"`
	// Redis is how many commands Redis has executed meanwhile.
	Redis int64 `json:"redis_commands,omitempty"`
}

// Ops is what CPUMicros is divided by.
func (s *Sample) Ops() int64 {
	switch strings.TrimSuffix(s.Phase, Together("")) {
	case PhaseEvents, PhaseFew, PhaseMemory, PhaseReplay:
		return s.Load.Events
	}
	return s.Load.Answers
}

// Calls is the sum of Syscalls, always in the same order: the last digit depends on it.
func (s *Sample) Calls() float64 {
	sum := 0.0
	for _, name := range slices.Sorted(maps.Keys(s.Syscalls)) {
		sum += s.Syscalls[name]
	}
	return sum
}

// Save writes the run into dir, as a file of its own and as the latest of its kind, and
// returns the path of the former.
func (r *Run) Save(dir string) (string, error) {
	r.Format = Format
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return "", fmt.Errorf("results: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("results: %w", err)
	}
	path := filepath.Join(dir, r.Kind+"-"+r.At.UTC().Format("20060102T150405Z")+".json")
	for _, name := range []string{path, latest(dir, r.Kind)} {
		if err := os.WriteFile(name, append(text, '\n'), 0o644); err != nil {
			return "", fmt.Errorf("results: %w", err)
		}
	}
	return path, nil
}

func latest(dir, kind string) string { return filepath.Join(dir, "latest-"+kind+".json") }

// Latest reads the latest run of a kind; nil if there is none.
func Latest(dir, kind string) (*Run, error) {
	r, err := Load(latest(dir, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// Load reads a file of Save.
func Load(path string) (*Run, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	var r Run
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("results %s: %w", path, err)
	}
	if r.Format != Format {
		return nil, fmt.Errorf("results %s: format %d is not %d; repeat the run", path, r.Format, Format)
	}
	return &r, nil
}

// Peer returns the peer of a name, with its name as title if it is unknown.
func (r *Run) Peer(name string) Peer {
	for _, p := range r.Peers {
		if p.Name == name {
			return p
		}
	}
	return Peer{Name: name, Title: name}
}
