package load

import (
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what was seen while counting.
type Result struct {
	Seconds  float64          `json:"seconds"`
	Answers  int64            `json:"answers"`            // complete ones with status 200, whenever they were asked for
	Events   int64            `json:"events,omitempty"`   // of streams, those in progress included
	Bytes    int64            `json:"bytes"`              // read
	Offered  int64            `json:"offered"`            // requests that were to be sent while counting, and were, even if later
	Refused  int64            `json:"refused"`            // answers 429 and 503
	Withheld int64            `json:"withheld,omitempty"` // not sent while counting, for their patient clients were told to wait
	Failures map[string]int64 `json:"failures,omitempty"`

	// Times are of requests that were to be sent while counting, even if their answers came later.
	Latency  Quantiles `json:"latency"`           // to the end of an answer, from when the request was to be sent
	TTFB     Quantiles `json:"ttfb"`              // to its first byte, likewise
	Lag      Quantiles `json:"lag,omitzero"`      // of an event, from the upstream's stamp
	Refusing Quantiles `json:"refusing,omitzero"` // to the end of a refusal
	Backlog  int64     `json:"backlog,omitempty"` // by how many more requests waited for a free connection at the end of counting than at its beginning
}

// Quantiles of times, in microseconds.
type Quantiles struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// What a histogram can hold, in ns: from 1 µs, to which shorter times are rounded up, to
// 10 minutes; with three digits.
const (
	least  = int64(time.Microsecond)
	most   = int64(10 * time.Minute)
	digits = 3
)

func newHistogram() *hdr.Histogram { return hdr.New(least, most, digits) }

func record(h *hdr.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns, least), most)) // it cannot be out of range
}

func quantiles(h *hdr.Histogram) Quantiles {
	if h.TotalCount() == 0 {
		return Quantiles{}
	}
	us := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	return Quantiles{
		Count: h.TotalCount(), Mean: h.Mean() / 1e3, P50: us(50), P90: us(90), P99: us(99), P999: us(99.9), Max: float64(h.Max()) / 1e3,
	}
}

// recorder is what one thread has counted.
type recorder struct {
	answers, events, bytes, offered, refused, withheld, backlog int64
	failures                                                    map[string]int64
	latency, ttfb, lag, refusing                                *hdr.Histogram
}

func newRecorder() *recorder {
	return &recorder{
		failures: make(map[string]int64),
		latency:  newHistogram(), ttfb: newHistogram(), lag: newHistogram(), refusing: newHistogram(),
	}
}

// merge adds another thread's.
func (r *recorder) merge(o *recorder) {
	r.answers += o.answers
	r.events += o.events
	r.bytes += o.bytes
	r.offered += o.offered
	r.refused += o.refused
	r.withheld += o.withheld
	r.backlog += o.backlog
	for kind, n := range o.failures {
		r.failures[kind] += n
	}
	r.latency.Merge(o.latency)
	r.ttfb.Merge(o.ttfb)
	r.lag.Merge(o.lag)
	r.refusing.Merge(o.refusing)
}

func (r *recorder) result() Result {
	return Result{
		Answers: r.answers, Events: r.events, Bytes: r.bytes, Offered: r.offered, Refused: r.refused, Withheld: r.withheld, Backlog: max(0, r.backlog), Failures: r.failures,
		Latency: quantiles(r.latency), TTFB: quantiles(r.ttfb), Lag: quantiles(r.lag), Refusing: quantiles(r.refusing),
	}
}
