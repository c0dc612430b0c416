package kimi

import "bytes"

// messages walks over the array at i and sums up what is not text in it.
func (s *requestScanner) messages(i int) int {
	if !s.once(fMessages, "messages") {
		return -1
	}
	if s.b[i] != '[' {
		return s.wrong(i, "messages", "must be an array")
	}
	i++
	for first := true; ; first = false {
		at, done := s.object(i, first, "messages")
		if done {
			return at
		}
		i = s.message(at)
	}
}

// object moves on to the next element of field's array, which must be an object, and
// returns the place behind its '{'. done says that there is none, or a fault; at is then
// what the walk over the array returns.
func (s *requestScanner) object(i int, first bool, field string) (at int, done bool) {
	at, done = s.element(i, first)
	switch {
	case done:
		return at, true
	case s.b[at] != '{':
		return s.wrong(at, field, "must hold objects only"), true
	}
	return at + 1, false
}

func (s *requestScanner) message(i int) int {
	content := false
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		switch string(key) {
		case "content":
			if content {
				return s.refuse("messages.content", "is given more than once in one message")
			}
			content = true
			i = s.content(at, 3)
		case "audio":
			i = s.remote(at, "audio reference")
		default:
			if s.misspelt(key, "content", "audio") {
				return -1
			}
			i = s.skip(at, 3)
		}
	}
}

// maxPartDepth is where nested content stops being looked into: 3 containers are
// open around the content of a message, 5 around that of a tool result in it.
const maxPartDepth = 5

// content walks over the content of a message, of a tool result or of the system
// prompt, inside depth open containers.
func (s *requestScanner) content(i, depth int) int {
	switch s.b[i] {
	case '[':
		if depth > maxPartDepth {
			s.unbounded("nested content")
			return s.skip(i, depth)
		}
	case '{':
		s.unbounded("content that is an object")
		return s.skip(i, depth)
	default:
		return s.skip(i, depth)
	}
	i++
	for first := true; ; first = false {
		at, done := s.element(i, first)
		if done {
			return at
		}
		switch s.b[at] {
		case '{':
			i = s.part(at+1, depth+2)
		case '[':
			s.unbounded("content that is an array of arrays")
			i = s.skip(at, depth+1)
		default: // a bare string is text, the rest is as short as it is
			i = s.skip(at, depth+1)
		}
	}
}

// part walks over one content part, i being behind its '{'. Its type may come after
// its data, so data is measured by key first and attributed at the end.
func (s *requestScanner) part(i, depth int) int {
	var name [maxKeyLen]byte
	var kind []byte
	var image, video, source media
	typed := false
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			if at < 0 {
				return -1
			}
			i = at
			break
		}
		switch string(key) {
		case "type":
			if typed {
				return s.refuse("messages.content.type", "is given more than once in one part")
			}
			typed = true
			kind, i = s.name(at, depth, name[:])
		case "image_url":
			i = s.media(at, depth, &image)
		case "video_url":
			i = s.media(at, depth, &video)
		case "source":
			i = s.media(at, depth, &source)
		case "content": // of a tool result
			i = s.content(at, depth)
		default:
			if s.misspelt(key, "type", "image_url", "video_url", "source", "content") {
				return -1
			}
			i = s.skip(at, depth)
		}
	}
	s.attribute(kind, &image, &video, &source)
	return i
}

// attribute counts a part of the given type.
func (s *requestScanner) attribute(kind []byte, image, video, source *media) {
	anthropic := s.r.face == Anthropic
	switch string(kind) {
	case "text":
		return
	case "refusal":
		if !anthropic {
			return
		}
	case "image_url":
		if !anthropic {
			s.r.Images++
			s.r.ImageBytes += s.charge(image)
			if image.other || image.video {
				s.unbounded("image_url part that is not an image")
			}
			return
		}
	case "video_url":
		if !anthropic {
			s.r.Videos++
			s.r.VideoBytes += s.charge(video)
			if video.other || video.image {
				s.unbounded("video_url part that is not a video")
			}
			return
		}
	case "image":
		if anthropic {
			s.r.Images++
			s.r.ImageBytes += s.charge(source)
			if source.other || source.video {
				s.unbounded("image part that is not an image")
			}
			return
		}
	case "tool_use", "tool_result", "thinking", "redacted_thinking":
		if anthropic {
			return
		}
	case "":
		s.unbounded("content part without a type")
		return
	}
	s.unboundedNamed(kind, " part")
}

// charge returns the bytes of m, which count as media and not as text.
func (s *requestScanner) charge(m *media) int {
	s.inline = append(s.inline, m.at...)
	return m.inline
}

// unboundedNamed is unbounded for a name out of the body, cut to a sane length.
func (s *requestScanner) unboundedNamed(name []byte, suffix string) {
	if s.r.Unbounded == "" {
		s.r.Unbounded = printable(name) + suffix
	}
}

// printable returns at most 64 bytes of b with all but printable ASCII replaced.
func printable(b []byte) string {
	out := make([]byte, 0, 64)
	for _, c := range b[:min(len(b), 64)] {
		if c < ' ' || c > '~' {
			c = '?'
		}
		out = append(out, c)
	}
	return string(out)
}

