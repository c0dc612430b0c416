package kimi

import (
	"cmp"
	"slices"
)

// AppendAsText appends to dst a request of the OpenAI face that asks model about one
// user message: the text of body itself, less the data of its inline media (ImageBytes
// and VideoBytes of it). That prompt costs at least what the text in body does,
// whichever face body has: whatever the upstream makes of a request, it shows the
// model what is between the quotes and a few marks around it, fewer than the names,
// quotes and braces that are here. body must be the body that was scanned and must not
// overlap dst.
func (r *Request) AppendAsText(dst, body []byte, model string) []byte {
	dst = append(AppendString(append(dst, `{"model":`...), model), `,"messages":[{"role":"user","content":"`...)
	from := 0
	for _, m := range r.inlineMedia(body) {
		dst = appendEscaped(dst, body[from:m.Start])
		from = m.End
	}
	return append(appendEscaped(dst, body[from:]), `"}]}`...)
}

// inlineMedia returns where the bytes are that ImageBytes and VideoBytes count, sorted.
// It reads the body again, so that requests far from their limit need not remember it.
func (r *Request) inlineMedia(body []byte) []Span {
	if r.ImageBytes == 0 && r.VideoBytes == 0 {
		return nil
	}
	s := requestScanner{scanner: scanner{b: body}, r: Request{face: r.face, N: 1}, collect: true}
	if i := s.begin(); i >= 0 {
		s.top(i)
	}
	slices.SortFunc(s.inline, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	return s.inline
}
