// Opens every page in Chromium, keeps pictures, and says what is wrong; see README.md.
import { readFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { Actions } from "./actions.mjs";
import { isExpected } from "./refusals.mjs";

const { values: args } = parseArgs({
  options: {
    base: { type: "string", default: "http://127.0.0.1:3000" },
    out: { type: "string", default: "pictures" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    console: { type: "boolean", default: false },
    email: { type: "string", default: "" },
    "password-file": { type: "string", default: "" },
    path: { type: "string", multiple: true, default: [] },
    done: { type: "string", default: "" },
  },
});

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const password = args["password-file"] ? (await readFile(args["password-file"], "utf8")).trim() : "";

const open = args.console ? ["/login"] : ["/", "/start", "/login", "/forgot-password", "/reset-password", "/verify-email", "/nothing"];
const behindLogin = args.console
  ? ["/", "/customers", "/boxes", "/dead-letters", "/audit", ...args.path]
  : ["/dashboard", "/dashboard/usage", "/dashboard/agent", "/dashboard/billing", "/dashboard/account", ...args.path];
const sizes = { desktop: { width: 1280, height: 900 }, phone: { width: 360, height: 740 } };

const complaints = [];
const complain = (where, what) => {
  complaints.push(`${where}: ${what}`);
  console.log(`  WRONG ${where}: ${what}`);
};

await mkdir(args.out, { recursive: true });
const actions = new Actions({ [args.console ? "console" : "site"]: args.base });
const browser = await chromium.launch({ executablePath: args.chromium, args: ["--no-sandbox"] });

/** Opens a page; loggedIn is whether it may be refused nothing. */
async function visit(context, path, where, size, loggedIn) {
  const page = await context.newPage();
  let loaded = 0;
  const cdp = await context.newCDPSession(page);
  await cdp.send("Network.enable");
  cdp.on("Network.loadingFinished", (e) => (loaded += e.encodedDataLength));
  page.on("console", (m) => {
    if (m.type() === "error" && (loggedIn || !isExpected(m, path))) complain(where, `${m.text()} ${m.location().url}`);
  });
  page.on("pageerror", (e) => complain(where, String(e)));
  const status = (await page.goto(args.base + path, { waitUntil: "load" })).status();
  if (status !== (path === "/nothing" ? 404 : 200)) complain(where, `its status is ${status}`);
  await page.waitForSelector("h1");
  await page.waitForFunction(() => !document.querySelector(".loading"), undefined, { timeout: 10_000 }).catch(() => complain(where, "it goes on loading"));
  await actions.look(page);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) complain(where, `it is ${wide} pixels wider than the screen`);
  const name = `${args.console ? "console" : "site"}${path.replaceAll("/", "_").replace(/\W+$/, "")}-${where.split(" ").slice(1).join("-")}`;
  await page.screenshot({ path: join(args.out, `${name}.png`), fullPage: true });
  if (size === "desktop") {
    // The page's policy lets no script of others in; axe comes by the debugger, which may.
    const expression = `${axe}; axe.run(document, { resultTypes: ["violations"] })`;
    const { result, exceptionDetails } = await cdp.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) complain(where, `axe did not run: ${exceptionDetails.text} ${exceptionDetails.exception?.description}`);
    const found = result.value ?? { violations: [] };
    for (const v of found.violations.filter((v) => ["serious", "critical"].includes(v.impact))) {
      complain(where, `axe: ${v.id}: ${v.nodes.map((n) => `${n.target.join(" ")} ${(n.any[0] ?? {}).message ?? ""}`).slice(0, 3).join("; ")}`);
    }
  }
  return { page, loaded };
}

async function looks(language, theme, size) {
  const context = await browser.newContext({ viewport: sizes[size], locale: language, colorScheme: theme, deviceScaleFactor: 1 });
  const of = (path) => `${path} ${language} ${size} ${theme}`;
  for (const path of open) {
    const { page, loaded } = await visit(context, path, of(path), size, false);
    if (path === open[0]) console.log(`${of(path)}: ${loaded} bytes were loaded`);
    if (path === open[0] && loaded > 200_000) complain(of(path), `a first visit loads ${loaded} bytes`);
    if ((await page.evaluate(() => document.documentElement.lang)) !== language) complain(of(path), "it is in another language");
    await page.close();
  }
  if (args.email) {
    const page = await context.newPage();
    await page.goto(`${args.base}/login`);
    await page.fill("input[name=email]", args.email);
    await page.fill("input[name=password]", password);
    await page.keyboard.press("Enter");
    await page.waitForSelector("nav.pages", { timeout: 10_000 });
    await page.close();
    for (const path of behindLogin) {
      const { page, loaded } = await visit(context, path, of(path), size, true);
      if (path.endsWith("/usage") && size === "desktop") {
        const cdp = await context.newCDPSession(page);
        // The renderer's own time: by the clock what else the machine does would be measured, too.
        await cdp.send("Performance.enable", { timeDomain: "threadTicks" });
        const script = async () => (await cdp.send("Performance.getMetrics")).metrics.find((m) => m.name === "ScriptDuration").value;
        let ms = Infinity;
        for (let n = 0; n < 3 && ms > 100; n++) {
          const was = await script();
          await page.reload({ waitUntil: "load" });
          await page.waitForSelector(".chart svg, .empty");
          const before = await page.locator(".chart rect").count();
          await page.locator("main select").selectOption("30");
          await page.waitForFunction((n) => document.querySelectorAll(".chart rect").length > Math.max(n, 60), before).catch(() => complain(of(path), "no chart of thirty days"));
          const now = await script();
          ms = Math.min(ms, Math.round(1000 * (now >= was ? now - was : now))); // it may have begun at 0 again
        }
        await page.screenshot({ path: join(args.out, `usage-of-30-days-${language}-${theme}.png`), fullPage: true });
        console.log(`${of(path)}: ${ms} ms of script, ${loaded} bytes`);
        if (ms > 100) complain(of(path), `it takes ${ms} ms of script`);
        await actions.click(page, "chart.table");
        await page.locator("details[open] table").waitFor();
      }
      await page.close();
    }
  }
  await context.close();
}

for (const language of ["pt-BR", "en"]) {
  for (const size of Object.keys(sizes)) await looks(language, size === "phone" ? "dark" : "light", size);
}
await looks("en", "dark", "desktop");
await browser.close();
for (const what of await actions.end(args.done, args.console ? "look-console" : "look")) complain("", what);
console.log(complaints.length === 0 ? "nothing is wrong" : `${complaints.length} things are wrong`);
process.exitCode = complaints.length === 0 ? 0 : 1;
