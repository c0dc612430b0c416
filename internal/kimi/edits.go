package kimi

import "strconv"

// Edits are the changes Apply makes; the zero value changes nothing.
type Edits struct {
	Model string // name to send instead of the one given; "" keeps it

	// OutputCap > 0 bounds the output of one choice, in tokens: each cap in the
	// request that is larger, or 0, is set to it, and CapField is added when it is
	// absent or null. That another field binds does not help an upstream that knows
	// only CapField: it would give the model's maximum.
	OutputCap int64
	CapField  string // "max_tokens" (also the meaning of "") or "max_completion_tokens"

	ThinkingBudget int64 // > 0 lowers thinking.budget_tokens to it, in tokens
	IncludeUsage   bool  // makes stream_options.include_usage true
}

// splice replaces body[at:end] by text. Text is name as a JSON string, or a number
// between two constants.
type splice struct {
	at, end  int
	head     string
	name     string // when quoted is set
	quoted   bool
	value    int64 // when ≥ 0 and not quoted
	hasValue bool
	tail     string
}

// maxSplices is one for each place Apply may touch.
const maxSplices = 6

type splices struct {
	list [maxSplices]splice
	n    int
}

// add keeps the list sorted by place, in order of arrival where places are equal.
func (l *splices) add(s splice) {
	i := l.n
	for i > 0 && l.list[i-1].at > s.at {
		l.list[i] = l.list[i-1]
		i--
	}
	l.list[i] = s
	l.n++
}

// number replaces a value by a number.
func (l *splices) number(at Span, v int64) {
	l.add(splice{at: at.Start, end: at.End, value: v, hasValue: true})
}

// Apply makes edits without copying the body: it appends to segs the pieces, of body and
// of scratch, that make up the edited body when written one after the other. It returns
// segs and the grown scratch; the pieces alias both. Every byte outside the splices is as
// in body, which must be the body that was scanned.
func (r *Request) Apply(segs [][]byte, scratch, body []byte, e Edits) ([][]byte, []byte) {
	var l splices
	r.plan(&l, &e)
	// Growing scratch once keeps the pieces in one array.
	need := 0
	for i := range l.list[:l.n] {
		s := &l.list[i]
		need += len(s.head) + len(s.tail) + 6*len(s.name) + 2 + 20
	}
	if cap(scratch)-len(scratch) < need {
		scratch = append(make([]byte, 0, len(scratch)+need), scratch...)
	}
	from := 0
	for i := range l.list[:l.n] {
		s := &l.list[i]
		if s.at > from {
			segs = append(segs, body[from:s.at])
		}
		start := len(scratch)
		scratch = s.append(scratch)
		segs = append(segs, scratch[start:len(scratch):len(scratch)])
		from = s.end
	}
	if from < len(body) {
		segs = append(segs, body[from:])
	}
	return segs, scratch
}

func (s *splice) append(dst []byte) []byte {
	dst = append(dst, s.head...)
	switch {
	case s.quoted:
		dst = AppendString(dst, s.name)
	case s.hasValue:
		dst = strconv.AppendInt(dst, s.value, 10)
	}
	return append(dst, s.tail...)
}

// plan lists the splices for e. What is added at the top goes right behind the '{':
// the object is never empty, so a comma always follows.
func (r *Request) plan(l *splices, e *Edits) {
	if e.OutputCap > 0 {
		r.planCap(l, e)
	}
	if e.IncludeUsage && !r.IncludeUsage {
		const on = `"include_usage":true`
		switch {
		case r.includeUsage.Present():
			l.add(splice{at: r.includeUsage.Start, end: r.includeUsage.End, head: "true"})
		case r.optionsNull:
			l.add(splice{at: r.streamOptions.Start, end: r.streamOptions.End, head: "{" + on + "}"})
		case r.streamOptions.Present():
			at := r.streamOptions.Start + 1
			s := splice{at: at, end: at, head: on, tail: ","}
			if r.optionsEmpty {
				s.tail = ""
			}
			l.add(s)
		default:
			l.add(splice{at: r.open, end: r.open, head: `"stream_options":{` + on + `},`})
		}
	}
	if e.Model != "" && e.Model != string(r.Model) {
		l.add(splice{at: r.ModelSpan.Start, end: r.ModelSpan.End, name: e.Model, quoted: true})
	}
	if f := &r.ThinkingBudget; e.ThinkingBudget > 0 && f.Value > e.ThinkingBudget {
		l.number(f.Span, e.ThinkingBudget)
	}
}

func (r *Request) planCap(l *splices, e *Edits) {
	fields := [2]*IntField{&r.MaxTokens, &r.MaxCompletionTokens}
	target, name := 0, `"max_tokens":`
	if e.CapField == "max_completion_tokens" && r.face != Anthropic {
		target, name = 1, `"max_completion_tokens":`
	}
	for i, f := range fields {
		switch {
		case f.Value > e.OutputCap,
			f.Present() && !f.Null && f.Value == 0,
			f.Null && i == target:
			l.number(f.Span, e.OutputCap)
		}
	}
	if !fields[target].Present() {
		l.add(splice{at: r.open, end: r.open, head: name, value: e.OutputCap, hasValue: true, tail: ","})
	}
}
