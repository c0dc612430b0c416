package kimisim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// The faces, as ledger entries name them.
const (
	FaceOpenAI    = "openai"
	FaceAnthropic = "anthropic"
)

// RequestInfo is what a script sees of a request.
type RequestInfo struct {
	ID           string // as in Msh-Request-Id
	Sequence     int    // 1 for the first chat request of the server
	Key          string
	Face         string
	Path         string
	Model        string
	Stream       bool
	UserAgent    string
	Header       http.Header
	PromptTokens int
	LastUser     string // text of the last user message that has text
	UserID       string // safety_identifier or metadata.user_id
	Body         []byte // valid during the call
}

// chat is a parsed chat request of either face.
type chat struct {
	face         string
	model        string
	stream       bool
	includeUsage bool
	outputCap    int // -1 without one
	budget       int // thinking.budget_tokens, -1 without one
	thinkingOff  bool
	n            int
	userID       string
	tools        []byte
	toolChoice   []byte
	lastUser     []byte // content of the last user message with text, raw JSON
	afterTool    bool   // the conversation ends with the result of a tool
	seed         uint32
	prompt       promptSize
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseChat reads a request. Field names are matched exactly and the last duplicate wins,
// as on the real thing; wrong types are errors.
func (s *Server) parseChat(body []byte, face string) (*chat, error) {
	if !json.Valid(body) {
		return nil, fmt.Errorf("the request body is not valid JSON")
	}
	if i := skipSpace(body, 0); body[i] != '{' {
		return nil, fmt.Errorf("the request body is not a JSON object")
	}
	c := &chat{face: face, outputCap: -1, budget: -1, n: 1}
	var messages, system []byte
	var err error
	fail := func(format string, args ...any) {
		if err == nil {
			err = fmt.Errorf(format, args...)
		}
	}
	number := func(key string, v []byte) int {
		n, e := strconv.Atoi(string(v))
		if f, isNumber := strconv.ParseFloat(string(v), 64); e != nil && isNumber == nil && f == math.Trunc(f) && f < 1<<53 {
			n, e = int(f), nil // 64.0 and 1e2 are whole, too
		}
		if e != nil || n < 0 {
			fail("%s is not a whole number of 0 or more: %.40s", key, v)
		}
		return n
	}
	boolean := func(key string, v []byte) bool {
		if v[0] != 't' && v[0] != 'f' {
			fail("%s is not a boolean: %.40s", key, v)
		}
		return v[0] == 't'
	}
	eachField(body, func(key string, v []byte) {
		if v[0] == 'n' { // null is as good as absent
			return
		}
		switch key {
		case "model":
			if v[0] != '"' {
				fail("model is not a string")
				return
			}
			c.model = unquote(v)
		case "messages":
			messages = v
		case "system":
			system = v
		case "tools":
			c.tools = v
		case "tool_choice":
			c.toolChoice = v
		case "stream":
			c.stream = boolean(key, v)
		case "stream_options":
			if u := field(v, "include_usage"); len(u) > 0 && u[0] != 'n' {
				c.includeUsage = boolean("stream_options.include_usage", u)
			}
		case "max_tokens", "max_completion_tokens":
			// With both, the lower one: no answer may be longer than any cap says.
			n := number(key, v)
			if c.outputCap < 0 || n < c.outputCap {
				c.outputCap = n
			}
		case "n":
			c.n = number(key, v)
		case "thinking":
			c.thinkingOff = fieldString(v, "type") == "disabled"
			if n := field(v, "budget_tokens"); len(n) > 0 && n[0] != 'n' {
				c.budget = number("thinking.budget_tokens", n)
			}
		case "safety_identifier":
			if v[0] == '"' {
				c.userID = unquote(v)
			}
		case "metadata":
			if id := fieldString(v, "user_id"); id != "" {
				c.userID = id
			}
		}
	})
	switch {
	case err != nil:
		return nil, err
	case c.model == "":
		return nil, fmt.Errorf("model is missing")
	case len(messages) == 0 || messages[0] != '[':
		return nil, fmt.Errorf("messages is missing or no array")
	case c.n < 1 || c.n > 5:
		return nil, fmt.Errorf("n is not between 1 and 5")
	case face == FaceAnthropic && c.outputCap < 0:
		return nil, fmt.Errorf("max_tokens: Field required")
	}
	c.readMessages(messages)
	c.seed = crc32.Checksum(messages, castagnoli)
	c.prompt = countPrompt(s.cfg.TokenizerRatio, s.cfg.TemplateTokensPerMessage, len(body), messages, system, c.tools)
	return c, nil
}

// readMessages finds the last user text and whether a tool's result ends the talk. It
// looks from the end, as prompts are long.
func (c *chat) readMessages(messages []byte) {
	var list [][]byte
	eachElement(messages, func(m []byte) { list = append(list, m) })
	for i := len(list) - 1; i >= 0 && c.lastUser == nil; i-- {
		if fieldString(list[i], "role") == "user" {
			if content := field(list[i], "content"); contentText(content, true) != "" {
				c.lastUser = content
			}
		}
	}
	if len(list) == 0 {
		return
	}
	last := list[len(list)-1]
	c.afterTool = fieldString(last, "role") == "tool"
	eachElement(field(last, "content"), func(p []byte) {
		if fieldString(p, "type") == "tool_result" {
			c.afterTool = true
		}
	})
}

// contentText returns the text parts of a message's content. With probe it may return
// only some of it, which is enough to know that there is text.
func contentText(v []byte, probe bool) string {
	if len(v) == 0 {
		return ""
	}
	if v[0] == '"' {
		if probe && len(v) > 2 {
			return "text"
		}
		return unquote(v)
	}
	var b strings.Builder
	eachElement(v, func(p []byte) {
		if fieldString(p, "type") == "text" && (!probe || b.Len() == 0) {
			if t := field(p, "text"); len(t) > 2 && t[0] == '"' {
				if probe {
					b.WriteString("text")
					return
				}
				b.WriteString(unquote(t))
				b.WriteByte('\n')
			}
		}
	})
	return b.String()
}

// chosenTool returns the name and the parameter schema of the i-th tool to call.
func (c *chat) chosenTool(i int) (name string, schema []byte) {
	var names []string
	var schemas [][]byte
	eachElement(c.tools, func(t []byte) {
		params := field(t, "input_schema")
		if f := field(t, "function"); f != nil {
			t, params = f, field(f, "parameters")
		}
		if n := fieldString(t, "name"); n != "" {
			names, schemas = append(names, n), append(schemas, params)
		}
	})
	wanted := fieldString(c.toolChoice, "name")
	if f := field(c.toolChoice, "function"); f != nil {
		wanted = fieldString(f, "name")
	}
	for k, n := range names {
		if n == wanted {
			return n, schemas[k]
		}
	}
	if len(names) == 0 {
		return "read", []byte(`{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}`)
	}
	return names[i%len(names)], schemas[i%len(names)]
}

// wantsTool tells whether the request asks for a tool call by itself.
func (c *chat) wantsTool() bool {
	if len(c.tools) == 0 || c.choiceMode() == "none" {
		return false
	}
	switch c.choiceMode() {
	case "required", "any", "function", "tool":
		return true
	}
	return bytes.Contains(c.lastUser, []byte("call the tool"))
}

// choiceMode is tool_choice as a string or its type.
func (c *chat) choiceMode() string {
	if len(c.toolChoice) > 0 && c.toolChoice[0] == '"' {
		return unquote(c.toolChoice)
	}
	return fieldString(c.toolChoice, "type")
}

// arguments makes JSON that fits a parameter schema: required properties only, a space
// after each comma, colon and at the end, none elsewhere, so that its tokens count.
func arguments(schema []byte) string {
	return string(append(appendSample(nil, schema, 0), ' '))
}

func appendSample(dst, schema []byte, depth int) []byte {
	if values := field(schema, "enum"); values != nil {
		var first []byte
		eachElement(values, func(v []byte) {
			if first == nil {
				first = v
			}
		})
		if first != nil && (first[0] != '"' || !strings.Contains(string(first), " ")) {
			return append(dst, first...)
		}
	}
	switch fieldString(schema, "type") {
	case "string":
		return append(dst, `"notes.md"`...)
	case "integer", "number":
		return append(dst, '1')
	case "boolean":
		return append(dst, "true"...)
	case "array":
		return append(dst, "[]"...)
	case "null":
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	properties := field(schema, "properties")
	first := true
	eachElement(field(schema, "required"), func(name []byte) {
		if len(name) == 0 || name[0] != '"' || depth > 8 {
			return
		}
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
		dst = append(append(dst, name...), ": "...)
		dst = appendSample(dst, field(properties, unquote(name)), depth+1)
	})
	return append(dst, '}')
}
