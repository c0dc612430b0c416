import assert from "node:assert/strict";
import { test } from "node:test";
import { withoutTokens } from "./conversation";

test("tokens of bots are not shown", () => {
  assert.equal(withoutTokens("it is 123456789" + ":AAfake_fake-fakefakefakefakefake, ok?"), "it is •••, ok?");
  assert.equal(withoutTokens("at 10:30, for 2 people"), "at 10:30, for 2 people");
});
