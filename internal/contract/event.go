package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// EventFormat is the version of the Event encoding that this build writes. It
// reads EventFormat and EventFormat-1.
const EventFormat = 1

// Basis says where the counts of an event come from.
type Basis string

// The bases of an event.
const (
	BasisUpstream  Basis = "upstream"  // equal to the upstream's own count
	BasisEstimated Basis = "estimated" // at least what was relayed, at most what was reserved
	BasisRecovered Basis = "recovered" // as estimated, written after a crash from the journal
)

// Outcome says how a forwarded request ended.
type Outcome string

// The outcomes of a forwarded request.
const (
	OutcomeOK              Outcome = "ok"               // relayed to its own end mark
	OutcomeClientGone      Outcome = "client_gone"      // the client hung up before the end mark
	OutcomeUpstreamCut     Outcome = "upstream_cut"     // the upstream's answer ended without its end mark
	OutcomeUpstreamError   Outcome = "upstream_error"   // the upstream answered an error, as status or as event
	OutcomeUpstreamTimeout Outcome = "upstream_timeout" // no first byte, silence or total time over the limit
	OutcomeLimitCut        Outcome = "limit_cut"        // cut because the tokens reserved were used up
	OutcomeRevoked         Outcome = "revoked"          // cut because the token was revoked or suspended
	OutcomeDrained         Outcome = "drained"          // cut because the proxy was shutting down
	OutcomeProxyCrashed    Outcome = "proxy_crashed"    // found open in the journal of a dead proxy
)

// Face is the wire format that the client spoke.
type Face string

// The faces.
const (
	FaceOpenAI    Face = "openai"
	FaceAnthropic Face = "anthropic"
)

// Event is the metering record of one forwarded request. (Replica, Seq) names it
// for ever; AdmittedAt and PeriodID are those of admission and never change, so
// that a repeated delivery is recognised in the partition where the first one went.
type Event struct {
	Replica           string    `json:"replica"`
	Seq               int64     `json:"seq"`
	AdmittedAt        time.Time `json:"admitted_at"` // UTC, microseconds
	PeriodID          string    `json:"period_id"`
	RequestID         string    `json:"request_id"`
	UpstreamRequestID string    `json:"upstream_request_id,omitempty"`
	CustomerID        string    `json:"customer_id"`
	BoxID             string    `json:"box_id"`
	TokenID           string    `json:"token_id"`
	Tier              string    `json:"tier"`
	ModelAsked        string    `json:"model_asked"`
	ModelServed       string    `json:"model_served"`
	Face              Face      `json:"face"`
	Upstream          string    `json:"upstream"` // name of the upstream in the proxy's configuration
	Prompt            int64     `json:"prompt"`   // prompt tokens, Cached included
	Cached            int64     `json:"cached"`
	Completion        int64     `json:"completion"` // completion tokens, Reasoning included
	Reasoning         int64     `json:"reasoning"`
	Settled           int64     `json:"settled"`  // weighted tokens charged to the monthly limit, at most Reserved
	Unbilled          int64     `json:"unbilled"` // weighted tokens that the upstream counted above Reserved
	Reserved          int64     `json:"reserved"` // weighted tokens held from admission on
	Basis             Basis     `json:"basis"`
	Outcome           Outcome   `json:"outcome"`
	Status            int       `json:"status"`  // HTTP status that the client got; 0 if it was gone
	TTFBMicros        int64     `json:"ttfb_us"` // admission to the upstream's first byte; 0 if there was none
	DurationMicros    int64     `json:"duration_us"`
}

// ID returns the event's name, unique over all replicas and time.
func (e *Event) ID() string { return fmt.Sprintf("%s-%d", e.Replica, e.Seq) }

// Weigh returns the tokens of the monthly limit that counts use under w.
// Negative counts count as 0; cached tokens above prompt count as prompt.
func Weigh(w Weights, prompt, cached, completion int64) int64 {
	prompt, cached, completion = max(prompt, 0), max(cached, 0), max(completion, 0)
	cached = min(cached, prompt)
	return (prompt-cached)*w.Prompt + cached*w.Cached + completion*w.Completion
}

// Validate reports what is wrong with e. A reader parks an event that fails it.
func (e *Event) Validate() error {
	var errs []error
	need := func(ok bool, msg string) {
		if !ok {
			errs = append(errs, errors.New(msg))
		}
	}
	need(e.Replica != "" && e.Seq > 0, "replica and a positive seq are required")
	need(!e.AdmittedAt.IsZero(), "admitted_at is required")
	need(e.PeriodID != "", "period_id is required")
	need(e.RequestID != "", "request_id is required")
	need(e.CustomerID != "" && e.BoxID != "" && e.TokenID != "", "customer_id, box_id and token_id are required")
	need(e.Face == FaceOpenAI || e.Face == FaceAnthropic, "face must be openai or anthropic")
	need(e.Basis == BasisUpstream || e.Basis == BasisEstimated || e.Basis == BasisRecovered, "unknown basis")
	need(e.Outcome != "", "outcome is required")
	need(e.Prompt >= 0 && e.Cached >= 0 && e.Completion >= 0 && e.Reasoning >= 0, "counts must not be negative")
	need(e.Settled >= 0 && e.Unbilled >= 0 && e.Reserved >= 0, "settled, unbilled and reserved must not be negative")
	need(e.Settled <= e.Reserved, "settled must not exceed reserved")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("usage event %s: %w", e.ID(), err)
	}
	return nil
}

// Batch is one entry of the usage stream: events of one replica in the order of
// their numbers. Batches keep Redis work proportional to time, not to requests.
type Batch struct {
	Format  int     `json:"format"`
	Replica string  `json:"replica"`
	Events  []Event `json:"events"`
}

// RawBatch is a batch whose events are still encoded, so that one poisonous
// event can be parked without losing its neighbours.
type RawBatch struct {
	Format  int               `json:"format"`
	Replica string            `json:"replica"`
	Events  []json.RawMessage `json:"events"`
}

// DecodeBatch reads a batch and leaves its events to DecodeEvent.
func DecodeBatch(b []byte) (RawBatch, error) {
	var raw RawBatch
	if err := json.Unmarshal(b, &raw); err != nil {
		return raw, fmt.Errorf("decode usage batch: %w", err)
	}
	if raw.Format != EventFormat && raw.Format != EventFormat-1 {
		return raw, fmt.Errorf("decode usage batch: format %d is not supported", raw.Format)
	}
	return raw, nil
}

// DecodeEvent reads and validates one event.
func DecodeEvent(b []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("decode usage event: %w", err)
	}
	if err := e.Validate(); err != nil {
		return e, err
	}
	return e, nil
}
