package clients_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/tidwall/gjson"
)

func doOpenAI(ctx context.Context, baseURL string, tk task, o *seen, r *recorder) error {
	opts := []option.RequestOption{option.WithBaseURL(baseURL + "/v1"), option.WithAPIKey(tk.Token)}
	if tk.Retries >= 0 {
		opts = append(opts, option.WithMaxRetries(tk.Retries))
	}
	c := openai.NewClient(opts...)
	params := openai.ChatCompletionNewParams{Model: tk.Model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(tk.Prompt)}}
	if tk.MaxTokens != 0 {
		params.MaxTokens = openai.Int(int64(tk.MaxTokens))
	}
	if tk.IncludeUsage || tk.Call == "tools_stream" {
		params.StreamOptions.IncludeUsage = openai.Bool(true)
	}
	weather := openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name: "weather", Description: openai.String("Tells the weather of a city"),
		Parameters: openai.FunctionParameters{
			"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}, "required": []string{"city"},
		},
	})

	switch tk.Call {
	case "chat":
		return completeOpenAI(ctx, &c, params, o, nil)
	case "stream":
		return streamOpenAI(ctx, &c, params, o, r)
	case "tools", "tools_stream":
		params.Tools = []openai.ChatCompletionToolUnionParam{weather}
		ask := completeOpenAI
		if tk.Call == "tools_stream" {
			ask = accumulateOpenAI
		}
		var first openai.ChatCompletion
		if err := ask(ctx, &c, params, o, &first); err != nil {
			return err
		}
		if len(first.Choices) != 1 || len(first.Choices[0].Message.ToolCalls) != 1 {
			return fmt.Errorf("not one tool call: %s", first.RawJSON())
		}
		message := first.Choices[0].Message
		call := message.ToolCalls[0]
		o.Tool, o.Arguments = call.Function.Name, call.Function.Arguments
		params.Messages = append(params.Messages, message.ToParam(), openai.ToolMessage("18 degrees", call.ID))
		return ask(ctx, &c, params, o, nil)
	case "models":
		models := c.Models.ListAutoPaging(ctx)
		for models.Next() {
			o.Models = append(o.Models, models.Current().ID)
		}
		return models.Err()
	case "unknown_path":
		_, err := c.Embeddings.New(ctx, openai.EmbeddingNewParams{
			Model: tk.Model, Input: openai.EmbeddingNewParamsInputUnion{OfString: openai.String("x")},
		})
		return err
	}
	return fmt.Errorf("no such call: %s", tk.Call)
}

// completeOpenAI asks without streaming. result may be nil.
func completeOpenAI(ctx context.Context, c *openai.Client, params openai.ChatCompletionNewParams, o *seen, result *openai.ChatCompletion) error {
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{}
	answer, err := c.Chat.Completions.New(ctx, params)
	if err != nil {
		return err
	}
	answeredOpenAI(answer, o)
	if result != nil {
		*result = *answer
	}
	return nil
}

// accumulateOpenAI streams and puts the answer together as the SDK does.
func accumulateOpenAI(ctx context.Context, c *openai.Client, params openai.ChatCompletionNewParams, o *seen, result *openai.ChatCompletion) error {
	stream := c.Chat.Completions.NewStreaming(ctx, params)
	defer stream.Close()
	var acc openai.ChatCompletionAccumulator
	for stream.Next() {
		if !acc.AddChunk(stream.Current()) {
			return fmt.Errorf("the accumulator refuses %s", stream.Current().RawJSON())
		}
	}
	if err := stream.Err(); err != nil {
		return err
	}
	answeredOpenAI(&acc.ChatCompletion, o)
	if result != nil {
		*result = acc.ChatCompletion
	}
	return nil
}

func answeredOpenAI(answer *openai.ChatCompletion, o *seen) {
	o.IDs = append(o.IDs, answer.ID)
	for _, choice := range answer.Choices {
		o.Finish = append(o.Finish, choice.FinishReason)
		o.Text = choice.Message.Content
		o.Reasoning += gjson.Get(choice.Message.RawJSON(), "reasoning_content").String()
	}
	countOpenAI(answer.Usage, o)
}

func streamOpenAI(ctx context.Context, c *openai.Client, params openai.ChatCompletionNewParams, o *seen, r *recorder) error {
	stream := c.Chat.Completions.NewStreaming(ctx, params)
	defer stream.Close()
	for stream.Next() {
		chunk := stream.Current()
		if !slices.Contains(o.IDs, chunk.ID) {
			o.IDs = append(o.IDs, chunk.ID)
		}
		if chunk.JSON.Usage.Valid() {
			countOpenAI(chunk.Usage, o)
		}
		for _, choice := range chunk.Choices {
			if choice.FinishReason != "" {
				o.Finish = append(o.Finish, choice.FinishReason)
			}
			r.content(choice.Delta.Content, gjson.Get(choice.Delta.RawJSON(), "reasoning_content").String())
		}
	}
	return stream.Err()
}

func countOpenAI(u openai.CompletionUsage, o *seen) {
	o.Usages = append(o.Usages, usage{
		Prompt: u.PromptTokens, Completion: u.CompletionTokens,
		Cached: u.PromptTokensDetails.CachedTokens, Reasoning: u.CompletionTokensDetails.ReasoningTokens,
	})
}

func describeOpenAI(o *seen, err error) {
	var refused *openai.Error
	if errors.As(err, &refused) {
		o.Classes = append(o.Classes, "*openai.Error")
		o.Body = refused.RawJSON()
		describeResponse(o, refused.Response)
	}
	var broken *ssestream.StreamError
	if errors.As(err, &broken) {
		o.Classes = append(o.Classes, "*ssestream.StreamError")
		o.Body = string(broken.Event.Data)
	}
}
