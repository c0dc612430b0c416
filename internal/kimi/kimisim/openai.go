package kimisim

import (
	"strconv"
	"time"
)

// event is one SSE event: its JSON (or the end mark) and what it carries.
type event struct {
	name   string // Anthropic's event field
	data   []byte // valid until the next event
	tokens int
	usage  bool
	end    bool
}

const fingerprint = `"system_fingerprint":"fpv0_00000000"`

// openAIEvents yields the chunks of an OpenAI stream.
func (p *plan) openAIEvents(yield func(event) bool) {
	place := p.b.UsagePlace
	if place == "" || place == UsageAuto || place == UsageDelta || place == UsageStartBoth {
		place = UsageChoice
		if p.chat.includeUsage {
			place = UsageTop
		}
	}
	perChunk := max(p.b.TokensPerChunk, 1)

	var head []byte
	head = append(head, `{"id":"chatcmpl-`...)
	head = append(head, p.id...)
	head = append(head, `","object":"chat.completion.chunk","created":`...)
	head = strconv.AppendInt(head, p.created, 10)
	head = append(head, `,"model":`...)
	head = appendJSON(head, p.model)
	bare := append(head[:len(head):len(head)], `,"choices":[]`...)
	tail := "," + fingerprint
	nullUsage := ""
	if p.chat.includeUsage {
		nullUsage = `,"usage":null`
	}
	var buf []byte
	for choice := range p.chat.n {
		prefix := append(head[:len(head):len(head)], `,"choices":[{"index":`...)
		prefix = strconv.AppendInt(prefix, int64(choice), 10)
		prefix = append(prefix, `,"delta":{`...)
		chunk := func(tokens int, delta func([]byte) []byte) bool {
			buf = delta(append(buf[:0], prefix...))
			buf = append(buf, `},"finish_reason":null}]`...)
			buf = append(append(buf, tail...), nullUsage...)
			buf = append(p.stamp(buf), '}')
			return yield(event{data: buf, tokens: tokens})
		}
		if !chunk(0, func(b []byte) []byte { return append(b, `"role":"assistant","content":""`...) }) {
			return
		}
		for i := range p.segments {
			s := &p.segments[i]
			if s.kind == toolSegment && !chunk(0, func(b []byte) []byte { return appendToolStart(b, s) }) {
				return
			}
			for from := 0; from < s.count; from += perChunk {
				to := min(from+perChunk, s.count)
				if !chunk(to-from, func(b []byte) []byte { return appendOpenAIDelta(b, s, from, to) }) {
					return
				}
			}
		}
		if p.b.NoFinish {
			continue
		}
		inChoice := choice == p.chat.n-1 && (place == UsageChoice || place == UsageBoth)
		buf = append(append(buf[:0], prefix...), `},"finish_reason":"`...)
		buf = append(append(buf, p.finish...), '"')
		if inChoice {
			buf = p.appendOpenAIUsage(append(buf, `,"usage":`...))
		}
		buf = append(append(append(buf, `}]`...), tail...), nullUsage...)
		if !yield(event{data: append(p.stamp(buf), '}'), usage: inChoice}) {
			return
		}
	}
	if (place == UsageTop || place == UsageBoth) && !p.b.NoFinish {
		buf = append(append(append(buf[:0], bare...), tail...), `,"usage":`...)
		buf = p.appendOpenAIUsage(buf)
		if !yield(event{data: append(p.stamp(buf), '}'), usage: true}) {
			return
		}
	}
	if !p.b.NoEndMark && !p.b.NoFinish {
		yield(event{data: append(buf[:0], "[DONE]"...), end: true})
	}
}

func appendToolStart(b []byte, s *segment) []byte {
	b = append(b, `"tool_calls":[{"index":`...)
	b = strconv.AppendInt(b, int64(s.index), 10)
	b = appendJSON(append(b, `,"id":`...), toolID(s))
	b = appendJSON(append(b, `,"type":"function","function":{"name":`...), s.tool)
	return append(b, `,"arguments":""}}]`...)
}

func toolID(s *segment) string { return s.tool + ":" + strconv.Itoa(s.index) }

