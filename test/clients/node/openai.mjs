import * as sdk from "openai";
import { aborter, clientOptions, prompt, run } from "./checks.mjs";

const tools = [{
  type: "function",
  function: {
    name: "weather",
    description: "Tells the weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
}];

await run(sdk, async (task, saw, baseURL) => {
  const client = new sdk.OpenAI({ baseURL: baseURL + "/v1", apiKey: task.token, ...clientOptions(task) });
  const chat = client.chat.completions;
  const body = { model: task.model, messages: [{ role: "user", content: prompt(task) }] };
  if (task.max_tokens) body.max_tokens = task.max_tokens;

  switch (task.call) {
    case "chat":
      answer(saw, await chat.create(body));
      return;
    case "stream": {
      if (task.include_usage) body.stream_options = { include_usage: true };
      const abort = aborter(task, saw);
      for await (const chunk of await chat.create({ ...body, stream: true }, { signal: abort.signal })) {
        event(task, saw, chunk);
        abort.event();
      }
      return;
    }
    case "tools": {
      const first = await chat.create({ ...body, tools });
      answer(saw, first);
      answer(saw, await chat.create({ ...body, tools, messages: withResult(body, saw, first) }));
      return;
    }
    case "tools_stream": {
      const usage = { stream_options: { include_usage: true } };
      const first = await chat.stream({ ...body, ...usage, tools }).finalChatCompletion();
      answer(saw, first);
      const second = chat.stream({ ...body, ...usage, tools, messages: withResult(body, saw, first) });
      answer(saw, await second.finalChatCompletion());
      return;
    }
    case "models":
      saw.models = [];
      for await (const model of client.models.list()) saw.models.push(model.id);
      return;
    case "unknown_path":
      await client.embeddings.create({ model: task.model, input: "x" });
      return;
  }
  throw new TypeError("no such call: " + task.call);
});

function answer(saw, completion) {
  const [choice] = completion.choices;
  saw.ids.push(completion.id);
  saw.finish.push(choice.finish_reason);
  saw.text = choice.message.content ?? "";
  saw.reasoning += choice.message.reasoning_content ?? "";
  count(saw, completion.usage);
}

function event(task, saw, chunk) {
  if (!saw.ids.includes(chunk.id)) saw.ids.push(chunk.id);
  count(saw, chunk.usage);
  const choice = chunk.choices[0];
  if (choice?.finish_reason) saw.finish.push(choice.finish_reason);
  const { content, reasoning_content: reasoning } = choice?.delta ?? {};
  saw.text += content ?? "";
  saw.reasoning += reasoning ?? "";
  if (content || reasoning) task.content();
}

function count(saw, usage) {
  if (!usage) return;
  saw.usages.push({
    prompt: usage.prompt_tokens,
    completion: usage.completion_tokens,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
    reasoning: usage.completion_tokens_details?.reasoning_tokens ?? 0,
  });
}

function withResult(body, saw, completion) {
  const { message } = completion.choices[0];
  const [call] = message.tool_calls;
  saw.tool = call.function.name;
  saw.arguments = call.function.arguments;
  return [...body.messages, message, { role: "tool", tool_call_id: call.id, content: "18 degrees" }];
}
