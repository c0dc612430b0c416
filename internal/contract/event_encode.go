package contract

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// EncodeBatch writes b in the current format: byte for byte what encoding/json makes of a
// Batch, in a third of its time. A proxy does this for each request.
func EncodeBatch(b Batch) ([]byte, error) {
	e := encoder{out: make([]byte, 0, 64+768*len(b.Events))}
	e.out = append(e.out, '{')
	e.number("format", EventFormat)
	e.text("replica", b.Replica)
	e.key("events")
	if b.Events == nil {
		e.out = append(e.out, "null"...)
	} else {
		e.out = append(e.out, '[')
		for i := range b.Events {
			if i > 0 {
				e.out = append(e.out, ',')
			}
			e.event(&b.Events[i])
		}
		e.out = append(e.out, ']')
	}
	e.out = append(e.out, '}')
	if e.err != nil {
		return nil, fmt.Errorf("encode usage batch: %w", e.err)
	}
	return e.out, nil
}

// encoder appends members of JSON objects to out.
type encoder struct {
	out []byte
	err error
}

func (e *encoder) event(v *Event) {
	e.out = append(e.out, '{')
	e.text("replica", v.Replica)
	e.number("seq", v.Seq)
	e.time("admitted_at", v.AdmittedAt)
	e.text("period_id", v.PeriodID)
	e.text("request_id", v.RequestID)
	if v.UpstreamRequestID != "" {
		e.text("upstream_request_id", v.UpstreamRequestID)
	}
	e.text("customer_id", v.CustomerID)
	e.text("box_id", v.BoxID)
	e.text("token_id", v.TokenID)
	e.text("tier", v.Tier)
	e.text("model_asked", v.ModelAsked)
	e.text("model_served", v.ModelServed)
	e.text("face", string(v.Face))
	e.text("upstream", v.Upstream)
	e.number("prompt", v.Prompt)
	e.number("cached", v.Cached)
	e.number("completion", v.Completion)
	e.number("reasoning", v.Reasoning)
	e.number("settled", v.Settled)
	e.number("unbilled", v.Unbilled)
	e.number("reserved", v.Reserved)
	e.text("basis", string(v.Basis))
	e.text("outcome", string(v.Outcome))
	e.number("status", int64(v.Status))
	e.number("ttfb_us", v.TTFBMicros)
	e.number("duration_us", v.DurationMicros)
	e.out = append(e.out, '}')
}

func (e *encoder) key(name string) {
	if e.out[len(e.out)-1] != '{' {
		e.out = append(e.out, ',')
	}
	e.out = append(append(append(e.out, '"'), name...), '"', ':')
}

func (e *encoder) number(name string, n int64) {
	e.key(name)
	e.out = strconv.AppendInt(e.out, n, 10)
}

func (e *encoder) text(name, value string) {
	e.key(name)
	for i := range len(value) {
		if c := value[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			e.marshal(value)
			return
		}
	}
	e.out = append(append(append(e.out, '"'), value...), '"')
}

// time appends what Time.MarshalJSON does, which refuses what RFC 3339 cannot say.
func (e *encoder) time(name string, t time.Time) {
	e.key(name)
	if t.Location() != time.UTC || t.Year() < 0 || t.Year() > 9999 {
		e.marshal(t)
		return
	}
	e.out = append(e.out, '"')
	e.out = append(t.AppendFormat(e.out, time.RFC3339Nano), '"')
}

func (e *encoder) marshal(v any) {
	b, err := json.Marshal(v)
	if err != nil && e.err == nil {
		e.err = err
	}
	e.out = append(e.out, b...)
}
