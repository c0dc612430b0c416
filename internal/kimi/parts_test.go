package kimi_test

import (
	"strings"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func TestScanRequestParts(t *testing.T) {
	t.Parallel()
	const png = `"data:image/png;base64,QUJD"` // 4 bytes of data
	for _, c := range []struct {
		name, content              string // of one message
		face                       kimi.Face
		images, imageBytes, videos int
		videoBytes                 int
		unbounded                  string
	}{
		{"text", `[{"type":"text","text":"{\"type\":\"file\"}"}]`, kimi.OpenAI, 0, 0, 0, 0, ""},
		{"bare strings", `["a","b",null]`, kimi.OpenAI, 0, 0, 0, 0, ""},
		{"image", `[{"type":"image_url","image_url":{"url":` + png + `,"detail":"low"}}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"image before its type", `[{"image_url":{"url":` + png + `},"type":"image_url"}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"image as a bare URL", `[{"type":"image_url","image_url":` + png + `}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"image reference", `[{"type":"image_url","image_url":{"url":"ms://file-1"}}]`, kimi.OpenAI, 1, 0, 0, 0, ""},
		{"image elsewhere", `[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]`, kimi.OpenAI, 1, 0, 0, 0, ""},
		{"image type with escapes", `[{"type":"image\u005furl","image_url":{"url":` + png + `}}]`, kimi.OpenAI, 1, 4, 0, 0, ""},
		{"data with an escaped scheme counts as text", `[{"type":"image_url","image_url":{"url":"d\u0061ta:image/png;base64,QUJD"}}]`, kimi.OpenAI, 1, 0, 0, 0, ""},
		{"video", `[{"type":"video_url","video_url":{"url":"DATA:video/mp4;base64,QUJDRA=="}}]`, kimi.OpenAI, 0, 0, 1, 8, ""},
		{"image data on a text part is text", `[{"type":"text","text":"x","image_url":{"url":` + png + `}}]`, kimi.OpenAI, 0, 0, 0, 0, ""},
		{"two of each", `[{"type":"image_url","image_url":` + png + `},{"type":"image_url","image_url":` + png + `},{"type":"video_url","video_url":"ms://a"},{"type":"video_url","video_url":"ms://b"}]`, kimi.OpenAI, 2, 8, 2, 0, ""},
		{"pdf as image", `[{"type":"image_url","image_url":"data:application/pdf;base64,QUJD"}]`, kimi.OpenAI, 1, 4, 0, 0, "image_url part that is not an image"},
		{"video as image", `[{"type":"image_url","image_url":"data:video/mp4;base64,QUJD"}]`, kimi.OpenAI, 1, 4, 0, 0, "image_url part that is not an image"},
		{"file", `[{"type":"file","file":{"file_id":"x"}}]`, kimi.OpenAI, 0, 0, 0, 0, "file part"},
		{"audio", `[{"type":"input_audio","input_audio":{"data":"x"}}]`, kimi.OpenAI, 0, 0, 0, 0, "input_audio part"},
		{"no type", `[{"text":"x"}]`, kimi.OpenAI, 0, 0, 0, 0, "content part without a type"},
		{"type is no string", `[{"type":7}]`, kimi.OpenAI, 0, 0, 0, 0, "content part without a type"},
		{"odd type", `[{"type":"a\u0007é"}]`, kimi.OpenAI, 0, 0, 0, 0, "a??? part"},
		{"object", `{"type":"text"}`, kimi.OpenAI, 0, 0, 0, 0, "content that is an object"},
		{"nested array", `[[{"type":"image_url"}]]`, kimi.OpenAI, 0, 0, 0, 0, "content that is an array of arrays"},
		{"Anthropic's image on the other face", `[{"type":"image","source":{"type":"base64"}}]`, kimi.OpenAI, 0, 0, 0, 0, "image part"},

		{"all blocks", `[{"type":"text","text":"a"},{"type":"thinking","thinking":"b","signature":"c"},{"type":"redacted_thinking","data":"d"},{"type":"tool_use","id":"i","name":"n","input":{"type":"document","content":[{"type":"file"}]}}]`, kimi.Anthropic, 0, 0, 0, 0, ""},
		{"base64 image", `[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"QUJDRA=="}}]`, kimi.Anthropic, 1, 8, 0, 0, ""},
		{"image by URL", `[{"type":"image","source":{"type":"url","url":"https://example.com/x.png"}}]`, kimi.Anthropic, 1, 0, 0, 0, ""},
		{"image that is none", `[{"type":"image","source":{"type":"base64","media_type":"application/pdf","data":"QUJD"}}]`, kimi.Anthropic, 1, 4, 0, 0, "image part that is not an image"},
		{"tool result text", `[{"type":"tool_result","tool_use_id":"t","content":"plain"}]`, kimi.Anthropic, 0, 0, 0, 0, ""},
		{"tool result parts", `[{"content":[{"type":"text","text":"a"},{"type":"image","source":{"media_type":"image/png","data":"QUJD","type":"base64"}}],"type":"tool_result","tool_use_id":"t"}]`, kimi.Anthropic, 1, 4, 0, 0, ""},
		{"document in a tool result", `[{"type":"tool_result","content":[{"type":"document"}]}]`, kimi.Anthropic, 0, 0, 0, 0, "document part"},
		{"document", `[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"QUJD"}}]`, kimi.Anthropic, 0, 0, 0, 0, "document part"},
		{"search result", `[{"type":"search_result"}]`, kimi.Anthropic, 0, 0, 0, 0, "search_result part"},
		{"server tool use", `[{"type":"server_tool_use"}]`, kimi.Anthropic, 0, 0, 0, 0, "server_tool_use part"},
		{"result within result", `[{"type":"tool_result","content":[{"type":"tool_result","content":[{"type":"text"}]}]}]`, kimi.Anthropic, 0, 0, 0, 0, "nested content"},
		{"OpenAI's image on the other face", `[{"type":"image_url","image_url":{"url":` + png + `}}]`, kimi.Anthropic, 0, 0, 0, 0, "image_url part"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			body := []byte(`{"messages":[{"role":"user","content":` + c.content + `}],"model":"m"}`)
			r, err := kimi.ScanRequest(body, c.face)
			if err != nil {
				t.Fatal(err)
			}
			checkAsText(t, r, body, []byte(strings.NewReplacer("QUJDRA==", "", "QUJD", "").Replace(string(body))), c.imageBytes+c.videoBytes)
			if r.Images != c.images || r.ImageBytes != c.imageBytes || r.Videos != c.videos || r.VideoBytes != c.videoBytes {
				t.Errorf("images %d (%d bytes), videos %d (%d bytes)", r.Images, r.ImageBytes, r.Videos, r.VideoBytes)
			}
			if r.Unbounded != c.unbounded {
				t.Errorf("unbounded %q, want %q", r.Unbounded, c.unbounded)
			}
		})
	}
}

func TestScanRequestUnboundedElsewhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		members string
		face    kimi.Face
		want    string
	}{
		{`,"tools":[{"type":"function","function":{"name":"builtin_function"}}]`, kimi.OpenAI, ""},
		{`,"tools":[{"type":"builtin_function","function":{"name":"$web_search"}}]`, kimi.OpenAI, "builtin tool $web_search"},
		{`,"tools":[{"function":{"name":"$web\u005fsearch"},"type":"builtin\u005ffunction"}]`, kimi.OpenAI, "builtin tool $web_search"},
		{`,"tools":[{"type":"web_search"}]`, kimi.OpenAI, "server tool web_search"},
		{`,"tools":[{"name":"a","input_schema":{"type":"object"}},{"type":"custom","name":"b"},{"type":null,"name":"c"}]`, kimi.Anthropic, ""},
		{`,"tools":[{"type":"web_search_20250305","name":"web_search"}]`, kimi.Anthropic, "server tool web_search_20250305"},
		{`,"tools":[{"type":"code_execution_20250522","name":"x"}]`, kimi.Anthropic, "server tool code_execution_20250522"},
		{`,"tools":[{"type":{"a":1}}]`, kimi.Anthropic, "tool of unknown type"},
		{`,"mcp_servers":[{"url":"https://example.com"}]`, kimi.Anthropic, "MCP servers"},
		{`,"web_search_options":{}`, kimi.OpenAI, "web search"},
		{`,"previous_response_id":"r"`, kimi.OpenAI, "previous response"},
		{`,"system":[{"type":"text","text":"a"}]`, kimi.Anthropic, ""},
		{`,"system":"plain"`, kimi.Anthropic, ""},
		{`,"system":[{"type":"document"}]`, kimi.Anthropic, "document part"},
		{`,"system":[{"type":"document"}]`, kimi.OpenAI, ""},
	} {
		r, err := kimi.ScanRequest([]byte(req(c.members)), c.face)
		if err != nil || r.Unbounded != c.want {
			t.Errorf("%s: unbounded %q, err %v, want %q", c.members, r.Unbounded, err, c.want)
		}
	}
}
