// Runs the tasks that come as JSON on standard input, and prints what the caller of an
// SDK sees, one line of JSON for each. Phases of groups of tasks: phases run one after
// the other, groups at the same time, the tasks of a group one after the other.
import { readFileSync } from "node:fs";

const { baseURL, phases } = JSON.parse(readFileSync(0, "utf8"));

// Runs every task with call(task, saw, baseURL); call writes into saw as it goes, so that
// what came before an error is told as well.
export async function run(sdk, call) {
  for (const groups of phases) {
    await Promise.all(groups.map((tasks) => inOrder(tasks)));
  }

  async function inOrder(tasks) {
    for (const task of tasks) {
      const began = performance.now();
      const saw = { ids: [], finish: [], usages: [], text: "", reasoning: "", events: 0, first: 0 };
      task.content = () => {
        saw.events++;
        saw.first ||= performance.now() - began;
        if (saw.events === 1 && task.announce) print({ announce: task.check });
      };
      try {
        await call(task, saw, baseURL);
      } catch (err) {
        Object.assign(saw, describe(sdk, err));
      }
      saw.total = performance.now() - began;
      print({ check: task.check, ...saw });
    }
  }
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

function describe(sdk, err) {
  const classes = Object.keys(sdk).filter((name) => name.endsWith("Error") && err instanceof sdk[name]);
  return {
    failed: true,
    classes,
    status: err.status ?? 0,
    type: err.type ?? "",
    code: err.code ?? "",
    message: String(err.message),
    request_id: err.requestID ?? "",
    retry_after: err.headers?.get("retry-after") ?? "",
    should_retry: err.headers?.get("x-should-retry") ?? "",
    body: err.error ? JSON.stringify(err.error) : "",
  };
}

export function clientOptions(task) {
  const options = {};
  if (task.retries >= 0) options.maxRetries = task.retries;
  if (task.timeout_ms) options.timeout = task.timeout_ms;
  return options;
}

export function prompt(task) {
  return "x".repeat(task.pad ?? 0) + task.prompt;
}

// Aborts through the signal when task.abort_after events have come.
export function aborter(task, saw) {
  const controller = new AbortController();
  return {
    signal: controller.signal,
    event() {
      if (task.abort_after && saw.events === task.abort_after) {
        saw.at = Date.now();
        controller.abort();
      }
    },
  };
}
