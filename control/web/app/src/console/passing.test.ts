import assert from "node:assert/strict";
import { test } from "node:test";
import type { Traffic } from "../api/operators.gen";
import { passingBy } from "./passing";

const value: Traffic = { at: "2026-01-01T00:00:00Z", in_flight: 1, streams: 0, proxies: [], silent: [], untold: [] };

test("what was heard lately is shown, and nothing else", () => {
  const state = (...of: Parameters<typeof passingBy>) => passingBy(...of).state;
  assert.equal(state(undefined, "connecting", 0), "loading");
  assert.equal(state(undefined, "open", 0), "loading");
  assert.deepEqual(passingBy({ at: 1_000, value }, "open", 2_000), { state: "there", value });
  assert.equal(state({ at: 1_000, value }, "connecting", 2_000), "there");
  assert.equal(state({ at: 1_000, value }, "open", 60_000), "broken");
  assert.equal(state({ at: 1_000, value }, "connecting", 60_000), "loading");
  assert.equal(state({ at: 1_000, value }, "lost", 2_000), "broken");
  assert.equal(state(undefined, "lost", 0), "broken");
  assert.equal(state({ at: 1_000, value: undefined }, "open", 2_000), "away");
  assert.equal(state({ at: 1_000, value: undefined }, "open", 60_000), "away");
});
