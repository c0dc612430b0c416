// What is seen live: tokens that are used, a limit that an operator lowers, a dead letter that is
// replayed, a token that is revoked (which cannot be taken back: it comes last).
//
//   node live.mjs --base http://127.0.0.1:3000 --console http://127.0.0.1:3001 --proxy http://127.0.0.1:8080 \
//     --email you@example.com --password-file password --operator dev@localhost --operator-password-file operator-password \
//     --customer c… --token-file token --out pictures
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { Actions } from "./actions.mjs";

const text = { type: "string", default: "" };
const { values: args } = parseArgs({
  options: {
    base: text, console: text, proxy: text, email: text, "password-file": text, operator: text, "operator-password-file": text,
    customer: text, "token-file": text, out: { type: "string", default: "pictures" }, model: { type: "string", default: "kimi-k2.6" }, chromium: { type: "string", default: "/usr/bin/chromium" }, done: text,
  },
});
const secret = async (file) => (await readFile(file, "utf8")).trim();
const token = await secret(args["token-file"]);
await mkdir(args.out, { recursive: true });

const browser = await chromium.launch({ executablePath: args.chromium, args: ["--no-sandbox"] });
const context = await browser.newContext({ locale: "en", viewport: { width: 1280, height: 900 } });
const actions = new Actions({ site: args.base, console: args.console });
await actions.watch(context);

async function login(base, email, password) {
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  await page.goto(`${base}/login`);
  await page.fill("input[name=email]", email);
  await page.fill("input[name=password]", password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("nav.pages");
  return page;
}

async function request() {
  const res = await fetch(`${args.proxy}/v1/chat/completions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
    body: JSON.stringify({ model: args.model, messages: [{ role: "user", content: "Say hello." }] }),
  });
  await res.text();
  return res.status;
}

const customer = await login(args.base, args.email, await secret(args["password-file"]));
const operator = await login(args.console, args.operator, await secret(args["operator-password-file"]));
const picture = (page, name) => page.screenshot({ path: join(args.out, `live-${name}.png`), fullPage: true });
const left = () => customer.locator(".big").innerText();

await customer.bringToFront();
await customer.waitForSelector(".big");
const before = await left();
let began = performance.now();
const served = await request();
assert.equal(served, 200, `the proxy answers ${served}`);
await customer.waitForFunction((was) => document.querySelector(".big")?.textContent !== was, before);
console.log(`ok    tokens move without a reload: ${before}, then ${await left()}, ${Math.round(performance.now() - began)} ms after the request was sent`);
await picture(customer, "tokens");

// becomes waits for what the proxy answers from some moment on.
async function becomes(want, what) {
  for (const end = Date.now() + 10_000; ; await new Promise((done) => setTimeout(done, 100))) {
    const got = await request();
    if (got === want) return;
    assert.ok(Date.now() < end, `${what} the proxy answers ${got}`);
  }
}

async function setLimit(action, tokens) {
  await operator.bringToFront();
  await operator.locator("form select").selectOption(action);
  if (action !== "reset") await operator.fill("input[name=tokens]", String(tokens));
  await operator.fill("input[name=reason]", "trial");
  await operator.locator("form button[type=submit]").click();
  await operator.locator("form .notice.good, form .notice.warning").waitFor();
  return operator.locator("form .notice").innerText();
}

await operator.goto(`${args.console}/customers/${args.customer}`);
await operator.waitForSelector("form select");
console.log(`      ${await setLimit("set", 10)}`);
await picture(operator, "quota");
await becomes(429, "after the limit was lowered");
await customer.bringToFront();
await customer.waitForSelector(".banners .trouble");
await picture(customer, "limit");
console.log("ok    a limit that was lowered: requests are refused, and the customer sees it");
console.log(`      ${await setLimit("reset")}`);
await becomes(200, "after the limit was reset");

// An api that takes longer than it is asked is seen all the same.
const slow = await context.newPage();
await slow.route(/\/v1\/customers\/[^/]+\/quota$/, async (route) => {
  await new Promise((done) => setTimeout(done, 3000));
  await route.continue().catch(() => {}); // the page has given it up, or is closed
});
await slow.goto(`${args.console}/customers/${args.customer}`);
await slow.locator(".meter").waitFor({ timeout: 12_000 });
await slow.close();
console.log("ok    a slow api is waited for");

await operator.goto(`${args.console}/dead-letters`);
await operator.waitForSelector("h1");
await operator.waitForFunction(() => !document.querySelector(".loading"));
await operator.getByRole("button", { name: "Replay" }).first().click();
await operator.locator("main .notice").first().waitFor();
const recorded = await operator.locator("main .notice").first().innerText();
await picture(operator, "dead-letter");
assert.match(recorded, /^1 written, 0 .* 0 refused/, `a replayed dead letter: ${recorded}`);
console.log(`ok    a dead letter: ${recorded}`);

await operator.goto(`${args.console}/customers/${args.customer}`);
await operator.getByRole("button", { name: "Revoke" }).first().click();
await operator.waitForSelector("dialog[open]");
await operator.locator("dialog button[type=submit]").click();
await operator.waitForFunction(() => !document.querySelector("dialog[open]"));
await becomes(401, "with a revoked token");
console.log("ok    a token that was revoked is refused");
await picture(operator, "revoked");
await browser.close();
assert.deepEqual(await actions.end(args.done, "live"), []);
