package kimi_test

import (
	"bytes"
	"fmt"

	"github.com/andreabadesso/openclaw-cloud/internal/kimi"
)

func ExampleScanRequest() {
	body := []byte(`{ "model": "kimi", "messages": [{"role":"user","content":"Hi"}], "stream": true, "max_tokens": 32768 }`)
	r, err := kimi.ScanRequest(body, kimi.OpenAI)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s, stream %v, at most %d tokens\n", r.Model, r.Stream, r.OutputCap(4096)*r.N)
	pieces, _ := r.Apply(nil, nil, body, kimi.Edits{Model: "kimi-k2.6", OutputCap: 500, IncludeUsage: true})
	fmt.Printf("%s\n", bytes.Join(pieces, nil))
	// Output:
	// kimi, stream true, at most 32768 tokens
	// {"stream_options":{"include_usage":true}, "model": "kimi-k2.6", "messages": [{"role":"user","content":"Hi"}], "stream": true, "max_tokens": 500 }
}
