// Uses the operations console as an operator does, in Chromium: all that can be done on its pages (actions.mjs). The
// customer is suspended and served again, and in the end its box is destroyed; one dead letter is replayed, and one
// dropped. What customers see of it is live.mjs' affair.
//
//   node operate.mjs --base http://127.0.0.1:3001 --email dev@localhost --password-file operator-password \
//     --customer c… --language pt-BR --phone --out pictures
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { Actions } from "./actions.mjs";

const text = { type: "string", default: "" };
const { values: args } = parseArgs({
  options: {
    base: text, email: text, "password-file": text, customer: text, language: { type: "string", default: "en" }, phone: { type: "boolean", default: false },
    out: { type: "string", default: "pictures" }, chromium: { type: "string", default: "/usr/bin/chromium" }, done: text,
  },
});
const kind = `${args.language}${args.phone ? "-phone" : ""}`;
await mkdir(args.out, { recursive: true });

const browser = await chromium.launch({ executablePath: args.chromium, args: ["--no-sandbox"] });
const context = await browser.newContext({ locale: args.language, viewport: args.phone ? { width: 390, height: 844 } : { width: 1280, height: 900 }, hasTouch: args.phone });
const actions = new Actions({ console: args.base });
await actions.watch(context);
const page = await context.newPage();
page.setDefaultTimeout(10_000);
const wrong = [];
page.on("pageerror", (e) => wrong.push(`an error of a page: ${e}`));

const click = (id, part) => actions.click(page, id, part);
const choose = (id, value) => actions.choose(page, id, value);
const go = async (path) => {
  await page.goto(args.base + path);
  await page.waitForSelector("h1");
  await page.waitForFunction(() => !document.querySelector(".loading"));
};
const atPath = (p) => page.waitForFunction((want) => new RegExp(want).test(location.pathname), p);
const picture = (name) => page.screenshot({ path: join(args.out, `operate-${kind}-${name}.png`), fullPage: true });
const there = async (id, timeout = 20_000) => (await actions.find(page, id)).at.waitFor({ timeout });

/** Does what is asked about first: once it is thought better of, and then it is done, for a reason if one is wanted. */
async function decide(id, part) {
  await click(id, part);
  const dialog = page.locator("dialog[open]");
  await click("console.cancel", dialog);
  await dialog.waitFor({ state: "detached" });
  await click(id, part);
  await dialog.waitFor();
  const reason = dialog.locator("input[name=reason]");
  if (await reason.isVisible()) await reason.fill("trial");
  await picture(id);
  await click(id, dialog);
  await dialog.waitFor({ state: "detached" });
}

/** Lists of two at a time have more than one page. */
async function byTwos(list, path) {
  const address = new RegExp(`/v1/${list}(\\?|$)`);
  await page.route(address, (route) => {
    const url = new URL(route.request().url());
    url.searchParams.set("limit", "2");
    return route.continue({ url: url.href });
  });
  await go(path);
  const rows = page.locator("tbody tr");
  const before = await rows.count();
  await click("console.more");
  await page.waitForFunction((n) => document.querySelectorAll("tbody tr").length > n, before);
  await page.unroute(address);
}

let at = performance.now();
function done(what) {
  console.log(`ok    ${what} (${((performance.now() - at) / 1000).toFixed(1)} s)`);
  at = performance.now();
}

