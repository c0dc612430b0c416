package proxy_test

import (
	"fmt"
	"strings"
)

// sent is a whole request of the face with the given body.
func sent(f face, body string) string {
	credential := authLine
	if f.anthropic {
		credential = keyLine
	}
	return request("POST "+f.path+" HTTP/1.1", body, hostLine, credential, jsonLine, lengthLine(body))
}

// bodies are well framed requests whose bodies are not what either face defines.
func bodies() []badRequest {
	var out []badRequest
	add := func(f face, kind, body string, want int) {
		shown := body
		if len(shown) > 120 {
			shown = shown[:60] + "…" + shown[len(shown)-60:]
		}
		out = append(out, badRequest{fmt.Sprintf("%d: %s %s %q", len(out)+1, f.name, kind, shown), sent(f, body), []int{want}})
	}
	for _, f := range faces {
		for _, body := range brokenJSON() {
			add(f, "JSON", body, 400)
		}
		for _, body := range wrongFields() {
			add(f, "field", body, 400)
		}
		for _, m := range []string{"unknown", "KIMI-K2.5", "kimi-k2.5 ", "kimi-k2.5\\u0000", "../kimi-k2.5", strings.Repeat("k", 10_000), "\u212aimi-k2.5"} {
			add(f, "model", strings.Replace(goodBody, model, m, 1), 404)
		}
	}
	for _, parts := range []string{
		`[{"type":"file","file":{"file_id":"x"}}]`, `[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]`, `[{"type":"document","source":{"type":"url","url":"https://evil.test/x.pdf"}}]`,
		`[{"type":"unknown"}]`, `[{"type":"TEXT","text":"x"}]`, `[{"text":"x"}]`, `[{"type":null}]`, `[{"type":7}]`, `[{"type":["text"]}]`, `[{}]`, `{}`, `{"type":"text","text":"x"}`, `[["x"]]`,
		`[{"type":"image_url","image_url":{"url":"data:application/pdf;base64,AAAA"}}]`, `[{"type":"video_url","video_url":{"url":"data:image/png;base64,AAAA"}}]`, `[{"type":"input_file","file_url":"https://evil.test/"}]`,
		`[{"type":"text","text":"x"},{"type":"file"}]`,
	} {
		add(faces[0], "content", withMember(`"messages":[{"role":"user","content":`+parts+`}]`), 400)
	}
	for _, parts := range []string{
		`[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}]`, `[{"type":"document","source":{"type":"url","url":"https://evil.test/x.pdf"}}]`, `[{"type":"image_url","image_url":{"url":"https://evil.test/x.png"}}]`,
		`[{"type":"container_upload","file_id":"x"}]`, `[{"type":"server_tool_use","name":"web_search"}]`, `[{"type":"web_search_tool_result","content":[]}]`, `[{"type":"search_result","content":[]}]`, `[{"type":"unknown"}]`, `[{"text":"x"}]`, `[{"type":null}]`, `{}`,
		`[{"type":"image","source":{"type":"base64","media_type":"application/pdf","data":"AAAA"}}]`, `[{"type":"tool_result","tool_use_id":"x","content":[{"type":"document"}]}]`, `[{"type":"tool_result","content":[{"type":"tool_result","content":[{"type":"document"}]}]}]`,
	} {
		add(faces[1], "content", withMember(`"messages":[{"role":"user","content":`+parts+`}]`), 400)
	}
	for _, f := range faces {
		for _, m := range []string{
			`"tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]`, `"tools":[{"type":"web_search_20250305","name":"web_search"}]`, `"tools":[{"type":"code_interpreter"}]`, `"tools":[{"type":7}]`,
			`"tools":[{"type":"function","function":{"name":"ok"}},{"type":"mcp"}]`, `"mcp_servers":[{"url":"https://evil.test"}]`, `"web_search_options":{}`, `"previous_response_id":"x"`, `"conversation":"x"`, `"container":"x"`,
		} {
			add(f, "unbounded", and(m), 400)
		}
	}
	add(faces[1], "unbounded", and(`"system":[{"type":"document"}]`), 400)
	for _, body := range []string{"", "{", "[]", "null", `{"model":"kimi-k2.5"}`, `{"messages":[]}`, and(`"model":"x"`)} {
		out = append(out, badRequest{fmt.Sprintf("estimate %q", body), request("POST /v1/tokenizers/estimate-token-count HTTP/1.1", body, hostLine, authLine, jsonLine, lengthLine(body)), []int{400}})
	}
	return out
}

// and is the good body with one member more.
func and(member string) string { return strings.TrimSuffix(goodBody, "}") + "," + member + "}" }

// withMember is a good body whose messages are member.
func withMember(member string) string {
	return `{"model":"` + model + `","max_tokens":64,` + member + `}`
}

