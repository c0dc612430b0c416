// What can be done on each page: every link, button, choice and fold that control/web/app/src has, with its name in
// both languages. While pages are used (watch) or looked at (look), whatever they show has to be in this list, and
// links have to lead where it says. At the end everything in it must have been used in both languages, but for links,
// which have to be seen there; flows.mjs and operate.mjs follow most of them:
//
//   node actions.mjs --done DIRECTORY
//
// says what has not, from the files that the other programs have written there.
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

/** en and pt are names: a text, or a regular expression if a part of it is data. */
const of = (kind) => (id, en, pt, more = {}) => ({ kind, id, names: { en, "pt-BR": pt }, ...more });
const button = of("button");
const choice = of("choice"); // a select, or a box to tick
const fold = of("fold"); // what opens more of a page
/** to is a path, or a regular expression for the whole address. */
const link = (id, en, pt, to) => of("link")(id, en, pt, { to });

const anyLanguage = (id, name, to, more = {}) => ({ ...link(id, name, name, to), ...more });
const frame = [
  link("skip", "Skip to content", "Ir para o conteúdo", /#content$/),
  choice("language", "Language", "Idioma", { top: true }),
  choice("theme", "Colours", "Cores", { top: true }),
  button("again", "Try again", "Tentar de novo"),
];
const form = [
  button("signup.send", "Make my account", "Criar minha conta"),
  link("signup.have", "I have an account", "Já tenho uma conta", "/login"),
  choice("signup.plan", "Plan", "Plano"),
];
const chat = [
  button("chat.form", "I would rather fill in a form", "Prefiro preencher um formulário"),
  link("chat.telegram", "Have this conversation on Telegram", "Ter esta conversa no Telegram", /\/openclaw_dev_bot\?start=(web|plan_\w+)$/),
  link("chat.make-bot", "Make a bot there", "Criar um bot lá", "/"),
  button("chat.send", "Send", "Enviar"),
  link("chat.pay", "To the payment", "Para o pagamento", /\/pay\/[\w-]+$/),
  button("chat.dashboard", "To your dashboard", "Para o seu painel"),
  button("chat.quick", /./, /./, { quick: true, css: ".chat ~ .row > button.plain" }), // the agent's own: control/onboarding names them
];
const behindLogin = [
  button("logout", "Log out", "Sair"),
  link("menu.overview", "Overview", "Visão geral", "/dashboard"),
  link("menu.usage", "Usage", "Uso", "/dashboard/usage"),
  link("menu.agent", "Agent", "Agente", "/dashboard/agent"),
  link("menu.billing", "Billing", "Pagamento", "/dashboard/billing"),
  link("menu.account", "Account", "Conta", "/dashboard/account"),
  link("banner.more", "See your choices", "Ver suas opções", "/dashboard/billing"),
  button("banner.mail-again", "Send it again", "Enviar de novo"),
];
const table = fold("chart.table", "As a table", "Como tabela");

const site = {
  everywhere: [...frame, anyLanguage("brand", "OpenClaw Cloud", "/")],
  "/": [
    link("front.login", "Log in", "Entrar", "/login"),
    link("front.start", "Get started", "Começar", "/start"),
    link("front.choose", /^Choose \w+$/, /^Escolher \w+$/, /\/start\?plan=\w+$/),
  ],
  "/start": [...form, ...chat],
  "/login": [
    button("login.send", "Log in", "Entrar"),
    link("login.forgot", "I forgot my password", "Esqueci minha senha", "/forgot-password"),
    link("login.start", "I have no account yet", "Ainda não tenho conta", "/start"),
  ],
  "/forgot-password": [button("forgot.send", "Send the link", "Enviar o link"), link("forgot.back", "Back to the login", "Voltar para a entrada", "/login")],
  "/reset-password": [
    button("reset.send", "Set the password", "Definir a senha"),
    link("reset.forgot", "Forgotten password", "Senha esquecida", "/forgot-password"),
    link("reset.login", "Log in", "Entrar", "/login"),
  ],
  "/verify-email": [link("verify.dashboard", "To your dashboard", "Para o seu painel", "/dashboard")],
  "/dashboard": [
    ...behindLogin,
    link("overview.go", "Do this", "Fazer isto", /\/dashboard\/(billing|agent)$/),
    link("overview.settings", "Settings", "Configurações", "/dashboard/agent"),
    link("overview.details", "Details", "Detalhes", "/dashboard/usage"),
  ],
  "/dashboard/usage": [...behindLogin, choice("usage.range", "Time", "Tempo"), table],
  "/dashboard/agent": [
    ...behindLogin,
    button("agent.token", "Save the token", "Salvar o token"),
    button("save", "Save", "Salvar"),
    choice("agent.language", "Language", "Idioma"),
    button("agent.zone", /^Use this device's: /, /^Usar o deste dispositivo: /),
    choice("agent.thinking", "Thinking", "Raciocínio"),
    button("agent.restart", "Restart", "Reiniciar"),
  ],
  "/dashboard/billing": [
    ...behindLogin,
    button("billing.buy", /^Buy \w+$/, /^Comprar \w+$/),
    link("billing.pay-it", "Open the invoice", "Abrir a fatura", /./),
    button("billing.change", /^Change to \w+$/, /^Mudar para \w+$/),
    button("billing.cancel", "Cancel the plan", "Cancelar o plano"),
    button("billing.keep", "Keep the plan", "Manter o plano"),
    button("billing.resume", "Take the cancellation back", "Desfazer o cancelamento"),
    button("cancel", "Cancel", "Cancelar"),
    button("save", "Save", "Salvar"),
    button("billing.portal", "Cards and receipts", "Cartões e recibos"),
    link("billing.invoice", "View", "Ver", /\/invoice\//),
  ],
  "/dashboard/account": [
    ...behindLogin,
    choice("account.language", "Language of our mails", "Idioma dos nossos e-mails"),
    button("save", "Save", "Salvar"),
    choice("account.end-keys", "Somebody else knew it: end all API keys, too", "Outra pessoa a conhecia: encerrar também todas as chaves de API"),
    button("account.password", "Change the password", "Mudar a senha"),
    button("account.make-key", "Make a key", "Criar uma chave"),
    button("account.copy-key", /^(Copy|Copied\.)$/, /^(Copiar|Copiado\.)$/),
    button("close", "Close", "Fechar"),
    button("account.end-key", "End it", "Encerrar"),
    button("account.export", "Download", "Baixar"),
    button("account.delete", "Delete the account", "Excluir a conta"),
    button("cancel", "Cancel", "Cancelar"),
  ],
  /** Any other path. */
  else: [link("nothing.home", "To the front page", "Para a página inicial", "/")],
};

const consoleMenu = [
  button("console.logout", "Log out", "Sair"),
  link("console.traffic", "Traffic", "Tráfego", "/"),
  link("console.customers", "Customers", "Clientes", "/customers"),
  link("console.boxes", "Boxes", "Boxes", "/boxes"),
  link("console.dead-letters", "Dead letters", "Eventos parados", "/dead-letters"),
  link("console.audit", "Audit", "Auditoria", "/audit"),
  button("console.cancel", "Cancel", "Cancelar"),
];
const more = button("console.more", "Show more", "Mostrar mais");
const customer = anyLanguage("console.customer", /./, /\/customers\/[^/]+$/, { css: 'a[href^="/customers/"]' });
const box = anyLanguage("console.box", /^b\w+$/, /\/boxes\/[^/]+$/, { css: 'a[href^="/boxes/"]' });
const entries = [fold("audit.detail", "More", "Mais"), customer];

const operations = {
  everywhere: frame.map((one) => ({ ...one, id: `console.${one.id}` })),
  "/": consoleMenu,
  "/login": [button("console.login", "Log in", "Entrar")],
  "/customers": [...consoleMenu, choice("customers.status", "Status", "Estado"), choice("customers.used", "Used of the present limit", "Usado do limite atual"), customer, more],
  "/customers/{id}": [
    ...consoleMenu,
    button("customer.suspend", "Suspend", "Suspender"),
    button("customer.resume", "Resume", "Reativar"),
    choice("customer.action", "Change", "Mudança"),
    button("customer.change", "Change the limit", "Mudar o limite"),
    { ...table, id: "console.table" },
    box,
    button("customer.revoke", "Revoke", "Revogar"),
    ...entries,
  ],
  "/boxes": [...consoleMenu, choice("boxes.state", "State", "Estado"), box, customer, more],
  "/boxes/{id}": [
    ...consoleMenu,
    customer,
    button("box.restart", "Restart", "Reiniciar"),
    button("box.suspend", "Suspend", "Suspender"),
    button("box.resume", "Resume", "Reativar"),
    button("box.rotate", "Replace its token", "Trocar o token dela"),
    button("box.destroy", "Destroy", "Destruir"),
    button("box.log", "Read the log", "Ler o log"),
  ],
  "/dead-letters": [
    ...consoleMenu,
    choice("dead-letters.all", "Also those that are done", "Também os resolvidos"),
    button("dead-letters.replay", "Replay", "Processar de novo"),
    button("dead-letters.drop", "Drop", "Descartar"),
    fold("dead-letters.content", "Content", "Conteúdo"),
    more,
  ],
  "/audit": [...consoleMenu, ...entries, more],
  else: consoleMenu,
};

const lists = { site, console: operations };
const languages = ["en", "pt-BR"];

/** The list of a page: what is on all pages, and what is on this one. */
function listOf(which, path) {
  const list = lists[which];
  const page = path in list ? path : which === "console" ? path.replace(/^\/(customers|boxes)\/[^/]+$/, "/$1/{id}") : path;
  // What is the page's own first: its names are narrower.
  return [...(list[page] ?? list.else), ...list.everywhere];
}

const fits = (wanted, text) => (wanted instanceof RegExp ? wanted.test(text) : wanted === text);

/** Runs in the page: what it shows that something can be done with. */
function shownHere() {
  const kinds = { A: "link", BUTTON: "button", SELECT: "choice", INPUT: "choice", SUMMARY: "fold" };
  const text = (s) => s.replace(/\s+/g, " ").trim();
  return [...document.querySelectorAll("a[href], button, [role=button], select, input[type=checkbox], summary")]
    .filter((e) => e.checkVisibility())
    .map((e) => ({
      kind: kinds[e.tagName] ?? "button",
      name: text(e.getAttribute("aria-label") ?? e.labels?.[0]?.textContent ?? e.textContent ?? "") || e.outerHTML.slice(0, 100),
      href: e.href ?? "",
      quick: e.matches(".chat ~ .row > button.plain"),
      origin: location.origin,
      path: location.pathname,
      language: document.documentElement.lang,
    }));
}

/** What pages show, and what was done on them. addresses are those of the site and, as console, of the console. */
export class Actions {
  #which;
  #wrong = new Set();
  #done = new Set();

  constructor(addresses) {
    this.#which = new Map(Object.entries(addresses).map(([which, base]) => [new URL(base).origin, which]));
  }

  #saw(list) {
    for (const one of list) {
      const which = this.#which.get(one.origin);
      if (which === undefined) continue; // Stripe's or Telegram's
      const where = `${which} ${one.path} in ${one.language}`;
      const same = listOf(which, one.path).filter((e) => e.kind === one.kind && (e.quick ?? one.quick) === one.quick && fits(e.names[one.language], one.name));
      const found = same.find((e) => e.kind !== "link" || (e.to instanceof RegExp ? e.to.test(one.href) : new URL(one.href).pathname === e.to));
      if (same.length === 0) this.#wrong.add(`${where} shows the ${one.kind} "${one.name}", which actions.mjs does not name`);
      else if (!found) this.#wrong.add(`${where}: the link "${one.name}" leads to ${one.href}, and not to ${same[0].to}`);
      else if (one.kind === "link") this.did(found.id, one.language);
    }
  }

  did(id, language) {
    this.#done.add(`${id} ${language}`);
  }

  /** Looks at a page as it is now. */
  async look(page) {
    this.#saw(await page.evaluate(shownHere));
  }

  /** Looks at all pages of a context, whenever they have changed. */
  async watch(context) {
    await context.exposeBinding("openclawShown", (_, list) => this.#saw(list));
    await context.addInitScript(`(() => {
      const shownHere = ${shownHere};
      const told = new Set();
      let timer;
      const look = () => {
        timer = undefined;
        const fresh = shownHere().filter((one) => {
          const key = JSON.stringify(one);
          return !told.has(key) && told.add(key);
        });
        if (fresh.length > 0) openclawShown(fresh);
      };
      // Not at once: an address and a language are changed a moment apart from what is seen.
      new MutationObserver(() => { timer ??= setTimeout(look, 50); }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
    })()`);
  }

  /** Where something of the list is on a page, or in a part of it such as a dialog. */
  async find(page, id, part = page) {
    const { origin, pathname } = new URL(page.url());
    const which = this.#which.get(origin);
    const entry = which && listOf(which, pathname).find((e) => e.id === id);
    if (!entry) throw new Error(`${id} is not among what can be done at ${page.url()}`);
    const language = await page.evaluate(() => document.documentElement.lang);
    const name = entry.names[language];
    const exact = name instanceof RegExp ? name : new RegExp(`^\\s*${name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}\\s*$`);
    const css = entry.css ?? { link: "a[href]", button: "button", fold: "summary" }[entry.kind];
    // Of two choices with one name, that of the language, one is at the top and one is an agent's.
    const labelled = part === page ? page.locator(entry.top ? ".preferences" : "main") : part;
    const at = css ? part.locator(css).filter({ hasText: exact, visible: true }) : labelled.getByLabel(name, { exact: true });
    return { at: at.first(), language };
  }

  async click(page, id, part) {
    const { at, language } = await this.find(page, id, part);
    await at.click();
    this.did(id, language);
  }

  /** Chooses of a select, or ticks a box. */
  async choose(page, id, value, part) {
    const { at, language } = await this.find(page, id, part);
    if (typeof value === "boolean") await at.setChecked(value);
    else await at.selectOption(value);
    this.did(id, language);
  }

  /** Keeps what was done in a file of directory, if there is one, and returns what is wrong. */
  async end(directory, name) {
    if (directory) {
      await mkdir(directory, { recursive: true });
      await writeFile(join(directory, `${name}.json`), JSON.stringify([...this.#done].sort(), undefined, 1));
    }
    return [...this.#wrong];
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values: args } = parseArgs({ options: { done: { type: "string", default: "" } } });
  const done = new Set();
  for (const file of (await readdir(args.done)).filter((f) => f.endsWith(".json"))) {
    for (const one of JSON.parse(await readFile(join(args.done, file), "utf8"))) done.add(one);
  }
  const ids = new Set(Object.values(lists).flatMap((list) => Object.values(list).flat()).map((e) => e.id));
  const missing = [...ids].flatMap((id) => languages.map((language) => `${id} ${language}`)).filter((one) => !done.has(one));
  for (const one of missing) console.log(`WRONG nobody has done: ${one}`);
  console.log(`${ids.size} things can be done on the pages, each in ${languages.length} languages; ${missing.length} of these were not`);
  process.exitCode = missing.length === 0 ? 0 : 1;
}