func appendOpenAIDelta(b []byte, s *segment, from, to int) []byte {
	switch s.kind {
	case reasoningSegment:
		return s.appendQuoted(append(b, `"reasoning_content":`...), from, to)
	case toolSegment:
		b = append(b, `"tool_calls":[{"index":`...)
		b = strconv.AppendInt(b, int64(s.index), 10)
		b = s.appendQuoted(append(b, `,"function":{"arguments":`...), from, to)
		return append(b, `}}]`...)
	}
	return s.appendQuoted(append(b, `"content":`...), from, to)
}

// stamp adds the time of now, for latency measurements.
func (p *plan) stamp(b []byte) []byte {
	if !p.b.Stamp {
		return b
	}
	return strconv.AppendInt(append(b, `,"t":`...), time.Now().UnixNano(), 10)
}

func (p *plan) appendOpenAIUsage(b []byte) []byte {
	if len(p.b.RawUsage) > 0 {
		return append(b, p.b.RawUsage...)
	}
	u := p.shownUsage()
	b = strconv.AppendInt(append(b, `{"prompt_tokens":`...), int64(u.prompt), 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), int64(u.completion), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(u.prompt+u.completion), 10)
	if u.cached > 0 {
		b = strconv.AppendInt(append(b, `,"cached_tokens":`...), int64(u.cached), 10)
	}
	if u.reasoning > 0 {
		b = strconv.AppendInt(append(b, `,"completion_tokens_details":{"reasoning_tokens":`...), int64(u.reasoning), 10)
		b = append(b, '}')
	}
	if u.cached > 0 {
		b = strconv.AppendInt(append(b, `,"prompt_tokens_details":{"cached_tokens":`...), int64(u.cached), 10)
		b = append(b, '}')
	}
	return append(b, '}')
}

// shownUsage is the usage that is reported, which a behaviour may make nonsense.
func (p *plan) shownUsage() usageCounts {
	switch {
	case p.b.NegativeUsage:
		return usageCounts{prompt: -7, completion: -7}
	case p.b.AbsurdUsage:
		return usageCounts{prompt: 1e15, completion: 1e15}
	}
	return p.usage
}

// openAIAnswer is the answer without streaming.
func (p *plan) openAIAnswer() []byte {
	b := append([]byte(`{"id":"chatcmpl-`), p.id...)
	b = strconv.AppendInt(append(b, `","object":"chat.completion","created":`...), p.created, 10)
	b = appendJSON(append(b, `,"model":`...), p.model)
	b = append(b, `,"choices":[`...)
	for choice := range p.chat.n {
		if choice > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"index":`...), int64(choice), 10)
		b = append(b, `,"message":{"role":"assistant","content":`...)
		b = appendJSON(b, p.joined(textSegment))
		if r := p.joined(reasoningSegment); r != "" {
			b = appendJSON(append(b, `,"reasoning_content":`...), r)
		}
		sep := `,"tool_calls":[`
		for i := range p.segments {
			if s := &p.segments[i]; s.kind == toolSegment {
				b = append(b, sep...)
				b = appendJSON(append(b, `{"index":`+strconv.Itoa(s.index)+`,"id":`...), toolID(s))
				b = appendJSON(append(b, `,"type":"function","function":{"name":`...), s.tool)
				b = s.appendQuoted(append(b, `,"arguments":`...), 0, s.count)
				b = append(b, `}}`...)
				sep = ","
			}
		}
		if sep == "," {
			b = append(b, ']')
		}
		b = append(append(append(b, `},"finish_reason":"`...), p.finish...), `"}`...)
	}
	b = append(b, ']')
	if p.b.UsagePlace != UsageNone {
		b = p.appendOpenAIUsage(append(b, `,"usage":`...))
	}
	return append(p.stamp(b), '}')
}

// joined returns the text of all segments of a kind.
func (p *plan) joined(kind segmentKind) string {
	var b []byte
	for i := range p.segments {
		if s := &p.segments[i]; s.kind == kind {
			b = s.appendTokens(b, 0, s.count)
		}
	}
	return string(b)
}
