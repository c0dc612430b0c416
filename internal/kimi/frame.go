package kimi

import "bytes"

// maxFrame is how long an event may be, apart from its delta, to serve as a frame.
const maxFrame = 384

// frame remembers what the last event of a stream looked like around its delta. The
// events of a stream differ in little else, so that for nearly all of them two
// comparisons and a look at the delta replace a walk over the whole: what stands
// before and behind is known to be valid and to hold no usage, error or finish.
type frame struct {
	face       Face
	head, tail int // lengths of the two parts of text
	text       [maxFrame]byte
}

// remember makes data, a valid event, around its only delta at slot the frame.
func (u *Usage) remember(data []byte, slot Span, face Face) {
	tail := data[slot.End:]
	if slot.Start+len(tail) > maxFrame {
		return
	}
	if u.frame == nil {
		u.frame = new(frame)
	}
	f := u.frame
	f.face, f.head, f.tail = face, slot.Start, len(tail)
	copy(f.text[:], data[:slot.Start])
	copy(f.text[slot.Start:], tail)
}

// inspect reads an event that has the remembered frame; ok is false for any other.
func (f *frame) inspect(data []byte, face Face) (info EventInfo, ok bool) {
	end := len(data) - f.tail
	if f.face != face || end <= f.head ||
		!bytes.Equal(data[:f.head], f.text[:f.head]) ||
		!bytes.Equal(data[end:], f.text[f.head:f.head+f.tail]) {
		return EventInfo{}, false
	}
	s := answerScanner{scanner: scanner{b: data}, face: face}
	if s.delta(f.head) != end {
		return EventInfo{}, false
	}
	return EventInfo{Kind: EventData, Finish: s.finished, OutputBytes: s.output}, true
}
