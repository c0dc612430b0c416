import assert from "node:assert/strict";
import { test } from "node:test";
import { centsOf, wholeOf } from "./amounts";

test("whole numbers", () => {
  for (const [text, want] of [
    ["1500000", 1_500_000], ["1,500,000", 1_500_000], ["1.500.000", 1_500_000], ["1 500 000", 1_500_000], [" 1\u00a0500 ", 1500], ["0", 0], ["-5", -5], ["+1,000", 1000],
  ] as const) {
    assert.equal(wholeOf(text), want, text);
  }
  for (const text of ["", "-", "1.5", "1,50", "1.5M", "2e6", "0x10", "1,500.000", "1,5000", "1500,000", "9007199254740993", "ten"]) assert.equal(wholeOf(text), undefined, text);
});

test("amounts of money", () => {
  for (const [text, want] of [["25", 2500], ["25.5", 2550], ["25,50", 2550], [" 0 ", 0], ["0.05", 5], ["1000", 100_000]] as const) assert.equal(centsOf(text), want, text);
  for (const text of ["", "-1", "1,000", "1.000", "1.000,50", "1e3", "$5", "5.", ".5", "12345678901234567890"]) assert.equal(centsOf(text), undefined, text);
});
