package kimisim

import "strconv"

// signature stands for the opaque signature of a thinking block.
const signature = "c2lnbmF0dXJl"

// anthropicEvents yields the events of an Anthropic stream.
func (p *plan) anthropicEvents(yield func(event) bool) {
	perChunk := max(p.b.TokensPerChunk, 1)
	inStart := p.b.UsagePlace != UsageDelta && p.b.UsagePlace != UsageTop && p.b.UsagePlace != UsageNone
	var buf []byte
	send := func(name string, tokens int, usage bool, body func([]byte) []byte) bool {
		buf = appendJSON(append(buf[:0], `{"type":`...), name)
		buf = append(p.stamp(body(buf)), '}')
		return yield(event{name: name, data: buf, tokens: tokens, usage: usage, end: name == "message_stop"})
	}
	if !send("message_start", 0, false, func(b []byte) []byte {
		b = append(append(b, `,"message":{"id":"msg_`...), p.id...)
		b = appendJSON(append(b, `","type":"message","role":"assistant","model":`...), p.model)
		b = append(b, `,"content":[],"stop_reason":null,"stop_sequence":null,"usage":`...)
		if inStart {
			b = p.appendAnthropicUsage(b, true)
		} else {
			b = append(b, `{"input_tokens":0,"output_tokens":0}`...)
		}
		return append(b, '}')
	}) {
		return
	}
	for i := range p.segments {
		s := &p.segments[i]
		index := func(b []byte) []byte { return strconv.AppendInt(append(b, `,"index":`...), int64(i), 10) }
		if !send("content_block_start", 0, false, func(b []byte) []byte {
			b = append(index(b), `,"content_block":`...)
			return append(appendEmptyBlock(b, s, p.id), '}')
		}) {
			return
		}
		for from := 0; from < s.count; from += perChunk {
			to := min(from+perChunk, s.count)
			if !send("content_block_delta", to-from, false, func(b []byte) []byte {
				b = append(index(b), `,"delta":{"type":`...)
				switch s.kind {
				case reasoningSegment:
					b = append(b, `"thinking_delta","thinking":`...)
				case toolSegment:
					b = append(b, `"input_json_delta","partial_json":`...)
				default:
					b = append(b, `"text_delta","text":`...)
				}
				return append(s.appendQuoted(b, from, to), '}')
			}) {
				return
			}
		}
		if s.kind == reasoningSegment && !send("content_block_delta", 0, false, func(b []byte) []byte {
			return append(index(b), `,"delta":{"type":"signature_delta","signature":"`+signature+`"}`...)
		}) {
			return
		}
		if !send("content_block_stop", 0, false, index) {
			return
		}
	}
	if p.b.NoFinish {
		return
	}
	withUsage := p.b.UsagePlace != UsageNone
	if !send("message_delta", 0, withUsage, func(b []byte) []byte {
		b = append(b, `,"delta":{"stop_reason":"`...)
		b = append(append(b, p.stopReason()...), `","stop_sequence":null}`...)
		if withUsage {
			b = p.appendAnthropicUsage(append(b, `,"usage":`...), false)
		}
		return b
	}) || p.b.NoEndMark {
		return
	}
	send("message_stop", 0, false, func(b []byte) []byte { return b })
}

func appendEmptyBlock(b []byte, s *segment, id string) []byte {
	switch s.kind {
	case reasoningSegment:
		return append(b, `{"type":"thinking","thinking":"","signature":""`...)
	case toolSegment:
		b = append(append(b, `{"type":"tool_use","id":"tool_`...), id...)
		b = strconv.AppendInt(append(b, '_'), int64(s.index), 10)
		b = appendJSON(append(b, `","name":`...), s.tool)
		return append(b, `,"input":{}`...)
	}
	return append(b, `{"type":"text","text":""`...)
}

// stopReason is the finish reason in Anthropic's words.
func (p *plan) stopReason() string {
	switch p.finish {
	case "length":
		return "max_tokens"
	case "tool_calls":
		return "tool_use"
	}
	return "end_turn"
}

// appendAnthropicUsage appends a usage object: input without what the cache held, output
// 0 at the start of a stream and cumulative later.
func (p *plan) appendAnthropicUsage(b []byte, start bool) []byte {
	if len(p.b.RawUsage) > 0 {
		return append(b, p.b.RawUsage...)
	}
	u := p.shownUsage()
	if start {
		u.completion, u.reasoning = 0, 0
	}
	b = strconv.AppendInt(append(b, `{"input_tokens":`...), int64(u.prompt-u.cached), 10)
	b = strconv.AppendInt(append(b, `,"output_tokens":`...), int64(u.completion), 10)
	b = append(b, `,"cache_creation_input_tokens":0,"cache_read_input_tokens":`...)
	b = strconv.AppendInt(b, int64(u.cached), 10)
	if u.reasoning > 0 {
		b = strconv.AppendInt(append(b, `,"output_tokens_details":{"thinking_tokens":`...), int64(u.reasoning), 10)
		b = append(b, '}')
	}
	return append(b, '}')
}

// anthropicAnswer is the answer without streaming.
func (p *plan) anthropicAnswer() []byte {
	b := append([]byte(`{"id":"msg_`), p.id...)
	b = appendJSON(append(b, `","type":"message","role":"assistant","model":`...), p.model)
	b = append(b, `,"content":[`...)
	for i := range p.segments {
		s := &p.segments[i]
		if i > 0 {
			b = append(b, ',')
		}
		switch s.kind {
		case reasoningSegment:
			b = s.appendQuoted(append(b, `{"type":"thinking","thinking":`...), 0, s.count)
			b = append(b, `,"signature":"`+signature+`"}`...)
		case toolSegment:
			b = append(append(b, `{"type":"tool_use","id":"tool_`...), p.id...)
			b = strconv.AppendInt(append(b, '_'), int64(s.index), 10)
			b = appendJSON(append(b, `","name":`...), s.tool)
			b = append(b, `,"input":`...)
			input := s.appendTokens(nil, 0, s.count)
			if !validObject(input) { // cut by the cap
				input = []byte("{}")
			}
			b = append(append(b, input...), '}')
		default:
			b = append(s.appendQuoted(append(b, `{"type":"text","text":`...), 0, s.count), '}')
		}
	}
	b = append(append(b, `],"stop_reason":"`...), p.stopReason()...)
	b = append(b, `","stop_sequence":null`...)
	if p.b.UsagePlace != UsageNone {
		b = p.appendAnthropicUsage(append(b, `,"usage":`...), false)
	}
	return append(p.stamp(b), '}')
}
