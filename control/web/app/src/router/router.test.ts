import assert from "node:assert/strict";
import { test } from "node:test";
import { address } from "../api/client";
import { match } from "./router";

const routes = { landing: "/", boxes: "/boxes", box: "/boxes/{id}", logs: "/boxes/{id}/logs" };

test("routes by their path", () => {
  assert.deepEqual(match(routes, "/"), { name: "landing", path: {} });
  assert.deepEqual(match(routes, "/boxes/"), { name: "boxes", path: {} });
  assert.deepEqual(match(routes, "/boxes/b1"), { name: "box", path: { id: "b1" } });
  assert.deepEqual(match(routes, "/boxes/a%2Fb/logs"), { name: "logs", path: { id: "a/b" } });
  for (const path of ["/nothing", "/boxes/b1/x", "/boxes/%E0%A4%A"]) assert.equal(match(routes, path), undefined, path);
});

test("addresses of the api", () => {
  assert.equal(address("/v1/me"), "/v1/me");
  assert.equal(address("/v1/boxes/{id}/logs", { path: { id: "../x?" }, query: { tail: 5, follow: false, state: undefined, q: "" } }), "/v1/boxes/..%2Fx%3F/logs?tail=5&follow=false");
});
