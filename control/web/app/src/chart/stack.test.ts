import assert from "node:assert/strict";
import { test } from "node:test";
import { dayOf, roundStep, stack } from "./stack";

const day = 24 * 60 * 60 * 1000;

test("bars are stacked by day, with days on which nothing was used", () => {
  const s = stack([{ day: 0, series: "a", value: 3 }, { day: 2 * day, series: "b", value: 10 }, { day: 2 * day, series: "a", value: 5 }, { day: 9 * day, series: "a", value: 1000 }], 0, 3 * day);
  assert.deepEqual(s.series, ["a", "b"]); // by what was used of them in all
  assert.deepEqual(s.bars.map((b) => b.total), [3, 0, 15, 0]);
  assert.deepEqual(s.bars[2]?.parts, [5, 10]);
  assert.equal(s.top, 15);
  assert.deepEqual(s.ticks, [0, 5, 10, 15]);
});

test("many series are the largest ones, and all others", () => {
  const s = stack(["a", "b", "c", "d", "e"].map((series, i) => ({ day: 0, series, value: 10 - i })), 0, 0);
  assert.deepEqual(s.series, ["a", "b", "c", ""]);
  assert.deepEqual(s.bars[0]?.parts, [10, 9, 8, 13]);
});

test("nothing was used", () => {
  const s = stack([], 0, day);
  assert.equal(s.bars.length, 2);
  assert.deepEqual([s.top, s.ticks], [1, [0, 1]]);
});

test("steps are round", () => {
  assert.deepEqual([0, 0.2, 1, 1.1, 2.1, 26, 240_000, 260_000].map(roundStep), [1, 1, 1, 2, 5, 50, 250_000, 500_000]);
  assert.equal(dayOf(3.7 * day), 3 * day);
});
