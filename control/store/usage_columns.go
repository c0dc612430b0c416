package store

import (
	"crypto/sha256"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
)

// eventColumns returns the arguments of insertEvents: one array per column.
func eventColumns(events []control.Delivery) []any {
	n := len(events)
	text := make([][]string, 14)
	for i := range text {
		text[i] = make([]string, n)
	}
	ints := make([][]int64, 11)
	for i := range ints {
		ints[i] = make([]int64, n)
	}
	admitted := make([]time.Time, n)
	for i := range events {
		e := &events[i].Event
		admitted[i] = e.AdmittedAt
		for c, v := range [...]string{
			e.Replica, e.PeriodID, e.RequestID, e.UpstreamRequestID, e.CustomerID, e.BoxID, e.TokenID, e.Tier,
			e.ModelAsked, e.ModelServed, string(e.Face), e.Upstream, string(e.Basis), string(e.Outcome),
		} {
			text[c][i] = v
		}
		for c, v := range [...]int64{
			e.Seq, e.Prompt, e.Cached, e.Completion, e.Reasoning, e.Settled, e.Unbilled, e.Reserved,
			e.TTFBMicros, e.DurationMicros, int64(e.Status),
		} {
			ints[c][i] = v
		}
	}
	return []any{
		text[0], ints[0], admitted, text[1], text[2], text[3], text[4], text[5], text[6], text[7],
		text[8], text[9], text[10], text[11], ints[1], ints[2], ints[3], ints[4],
		ints[5], ints[6], ints[7], text[12], text[13], ints[10], ints[8], ints[9], digests(events),
	}
}

// classifyColumns returns the arguments of classifyEvents.
func classifyColumns(events []control.Delivery) []any {
	n := len(events)
	index, admitted := make([]int32, n), make([]time.Time, n)
	replica, request, customer, period := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	seq, settled, unbilled := make([]int64, n), make([]int64, n), make([]int64, n)
	prompt, completion := make([]int64, n), make([]int64, n)
	for i := range events {
		e := &events[i].Event
		index[i], admitted[i] = int32(i), e.AdmittedAt
		replica[i], request[i], customer[i], period[i] = e.Replica, e.RequestID, e.CustomerID, e.PeriodID
		seq[i], settled[i], unbilled[i] = e.Seq, e.Settled, e.Unbilled
		prompt[i], completion[i] = e.Prompt, e.Completion
	}
	return []any{index, replica, seq, admitted, request, customer, period, settled, unbilled, prompt, completion, digests(events)}
}

// digests returns what Postgres has as payload_digest of dead letters.
func digests(events []control.Delivery) [][]byte {
	list := make([][]byte, len(events))
	for i := range events {
		sum := sha256.Sum256(events[i].Payload)
		list[i] = sum[:]
	}
	return list
}