// name reads a short string, decoded into buf if it has escapes. Another type of
// value gives nil.
func (s *requestScanner) name(i, depth int, buf []byte) (name []byte, next int) {
	if s.b[i] != '"' {
		return nil, s.skip(i, depth)
	}
	s.escapes = false
	j := s.str(i)
	if j < 0 {
		return nil, -1
	}
	name = s.b[i+1 : j-1]
	if s.escapes {
		name = decodeShort(buf, name)
	}
	return name, j
}

// media is what a picture or a video carries.
type media struct {
	inline              int    // bytes of data in the body
	at                  []Span // where they are, if the scanner collects that
	image, video, other bool   // kinds of data seen
}

// data notes inline data from start to end of the body.
func (s *requestScanner) data(m *media, start, end int) {
	m.inline += end - start
	if s.collect {
		m.at = append(m.at, Span{start, end})
	}
}

// note records the media type that begins b.
func (m *media) note(b []byte) {
	switch {
	case len(b) >= 6 && bytes.EqualFold(b[:6], []byte("image/")):
		m.image = true
	case len(b) >= 6 && bytes.EqualFold(b[:6], []byte("video/")):
		m.video = true
	default:
		m.other = true
	}
}

// media measures an image_url or video_url (a URL, or an object with one) or an
// Anthropic source.
func (s *requestScanner) media(i, depth int, m *media) int {
	if s.b[i] == '"' {
		return s.mediaURL(i, m)
	}
	if s.b[i] != '{' {
		return s.skip(i, depth)
	}
	i++
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return at
		}
		switch {
		case s.b[at] != '"':
			i = s.skip(at, depth+1)
		case string(key) == "url":
			i = s.mediaURL(at, m)
		case string(key) == "data":
			if i = s.str(at); i >= 0 {
				s.data(m, at+1, i-1)
			}
		case string(key) == "media_type":
			if i = s.str(at); i >= 0 {
				m.note(s.b[at+1 : i-1])
			}
		default:
			if s.misspelt(key, "url", "data", "media_type") {
				return -1
			}
			i = s.str(at)
		}
	}
}

// maxDataHead is how far into a data: URL its comma is looked for.
const maxDataHead = 256

// mediaURL measures the URL at i. Only a data: URL has bytes in the body; one whose
// scheme is written with escapes, or whose head is odd, is left to count as text.
func (s *requestScanner) mediaURL(i int, m *media) int {
	j := s.str(i)
	if j < 0 {
		return -1
	}
	raw := s.b[i+1 : j-1]
	if len(raw) < 5 || !bytes.EqualFold(raw[:5], []byte("data:")) {
		return j
	}
	raw = raw[5:]
	m.note(raw)
	if comma := bytes.IndexByte(raw[:min(len(raw), maxDataHead)], ','); comma >= 0 {
		s.data(m, j-len(raw)+comma, j-1)
	}
	return j
}

// system walks over Anthropic's system prompt, which may be a list of parts.
func (s *requestScanner) system(i int) int {
	if !s.once(fSystem, "system") {
		return -1
	}
	if s.r.face != Anthropic {
		return s.skip(i, 1)
	}
	switch s.b[i] {
	case '"', '[', 'n':
		return s.content(i, 1)
	}
	return s.wrong(i, "system", "must be a string or an array")
}

// tools looks for tools that the upstream runs itself: their results are input that
// is not in the body.
func (s *requestScanner) tools(i int) int {
	if !s.once(fTools, "tools") {
		return -1
	}
	switch s.b[i] {
	case 'n':
		return s.literal(i, "null")
	case '[':
	default:
		return s.wrong(i, "tools", "must be an array")
	}
	i++
	for first := true; ; first = false {
		at, done := s.object(i, first, "tools")
		if done {
			return at
		}
		i = s.tool(at)
	}
}

func (s *requestScanner) tool(i int) int {
	var kindBuf, nameBuf [maxKeyLen]byte
	var kind, name []byte
	typed, odd := false, false
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			if at < 0 {
				return -1
			}
			i = at
			break
		}
		switch string(key) {
		case "type":
			if typed {
				return s.refuse("tools.type", "is given more than once in one tool")
			}
			typed = true
			odd = s.b[at] != '"' && s.b[at] != 'n'
			kind, i = s.name(at, 3, kindBuf[:])
		case "name":
			name, i = s.name(at, 3, nameBuf[:])
		case "function":
			if s.b[at] != '{' {
				i = s.skip(at, 3)
				continue
			}
			name, i = s.functionName(at+1, nameBuf[:])
		default:
			if s.misspelt(key, "type", "name", "function") {
				return -1
			}
			i = s.skip(at, 3)
		}
	}
	switch {
	case odd:
		s.unbounded("tool of unknown type")
	case string(kind) == "" || string(kind) == "function" || string(kind) == "custom":
	case s.r.Unbounded != "":
	case string(kind) == "builtin_function":
		s.r.Unbounded = "builtin tool " + printable(name)
	default:
		s.r.Unbounded = "server tool " + printable(kind)
	}
	return i
}

// functionName walks over a tool's function object and returns its name.
func (s *requestScanner) functionName(i int, buf []byte) (name []byte, next int) {
	for first := true; ; first = false {
		key, at, done := s.member(i, first)
		if done {
			return name, at
		}
		if string(key) == "name" {
			name, i = s.name(at, 4, buf)
		} else {
			i = s.skip(at, 4)
		}
	}
}
