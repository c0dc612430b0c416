package clients_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
)

func doAnthropic(ctx context.Context, baseURL string, tk task, o *seen, r *recorder) error {
	opts := []option.RequestOption{option.WithBaseURL(baseURL)}
	if tk.Bearer {
		opts = append(opts, option.WithAuthToken(tk.Token))
	} else {
		opts = append(opts, option.WithAPIKey(tk.Token))
	}
	if tk.Retries >= 0 {
		opts = append(opts, option.WithMaxRetries(tk.Retries))
	}
	c := anthropic.NewClient(opts...)
	params := anthropic.MessageNewParams{
		Model: anthropic.Model(tk.Model), MaxTokens: 300,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(tk.Prompt))},
	}
	if tk.MaxTokens != 0 {
		params.MaxTokens = int64(tk.MaxTokens)
	}
	if tk.Thinking != 0 {
		params.Thinking = anthropic.ThinkingConfigParamOfEnabled(int64(tk.Thinking))
		params.MaxTokens += int64(tk.Thinking)
	}

	switch tk.Call {
	case "chat":
		return completeAnthropic(ctx, &c, params, o, nil)
	case "stream":
		return streamAnthropic(ctx, &c, params, o, nil, r)
	case "tools", "tools_stream":
		tool := anthropic.ToolUnionParamOfTool(anthropic.ToolInputSchemaParam{
			Properties: map[string]any{"city": map[string]any{"type": "string"}}, Required: []string{"city"},
		}, "weather")
		params.Tools = []anthropic.ToolUnionParam{tool}
		ask := completeAnthropic
		if tk.Call == "tools_stream" {
			ask = func(ctx context.Context, c *anthropic.Client, p anthropic.MessageNewParams, o *seen, m *anthropic.Message) error {
				o.Text = "" // of the last answer
				return streamAnthropic(ctx, c, p, o, m, r)
			}
		}
		var first anthropic.Message
		if err := ask(ctx, &c, params, o, &first); err != nil {
			return err
		}
		id := ""
		for _, block := range first.Content {
			if block.Type == "tool_use" {
				id, o.Tool, o.Arguments = block.ID, block.Name, string(block.Input)
			}
		}
		if id == "" {
			return fmt.Errorf("no tool call: %s", first.RawJSON())
		}
		params.Messages = append(params.Messages, first.ToParam(),
			anthropic.NewUserMessage(anthropic.NewToolResultBlock(id, "18 degrees", false)))
		return ask(ctx, &c, params, o, nil)
	case "models":
		models := c.Models.ListAutoPaging(ctx, anthropic.ModelListParams{})
		for models.Next() {
			o.Models = append(o.Models, string(models.Current().ID))
		}
		return models.Err()
	case "unknown_path":
		_, err := c.Messages.CountTokens(ctx, anthropic.MessageCountTokensParams{Model: params.Model, Messages: params.Messages})
		return err
	}
	return fmt.Errorf("no such call: %s", tk.Call)
}

// completeAnthropic asks without streaming. result may be nil.
func completeAnthropic(ctx context.Context, c *anthropic.Client, params anthropic.MessageNewParams, o *seen, result *anthropic.Message) error {
	m, err := c.Messages.New(ctx, params)
	if err != nil {
		return err
	}
	o.IDs = append(o.IDs, m.ID)
	o.Finish = append(o.Finish, string(m.StopReason))
	o.Text = ""
	for _, block := range m.Content {
		o.Text += block.Text
		o.Reasoning += block.Thinking
	}
	countAnthropic(m.Usage, o)
	if result != nil {
		*result = *m
	}
	return nil
}

// streamAnthropic streams and puts the message together as the SDK does. result may be
// nil.
func streamAnthropic(ctx context.Context, c *anthropic.Client, params anthropic.MessageNewParams, o *seen, result *anthropic.Message, r *recorder) error {
	stream := c.Messages.NewStreaming(ctx, params)
	defer stream.Close()
	var m anthropic.Message
	for stream.Next() {
		event := stream.Current()
		if err := m.Accumulate(event); err != nil {
			return fmt.Errorf("accumulate %s: %w", event.RawJSON(), err)
		}
		switch event.Type {
		case "message_start":
			o.IDs = append(o.IDs, event.Message.ID)
		case "content_block_delta":
			r.content(event.Delta.Text, event.Delta.Thinking)
		case "message_stop":
			o.Finish = append(o.Finish, string(m.StopReason))
			countAnthropic(m.Usage, o)
		}
	}
	if result != nil {
		*result = m
	}
	return stream.Err()
}

func countAnthropic(u anthropic.Usage, o *seen) {
	o.Usages = append(o.Usages, usage{
		Prompt:     u.InputTokens + u.CacheReadInputTokens + u.CacheCreationInputTokens,
		Completion: u.OutputTokens, Cached: u.CacheReadInputTokens, Reasoning: u.OutputTokensDetails.ThinkingTokens,
	})
}

func describeAnthropic(o *seen, err error) {
	var refused *anthropic.Error
	if errors.As(err, &refused) {
		o.Classes = append(o.Classes, "*anthropic.Error")
		o.Body = refused.RawJSON()
		describeResponse(o, refused.Response)
		o.RequestID = refused.RequestID
	}
}
