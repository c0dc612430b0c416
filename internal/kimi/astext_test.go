package kimi_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

// checkAsText checks the text that AppendAsText makes of body: it is want unless media
// bytes are cut out, and then it is that much shorter.
func checkAsText(t *testing.T, r kimi.Request, body, want []byte, media int) {
	t.Helper()
	out := r.AppendAsText([]byte("before"), body, `mod"el`)
	after, ok := bytes.CutPrefix(out, []byte("before"))
	var v struct {
		Model    string
		Messages []struct{ Role, Content string }
	}
	if err := json.Unmarshal(after, &v); err != nil || !ok || v.Model != `mod"el` || len(v.Messages) != 1 || v.Messages[0].Role != "user" {
		t.Fatalf("%v: %q", err, out)
	}
	got := v.Messages[0].Content
	if len(got) != len(body)-media || len(want) == len(got) && got != string(want) {
		t.Fatalf("the text of %q with %d bytes of media is %q", body, media, got)
	}
	if _, err := kimi.ScanRequest(after, kimi.OpenAI); err != nil {
		t.Fatal(err)
	}
}

// Nested parts are met before the data around them.
func TestAppendAsTextCutsInOrder(t *testing.T) {
	t.Parallel()
	body := []byte(`{"model":"m","messages":[{"content":[{"source":{"type":"base64","data":"AAAA","media_type":"image/png"},` +
		`"content":[{"type":"image","source":{"data":"BB"}}],"type":"image"},{"type":"text","text":"é\n\"\\"}]}]}`)
	want := bytes.Replace(bytes.Replace(body, []byte("AAAA"), nil, 1), []byte("BB"), nil, 1)
	r, err := kimi.ScanRequest(body, kimi.Anthropic)
	if err != nil {
		t.Fatal(err)
	}
	if r.ImageBytes != 6 {
		t.Fatalf("%d bytes", r.ImageBytes)
	}
	checkAsText(t, r, body, want, 6)
}
