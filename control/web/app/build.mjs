// Builds the pages into ../dist, which the Go program is built with: one directory for each site, with
// index.html, routes.json, and files with a hash in their names below assets/, all of them compressed
// too. "--test" builds and runs the tests instead.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "..", "dist");

const common = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
};

async function filesBelow(dir) {
  const entries = await readdir(dir, { withFileTypes: true, recursive: true });
  return entries.filter((e) => e.isFile()).map((e) => join(e.parentPath ?? e.path, e.name));
}

async function buildSite(name) {
  const out = join(dist, name);
  await rm(out, { recursive: true, force: true });
  const entry = `src/${name}/main.tsx`;
  const { metafile } = await build({
    ...common,
    entryPoints: [entry],
    outdir: out,
    entryNames: "assets/[name]-[hash]",
    chunkNames: "assets/[name]-[hash]",
    splitting: true,
    minify: true,
    metafile: true,
  });
  const [script, made] = Object.entries(metafile.outputs).find(([, o]) => o.entryPoint === entry);
  const address = (file) => "/" + relative(out, join(here, file)).replaceAll("\\", "/");
  const head = [
    `<link rel="stylesheet" href="${address(made.cssBundle)}">`,
    // What the first script imports at once is asked for together with it.
    ...made.imports.filter((i) => i.kind === "import-statement").map((i) => `<link rel="modulepreload" href="${address(i.path)}">`),
    `<script type="module" src="${address(script)}"></script>`,
  ];
  const page = await readFile(join(here, `${name}.html`), "utf8");
  if (!page.includes("<!-- head -->")) throw new Error(`${name}.html has no place for its head`);
  await writeFile(join(out, "index.html"), page.replace("<!-- head -->", head.join("\n")));
  await cp(join(here, `src/${name}/routes.json`), join(out, "routes.json"));
  await cp(join(here, "public"), out, { recursive: true });
  // The licence of what is built in wants to be with it.
  await cp(join(here, "node_modules/preact/LICENSE"), join(out, "licenses.txt"));
  let sum = 0;
  for (const file of await filesBelow(out)) {
    const plain = await readFile(file);
    const brotli = brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } });
    const gzip = gzipSync(plain, { level: 9 });
    if (brotli.length < plain.length) await writeFile(file + ".br", brotli);
    if (gzip.length < plain.length) await writeFile(file + ".gz", gzip);
    if (/\.(js|css|html)$/.test(file)) sum += Math.min(plain.length, brotli.length);
  }
  console.log(`${name}: ${sum} bytes of scripts, styles and page, compressed`);
}

async function test() {
  const tests = (await filesBelow(join(here, "src"))).filter((f) => f.endsWith(".test.ts"));
  const out = join(here, "node_modules/.cache/tests");
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  await build({ ...common, entryPoints: tests, outdir: out, platform: "node", outExtension: { ".js": ".mjs" } });
  const run = spawnSync(process.execPath, ["--test", ...(await filesBelow(out))], { stdio: "inherit", env: { ...process.env, TZ: "America/Sao_Paulo" } });
  process.exitCode = run.status ?? 1;
}

if (process.argv.includes("--test")) {
  await test();
} else {
  await buildSite("site");
  await buildSite("console");
}
