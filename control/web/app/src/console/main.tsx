// The operations console: on a listener that is not public, for operators by their role.
import { type ComponentChildren, render } from "preact";
import { useEffect, useState } from "preact/hooks";
import "../style/style.css";
import { useAction, useLoaded } from "../controls/ask";
import { Button, Form, Loading, Notice, TextInput } from "../controls/controls";
import { Preferences } from "../controls/theme";
import { LanguageProvider, useLanguage } from "../language/language";
import { forgetQuery, go, Link, match, PageTitle, usePath } from "../router/router";
import { AuditPage } from "./audit";
import { BoxPage, Boxes } from "./boxes";
import { api, Outcome, type Role, RoleContext, useText } from "./console";
import { CustomerPage } from "./customer";
import { Customers } from "./customers";
import { DeadLetters } from "./deadletters";
import routes from "./routes.json";
import { Traffic } from "./traffic";

const menu = ["traffic", "customers", "boxes", "deadLetters", "audit"] as const;

/** Where to go on after logging in: to the page that was asked for, if there is one. */
function wanted(path: string | null): string {
  return path !== null && /^\/(?!\/)/.test(path) && path !== routes.login && match(routes, path) ? path : routes.traffic;
}

function Top({ children }: { children?: ComponentChildren }) {
  const text = useText();
  const { language, setLanguage } = useLanguage();
  return (
    <>
      <a class="skip" href="#content">
        {text.skip}
      </a>
      <header class="top">
        <strong>{text.site}</strong>
        <div class="top-end">
          <Preferences text={text.preferences} language={language} onLanguage={setLanguage} />
          {children}
        </div>
      </header>
    </>
  );
}

function Login() {
  const text = useText();
  const t = text.login;
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [ended] = useState(() => new URLSearchParams(location.search).get("why") === "ended");
  const [next] = useState(() => wanted(new URLSearchParams(location.search).get("next")));
  useEffect(forgetQuery, []);
  const signIn = useAction(async () => {
    await api.call("POST /v1/session", { body: { email: email.trim(), password } }, { keepSession: true });
    go(next, { replace: true });
  });
  const wrong = signIn.problem?.kind === "unauthenticated";
  return (
    <>
      <Top />
      <main id="content" tabIndex={-1} class="narrow">
        <PageTitle title={t.title} site={text.site} />
        {ended && <Notice>{t.ended}</Notice>}
        <Form onSend={signIn.run}>
          <TextInput label={t.email} name="email" type="email" autocomplete="username" inputMode="email" value={email} onValue={setEmail} />
          <TextInput label={t.password} name="password" type="password" autocomplete="current-password" value={password} onValue={setPassword} />
          {wrong ? <Notice kind="trouble">{t.wrong}</Notice> : <Outcome action={signIn} />}
          <Button kind="primary" type="submit" busy={signIn.busy}>
            {t.send}
          </Button>
        </Form>
      </main>
    </>
  );
}

function Console({ path }: { path: string }) {
  const text = useText();
  const [session] = useLoaded((signal) => api.call("GET /v1/session", {}, { signal }), []);
  const logout = useAction(async () => {
    await api.call("DELETE /v1/session", {}, { keepSession: true });
    go(routes.login, { replace: true });
  });
  const found = match(routes, path);
  const page = () => {
    const id = found?.path["id"] ?? "";
    switch (found?.name) {
      case "traffic":
        return <Traffic />;
      case "customers":
        return <Customers />;
      case "customer":
        return <CustomerPage key={id} id={id} />;
      case "boxes":
        return <Boxes />;
      case "box":
        return <BoxPage key={id} id={id} />;
      case "deadLetters":
        return <DeadLetters />;
      case "audit":
        return <AuditPage />;
      default:
        return <PageTitle title={text.notFound} site={text.site} />;
    }
  };
  if (session.state === "loading") return <Loading text={text.loading} />;
  if (session.state === "failed") {
    return (
      <>
        <Top />
        <main id="content" tabIndex={-1} class="narrow">
          <Notice kind="trouble">{text.problems.unreachable}</Notice>
          <Button onClick={() => location.reload()}>{text.again}</Button>
        </main>
      </>
    );
  }
  const role: Role = session.value.role ?? "support";
  return (
    <RoleContext.Provider value={role}>
      <Top>
        <span class="hint">{text.roles[role]}</span>
        <Button onClick={logout.run} busy={logout.busy}>
          {text.login.logout}
        </Button>
      </Top>
      <nav class="pages" aria-label={text.menu}>
        <ul>
          {menu.filter((name) => name !== "deadLetters" || role !== "support").map((name) => (
            <li key={name}>
              <Link to={routes[name]} current={found?.name === name}>
                {text.pages[name]}
              </Link>
            </li>
          ))}
        </ul>
      </nav>
      <main id="content" tabIndex={-1}>
        <Outcome action={logout} />
        {page()}
      </main>
    </RoleContext.Provider>
  );
}

function App() {
  const path = usePath();
  return path === routes.login ? <Login /> : <Console path={path} />;
}

api.onSignedOut = () => {
  if (location.pathname !== routes.login) go(`${routes.login}?why=ended&next=${encodeURIComponent(location.pathname)}`, { replace: true });
};

const root = document.getElementById("app");
if (!root) throw new Error("BUG: the page has no place for what it shows");
render(
  <LanguageProvider>
    <App />
  </LanguageProvider>,
  root,
);
