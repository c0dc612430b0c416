package kimi_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func TestParseErrorSamples(t *testing.T) {
	t.Parallel()
	var cases []struct {
		Case     string
		Body     json.RawMessage
		BodyText string `json:"body_text"`
	}
	if err := json.Unmarshal(sample(t, "08_errors.json"), &cases); err != nil {
		t.Fatal(err)
	}
	types := map[string]string{
		"429 RPM": "rate_limit_reached_error", "429 concurrency": "rate_limit_reached_error", "429 TPM": "rate_limit_reached_error",
		"429 overloaded": "engine_overloaded_error", "429 quota (do not retry)": "exceeded_current_quota_error",
		"401 bad key": "invalid_authentication_error", "404 unknown model": "resource_not_found_error",
		"400 temperature": "invalid_request_error", "400 body size (Kimi Code)": "invalid_request_error", "400 content filter": "content_filter",
		"Kimi Code anthropic face 429": "rate_limit_error", "Kimi Code anthropic face 403 usage limit": "permission_error",
	}
	seen := 0
	for _, c := range cases {
		if c.BodyText != "" {
			if f, ok := kimi.ParseError([]byte(c.BodyText)); ok {
				t.Errorf("%s: read %+v", c.Case, f)
			}
			continue
		}
		seen++
		f, ok := kimi.ParseError(c.Body)
		if !ok || f.Type != types[c.Case] || f.Type == "" || f.Message == "" || f.Code != "" {
			t.Errorf("%s: %+v %v", c.Case, f, ok)
		}
		message := string(kimi.Redact(nil, []byte(f.Message)))
		if strings.Contains(message, "EXAMPLE") || strings.Contains(f.Message, "org-") != strings.Contains(message, "account [redacted] ") {
			t.Errorf("%s: redacted to %q", c.Case, message)
		}
		if raw := string(kimi.Redact(nil, c.Body)); strings.Contains(raw, "EXAMPLE") || !json.Valid([]byte(raw)) {
			t.Errorf("%s: body redacted to %s", c.Case, raw)
		}
	}
	if seen != len(types) {
		t.Errorf("%d cases, know %d", seen, len(types))
	}
}

func TestParseError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		body string
		want kimi.ErrorFields
		ok   bool
	}{
		{`{"error":{"message":"m","type":"t","code":"c"}}`, kimi.ErrorFields{Type: "t", Message: "m", Code: "c"}, true},
		{`{"error":{"message":"m","type":null,"code":429}}`, kimi.ErrorFields{Message: "m", Code: "429"}, true},
		{`{"type":"error","error":{"type":"t","message":"\u4f60"},"request_id":"r"}`, kimi.ErrorFields{Type: "t", Message: "你"}, true},
		{`{"error":{}}`, kimi.ErrorFields{}, true},
		{`{"error":"text"}`, kimi.ErrorFields{Message: "text"}, true},
		{`{"error":null}`, kimi.ErrorFields{}, false},
		{`{"choices":[]}`, kimi.ErrorFields{}, false},
		{`[]`, kimi.ErrorFields{}, false},
		{`{"error":{"message":"m"}`, kimi.ErrorFields{}, false},
		{``, kimi.ErrorFields{}, false},
	} {
		if got, ok := kimi.ParseError([]byte(c.body)); got != c.want || ok != c.ok {
			t.Errorf("%s: %+v %v", c.body, got, ok)
		}
	}
	list, _ := events(sample(t, "10_stream_anthropic_error_event.sse"))
	if got, ok := kimi.ParseError(dataOf(list[len(list)-1])); !ok || got != (kimi.ErrorFields{Type: "overloaded_error", Message: "Overloaded"}) {
		t.Errorf("error event: %+v %v", got, ok)
	}
}

