// Becomes a customer as a person does: from the front page through the conversation to a simulated payment, the
// steps of the agent that is made, and the dashboard, in Chromium. Halfway the browser is closed, and opened again.
//
//   node onboard.mjs --base http://127.0.0.1:3000 --telegram http://127.0.0.1:9102 --language pt-BR --phone \
//     --cluster --proxy http://127.0.0.1:8080 --openclawctl ../../.run/openclawctl --out pictures
//
// Without --cluster nothing makes the agent, and it ends where the payment has arrived. --without-model is for a
// language model that is away: no request is sent to it at the end, and pictures are named for it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { Actions } from "./actions.mjs";
import { isExpected } from "./refusals.mjs";

const { values: args } = parseArgs({
  options: {
    base: { type: "string", default: "http://127.0.0.1:3000" },
    telegram: { type: "string", default: "http://127.0.0.1:9102" },
    language: { type: "string", default: "en" },
    phone: { type: "boolean", default: false },
    cluster: { type: "boolean", default: false },
    "without-model": { type: "boolean", default: false },
    proxy: { type: "string", default: "http://127.0.0.1:8080" },
    openclawctl: { type: "string", default: "" },
    model: { type: "string", default: "kimi-k2.6" },
    out: { type: "string", default: "pictures" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    done: { type: "string", default: "" },
  },
});
await mkdir(args.out, { recursive: true });
const pt = args.language === "pt-BR";
const kind = `${args.language}${args.phone ? "-phone" : ""}${args["without-model"] ? "-without-model" : ""}`;
const tag = randomBytes(4).toString("hex");
const email = `hello-${tag}@example.com`;

// A bot, as @BotFather makes it.
const made = await fetch(`${args.telegram}/sim/bots`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ username: `hello_${tag}_bot` }),
});
assert.ok(made.ok, `the simulated Telegram makes no bot: ${made.status}`);
const { token } = await made.json();

// What is kept of a browser that is closed.
const profile = await mkdtemp(join(tmpdir(), "onboard-"));
let context;
let page;
const wrong = [];
const actions = new Actions({ site: args.base });
async function open() {
  context = await chromium.launchPersistentContext(profile, {
    executablePath: args.chromium,
    args: ["--no-sandbox"],
    locale: args.language,
    timezoneId: pt ? "America/Recife" : "Europe/Berlin",
    viewport: args.phone ? { width: 390, height: 844 } : { width: 1280, height: 900 },
    hasTouch: args.phone,
  });
  await actions.watch(context);
  page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(15_000);
  page.on("pageerror", (e) => wrong.push(String(e)));
  page.on("console", (m) => m.type() === "error" && !isExpected(m, new URL(page.url()).pathname) && wrong.push(`${m.text()} ${m.location().url}`));
}
const picture = (name) => page.screenshot({ path: join(args.out, `onboard-${kind}-${name}.png`), fullPage: true });
const ours = () => page.locator(".chat .ours").allInnerTexts();

// say writes an answer, and waits for what is said to it.
async function say(text) {
  const before = await page.locator(".chat > p").count();
  await page.fill("input[name=message]", text);
  await actions.click(page, "chat.send");
  await page.waitForFunction((n) => document.querySelectorAll(".chat > p").length >= n + 2 && document.querySelector("[aria-busy=true]") === null, before);
}

/** Sends a request of the customer's through the proxy, and sees its tokens move. */
async function useTokens(customer) {
  const proxyToken = JSON.parse(execFileSync(args.openclawctl, ["token", "create", "--customer", customer, "--output", "json"], { encoding: "utf8" })).token;
  const before = await page.locator(".big").innerText();
  const sent = performance.now();
  const res = await fetch(`${args.proxy}/v1/chat/completions`, {
    method: "POST",
    headers: { Authorization: `Bearer ${proxyToken}`, "Content-Type": "application/json" },
    body: JSON.stringify({ model: args.model, messages: [{ role: "user", content: "Say hello." }] }),
  });
  await res.text();
  assert.equal(res.status, 200);
  await page.waitForFunction((was) => document.querySelector(".big")?.textContent !== was, before);
  console.log(`ok    tokens move without a reload: ${before}, then ${await page.locator(".big").innerText()}, ${Math.round(performance.now() - sent)} ms after the request was sent`);
  await picture("11-tokens");
}

try {
  const began = performance.now();
  await open();
  await page.goto(args.base);
  assert.equal(await page.evaluate(() => document.documentElement.lang), args.language);
  await picture("1-front");
  await actions.click(page, "front.start");
  await page.waitForSelector(".chat .ours");
  await picture("2-hello");
  await actions.click(page, "chat.quick");
  await page.waitForFunction(() => document.querySelectorAll(".chat > p").length >= 3 && document.querySelector("[aria-busy=true]") === null);
  await say(pt ? "só eu" : "only me");
  await say(`${pt ? "é" : "it is"} ${token}`);
  const shown = await page.locator("body").innerText();
  assert.ok(!shown.includes(token.split(":")[1]), "the page shows the bot's token");
  assert.match((await ours()).join("\n"), new RegExp(`hello_${tag}_bot`), "the bot was not found");
  await picture("3-bot");

  await context.close();
  await open();
  await page.goto(`${args.base}/start`);
  await page.waitForSelector(".chat .ours");
  assert.match((await ours()).join("\n"), new RegExp(`hello_${tag}_bot`), "the conversation is not taken up again");
  console.log("ok    the conversation goes on after the browser was closed");

  await say("123456789");
  await say(pt ? "sim" : "yes");
  await say(email);
  await picture("4-offer");
  await say(pt ? "sim" : "yes please");
  await page.locator("a.button.primary").waitFor();
  await picture("5-pay");
  await actions.click(page, "chat.pay");
  await page.waitForURL(/\/pay\//);
  assert.match(await page.locator("body").innerText(), pt ? /Simulação/ : /Simulat/);
  await picture("6-payment");
  await page.locator("button, input[type=submit]").first().click();
  await page.waitForURL((url) => url.origin === new URL(args.base).origin);
  await page.waitForSelector(".chat .ours");
  await page.waitForFunction((words) => new RegExp(words, "i").test(document.querySelector(".chat")?.textContent ?? ""), pt ? "pagamento chegou" : "payment is there", { timeout: 30_000 });
  console.log(`ok    paid, ${Math.round((performance.now() - began) / 1000)} s after the front page`);
  await picture("7-paid");

  if (args.cluster) {
    await page.locator(".progress li").first().waitFor({ timeout: 30_000 });
    await picture("8-steps");
    await (await actions.find(page, "chat.dashboard")).at.waitFor({ timeout: 60_000 });
    await picture("9-complete");
    console.log(`ok    the agent runs, ${Math.round((performance.now() - began) / 1000)} s after the front page`);
    await actions.click(page, "chat.dashboard");
    await page.waitForFunction(() => location.pathname === "/dashboard");
    await page.waitForSelector(".connection.open");
    await page.waitForSelector(".big");
    await picture("10-dashboard");

    const me = await page.evaluate(() => fetch("/v1/me", { credentials: "same-origin" }).then((r) => r.json()));
    assert.equal(me.email, email);
    if (!args["without-model"]) await useTokens(me.id);
  }
  assert.deepEqual([...wrong, ...(await actions.end(args.done, `onboard-${kind}`))], []);
} catch (err) {
  await picture("failed").catch(() => {});
  throw err;
} finally {
  await context?.close();
  await rm(profile, { recursive: true, force: true });
}
