package kimi

// reported is a number that an upstream may have sent.
type reported struct {
	v    int64
	seen bool
}

// Usage gathers what one answer, streamed or not, reports as used: of each field the
// last value that is not null; nothing is ever added up over the places that repeat
// a number. The zero value is ready. It belongs to one answer and one goroutine.
// A copy of one that is still used may be asked for counts only.
type Usage struct {
	numbers
	frame *frame // of a stream, from its first event that serves as one: it is most of what a Usage takes
}

// numbers are the fields of usage objects, and how far they can be believed.
type numbers struct {
	face Face // whose fields they are

	prompt, completion       reported // prompt_tokens, completion_tokens; input_tokens, output_tokens
	cachedFlat, cachedDetail reported // cached_tokens; prompt_tokens_details.cached_tokens
	cacheRead, cacheCreation reported // Anthropic
	reasoning                reported // in either face's details
	promptFinal, outputFinal bool     // come not only from Anthropic's message_start
	bad                      bool     // a value that cannot be was met, and not taken
	objects                  int      // usage objects read
}

// Counts are token counts in one meaning for both faces: Prompt includes Cached
// (and Anthropic's cache creation), Completion includes Reasoning. All are ≥ 0.
type Counts struct{ Prompt, Cached, Completion, Reasoning int64 }

// Counts returns what is known so far. complete says that the answer reported both
// its prompt and its final completion. Anthropic's message_start alone never
// completes: its output count is a beginning, and zeros there are placeholders.
func (u *Usage) Counts() (c Counts, complete bool) {
	c = u.raw()
	promptKnown := u.prompt.seen && (u.promptFinal || c.Prompt > 0)
	c.Prompt = min(c.Prompt, MaxCount)
	c.Cached = min(c.Cached, c.Prompt)
	c.Reasoning = min(c.Reasoning, c.Completion)
	return c, promptKnown && u.completion.seen && u.outputFinal
}

// raw normalises without forcing the numbers to agree with each other.
func (u *numbers) raw() Counts {
	c := Counts{Prompt: u.prompt.v, Completion: u.completion.v, Reasoning: u.reasoning.v}
	if u.face == Anthropic {
		c.Prompt += u.cacheRead.v + u.cacheCreation.v
		c.Cached = u.cacheRead.v
		return c
	}
	c.Cached = u.cachedDetail.v
	if u.cachedFlat.seen {
		c.Cached = u.cachedFlat.v
	}
	return c
}

// Implausible reports that the upstream sent a number that cannot be: negative, not
// whole, above MaxCount, a part larger than its whole, or output from no prompt at
// all. Such numbers are kept out of Counts or clamped to fit.
func (u *Usage) Implausible() bool {
	c := u.raw()
	return u.bad || c.Prompt > MaxCount || c.Cached > c.Prompt || c.Reasoning > c.Completion ||
		u.prompt.seen && c.Prompt == 0 && c.Completion > 0
}

// where a usage object was found.
type usagePlace uint8

const (
	usageFinal usagePlace = iota // in an answer, a chunk, a choice or a message_delta
	usageStart                   // in Anthropic's message_start
)

// usage reads the usage object at i into u.
func (s *answerScanner) usage(i, depth int, place usagePlace) int {
	u := s.u
	u.objects++
	u.face = s.face
	i++
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		var into *reported
		details := ""
		if s.face == Anthropic {
			switch string(key) {
			case "input_tokens":
				into = &u.prompt
			case "output_tokens":
				into = &u.completion
			case "cache_read_input_tokens":
				into = &u.cacheRead
			case "cache_creation_input_tokens":
				into = &u.cacheCreation
			case "output_tokens_details":
				into, details = &u.reasoning, "thinking_tokens"
			}
		} else {
			switch string(key) {
			case "prompt_tokens":
				into = &u.prompt
			case "completion_tokens":
				into = &u.completion
			case "cached_tokens":
				into = &u.cachedFlat
			case "prompt_tokens_details":
				into, details = &u.cachedDetail, "cached_tokens"
			case "completion_tokens_details":
				into, details = &u.reasoning, "reasoning_tokens"
			}
		}
		switch {
		case into == nil:
			i = s.skip(at, depth+1)
			continue
		case details != "":
			i = s.details(at, depth+1, details, into)
			continue
		}
		var took bool
		i, took = s.reported(at, depth+1, into)
		if took && place == usageFinal {
			switch into {
			case &u.completion:
				u.outputFinal = true
			case &u.prompt:
				u.promptFinal = true
			}
		}
	}
}

// details reads one number out of the details object at i.
func (s *answerScanner) details(i, depth int, name string, into *reported) int {
	if s.b[i] != '{' {
		return s.skip(i, depth)
	}
	i++
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		if string(key) == name {
			i, _ = s.reported(at, depth+1, into)
		} else {
			i = s.skip(at, depth+1)
		}
	}
}

// reported takes the value at i unless it is null or cannot be a count.
func (s *answerScanner) reported(i, depth int, into *reported) (next int, took bool) {
	j := s.skip(i, depth)
	if j < 0 || s.b[i] == 'n' {
		return j, false
	}
	v, ok := parseCount(s.b[i:j])
	if !ok || v > MaxCount {
		s.u.bad = true
		return j, false
	}
	*into = reported{v, true}
	return j, true
}
