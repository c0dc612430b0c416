package kimisim

// segment is a run of tokens of one kind.
type segment struct {
	kind   segmentKind
	pieces []string // nil: generated ones
	count  int
	first  int    // number of the first generated piece
	tool   string // name, for toolSegment
	index  int    // of the tool call
}

type segmentKind uint8

const (
	reasoningSegment segmentKind = iota + 1
	textSegment
	toolSegment
)

// plan is a whole answer, decided before its first byte is sent.
type plan struct {
	id, model string
	created   int64
	segments  []segment
	finish    string // OpenAI's words: stop, length, tool_calls
	usage     usageCounts
	visible   int // tokens that appear in the answer
	b         *Behavior
	chat      *chat
}

type usageCounts struct {
	prompt, cached, completion, reasoning int
}

// makePlan decides the answer to a request.
func makePlan(id string, created int64, c *chat, b *Behavior) *plan {
	p := &plan{id: id, model: c.model, created: created, b: b, chat: c, finish: "stop"}
	reasoning := max(b.ReasoningTokens, 0)
	if c.thinkingOff {
		reasoning = 0
	}
	if c.budget >= 0 && !b.ExceedCap {
		reasoning = min(reasoning, c.budget)
	}
	var text []string
	textCount := 0
	switch {
	case b.Text != "":
		text = splitPieces(b.Text)
		textCount = len(text)
	case b.OutputTokens > 0:
		textCount = max(b.OutputTokens-reasoning, 0)
		reasoning = min(reasoning, b.OutputTokens)
	case b.OutputTokens == 0:
		textCount = 16 + int(c.seed>>7)%128
	default:
		reasoning = 0
	}
	if reasoning > 0 {
		p.segments = append(p.segments, segment{kind: reasoningSegment, count: reasoning})
	}
	calls := max(b.ToolCalls, 0)
	if calls == 0 && c.wantsTool() {
		calls = 1
	}
	if c.afterTool {
		calls = 0
	}
	var tools []segment
	if calls > 0 {
		p.finish = "tool_calls"
		if b.Text == "" && b.OutputTokens == 0 {
			textCount = min(textCount, 4) // a short announcement
		}
		for i := range calls {
			name, schema := c.chosenTool(i)
			args := arguments(schema)
			if b.ToolName != "" {
				name = b.ToolName
			}
			if b.ToolArguments != "" {
				args = b.ToolArguments
			}
			pieces := splitPieces(args)
			tools = append(tools, segment{kind: toolSegment, pieces: pieces, count: len(pieces), tool: name, index: i})
			if b.OutputTokens > 0 {
				textCount = max(textCount-len(pieces), 0)
			}
		}
	}
	if textCount > 0 {
		if b.BigEvent > 0 {
			big := make([]byte, b.BigEvent)
			for i := range big {
				big[i] = 'x'
			}
			big[len(big)-1] = ' '
			p.segments = append(p.segments, segment{kind: textSegment, pieces: []string{string(big)}, count: 1})
			textCount--
			if text != nil {
				text = text[1:]
			}
		}
		if textCount > 0 {
			p.segments = append(p.segments, segment{kind: textSegment, pieces: text, count: textCount, first: reasoning})
		}
	}
	p.segments = append(p.segments, tools...)
	p.applyCap(c, b)
	p.usage.prompt = c.prompt.tokens
	switch {
	case b.CachedTokens > 0:
		p.usage.cached = min(b.CachedTokens, p.usage.prompt)
	case b.CachedTokens < 0 && p.usage.prompt > 256:
		p.usage.cached = (p.usage.prompt - 1) / 256 * 256
	}
	return p
}

// applyCap cuts the answer to the request's output cap and adds up what is left. The cap
// is per choice; so are the segments.
func (p *plan) applyCap(c *chat, b *Behavior) {
	left := c.outputCap
	if left < 0 || b.ExceedCap {
		left = int(^uint(0) >> 1)
	}
	hidden := min(max(b.HiddenTokens, 0), left)
	left -= hidden
	kept := p.segments[:0]
	visible, reasoning := 0, 0
	for _, s := range p.segments {
		if s.count > left {
			s.count = left
			p.finish = "length"
		}
		if s.count == 0 && s.kind != toolSegment || p.finish == "length" && s.count == 0 {
			continue
		}
		left -= s.count
		visible += s.count
		if s.kind == reasoningSegment {
			reasoning += s.count
		}
		kept = append(kept, s)
	}
	p.segments = kept
	p.visible = visible * c.n
	p.usage.completion = (visible + hidden) * c.n
	p.usage.reasoning = reasoning * c.n
}

// appendTokens appends the tokens [from, to) of a segment, as plain text.
func (s *segment) appendTokens(dst []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		if s.pieces != nil {
			dst = append(dst, s.pieces[i]...)
		} else {
			dst = appendPiece(dst, s.first+i)
		}
	}
	return dst
}

// appendQuoted is appendTokens as a JSON string.
func (s *segment) appendQuoted(dst []byte, from, to int) []byte {
	if s.pieces != nil {
		return appendJSON(dst, string(s.appendTokens(nil, from, to)))
	}
	return append(s.appendTokens(append(dst, '"'), from, to), '"')
}
