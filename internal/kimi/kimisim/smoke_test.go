package kimisim

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestSmoke(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, u := range []string{s.OpenAIBase() + "/chat/completions", s.AnthropicBase() + "/messages"} {
		for _, st := range []string{"true", "false"} {
			req, _ := http.NewRequest("POST", u, strings.NewReader(`{"model":"kimi-k2.5","max_tokens":5,"stream":`+st+`,"messages":[{"role":"user","content":"hi"}]}`))
			req.Header.Set("Authorization", "Bearer sk-fake-1")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			t.Log(res.Status, res.Header, "\n"+string(b))
		}
	}
	for _, e := range s.Ledger() {
		t.Logf("%+v", e)
	}
}
