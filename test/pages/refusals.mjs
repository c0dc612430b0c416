// What the browser's console may complain of: requests that are refused by design, each on its page. Whatever else
// is refused, or fails, is a mistake.
const expected = {
  // Whoever has no conversation yet is told so, and begins one.
  "/start": [[404, "/onboarding/v1/conversation"]],
  // Who is signed in already has nothing to do there: the page asks, and tries to renew the session.
  "/login": [[401, "/v1/session"], [401, "/v1/session/renew"]],
  "/nothing": [[404, "/nothing"]],
};

/** Whether a message of the console, on a page with this path, is of something that is refused by design. */
export function isExpected(message, path) {
  const status = Number(/status of (\d+)/.exec(message.text())?.[1]);
  const url = message.location().url;
  return URL.canParse(url) && (expected[path] ?? []).some(([code, at]) => code === status && new URL(url).pathname === at);
}
