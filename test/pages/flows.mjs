// Uses the pages of a running installation as a new customer does, in Chromium, and says whether that
// works. It makes an account, which it deletes at the end if deletion is possible.
//
//   node flows.mjs --base http://127.0.0.1:3000 --out pictures
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: args } = parseArgs({
  options: {
    base: { type: "string", default: "http://127.0.0.1:3000" },
    out: { type: "string", default: "pictures" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
  },
});
await mkdir(args.out, { recursive: true });

const email = `pages-${randomBytes(5).toString("hex")}@example.com`;
const password = randomBytes(12).toString("base64url");

const browser = await chromium.launch({ executablePath: args.chromium, args: ["--no-sandbox"] });
const context = await browser.newContext({ locale: "en", viewport: { width: 1280, height: 900 } });
const page = await context.newPage();
page.setDefaultTimeout(10_000);
const wrong = [];
page.on("pageerror", (e) => wrong.push(String(e)));

let failed = 0;
let passed = 0;
async function flow(name, run) {
  try {
    await run();
    passed++;
    console.log(`ok    ${name}`);
  } catch (err) {
    failed++;
    console.log(`WRONG ${name}: ${err}`);
    await page.screenshot({ path: join(args.out, `failed-${failed}.png`), fullPage: true });
  }
}

const path = () => new URL(page.url()).pathname;
const atPath = (p) => page.waitForFunction((want) => location.pathname === want, p);

await flow("prices are those of the api", async () => {
  await page.goto(args.base);
  const { items } = await (await context.request.get(`${args.base}/v1/tiers`)).json();
  await page.waitForSelector(".tiers > li");
  assert.deepEqual(await page.locator(".tiers h3").allInnerTexts(), items.map((t) => t.title));
});

await flow("the first key leads to the content, past the menu", async () => {
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.getAttribute("href")), "#content");
});

await flow("another language at once, and kept", async () => {
  await page.locator(".preferences select").first().selectOption("pt-BR");
  await page.waitForFunction(() => document.documentElement.lang === "pt-BR");
  assert.match(await page.locator("h1").innerText(), /agente/);
  await page.reload();
  assert.match(await page.locator("h1").innerText(), /agente/);
  await page.locator(".preferences select").first().selectOption("en");
});

await flow("dark and light by choice", async () => {
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await back();
  await page.locator(".preferences select").nth(1).selectOption("dark");
  assert.notEqual(await back(), light);
  await page.locator(".preferences select").nth(1).selectOption("system");
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

await flow("a plan is chosen, and an account made", async () => {
  await page.goto(args.base);
  await page.locator(".tiers .button").nth(1).click();
  await atPath("/start");
  const form = page.locator("input[name=password]");
  await form.or(page.locator(".chat")).first().waitFor();
  if (!(await form.isVisible())) await page.getByRole("button", { name: /form/ }).click();
  await page.fill("input[name=name]", "Pages");
  await page.fill("input[name=email]", "nobody");
  await page.fill("input[name=password]", "short");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".error");
  await page.screenshot({ path: join(args.out, "flow-start-wrong.png"), fullPage: true });
  await page.fill("input[name=email]", email);
  await page.fill("input[name=password]", password);
  await page.keyboard.press("Enter");
  await atPath("/dashboard");
  await page.waitForSelector(".checklist");
  assert.match(await page.locator("h1").innerText(), /Pages/);
  await page.waitForSelector(".connection.open");
  await page.screenshot({ path: join(args.out, "flow-dashboard-new.png"), fullPage: true });
});

await flow("no token is where scripts can read it", async () => {
  const kept = await page.evaluate(() => [document.cookie, ...Object.keys(localStorage), ...Object.keys(sessionStorage)]);
  assert.equal(kept[0], "");
  for (const key of kept.slice(1)) assert.match(key, /^openclaw-(language|theme)$/);
  const cookies = await context.cookies();
  assert.ok(cookies.length >= 2 && cookies.every((c) => c.name.startsWith("__Host-") && c.httpOnly && c.secure), JSON.stringify(cookies.map((c) => c.name)));
});

await flow("a change is seen in another tab without a reload", async () => {
  const other = await context.newPage();
  await other.goto(`${args.base}/dashboard`);
  await other.waitForSelector(".connection.open");
  await page.goto(`${args.base}/dashboard/account`);
  await page.fill("input[name=name]", "Renamed");
  await page.locator("input[name=name]").press("Enter");
  await page.waitForSelector(".notice.good");
  await other.bringToFront();
  await other.waitForFunction(() => document.querySelector("h1")?.textContent?.includes("Renamed"), undefined, { timeout: 10_000 });
  await other.close();
});

await flow("going back and forth keeps title and focus with the page", async () => {
  await page.goto(`${args.base}/dashboard`);
  await page.getByRole("link", { name: "Usage", exact: true }).click();
  await page.waitForFunction(() => document.title.startsWith("Usage"));
  assert.equal(await page.evaluate(() => document.activeElement?.tagName), "H1");
  await page.goBack();
  await page.waitForFunction(() => document.title.startsWith("Overview"));
});

await flow("an access token that has ended is renewed by one tab only", async () => {
  await context.clearCookies({ name: "__Host-openclaw_session" });
  const other = await context.newPage();
  await Promise.all([page.goto(`${args.base}/dashboard/account`), other.goto(`${args.base}/dashboard/account`)]);
  await page.waitForSelector("input[name=name]");
  await other.waitForSelector("input[name=name]");
  assert.equal(path(), "/dashboard/account");
  await other.close();
});

await flow("logging out and in again", async () => {
  await page.getByRole("button", { name: "Log out" }).click();
  await atPath("/");
  await page.goto(`${args.base}/dashboard`);
  await atPath("/login");
  await page.fill("input[name=email]", email);
  await page.fill("input[name=password]", `${password}x`);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".notice.trouble");
  await page.fill("input[name=password]", password);
  await page.keyboard.press("Enter");
  await atPath("/dashboard");
});

await flow("the account is deleted", async () => {
  await page.goto(`${args.base}/dashboard/account`);
  await page.getByRole("button", { name: "Delete the account" }).click();
  await page.waitForSelector("dialog[open]");
  await page.screenshot({ path: join(args.out, "flow-delete.png") });
  await page.fill("input[name=confirm]", email);
  await page.locator("dialog button[type=submit]").click();
  await atPath("/login");
  await page.waitForSelector(".notice.good");
});

for (const w of wrong) {
  failed++;
  console.log(`WRONG an error of a page: ${w}`);
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
