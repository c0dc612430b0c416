package kimisim

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// TokensPerImage is what one image or video part costs in a prompt, whatever its size.
const TokensPerImage = 1024

// CountText returns the prompt tokens of a text: ceil(bytes / ratio). A ratio below 1 is
// taken as 1, so that a token is never smaller than a byte.
func CountText(ratio float64, text string) int { return tokensOf(ratio, len(text)) }

// CountTokens returns how many generated tokens a received text holds: the pieces that
// end with a space, and a last piece without one if the text does not end with a space.
func CountTokens(text string) int {
	n := strings.Count(text, " ")
	if text != "" && text[len(text)-1] != ' ' {
		n++
	}
	return n
}

func tokensOf(ratio float64, n int) int {
	if ratio <= 1 {
		return n
	}
	return int(math.Ceil(float64(n) / ratio))
}

// appendPiece appends the i-th generated token: ASCII, no JSON escapes, one space, at the
// end.
func appendPiece(dst []byte, i int) []byte {
	dst = append(dst, "tok"...)
	dst = strconv.AppendInt(dst, int64(i), 10)
	return append(dst, ' ')
}

// splitPieces cuts a text after each space.
func splitPieces(text string) []string {
	if text == "" {
		return nil
	}
	p := strings.SplitAfter(text, " ")
	if p[len(p)-1] == "" {
		p = p[:len(p)-1]
	}
	return p
}

// promptSize is what a prompt is made of.
type promptSize struct {
	tokens     int
	images     int
	imageBytes int // raw bytes of inline image data in the body
}

// countPrompt counts the prompt tokens of a request. The values are raw JSON and may be
// empty; bodyLen is the size of the whole request body.
func countPrompt(ratio float64, perMessage, bodyLen int, messages, system, tools []byte) promptSize {
	var p promptSize
	eachElement(messages, func(m []byte) {
		var t textCounter
		t.value("", m)
		p.tokens += perMessage + tokensOf(ratio, t.text)
		p.images += t.images
		p.imageBytes += t.imageBytes
	})
	var t textCounter
	t.value("", system)
	p.tokens += tokensOf(ratio, t.text) + tokensOf(ratio, len(tools))
	p.images += t.images
	p.imageBytes += t.imageBytes
	// The promise of the package documentation, whatever the configuration and however
	// odd the body.
	p.tokens = min(p.tokens+p.images*TokensPerImage, bodyLen-p.imageBytes+p.images*TokensPerImage)
	return p
}

// textCounter adds up the decoded text bytes of a message, its images apart.
type textCounter struct {
	text, images, imageBytes int
}

func (t *textCounter) value(key string, v []byte) {
	if len(v) == 0 {
		return
	}
	switch v[0] {
	case '"':
		switch key {
		case "role", "type", "id", "tool_call_id", "tool_use_id", "signature", "media_type":
		default:
			t.text += stringLen(v)
		}
	case '[':
		eachElement(v, func(e []byte) { t.value(key, e) })
	case '{':
		switch key {
		case "input": // the arguments of an Anthropic tool call: JSON is its text
			t.text += len(v)
			return
		case "cache_control":
			return
		}
		switch fieldString(v, "type") {
		case "image", "image_url", "video", "video_url":
			t.images++
			t.imageBytes += inlineData(v)
			return
		}
		eachField(v, func(k string, e []byte) { t.value(k, e) })
	}
}

// inlineData returns the raw bytes of the base64 data in an image part.
func inlineData(v []byte) int {
	switch v[0] {
	case '"':
		if bytes.HasPrefix(v, []byte(`"data:`)) {
			return len(v) - 2
		}
	case '{':
		n := 0
		base64 := fieldString(v, "type") == "base64"
		eachField(v, func(k string, e []byte) {
			if base64 && k == "data" {
				n += max(len(e)-2, 0)
				return
			}
			n += inlineData(e)
		})
		return n
	}
	return 0
}
