package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// MaxID is the length in bytes up to which Begin takes the identifiers of an intent.
const MaxID = 64

// MaxName is the length in bytes to which the names in intents and events are cut:
// tier, models, upstream and the upstream's request id.
const MaxName = 96

// maxWord is the length to which face, basis and outcome are cut.
const maxWord = 32

// payloadVersion starts every intent and event payload. This build reads no other yet.
const payloadVersion = 1

// The most bytes of each encoding, on which the space kept for open slots rests.
const (
	varintMax    = binary.MaxVarintLen64
	admissionMax = 2*varintMax + 5*(1+MaxID) + 2*(1+MaxName) + (1 + maxWord)
	intentMax    = 1 + admissionMax + 2*(1+MaxName) + 5*varintMax
	eventMax     = 1 + admissionMax + 3*(1+MaxName) + 6*varintMax + 2*(1+maxWord) + 3*varintMax
)

// Both must fit where they are kept; these do not compile otherwise.
const (
	_ = uint(slotBytes - slotIntent - intentMax)
	_ = uint(1<<24 - 1 - recordMax)
)

// Intent is what is known of a request when it is admitted, and all that is left of it
// if the process dies before it ends.
type Intent struct {
	AdmittedAt  time.Time // kept in microseconds
	PeriodID    string
	RequestID   string
	CustomerID  string
	BoxID       string
	TokenID     string
	Tier        string
	ModelAsked  string
	ModelServed string
	Face        contract.Face
	Upstream    string
	Reserved    int64 // weighted tokens held
	Weights     contract.Weights
	PromptBound int64 // the most prompt tokens that the request can use, unweighted
	OutputBound int64 // the most completion tokens over all choices, unweighted
}

// validate refuses what could not become a valid event after a crash.
func (in *Intent) validate() error {
	if in.AdmittedAt.IsZero() || in.PeriodID == "" || in.RequestID == "" || in.CustomerID == "" || in.BoxID == "" || in.TokenID == "" {
		return errors.New("journal: begin: time of admission, period, request, customer, box and token are required")
	}
	if len(in.PeriodID) > MaxID || len(in.RequestID) > MaxID || len(in.CustomerID) > MaxID || len(in.BoxID) > MaxID || len(in.TokenID) > MaxID {
		return fmt.Errorf("journal: begin: an identifier is longer than %d bytes", MaxID)
	}
	if in.Face != contract.FaceOpenAI && in.Face != contract.FaceAnthropic {
		return errors.New("journal: begin: unknown face")
	}
	if in.Reserved < 0 || in.PromptBound < 0 || in.OutputBound < 0 || in.Weights.Prompt < 0 || in.Weights.Cached < 0 || in.Weights.Completion < 0 {
		return errors.New("journal: begin: reserved tokens, bounds and weights must not be negative")
	}
	return nil
}

// appendAdmission writes what is fixed at admission. It is the same bytes in the
// intent and in the event, so that an event cannot be of another admission than its
// intent was.
func appendAdmission(b []byte, in *Intent) []byte {
	b = binary.AppendVarint(b, in.AdmittedAt.UnixMicro())
	b = binary.AppendVarint(b, in.Reserved)
	b = appendString(b, in.PeriodID, MaxID)
	b = appendString(b, in.RequestID, MaxID)
	b = appendString(b, in.CustomerID, MaxID)
	b = appendString(b, in.BoxID, MaxID)
	b = appendString(b, in.TokenID, MaxID)
	b = appendString(b, in.Tier, MaxName)
	b = appendString(b, in.ModelAsked, MaxName)
	return appendString(b, string(in.Face), maxWord)
}

// appendIntent writes an intent and returns the end of its admission part.
func appendIntent(b []byte, in *Intent) (out []byte, admissionEnd int) {
	b = append(b, payloadVersion)
	b = appendAdmission(b, in)
	admissionEnd = len(b)
	b = appendString(b, in.ModelServed, MaxName)
	b = appendString(b, in.Upstream, MaxName)
	for _, v := range [...]int64{in.Weights.Prompt, in.Weights.Cached, in.Weights.Completion, in.PromptBound, in.OutputBound} {
		b = binary.AppendVarint(b, v)
	}
	return b, admissionEnd
}

