package clients_test

import "encoding/json"

// task is one thing for a client to do. The Node scripts read it as JSON.
type task struct {
	Check        string `json:"check"`
	Call         string `json:"call"`    // chat, stream, tools, tools_stream, models, unknown_path
	Token        string `json:"token"`   // proxy token
	Bearer       bool   `json:"bearer"`  // Anthropic: in Authorization instead of x-api-key
	Retries      int    `json:"retries"` // the SDK's own number if negative
	Model        string `json:"model"`
	Prompt       string `json:"prompt"`
	Pad          int    `json:"pad"` // bytes in front of the prompt
	MaxTokens    int    `json:"max_tokens"`
	Thinking     int    `json:"thinking"` // Anthropic: budget
	IncludeUsage bool   `json:"include_usage"`
	AbortAfter   int    `json:"abort_after"` // events with content
	TimeoutMS    int    `json:"timeout_ms"`
	Announce     bool   `json:"announce"` // say so when the first content has come
}

// seen is what the caller of a client sees of one task. The Node scripts print it as
// JSON, one line per task.
type seen struct {
	Check    string `json:"check"`
	Announce string `json:"announce"` // the line only says that this check has content

	// Of the error, if there was one.
	Failed      bool     `json:"failed"`
	Classes     []string `json:"classes"` // the client's own error classes that it is one of
	Status      int      `json:"status"`
	Message     string   `json:"message"`
	RequestID   string   `json:"request_id"`
	RetryAfter  string   `json:"retry_after"`
	ShouldRetry string   `json:"should_retry"`
	Body        string   `json:"body"` // of the error, as JSON

	// Of the answers.
	IDs       []string `json:"ids"`
	Text      string   `json:"text"` // of the last
	Reasoning string   `json:"reasoning"`
	Tool      string   `json:"tool"`
	Arguments string   `json:"arguments"`
	Finish    []string `json:"finish"`
	Models    []string `json:"models"`
	Usages    []usage  `json:"usages"` // of each answer that told it

	Events int     `json:"events"` // with content
	First  float64 `json:"first"`  // milliseconds until the first of them
	Total  float64 `json:"total"`  // milliseconds until all was over
	At     int64   `json:"at"`     // Unix milliseconds of the abort
}

// usage of one answer: the prompt with its cached tokens, as the OpenAI face tells it.
type usage struct {
	Prompt     int64 `json:"prompt"`
	Completion int64 `json:"completion"`
	Cached     int64 `json:"cached"`
	Reasoning  int64 `json:"reasoning"`
}

// errorFields are those of the error's body, which SDKs keep with or without the object
// around it.
type errorFields struct {
	Type     string `json:"type"`
	Code     string `json:"code"`
	Message  string `json:"message"`
	Limit    *int64 `json:"limit"`
	Used     *int64 `json:"used"`
	ResetsAt string `json:"resets_at"`
}

func (o *seen) fields() errorFields {
	var outer struct{ Error *errorFields }
	if json.Unmarshal([]byte(o.Body), &outer) == nil && outer.Error != nil {
		return *outer.Error
	}
	var inner errorFields
	_ = json.Unmarshal([]byte(o.Body), &inner)
	return inner
}
