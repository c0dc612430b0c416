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
		b.park(e, all, "no field "+strconv.Quote(contract.UsageField))
		return
	}
	raw, err := contract.DecodeBatch([]byte(payload))
	if err != nil {
		b.park(e, []byte(payload), err.Error())
		return
	}
	if len(raw.Events) == 0 {
		b.park(e, []byte(payload), "no events")
		return
	}
	for i, bytes := range raw.Events {
		b.addEvent(e.id, i, raw.Replica, bytes)
	}
}

// addEvent decodes one event of a batch of replica.
func (b *batch) addEvent(id string, index int, replica string, bytes []byte) {
	event, err := contract.DecodeEvent(bytes)
	if err == nil {
		b.deliveries = append(b.deliveries, control.Delivery{StreamID: id, Index: index, Payload: bytes, Event: event})
		return
	}
	d := control.DeadLetter{StreamID: id, Index: index, Payload: bytes, Reason: err.Error()}
	// Whatever else is wrong with it: if its number can be read, it is accounted for,
	// and the events behind it can be acknowledged.
	var number struct {
		Replica string `json:"replica"`
		Seq     int64  `json:"seq"`
	}
	if json.Unmarshal(bytes, &number) == nil && number.Replica == replica && number.Seq > 0 {
		d.Replica, d.Seq = number.Replica, number.Seq
	}
	b.dead = append(b.dead, d)
}

// park gives up on a whole entry.
func (b *batch) park(e entry, payload []byte, reason string) {
	b.dead = append(b.dead, control.DeadLetter{StreamID: e.id, Index: -1, Payload: payload, Reason: reason})
}