// brokenJSON has one body for each way that a text is not JSON, or not one object.
func brokenJSON() []string {
	nest := func(n int, open, shut string) string {
		return and(`"metadata":` + strings.Repeat(open, n) + "1" + strings.Repeat(shut, n))
	}
	value := func(v string) string { return and(`"temperature":` + v) }
	text := func(s string) string { return strings.Replace(goodBody, "hello", s, 1) }
	out := []string{
		"", " ", "\x00", "{", "}", "{}x", "[", "]", "[]", "[" + goodBody + "]", "null", "true", "7", `"text"`, "nul", "{]", "[}",
		goodBody[:len(goodBody)-1], goodBody[:len(goodBody)-3], goodBody[:20], goodBody[1:], goodBody + "}", goodBody + goodBody, goodBody + ",", goodBody + "x", goodBody + "\x00", goodBody + " null", goodBody + "\n" + goodBody, goodBody + "// end", goodBody + "/* end */",
		"\ufeff" + goodBody, "\xff\xfe" + goodBody, "//\n" + goodBody, "/**/" + goodBody, "<json>", "model=kimi-k2.5&messages=hello", "data: " + goodBody, "--x\r\n\r\n" + goodBody + "\r\n--x--", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
		strings.Replace(goodBody, ":", "=", 1), strings.Replace(goodBody, ":", "", 1), strings.Replace(goodBody, ":", "::", 1), strings.Replace(goodBody, ",", ";", 1), strings.Replace(goodBody, ",", "", 1), strings.Replace(goodBody, ",", ",,", 1),
		strings.Replace(goodBody, `"model"`, `model`, 1), strings.Replace(goodBody, `"model"`, `'model'`, 1), strings.Replace(goodBody, `"model"`, `7`, 1), strings.Replace(goodBody, `"model"`, `null`, 1), strings.Replace(goodBody, "{", "{,", 1), strings.TrimSuffix(goodBody, "}") + ",}", strings.Replace(goodBody, "}]", "},]", 1), strings.Replace(goodBody, " ", "", 1) + "\v", strings.Replace(goodBody, ",", "\u00a0,", 1), strings.Replace(goodBody, ",", "\f,", 1),
		text("\x00"), text("\x01"), text("\n"), text("\t"), text("\r"), text("\x1f"), text(`\x41`), text(`\'`), text(`\u12`), text(`\u12g4`), text(`\U0041`), text(`\u`), text(`\`), text(`"`), text(`\0`),
		text("\xff"), text("\x80"), text("\xc0\xaf"), text("\xc3"), text("\xe2\x82"), text("\xed\xa0\x80"), text("\xf4\x90\x80\x80"), text("\xf8\x88\x80\x80\x80"), text("\xc0\x80"), text("\xfe"),
		nest(600, "[", "]"), nest(600, `{"a":`, "}"), nest(30_000, "[", "]"), nest(10_000, `{"a":`, "}"), and(`"metadata":` + strings.Repeat("[", 60_000)), strings.Repeat("[", 60_000), strings.Repeat(`{"a":`, 20_000), and(`"metadata":[[]`), and(`"metadata":{"a":}`), and(`"metadata":[1 2]`), and(`"metadata":[1,]`), and(`"metadata":{"a"}`), and(`"metadata":{"a":1,}`),
	}
	for _, v := range []string{"NaN", "Infinity", "-Infinity", "nan", "01", "+1", ".5", "5.", "1e", "1e+", "-", "--1", "1.2.3", "0x10", "1_000", "1f", "tru", "True", "nulL", "undefined", "'x'", "`x`", "", "(1)", "1 1", "²", "１"} {
		out = append(out, value(v))
	}
	return out
}

// wrongFields are JSON objects that no face defines as requests, or that two parsers
// could read in two ways.
func wrongFields() []string {
	out := []string{
		"{}", `{"model":"kimi-k2.5"}`, strings.Replace(goodBody, `"model":"kimi-k2.5",`, "", 1),
		// Given twice.
		and(`"model":"kimi-k2.5"`), and(`"model":"other"`), and(`"messages":[]`), and(`"stream":true`), and(`"stream":false`), and(`"max_tokens":1000000`), and(`"\u006dax_tokens":1000000`), and(`"mod\u0065l":"other"`),
		and(`"n":1,"n":128`), and(`"max_completion_tokens":1,"max_completion_tokens":1000000`), and(`"stream_options":{},"stream_options":{"include_usage":true}`), and(`"stream_options":{"include_usage":true,"include_usage":false}`), and(`"thinking":{},"thinking":null`), and(`"thinking":{"budget_tokens":1,"budget_tokens":2}`), and(`"tools":[],"tools":[]`),
		withMember(`"messages":[{"role":"user","content":"a","content":"b"}]`), withMember(`"messages":[{"role":"user","content":[{"type":"text","type":"file"}]}]`), and(`"tools":[{"type":"function","type":"builtin_function"}]`),
		// Spelt otherwise.
		and(`"Model":"other"`), and(`"MAX_TOKENS":1000000`), and(`"Stream":true`), and(`"N":128`), and(`"Messages":[]`), and(`"Max_Completion_Tokens":9`), and(`"\u017ftream":true`), and(`"Tools":[]`), and(`"Thinking":{}`), and(`"stream_options":{"Include_Usage":true}`), withMember(`"messages":[{"role":"user","Content":"x"}]`),
	}
	replace := func(member, with string) { out = append(out, strings.Replace(goodBody, member, with, 1)) }
	for _, v := range []string{"null", "7", "true", "[]", "{}", `""`, `["kimi-k2.5"]`} {
		replace(`"model":"kimi-k2.5"`, `"model":`+v)
	}
	for _, v := range []string{"null", "7", "true", `"hello"`, "{}", `["hello"]`, "[null]", "[7]", "[[]]", `[{"role":"user","content":"x"},7]`} {
		out = append(out, withMember(`"messages":`+v))
	}
	for _, v := range []string{`"true"`, "1", "0", "[]", "{}", `""`} {
		replace(`"stream":false`, `"stream":`+v)
	}
	counts := []string{"-1", "1.5", "15e-1", "1e999", `"64"`, "true", "[]", "{}", "99999999999999999999", "9223372036854775808", "-9223372036854775808", "1.01", "-0", strings.Repeat("9", 5000)}
	for _, v := range counts {
		replace(`"max_tokens":64`, `"max_tokens":`+v)
		out = append(out, and(`"max_completion_tokens":`+v), and(`"thinking":{"type":"enabled","budget_tokens":`+v+`}`), and(`"n":`+v))
	}
	for _, v := range []string{"0", "129", "1000000000", "9223372036854775807"} {
		out = append(out, and(`"n":`+v))
	}
	for _, v := range []string{"7", "true", `"x"`, "[]"} {
		out = append(out, and(`"stream_options":`+v), and(`"thinking":`+v))
	}
	for _, v := range []string{"7", `"true"`, "[]", "{}"} {
		out = append(out, and(`"stream_options":{"include_usage":`+v+`}`))
	}
	for _, v := range []string{"7", "true", `"x"`, "{}", "[7]", `["x"]`, "[null]", "[[]]"} {
		out = append(out, and(`"tools":`+v))
	}
	return out
}

// sizes are requests larger than what is taken.
func sizes() []badRequest {
	large := and(`"user":"` + strings.Repeat("u", maxBody) + `"`)
	huge := and(`"user":"` + strings.Repeat("u", 2<<20) + `"`)
	unknown := "Authorization: Bearer ocp_" + strings.Repeat("0", 36)
	head := func(body string, headers ...string) string { return request(chatLine, body, headers...) }
	out := []badRequest{
		{"only the length of a large body", head("", hostLine, authLine, jsonLine, lengthLine(large)), []int{413}},
		{"only the length of an enormous body", head("", hostLine, authLine, jsonLine, "Content-Length: 1099511627776"), []int{413}},
		{"expecting to send a large body", head("", hostLine, authLine, jsonLine, lengthLine(large), "Expect: 100-continue"), []int{413}},
		{"expecting to send a large body, Anthropic", request(messagesLine, "", hostLine, keyLine, jsonLine, lengthLine(large), "Expect: 100-continue"), []int{413}},
		{"expecting to send a large body in chunks", head(chunked(large, 4000), hostLine, authLine, jsonLine, chunkedLine, "Expect: 100-continue"), []int{413, noAnswer}},
		{"a large body where there is none", request("GET /v1/usage HTTP/1.1", large, hostLine, authLine, lengthLine(large)), []int{413, noAnswer}},
		{"a large body for an unknown path", request("POST /v1/files HTTP/1.1", large, hostLine, authLine, lengthLine(large)), []int{413, noAnswer}},
		{"a large body with a token that cannot be", head(large[:70<<10], hostLine, unknown, jsonLine, fmt.Sprintf("Content-Length: %d", 70<<10)), []int{413, noAnswer}},
		{"a large body with no token", head(large[:70<<10], hostLine, jsonLine, fmt.Sprintf("Content-Length: %d", 70<<10)), []int{413, noAnswer}},
		{"one large chunk", head(chunked(large, 1<<20), hostLine, authLine, jsonLine, chunkedLine), []int{413, noAnswer}},
		{"only the size of a large chunk", head("7fffffff\r\n", hostLine, authLine, jsonLine, chunkedLine), []int{413}},
		{"chunks without an end", head(strings.TrimSuffix(chunked(huge, 1000), "0\r\n\r\n"), hostLine, authLine, jsonLine, chunkedLine), []int{413, noAnswer}},
	}
	for _, f := range faces {
		out = append(out,
			badRequest{f.name + " large body", sent(f, large), []int{413, noAnswer}},
			badRequest{f.name + " huge body", sent(f, huge), []int{413, noAnswer}},
			badRequest{f.name + " large chunks", strings.Replace(strings.Replace(sent(f, large), lengthLine(large), chunkedLine, 1), large, chunked(large, 4000), 1), []int{413, noAnswer}})
	}
	return out
}