// appendOutcome writes what is known of a request at its end.
func appendOutcome(b []byte, e *contract.Event) []byte {
	b = appendString(b, e.UpstreamRequestID, MaxName)
	b = appendString(b, e.ModelServed, MaxName)
	b = appendString(b, e.Upstream, MaxName)
	b = appendString(b, string(e.Basis), maxWord)
	b = appendString(b, string(e.Outcome), maxWord)
	for _, v := range [...]int64{e.Prompt, e.Cached, e.Completion, e.Reasoning, e.Settled, e.Unbilled, int64(e.Status), e.TTFBMicros, e.DurationMicros} {
		b = binary.AppendVarint(b, v)
	}
	return b
}

// appendString writes s, cut to the last whole character within limit (at most 127).
func appendString(b []byte, s string, limit int) []byte {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return append(append(b, byte(len(s))), s...)
}

var errPayload = errors.New("payload cannot be decoded")

// decoder reads a payload. All strings of one payload share one allocation.
type decoder struct {
	s   string
	err error
}

func (d *decoder) fail() { d.s, d.err = "", errPayload }

func (d *decoder) byte() byte {
	if d.s == "" {
		d.fail()
		return 0
	}
	c := d.s[0]
	d.s = d.s[1:]
	return c
}

func (d *decoder) int() int64 {
	var u uint64
	for shift := 0; shift < 70; shift += 7 {
		c := d.byte()
		if d.err != nil || shift == 63 && c > 1 {
			break
		}
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return int64(u>>1) ^ -int64(u&1)
		}
	}
	d.fail()
	return 0
}

func (d *decoder) string() string {
	n := int(d.byte())
	if n > len(d.s) {
		d.fail()
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

func (d *decoder) version() {
	if d.byte() != payloadVersion {
		d.fail()
	}
}

func (d *decoder) admission(in *Intent) {
	in.AdmittedAt = time.UnixMicro(d.int()).UTC()
	in.Reserved = d.int()
	in.PeriodID, in.RequestID, in.CustomerID = d.string(), d.string(), d.string()
	in.BoxID, in.TokenID, in.Tier, in.ModelAsked = d.string(), d.string(), d.string(), d.string()
	in.Face = contract.Face(d.string())
}

func decodeIntent(payload []byte) (Intent, error) {
	d := decoder{s: string(payload)}
	var in Intent
	d.version()
	d.admission(&in)
	in.ModelServed, in.Upstream = d.string(), d.string()
	in.Weights.Prompt, in.Weights.Cached, in.Weights.Completion = d.int(), d.int(), d.int()
	in.PromptBound, in.OutputBound = d.int(), d.int()
	return in, d.err
}

// decodeEvent reads an event of the given replica and number.
func decodeEvent(payload []byte, replica string, seq int64) (contract.Event, error) {
	d := decoder{s: string(payload)}
	var in Intent
	d.version()
	d.admission(&in)
	e := in.event()
	e.Replica, e.Seq = replica, seq
	e.UpstreamRequestID, e.ModelServed, e.Upstream = d.string(), d.string(), d.string()
	e.Basis, e.Outcome = contract.Basis(d.string()), contract.Outcome(d.string())
	e.Prompt, e.Cached, e.Completion, e.Reasoning = d.int(), d.int(), d.int(), d.int()
	e.Settled, e.Unbilled = d.int(), d.int()
	e.Status, e.TTFBMicros, e.DurationMicros = int(d.int()), d.int(), d.int()
	return e, d.err
}

// event returns the event of a request of which nothing more is known than its intent.
func (in *Intent) event() contract.Event {
	return contract.Event{
		AdmittedAt: in.AdmittedAt, PeriodID: in.PeriodID, RequestID: in.RequestID,
		CustomerID: in.CustomerID, BoxID: in.BoxID, TokenID: in.TokenID, Tier: in.Tier,
		ModelAsked: in.ModelAsked, ModelServed: in.ModelServed, Face: in.Face, Upstream: in.Upstream,
		Reserved: in.Reserved,
	}
}