try {
  await page.goto(`${args.base}/login`);
  await page.fill("input[name=email]", args.email);
  await page.fill("input[name=password]", (await readFile(args["password-file"], "utf8")).trim());
  await click("console.login");
  await page.waitForSelector("nav.pages");
  for (const [id, to] of [
    ["console.customers", "^/customers$"],
    ["console.boxes", "^/boxes$"],
    ["console.dead-letters", "^/dead-letters$"],
    ["console.audit", "^/audit$"],
    ["console.traffic", "^/$"],
  ]) {
    await click(id);
    await atPath(to);
    await page.waitForFunction(() => document.activeElement?.tagName === "H1");
  }
  const other = args.language === "en" ? "pt-BR" : "en";
  await choose("console.language", other);
  await page.waitForFunction((want) => document.documentElement.lang === want, other);
  await choose("console.language", args.language);
  await choose("console.theme", "dark");
  await choose("console.theme", "system");
  await page.route("**/v1/usage", (route) => route.abort());
  await page.reload();
  await there("console.again");
  await page.unroute("**/v1/usage");
  await click("console.again");
  await page.waitForSelector("main table");
  await page.waitForFunction(() => !document.querySelector(".notice.trouble"));
  done("every page by the menu, also after the api was away");

  await go("/customers");
  await choose("customers.status", "active");
  await page.waitForFunction(() => !document.querySelector(".loading"));
  const all90 = (want) => page.waitForFunction((w) => [...document.querySelectorAll("tbody td.number")].every((c) => parseInt(c.innerText) >= 90) === w, want);
  await all90(false);
  await choose("customers.used", "90");
  await all90(true);
  await choose("customers.used", "");
  await all90(false);
  await click("console.customer");
  await atPath("^/customers/.");
  await byTwos("customers", "/customers");
  await byTwos("boxes", "/boxes");
  await byTwos("audit", "/audit");
  await go("/audit");
  await click("audit.detail");
  await page.locator("details[open] code").waitFor();
  await go("/boxes");
  await choose("boxes.state", "active");
  await page.waitForFunction(() => !document.querySelector(".loading"));
  await click("console.box");
  await atPath("^/boxes/.");
  done("lists, and their next pages");

  await byTwos("dead-letters", "/dead-letters");
  await go("/dead-letters");
  await click("dead-letters.content");
  await page.locator("details[open] code").waitFor();
  const waiting = () => page.locator("tbody .badge").count();
  const letters = await waiting();
  assert.ok(letters >= 2, `${letters} dead letters wait`);
  await click("dead-letters.replay");
  await page.locator("main .notice").first().waitFor();
  await page.waitForFunction((n) => document.querySelectorAll("tbody .badge").length === n - 1, letters);
  await decide("dead-letters.drop");
  await page.waitForFunction((n) => document.querySelectorAll("tbody .badge").length === n - 2, letters);
  await choose("dead-letters.all", true);
  await page.waitForFunction((n) => document.querySelectorAll("tbody tr").length >= n, letters);
  await picture("dead-letters");
  done("a dead letter is replayed, and one is dropped");

  await go(`/customers/${args.customer}`);
  await page.locator(".chart svg").waitFor();
  await click("console.table");
  await page.locator(".chart details[open] table").waitFor();
  await choose("customer.action", "add");
  await page.fill("input[name=tokens]", "1000");
  await page.fill("input[name=reason]", "trial");
  await click("customer.change");
  await page.locator("form .notice.good, form .notice.warning").waitFor();
  await decide("customer.suspend");
  await there("customer.resume");
  await decide("customer.resume");
  await there("customer.suspend");
  await decide("customer.revoke");
  await click("audit.detail");
  await page.locator("details[open] code.secret").first().waitFor();
  await picture("customer");
  done("a customer: its limit, suspended and served again, a token revoked");

  await click("console.box");
  await atPath("^/boxes/.");
  const here = new URL(page.url()).pathname;
  await click("console.customer");
  await atPath("^/customers/.");
  await go(here);
  await decide("box.restart");
  await decide("box.rotate");
  await decide("box.suspend");
  await there("box.resume");
  await decide("box.resume");
  await there("box.suspend");
  await click("box.log");
  const log = page.locator("pre, .notice.trouble").or(page.getByText(/said nothing yet|não disse nada/)).first(); // of a pod that has just begun
  await log.waitFor();
  console.log(`      the log: ${(await log.innerText()).slice(0, 120)}`);
  await picture("box");
  await decide("box.destroy");
  await page.waitForFunction(() => document.querySelectorAll("main p.row button").length === 0, undefined, { timeout: 20_000 });
  done("a box: restarted, suspended, resumed, another token, its log, destroyed");

  await click("console.logout");
  await atPath("^/login$");
  for (const what of await actions.end(args.done, `operate-${kind}`)) wrong.push(what);
  assert.deepEqual(wrong, []);
} catch (err) {
  await picture("failed").catch(() => {});
  for (const what of wrong) console.log(`WRONG ${what}`);
  throw err;
} finally {
  await browser.close();
}
