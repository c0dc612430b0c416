package kimi

// EventKind is what an event of a stream means.
type EventKind uint8

// The kinds.
const (
	EventOther   EventKind = iota // nothing for the caller: comment, ping, empty
	EventData                     // a piece of the answer
	EventEndMark                  // the answer is complete: [DONE], message_stop
	EventError                    // the upstream gave up
)

// String names the kind.
func (k EventKind) String() string {
	switch k {
	case EventOther:
		return "other"
	case EventData:
		return "data"
	case EventEndMark:
		return "end"
	case EventError:
		return "error"
	}
	return "invalid"
}

// EventInfo is what InspectEvent saw in one event.
type EventInfo struct {
	Kind EventKind

	// UsageOnly marks OpenAI's extra chunk of include_usage: choices is an empty
	// array and usage an object. A client that did not ask must not see it.
	UsageOnly bool

	// Finish says that a finish_reason or stop_reason that is not null was there.
	Finish bool

	// OutputBytes bounds the completion tokens in this event from above, a token
	// being at least one byte: the raw bytes of the strings that carry output, or
	// all of the data when its shape is unknown. The role, a tool call's id and
	// type and the like are counted too; they pay for tokens that the wire does not
	// show, such as those that open and close a tool call.
	OutputBytes int64
}

// InspectEvent reads one whole event, as EventEnd delimits it, and takes the usage
// in it into u. An event whose data is broken changes nothing in u. It allocates
// only for data spread over several lines, and once for the frame of a stream, and accepts
// any bytes.
func InspectEvent(ev []byte, face Face, u *Usage) EventInfo {
	f := splitEvent(ev)
	named := string(f.name) == "error"
	data := trim(f.data)
	if len(data) == 0 {
		if named {
			return EventInfo{Kind: EventError}
		}
		return EventInfo{}
	}
	if face != Anthropic && string(data) == "[DONE]" {
		return EventInfo{Kind: EventEndMark}
	}

	if !named && u.frame != nil {
		if info, ok := u.frame.inspect(data, face); ok {
			return info
		}
	}

	saved := u.numbers
	s := answerScanner{scanner: scanner{b: data}, face: face, u: &u.numbers}
	i := s.begin()
	if i >= 0 && data[i] == '{' {
		i = s.object(i)
	} else {
		i = -1
	}
	if !s.finish(i) {
		u.numbers = saved
		if named {
			return EventInfo{Kind: EventError}
		}
		return EventInfo{Kind: EventData, OutputBytes: int64(len(data))}
	}

	info := EventInfo{Kind: EventData, Finish: s.finished, OutputBytes: s.output}
	if s.failed || named {
		info.Kind = EventError
		return info
	}
	known := s.known
	if face == Anthropic {
		kind := s.kind()
		if kind == nil {
			kind = f.name
		}
		switch string(kind) {
		case "error":
			info.Kind = EventError
			return info
		case "message_stop":
			info.Kind = EventEndMark
			return info
		case "ping":
			info.Kind = EventOther
			return info
		case "content_block_stop", "message_delta", "message_start":
			known = true
		}
	} else {
		info.UsageOnly = s.noItems && s.usageAt
		known = known || s.usageAt
	}
	if !known {
		info.OutputBytes = int64(len(data))
		return info
	}
	if s.framed() && !s.finished && u.objects == saved.objects {
		u.remember(data, s.slot, face)
	}
	return info
}
