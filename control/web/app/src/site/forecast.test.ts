import assert from "node:assert/strict";
import { test } from "node:test";
import { forecast } from "./forecast";

const day = 24 * 60 * 60 * 1000;
const start = "2026-11-01T00:00:00Z";
const end = "2026-12-01T00:00:00Z";
const begin = Date.parse(start);
const at = (days: number) => new Date(begin + days * day);
const even = (days: number, tokens: number) => new Map(Array.from({ length: days }, (_, i) => [begin + i * day, tokens]));

test("an even pace goes on", () => {
  const f = forecast({ start, end, limit: 100_000, used: 10_000 }, even(10, 1000), at(10));
  assert.deepEqual(f, { tokens: 30_000, reached: undefined });
});

test("the limit is reached before the end", () => {
  const f = forecast({ start, end, limit: 20_000, used: 10_000 }, even(10, 1000), at(10));
  assert.equal(f?.tokens, 30_000);
  assert.equal(f?.reached?.getTime(), at(20).getTime());
});

test("the last days say what the pace is", () => {
  const days = even(10, 0);
  for (let i = 0; i < 3; i++) days.set(begin + i * day, 5000); // in the beginning only
  assert.equal(forecast({ start, end, limit: 100_000, used: 15_000 }, days, at(10))?.tokens, 15_000);
});

test("a day that is not over counts for its part", () => {
  const f = forecast({ start, end, limit: 1e9, used: 1500 }, new Map([[begin, 1000], [begin + day, 500]]), at(1.5));
  assert.equal(f?.tokens, 30_000);
});

test("a limit that is used up was reached", () => {
  const now = at(10);
  assert.equal(forecast({ start, end, limit: 10_000, used: 10_000 }, even(10, 1000), now)?.reached, now);
  assert.equal(forecast({ start, end, limit: 10_000, used: 10_000 }, new Map(), now)?.reached, now);
});

test("too little is known", () => {
  assert.equal(forecast({ start, end, limit: 1000, used: 10 }, even(1, 10), at(0.1)), undefined);
  assert.equal(forecast({ start, end, limit: 1000, used: 0 }, new Map(), at(10)), undefined);
  assert.equal(forecast({ start, end, limit: 1000, used: 10 }, even(1, 10), at(30)), undefined);
  assert.equal(forecast({ start: "", end: "", limit: 1000, used: 10 }, even(1, 10), at(3)), undefined);
});
