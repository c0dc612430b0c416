// Becomes a customer by the bot on the simulated Telegram, and pays in Chromium on the simulated Stripe.
//
//   node telegram.mjs --telegram http://127.0.0.1:9102 --bot openclaw_dev_bot --cluster --out pictures
import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: args } = parseArgs({
  options: {
    telegram: { type: "string", default: "http://127.0.0.1:9102" },
    bot: { type: "string", default: "openclaw_dev_bot" },
    cluster: { type: "boolean", default: false },
    out: { type: "string", default: "pictures" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
  },
});
await mkdir(args.out, { recursive: true });
const tag = randomBytes(4).toString("hex");
const person = randomInt(100_000_000, 2_000_000_000);

const made = await fetch(`${args.telegram}/sim/bots`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ username: `hello_${tag}_bot` }),
});
assert.ok(made.ok, `the simulated Telegram makes no bot: ${made.status}`);
const { token } = await made.json();

// chat is the messages of the bot, as JSON text of each.
async function chat() {
  const res = await fetch(`${args.telegram}/sim/bots/${args.bot}/chats/${person}`);
  assert.ok(res.ok, `the chat cannot be read: ${res.status}`);
  const view = await res.json();
  return (Array.isArray(view) ? view : view.messages).filter((m) => m.from_bot).map((m) => JSON.stringify(m));
}

async function until(what, ok, seconds = 20) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await new Promise((r) => setTimeout(r, 100))) {
    const found = ok(await chat());
    if (found) return found;
  }
  throw new Error(`${what}: the bot says\n${(await chat()).join("\n")}`);
}

const browser = await chromium.launch({ executablePath: args.chromium, args: ["--no-sandbox"] });
const context = await browser.newContext({ locale: "en", viewport: { width: 390, height: 844 } });
const page = await context.newPage();
page.setDefaultTimeout(15_000);
const picture = (name) => page.screenshot({ path: join(args.out, `telegram-${name}.png`), fullPage: true });

async function say(text) {
  const before = (await chat()).length;
  await page.fill("#text", text);
  await page.locator("#write button").click();
  await until(`an answer to ${text}`, (all) => all.length > before);
}

try {
  await page.goto(`${args.telegram}/${args.bot}?start=web&user=${person}&name=Ada&language=en`);
  await page.locator("#start").click();
  await until("hello", (all) => all.some((m) => m.includes("help you with")));
  await picture("1-hello");
  await say("Research for my thesis");
  await say("only me");
  await say(`it is ${token}`);
  await until("the bot is found", (all) => all.some((m) => m.includes(`hello_${tag}_bot`)));
  assert.ok(!(await chat()).some((m) => m.includes(token)), "the bot repeats the token");
  // Who writes on Telegram is known there, and may be asked for all the same.
  if ((await chat()).at(-1).includes("userinfobot")) await say(String(person));
  if (/Is that right/.test((await chat()).at(-1))) await say("yes");
  await say(`hello-${tag}@example.com`);
  await picture("2-offer");
  await say("yes please");
  const pay = await until("a page to pay on", (all) => all.join("\n").match(/http:\/\/[^"\\\s<]*\/pay\/[\w-]+/)?.[0]);
  await picture("3-pay");
  const payment = await context.newPage();
  await payment.goto(pay);
  await payment.locator("button, input[type=submit]").first().click();
  await payment.waitForURL((url) => !url.pathname.startsWith("/pay/"));
  await payment.close();
  await until("the payment is there", (all) => all.some((m) => m.includes("payment is there")), 30);
  console.log("ok    paid from Telegram");
  if (args.cluster) {
    await until("the agent runs", (all) => all.some((m) => m.includes("Your agent runs")), 60);
    console.log("ok    the agent of somebody on Telegram runs");
  }
  await picture("4-done");
} catch (err) {
  await picture("failed").catch(() => {});
  throw err;
} finally {
  await browser.close();
}
