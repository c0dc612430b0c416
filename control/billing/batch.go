package billing

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/internal/contract"
)

// entry is one entry of the usage stream.
type entry struct {
	id     string
	fields map[string]any
}

// time returns when Redis took the entry, by its clock.
func (e entry) time() time.Time {
	ms, err := strconv.ParseInt(e.id[:max(strings.IndexByte(e.id, '-'), 0)], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// batch is what goes into one transaction: whole entries, decoded.
type batch struct {
	ids        []string
	oldest     time.Time // when the first entry came
	deliveries []control.Delivery
	dead       []control.DeadLetter
}

func (b *batch) size() int { return len(b.deliveries) + len(b.dead) }

// add decodes e. What cannot be decoded becomes a dead letter: one event where
// possible, the whole entry otherwise.
func (b *batch) add(e entry) {
	b.ids = append(b.ids, e.id)
	if t := e.time(); b.oldest.IsZero() || t.Before(b.oldest) {
		b.oldest = t
	}
	payload, ok := e.fields[contract.UsageField].(string)
	if !ok {
		all, err := json.Marshal(e.fields)
		if err != nil {
			all = fmt.Append(nil, e.fields)
		}
		b.park(e, -1, all, "no field "+strconv.Quote(contract.UsageField))
		return
	}
	raw, err := contract.DecodeBatch([]byte(payload))
	if err != nil {
		b.park(e, -1, []byte(payload), err.Error())
		return
	}
	if len(raw.Events) == 0 {
		b.park(e, -1, []byte(payload), "no events")
		return
	}
	for i, bytes := range raw.Events {
		event, err := contract.DecodeEvent(bytes)
		if err != nil {
			b.park(e, i, bytes, err.Error())
			continue
		}
		b.deliveries = append(b.deliveries, control.Delivery{StreamID: e.id, Index: i, Payload: bytes, Event: event})
	}
}

func (b *batch) park(e entry, index int, payload []byte, reason string) {
	b.dead = append(b.dead, control.DeadLetter{StreamID: e.id, Index: index, Payload: payload, Reason: reason})
}
