// Uses the pages of a running installation as a new customer does, in Chromium, and says whether that works: all that
// can be done on them (actions.mjs), but the conversation, which is onboard.mjs'. It makes an account, pays at the
// simulated Stripe, and deletes the account at the end.
//
//   node flows.mjs --base http://127.0.0.1:3000 --telegram http://127.0.0.1:9102 --language pt-BR --phone --cluster --out pictures
//
// Without --cluster nothing makes the agent, and it is not restarted.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { Actions } from "./actions.mjs";

const { values: args } = parseArgs({
  options: {
    base: { type: "string", default: "http://127.0.0.1:3000" },
    telegram: { type: "string", default: "http://127.0.0.1:9102" },
    language: { type: "string", default: "en" },
    phone: { type: "boolean", default: false },
    cluster: { type: "boolean", default: false },
    out: { type: "string", default: "pictures" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    done: { type: "string", default: "" },
  },
});
await mkdir(args.out, { recursive: true });
const kind = `${args.language}${args.phone ? "-phone" : ""}`;
const other = args.language === "en" ? "pt-BR" : "en";

const tag = randomBytes(5).toString("hex");
const email = `pages-${tag}@example.com`;
let password = randomBytes(12).toString("base64url");

const browser = await chromium.launch({ executablePath: args.chromium, args: ["--no-sandbox"] });
const context = await browser.newContext({
  locale: args.language,
  timezoneId: "America/Recife",
  viewport: args.phone ? { width: 390, height: 844 } : { width: 1280, height: 900 },
  hasTouch: args.phone,
  permissions: ["clipboard-read", "clipboard-write"],
});
const actions = new Actions({ site: args.base });
await actions.watch(context);
const page = await context.newPage();
page.setDefaultTimeout(10_000);
const wrong = [];
page.on("pageerror", (e) => wrong.push(`an error of a page: ${e}`));

let failed = 0;
let passed = 0;
async function flow(name, run) {
  const began = performance.now();
  try {
    await run();
    passed++;
    console.log(`ok    ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  } catch (err) {
    failed++;
    console.log(`WRONG ${name}: ${err}`);
    await page.screenshot({ path: join(args.out, `failed-${kind}-${failed}.png`), fullPage: true });
    await page.unrouteAll({ behavior: "ignoreErrors" });
  }
}

const click = (id, part) => actions.click(page, id, part);
const choose = (id, value) => actions.choose(page, id, value);
const go = (path) => page.goto(args.base + path);
const path = () => new URL(page.url()).pathname;
const atPath = (p, on = page) => on.waitForFunction((want) => location.pathname === want, p);
const picture = (name) => page.screenshot({ path: join(args.out, `flow-${kind}-${name}.png`), fullPage: true });
const lang = () => page.evaluate(() => document.documentElement.lang);
const dialog = () => page.locator("dialog[open]");
/** What a form says after it was sent. */
const said = (kind) => page.locator(`main .notice.${kind}`).first().waitFor();
/** Back at a page of ours, wherever a link has led. */
async function leads(id, to) {
  const from = page.url();
  await click(id);
  await atPath(to);
  await page.waitForSelector("h1");
  if (page.url() !== from) await page.goto(from);
}

await flow("prices are those of the api, also at the second try", async () => {
  await page.route("**/v1/tiers", (route) => route.abort());
  await go("/");
  await page.waitForSelector(".notice.trouble button");
  await picture("no-prices");
  await page.unroute("**/v1/tiers");
  await click("again");
  const { items } = await (await context.request.get(`${args.base}/v1/tiers`)).json();
  await page.waitForSelector(".tiers > li");
  assert.deepEqual(await page.locator(".tiers h3").allInnerTexts(), items.map((t) => t.title));
});

await flow("the first key leads to the content, past the menu", async () => {
  await page.reload();
  await page.waitForSelector("h1");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("href")), "#content");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement?.id === "content");
});

await flow("another language at once, and kept", async () => {
  const words = { en: /agent\b/, "pt-BR": /agente/ };
  await choose("language", other);
  await page.waitForFunction((want) => document.documentElement.lang === want, other);
  assert.match(await page.locator("h1").innerText(), words[other]);
  await page.reload();
  await page.waitForSelector("h1");
  assert.match(await page.locator("h1").innerText(), words[other]);
  await choose("language", args.language);
  await page.waitForFunction((want) => document.documentElement.lang === want, args.language);
});

await flow("dark and light by choice", async () => {
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await choose("theme", "light");
  const light = await back();
  await choose("theme", "dark");
  assert.notEqual(await back(), light);
  await choose("theme", "system");
});

await flow("no script and no style gets in", async () => {
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    try {
      script.textContent = "window.broken = true";
    } catch {
      return "refused by Trusted Types";
    }
    document.body.append(script);
    return window.broken ? "ran" : "did not run";
  });
  assert.notEqual(ran, "ran");
  const injected = await page.evaluate(() => {
    try {
      document.body.innerHTML += "<p></p>";
      return true;
    } catch {
      return false;
    }
  });
  assert.equal(injected, false, "a string became markup");
});

await flow("every way from the pages before the login", async () => {
  await go("/");
  await page.waitForSelector(".tiers > li");
  await leads("front.login", "/login");
  await leads("front.start", "/start");
  await go("/login");
  await leads("login.start", "/start");
  await leads("brand", "/");
  await click("login.forgot");
  await atPath("/forgot-password");
  await page.fill("input[name=email]", `nobody-${tag}@example.com`);
  await click("forgot.send");
  await said("good");
  await picture("forgot");
  await click("forgot.back");
  await atPath("/login");
  await go("/nothing");
  await leads("nothing.home", "/");
  await go("/verify-email");
  await click("verify.dashboard");
  await atPath("/login"); // who has not logged in
});

await flow("the link of a mail that is good no more, and one that is", async () => {
  await go("/reset-password");
  await leads("reset.forgot", "/forgot-password");
  await page.goto("about:blank");
  await go("/reset-password#token=not-a-token");
  await page.fill("input[name=new-password]", "another good sentence");
  await page.waitForFunction(() => location.hash === ""); // or the token would stay in the address
  await click("reset.send");
  await said("trouble");
  await picture("reset-old-link");
  await page.route("**/v1/password-reset/confirm", (route) => route.fulfill({ status: 204 }));
  await click("reset.send");
  await said("good");
  await page.unroute("**/v1/password-reset/confirm");
  await click("reset.login");
  await atPath("/login");
});

await flow("a plan is chosen, and an account made", async () => {
  await go("/");
  await page.locator(".tiers .button").nth(1).waitFor();
  await click("front.choose", page.locator(".tiers > li").nth(1));
  await atPath("/start");
  const plan = new URLSearchParams(new URL(page.url()).search).get("plan");
  const field = page.locator("input[name=password]");
  await field.or(page.locator(".chat")).first().waitFor();
  if (!(await field.isVisible())) await click("chat.form");
  await page.waitForFunction((want) => document.querySelector("main select")?.value === want, plan);
  await choose("signup.plan", "team");
  await page.fill("input[name=name]", "Pages");
  await page.fill("input[name=email]", "nobody");
  await page.fill("input[name=password]", "short");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".error");
  await picture("start-wrong");
  await page.fill("input[name=email]", email);
  await page.fill("input[name=password]", password);
  await click("signup.send");
  await atPath("/dashboard");
  await page.waitForSelector(".checklist");
  assert.match(await page.locator("h1").innerText(), /Pages/);
  await page.waitForSelector(".connection.open");
  await picture("dashboard-new");
});

await flow("no token is where scripts can read it", async () => {
  const kept = await page.evaluate(() => [document.cookie, ...Object.keys(localStorage), ...Object.keys(sessionStorage)]);
  assert.equal(kept[0], "");
  for (const key of kept.slice(1)) assert.match(key, /^openclaw-(language|theme)$/);
  const cookies = await context.cookies();
  assert.ok(cookies.length >= 2 && cookies.every((c) => c.name.startsWith("__Host-") && c.httpOnly && c.secure), JSON.stringify(cookies.map((c) => c.name)));
});

await flow("a change is seen in another tab without a reload", async () => {
  const tab = await context.newPage();
  await tab.goto(`${args.base}/dashboard`);
  await tab.waitForSelector(".connection.open");
  await go("/dashboard/account");
  await page.fill("input[name=name]", "Renamed");
  await page.locator("input[name=name]").press("Enter");
  await page.waitForSelector(".notice.good");
  await tab.bringToFront();
  await tab.waitForFunction(() => document.querySelector("h1")?.textContent?.includes("Renamed"), undefined, { timeout: 10_000 });
  await tab.close();
});

await flow("going back and forth keeps title and focus with the page", async () => {
  await go("/dashboard");
  await page.waitForSelector(".connection.open");
  const title = await page.title();
  for (const [id, to] of [
    ["menu.usage", "/dashboard/usage"],
    ["menu.agent", "/dashboard/agent"],
    ["menu.billing", "/dashboard/billing"],
    ["menu.account", "/dashboard/account"],
    ["menu.overview", "/dashboard"],
    ["overview.details", "/dashboard/usage"],
  ]) {
    await click(id);
    await atPath(to);
    await page.waitForFunction(() => document.activeElement?.tagName === "H1");
    if (to !== "/dashboard") await page.waitForFunction((was) => document.title !== was, title);
  }
  await page.goBack();
  await page.waitForFunction((was) => document.title === was, title);
  await click("overview.go");
  await atPath("/dashboard/billing");
});

await flow("a mail to confirm the address comes again", async () => {
  await click("banner.mail-again");
  await page.locator(".banners .notice .notice").waitFor();
  await picture("mail-again");
});

await flow("who has not paid an invoice is led to it", async () => {
  const problem = { type: "urn:openclaw:problem:unpaid", title: "x", status: 402, pay_url: "http://127.0.0.1:1/invoice" };
  await page.route("**/v1/me/checkout", (route) => route.fulfill({ status: 402, contentType: "application/problem+json", body: JSON.stringify(problem) }));
  await go("/dashboard/billing");
  await page.waitForSelector(".tiers > li");
  await click("billing.buy");
  const { at } = await actions.find(page, "billing.pay-it");
  await at.waitFor();
  assert.equal(await at.getAttribute("href"), problem.pay_url);
  await page.unroute("**/v1/me/checkout");
});

await flow("a plan is bought", async () => {
  await click("billing.buy", page.locator(".tiers > li").nth(1));
  await page.waitForURL(/\/pay\//);
  await page.locator("button").first().click();
  await atPath("/dashboard");
  await page.waitForSelector(".box-state", { timeout: 30_000 });
  await picture("paid");
});

await flow("the agent is told who may write to it, and how to work", async () => {
  const made = await fetch(`${args.telegram}/sim/bots`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ username: `pages_${tag}_bot` }) });
  assert.ok(made.ok, `the simulated Telegram makes no bot: ${made.status}`);
  await click("overview.settings");
  await atPath("/dashboard/agent");
  const [telegram, behaviour] = [page.locator("main form").nth(0), page.locator("main form").nth(2)];
  await telegram.locator("input[type=password]").fill((await made.json()).token);
  await click("agent.token");
  await telegram.locator(".notice.good").waitFor();
  const users = page.locator("main form").nth(1);
  await users.locator("input").fill("123456789");
  await click("save", users);
  await users.locator(".notice.good").waitFor();
  await page.locator("main form").nth(2).locator("input").first().fill("Europe/Berlin");
  await click("agent.zone");
  await choose("agent.language", args.language);
  await choose("agent.thinking", "low");
  await click("save", behaviour);
  await behaviour.locator(".notice.good").waitFor();
  assert.equal(await behaviour.locator("input").first().inputValue(), "America/Recife");
  await picture("agent");
  if (!args.cluster) return;
  await page.waitForSelector(".box-state .badge.good", { timeout: 60_000 });
  await click("agent.restart");
  await page.locator("main .card").last().locator(".notice.good").waitFor();
});

await flow("the plan is changed, cancelled, and kept", async () => {
  await go("/dashboard/billing");
  const tier = (n) => page.locator(".tiers > li").nth(n);
  await tier(2).waitFor();
  // To a larger one: at once.
  await click("billing.change", tier(2));
  await click("cancel", dialog());
  await dialog().waitFor({ state: "detached" });
  await click("billing.change", tier(2));
  await picture("change");
  await click("billing.change", dialog());
  await tier(2).locator(".badge.good").waitFor({ timeout: 20_000 });
  // To a smaller one: at the end of the period, and it is kept after all.
  await click("billing.change", tier(0));
  await click("billing.change", dialog());
  const keep = tier(2).locator("button");
  await keep.waitFor({ timeout: 20_000 });
  await picture("change-pending");
  await click("billing.keep", tier(2));
  await click("billing.keep", dialog());
  await tier(2).locator(".badge.good").waitFor({ timeout: 20_000 });
  await click("billing.cancel");
  await click("billing.keep", dialog());
  await dialog().waitFor({ state: "detached" });
  await click("billing.cancel");
  await picture("cancel");
  await click("billing.cancel", dialog());
  const { at } = await actions.find(page, "billing.resume");
  await at.waitFor({ timeout: 20_000 });
  await click("billing.resume");
  await at.waitFor({ state: "detached", timeout: 20_000 });
  await page.fill("input[name=overage]", "5");
  const overage = page.locator("main form").first();
  await click("save", overage);
  await overage.locator(".notice.good").waitFor();
});

await flow("invoices and cards", async () => {
  await go("/dashboard/billing");
  await page.locator("table a").first().waitFor();
  await picture("billing");
  await click("billing.invoice");
  await page.waitForURL(/\/invoice\//);
  await go("/dashboard/billing");
  await page.waitForSelector(".tiers > li");
  await click("billing.portal");
  await page.waitForURL(/\/portal\//);
});

await flow("whoever pays late is told what to do", async () => {
  const late = await (await context.request.get(`${args.base}/v1/me`)).json();
  assert.ok(late.subscription, "there is no subscription");
  late.subscription.status = "past_due";
  await page.route("**/v1/me/events", (route) => route.fulfill({ status: 503 })); // what it tells of the account is the truth
  await page.route("**/v1/me", (route) => route.fulfill({ json: late }));
  await go("/dashboard");
  await page.locator(".banners .trouble a").waitFor();
  await picture("late");
  await click("banner.more");
  await atPath("/dashboard/billing");
  await page.unrouteAll({ behavior: "wait" });
});

await flow("usage of any time", async () => {
  await go("/dashboard/usage");
  await page.waitForSelector(".empty, .chart svg");
  for (const range of ["7", "90", "period"]) {
    const answer = page.waitForResponse(/\/v1\/me\/usage/);
    await choose("usage.range", range);
    assert.equal((await answer).status(), 200);
  }
});

await flow("the account: name, password, keys, and all data", async () => {
  await go("/dashboard/account");
  const [profile, secret, keys] = [0, 1, 2].map((n) => page.locator("main form").nth(n));
  await profile.waitFor();
  await choose("account.language", args.language);
  await click("save", profile);
  await profile.locator(".notice.good").waitFor();
  assert.equal(await lang(), args.language);

  await keys.locator("input").fill("A program");
  await click("account.make-key");
  await page.waitForSelector("code.secret");
  await picture("key");
  await click("account.copy-key");
  const shown = await page.locator("code.secret").innerText();
  await page.waitForFunction(async (want) => (await navigator.clipboard.readText()) === want, shown);
  await click("close");
  await page.locator("code.secret").waitFor({ state: "detached" });
  await click("account.end-key");
  await page.locator("table button").waitFor({ state: "detached" });

  const next = randomBytes(12).toString("base64url");
  await secret.locator("input[name=current]").fill(password);
  await secret.locator("input[name=next]").fill(next);
  await choose("account.end-keys", true);
  await click("account.password");
  await secret.locator(".notice.good").waitFor();
  password = next;

  const download = page.waitForEvent("download");
  await click("account.export");
  const file = await (await download).path();
  assert.match(await readFile(file, "utf8"), new RegExp(email));
});

await flow("an access token that has ended is renewed by one tab only", async () => {
  await context.clearCookies({ name: "__Host-openclaw_session" });
  const tab = await context.newPage();
  await Promise.all([go("/dashboard/account"), tab.goto(`${args.base}/dashboard/account`)]);
  await page.waitForSelector("input[name=name]");
  await tab.waitForSelector("input[name=name]");
  assert.equal(path(), "/dashboard/account");
  await tab.close();
});

await flow("logging out and in again", async () => {
  await click("logout");
  await atPath("/");
  await go("/dashboard");
  await atPath("/login");
  await page.fill("input[name=email]", email);
  await page.fill("input[name=password]", `${password}x`);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".notice.trouble");
  await page.fill("input[name=password]", password);
  await click("login.send");
  await atPath("/dashboard");
});

await flow("the account is deleted", async () => {
  await go("/dashboard/account");
  await click("account.delete");
  await dialog().waitFor();
  await click("cancel", dialog());
  await dialog().waitFor({ state: "detached" });
  await click("account.delete");
  await picture("delete");
  await page.fill("input[name=confirm]", email);
  await click("account.delete", dialog());
  await atPath("/login");
  await page.waitForSelector(".notice.good");
});

for (const what of [...wrong, ...(await actions.end(args.done, `flows-${kind}`))]) {
  failed++;
  console.log(`WRONG ${what}`);
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
