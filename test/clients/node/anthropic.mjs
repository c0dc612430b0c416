import * as sdk from "@anthropic-ai/sdk";
import { aborter, clientOptions, prompt, run } from "./checks.mjs";

const tools = [{
  name: "weather",
  description: "Tells the weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
}];

await run(sdk, async (task, saw, baseURL) => {
  const key = task.bearer ? { authToken: task.token, apiKey: null } : { apiKey: task.token, authToken: null };
  const client = new sdk.Anthropic({ baseURL, ...key, ...clientOptions(task) });
  const body = { model: task.model, max_tokens: task.max_tokens || 300, messages: [{ role: "user", content: prompt(task) }] };
  if (task.thinking) {
    body.thinking = { type: "enabled", budget_tokens: task.thinking };
    body.max_tokens += task.thinking;
  }

  switch (task.call) {
    case "chat":
      answer(saw, await client.messages.create(body));
      return;
    case "stream": {
      const abort = aborter(task, saw);
      for await (const ev of await client.messages.create({ ...body, stream: true }, { signal: abort.signal })) {
        event(task, saw, ev);
        abort.event();
      }
      return;
    }
    case "tools": {
      const first = await client.messages.create({ ...body, tools });
      answer(saw, first);
      answer(saw, await client.messages.create({ ...body, tools, messages: withResult(body, saw, first) }));
      return;
    }
    case "tools_stream": {
      const first = await client.messages.stream({ ...body, tools }).finalMessage();
      answer(saw, first);
      const second = client.messages.stream({ ...body, tools, messages: withResult(body, saw, first) });
      answer(saw, await second.finalMessage());
      return;
    }
    case "models":
      saw.models = [];
      for await (const model of client.models.list()) saw.models.push(model.id);
      return;
    case "unknown_path":
      await client.messages.countTokens(body);
      return;
  }
  throw new TypeError("no such call: " + task.call);
});

function answer(saw, message) {
  const texts = (type, field) => message.content.filter((block) => block.type === type).map((block) => block[field]).join("");
  saw.ids.push(message.id);
  saw.finish.push(message.stop_reason);
  saw.text = texts("text", "text");
  saw.reasoning += texts("thinking", "thinking");
  count(saw, message.usage);
}

function event(task, saw, ev) {
  switch (ev.type) {
    case "message_start":
      saw.ids.push(ev.message.id);
      saw.start = ev.message.usage;
      break;
    case "content_block_delta":
      saw.text += ev.delta.text ?? "";
      saw.reasoning += ev.delta.thinking ?? "";
      if (ev.delta.text || ev.delta.thinking) task.content();
      break;
    case "message_delta": {
      // The later number wins, field by field.
      const told = Object.fromEntries(Object.entries(ev.usage).filter(([, n]) => n !== null));
      saw.finish.push(ev.delta.stop_reason);
      count(saw, { ...saw.start, ...told });
      break;
    }
  }
}

function count(saw, usage) {
  const cached = usage.cache_read_input_tokens ?? 0;
  saw.usages.push({
    prompt: usage.input_tokens + cached + (usage.cache_creation_input_tokens ?? 0),
    completion: usage.output_tokens,
    cached,
    reasoning: usage.output_tokens_details?.thinking_tokens ?? 0,
  });
}

function withResult(body, saw, message) {
  const call = message.content.find((block) => block.type === "tool_use");
  saw.tool = call.name;
  saw.arguments = JSON.stringify(call.input);
  return [
    ...body.messages,
    { role: "assistant", content: message.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "18 degrees" }] },
  ];
}
