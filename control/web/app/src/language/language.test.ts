import assert from "node:assert/strict";
import { test } from "node:test";
import { formatsOf } from "./formats";
import { choose, languageOf } from "./language";

test("the language of tags", () => {
  assert.deepEqual(["pt", "pt-PT", "PT-br", "en-GB", "de", "", null, undefined].map(languageOf), ["pt-BR", "pt-BR", "pt-BR", "en", undefined, undefined, undefined, undefined]);
});

test("what is asked for comes before what was chosen, and that before the reader's own", () => {
  assert.equal(choose("en", "pt-BR", ["pt-BR"]), "en");
  assert.equal(choose(null, "en", ["pt-BR"]), "en");
  assert.equal(choose("fr", "xx", ["de", "en-US", "pt"]), "en");
  assert.equal(choose(null, null, ["de"]), "pt-BR");
  assert.equal(choose(null, null, []), "pt-BR");
});

test("numbers are written as a reader expects", () => {
  const [en, pt] = [formatsOf("en"), formatsOf("pt-BR")];
  assert.equal(en.whole(1234567), "1,234,567");
  assert.equal(pt.whole(1234567), "1.234.567");
  assert.equal(en.money(1900), "$19");
  assert.equal(en.money(1950), "$19.50");
  assert.match(pt.money(1900), /US\$\s19/);
  assert.equal(en.percent(0.256), "26%");
  // What comes from the api in whole percent is not rounded to others.
  for (let n = 0; n < 1000; n++) assert.equal(en.percent(n / 100), `${n}%`);
});

test("days are those of UTC, by which usage is counted", () => {
  // The tests run in a time zone in which this is the day before.
  assert.equal(formatsOf("en").day("2026-11-05T00:00:00Z"), "Nov 5");
});

test("durations have two parts at most", () => {
  const f = formatsOf("en");
  assert.deepEqual([0, 999, 61_000, 3_600_000, 90_061_000].map(f.duration), ["0 s", "0 s", "1 min 1 s", "1 h", "1 d 1 h"]);
  assert.equal(f.relative("2026-11-08T00:00:00Z", new Date("2026-11-05T00:00:00Z")), "in 3 days");
});