// dataOf returns the data of an event that has it in one line, after its name if any.
func dataOf(ev []byte) []byte {
	_, data, _ := bytes.Cut(ev, []byte("data: "))
	return bytes.TrimSpace(data)
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                   "",
		"plain text":                         "plain text",
		"org-EXAMPLE<ak-EXAMPLE>":            "[redacted]",
		"Your org-A1<ak-b_2-c> asks":         "Your [redacted] asks",
		`"org-A1\u003cak-b2\u003e asks"`:     `"[redacted] asks"`,
		"org-A1 and <ak-b2>":                 "[redacted] and <[redacted]>",
		"org-A1<ak-b2 unclosed":              "[redacted] unclosed",
		"org-A1<b>":                          "[redacted]<b>",
		"key sk-fake-123, sk-kimi-fake_1.":   "key [redacted], [redacted].",
		"project proj-1 proj_2 PROJ-3":       "project [redacted] [redacted] [redacted]",
		"token ocp_0fake":                    "token [redacted]",
		"SK-FAKE":                            "[redacted]",
		"desk-top, risk-free, break-even":    "desk-top, risk-free, break-even",
		"org- ak- sk- proj- ocp_":            "org- ak- sk- proj- ocp_",
		"cyborg-1":                           "cyborg-1",
		`line\nsk-fake`:                      `line\n[redacted]`,
		`\u003csk-fake\u003e`:                `\u003c[redacted]\u003e`,
		"a%3Cak-fake%3E":                     "a%3C[redacted]%3E",
		"账户org-fake的":                        "账户[redacted]的",
		"a_sk-fake-sk-fake b-sk-fake":        "a_[redacted] b-[redacted]",
		"org-A<sk-":                          "[redacted]<sk-",
		"[redacted]":                         "[redacted]",
		"Bearer sk-fake\r\nx-api-key:sk-f\n": "Bearer [redacted]\r\nx-api-key:[redacted]\n",
	} {
		if got := string(kimi.Redact([]byte("kept "), []byte(in))); got != "kept "+want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func TestAppendError(t *testing.T) {
	t.Parallel()
	resets := time.Date(2026, 12, 1, 1, 0, 0, 0, time.FixedZone("", 3600))
	limit := kimi.Refusal{Type: "monthly_limit_exceeded", Code: "monthly_limit_exceeded", Message: "The limit of 5 tokens is used up.", Used: 5, Limit: 5, ResetsAt: resets, RequestID: "req_1"}
	odd := kimi.Refusal{Type: "invalid_request_error", Message: "bad \"x\"\\\n\x00é\xff\u2028", Param: "max_tokens"}
	for _, c := range []struct {
		face kimi.Face
		r    kimi.Refusal
		want string
	}{
		{kimi.OpenAI, limit, `{"error":{"message":"The limit of 5 tokens is used up.","type":"monthly_limit_exceeded","code":"monthly_limit_exceeded","param":null,"used":5,"limit":5,"resets_at":"2026-12-01T00:00:00Z"}}`},
		{kimi.Anthropic, limit, `{"type":"error","error":{"type":"monthly_limit_exceeded","message":"The limit of 5 tokens is used up.","used":5,"limit":5,"resets_at":"2026-12-01T00:00:00Z"},"request_id":"req_1"}`},
		{kimi.OpenAI, odd, "{\"error\":{\"message\":\"bad \\\"x\\\"\\\\\\n\\u0000é\ufffd\u2028\",\"type\":\"invalid_request_error\",\"code\":null,\"param\":\"max_tokens\"}}"},
		{kimi.Anthropic, kimi.Refusal{Type: "a", Message: "b"}, `{"type":"error","error":{"type":"a","message":"b"}}`},
	} {
		got := kimi.AppendError(nil, c.face, c.r)
		if string(got) != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		f, ok := kimi.ParseError(got)
		if !json.Valid(got) || !ok || f.Type != c.r.Type || f.Message != strings.ToValidUTF8(c.r.Message, "\ufffd") {
			t.Errorf("%s reads as %+v", got, f)
		}
		ev := kimi.AppendErrorEvent([]byte("x"), c.face, c.r)[1:]
		if end := kimi.EventEnd(ev, 0); end != len(ev) {
			t.Errorf("the event %q ends at %d", ev, end)
		}
		var u kimi.Usage
		if info := kimi.InspectEvent(ev, c.face, &u); info.Kind != kimi.EventError {
			t.Errorf("the event %q is of kind %v", ev, info.Kind)
		}
		if inEvent, ok := kimi.ParseError(dataOf(ev)); !ok || !reflect.DeepEqual(inEvent, f) {
			t.Errorf("the event %q reads as %+v", ev, inEvent)
		}
	}
}
