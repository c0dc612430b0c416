package kimi

// AnswerInfo is what ScanAnswer saw.
type AnswerInfo struct {
	// OutputBytes bounds the completion tokens in the answer from above, as in
	// EventInfo; the body's length when its shape is unknown.
	OutputBytes int64
	Error       bool // the body is an error, whatever the status says
	ID          Span // the answer's id, a JSON string with its quotes
}

// ScanAnswer reads the body of an answer that is not streamed: it must be one JSON
// object, else the error is a *SyntaxError (or, for valid JSON that is not an object
// or is nested absurdly, a *FieldError). u takes the usage it reports; after an error
// u is as it was. Nothing is allocated unless there is an error.
func ScanAnswer(body []byte, face Face, u *Usage) (AnswerInfo, error) {
	saved := u.numbers
	s := answerScanner{scanner: scanner{b: body}, face: face, u: &u.numbers}
	i := s.begin()
	if i >= 0 && body[i] != '{' {
		return AnswerInfo{}, s.notObject(i)
	}
	if i >= 0 {
		i = s.object(i)
	}
	if !s.finish(i) {
		u.numbers = saved
		return AnswerInfo{}, s.err()
	}
	info := AnswerInfo{OutputBytes: s.output, Error: s.failed || string(s.kind()) == "error", ID: s.id}
	if !s.known && !info.Error {
		info.OutputBytes = int64(len(body))
	}
	return info, nil
}

// answerScanner walks over one object that an upstream sent: an answer, or the data
// of one event.
type answerScanner struct {
	scanner
	face Face
	u    *numbers

	output   int64 // raw bytes of what may be completion tokens
	known    bool  // the object holds a place that we know to carry output
	failed   bool  // "error" is there
	finished bool  // a finishedreason or stop_reason
	noItems  bool  // "choices" is an empty array
	usageAt  bool  // a usage object stands at the top
	id       Span
	typ      Span // the string "type" at the top

	slot       Span  // the last delta
	slotOutput int64 // output in it
}

// delta measures the delta of a choice or of an Anthropic event.
func (s *answerScanner) delta(i int) int {
	start, before := i, s.output
	if s.face == Anthropic {
		i = s.block(i, 1, true)
	} else {
		i = s.counted(i, 3)
	}
	s.slot, s.slotOutput = Span{start, i}, s.output-before
	s.known = true
	return i
}

// framed reports that all output of the object lies in its last delta.
func (s *answerScanner) framed() bool {
	return s.slot.Present() && s.output == s.slotOutput &&
		(s.face != Anthropic || s.typ.Present())
}

// kind returns the value of "type" at the top, without escapes decoded.
func (s *answerScanner) kind() []byte {
	if !s.typ.Present() {
		return nil
	}
	return s.b[s.typ.Start+1 : s.typ.End-1]
}

// object walks over the object at i.
func (s *answerScanner) object(i int) int {
	i++
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		c := s.b[at]
		switch string(key) {
		case "error":
			s.failed = s.failed || c != 'n' && c != 'f'
			i = s.skip(at, 1)
		case "usage":
			if c == '{' {
				s.usageAt = true
				i = s.usage(at, 1, usageFinal)
				continue
			}
			i = s.skip(at, 1)
		case "id":
			if i = s.skip(at, 1); c == '"' {
				s.id = Span{at, i}
			}
		case "type":
			if i = s.skip(at, 1); c == '"' {
				s.typ = Span{at, i}
			}
		case "choices":
			if s.face == Anthropic || c != '[' {
				i = s.skip(at, 1)
				continue
			}
			i = s.choices(at)
		case "delta":
			if s.face != Anthropic {
				i = s.skip(at, 1)
				continue
			}
			i = s.delta(at)
		case "content_block", "content":
			if s.face != Anthropic {
				i = s.skip(at, 1)
				continue
			}
			s.known = true
			i = s.block(at, 1, false)
		case "message":
			if s.face != Anthropic || c != '{' {
				i = s.skip(at, 1)
				continue
			}
			i = s.startedMessage(at)
		default:
			i = s.skip(at, 1)
		}
	}
}

// choices walks over the array at i.
func (s *answerScanner) choices(i int) int {
	i++
	for first := true; ; first = false {
		at, done := s.element(i, first)
		if done {
			s.noItems = first
			s.known = s.known || first
			return at
		}
		if s.b[at] != '{' {
			i = s.skip(at, 2)
			continue
		}
		i = s.choice(at)
	}
}

func (s *answerScanner) choice(start int) int {
	i := start + 1
	known := false
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			if !known && at >= 0 {
				s.output += int64(at - start)
			}
			s.known = true
			return at
		}
		switch string(key) {
		case "delta":
			known = true
			i = s.delta(at)
		case "message", "text":
			known = true
			i = s.counted(at, 3)
		case "finish_reason":
			if i = s.skip(at, 3); s.b[at] != 'n' {
				s.finished, known = true, true
			}
		case "usage":
			if s.b[at] == '{' {
				i = s.usage(at, 3, usageFinal)
				continue
			}
			i = s.skip(at, 3)
		default:
			i = s.skip(at, 3)
		}
	}
}

// block measures an Anthropic delta, content block, or list of blocks: the strings
// in it, and all of a tool's input, whose keys and numbers are output too. Left out
// is what names the event and not the output.
func (s *answerScanner) block(i, depth int, delta bool) int {
	switch s.b[i] {
	case '[':
		i++
		for first := true; ; first = false {
			at, done := s.element(i, first)
			if done {
				return at
			}
			if s.b[at] == '{' {
				i = s.block(at, depth+1, false)
			} else {
				i = s.counted(at, depth+1)
			}
		}
	case '{':
	default:
		return s.counted(i, depth)
	}
	i++
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		switch string(key) {
		case "stop_reason":
			s.finished = s.finished || s.b[at] != 'n'
			i = s.skip(at, depth+1)
		case "stop_sequence", "signature":
			i = s.skip(at, depth+1)
		case "type":
			// A block's type pays for the tokens that open and close it; a
			// delta's comes with every event and pays for nothing.
			if delta {
				i = s.skip(at, depth+1)
			} else {
				i = s.counted(at, depth+1)
			}
		case "input":
			i = s.skip(at, depth+1)
			if n := i - at; n > len("{}") {
				s.output += int64(n)
			}
		default:
			i = s.counted(at, depth+1)
		}
	}
}

// counted skips a value and adds its strings to the output.
func (s *answerScanner) counted(i, depth int) int {
	before := s.text
	i = s.skip(i, depth)
	s.output += int64(s.text - before)
	return i
}

// startedMessage walks over the message of a message_start.
func (s *answerScanner) startedMessage(i int) int {
	i++
	s.known = true
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		switch string(key) {
		case "usage":
			if s.b[at] == '{' {
				i = s.usage(at, 2, usageStart)
				continue
			}
			i = s.skip(at, 2)
		case "id":
			if i = s.skip(at, 2); s.b[at] == '"' {
				s.id = Span{at, i}
			}
		case "content":
			i = s.block(at, 2, false)
		default:
			i = s.skip(at, 2)
		}
	}
}
