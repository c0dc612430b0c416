// Logging in, and back in: forms, and the links of mails.
import { useEffect, useState } from "preact/hooks";
import { useAction, useLoaded } from "../controls/ask";
import { Button, Form, Notice, TextInput } from "../controls/controls";
import { forgetQuery, go, Link, match, PageTitle } from "../router/router";
import routes from "./routes.json";
import { api, fieldText, Outcome, PublicPage, useText } from "./site";

/** Where to go on after logging in: to the page that was asked for, if it is one of the dashboard's. */
function wanted(path: string | null): string {
  return path !== null && path.startsWith(routes.overview) && match(routes, path) ? path : routes.overview;
}

export function Login() {
  const text = useText();
  const t = text.login;
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [why] = useState(() => new URLSearchParams(location.search).get("why"));
  const [next] = useState(() => wanted(new URLSearchParams(location.search).get("next")));
  useEffect(() => {
    if (why) forgetQuery();
  }, [why]);
  const signIn = useAction(async () => {
    await api.call("POST /v1/session", { body: { email: email.trim(), password } }, { keepSession: true });
    go(next, { replace: true });
  });
  const [session] = useLoaded(
    // Whoever is signed in already has nothing to do here; whoever was sent here is not.
    () => (why === null ? api.renew() : Promise.resolve(false)),
    [],
  );
  useEffect(() => {
    if (session.state === "there" && session.value) go(next, { replace: true });
  }, [session.state]);
  return (
    <PublicPage narrow>
      <PageTitle title={t.title} site={text.site} />
      {why === "ended" && <Notice>{t.ended}</Notice>}
      {why === "deleted" && <Notice kind="good">{t.deleted}</Notice>}
      <Form onSend={signIn.run}>
        <TextInput label={t.email} name="email" type="email" autocomplete="username" inputMode="email" value={email} onValue={setEmail} />
        <TextInput label={t.password} name="password" type="password" autocomplete="current-password" value={password} onValue={setPassword} />
        <Outcome action={signIn} wrong={signIn.problem?.kind === "unauthenticated" ? t.wrong : undefined} />
        <Button kind="primary" type="submit" busy={signIn.busy}>
          {t.send}
        </Button>
      </Form>
      <p>
        <Link to={routes.forgot}>{t.forgot}</Link>
      </p>
      <p>
        <Link to={routes.start}>{t.start}</Link>
      </p>
    </PublicPage>
  );
}

export function Forgot() {
  const text = useText();
  const t = text.forgot;
  const [email, setEmail] = useState("");
  const send = useAction(async () => {
    await api.call("POST /v1/password-reset", { body: { email: email.trim() } }, { keepSession: true });
  });
  return (
    <PublicPage narrow>
      <PageTitle title={t.title} site={text.site} />
      <p class="lead">{t.lead}</p>
      <Form onSend={send.run}>
        <TextInput label={t.email} name="email" type="email" autocomplete="username" inputMode="email" value={email} onValue={setEmail} error={fieldText(text, send, "email")} />
        <Outcome action={send} done={t.sent} />
        <Button kind="primary" type="submit" busy={send.busy}>
          {t.send}
        </Button>
      </Form>
      <p>
        <Link to={routes.login}>{t.back}</Link>
      </p>
    </PublicPage>
  );
}

/**
 * The secret of a mail's link. It is behind the #, so that no server is told of it by the address, and it
 * is taken out of the address at once, so that it is in no history either.
 */
function useMailedToken(): string {
  const [token] = useState(() => new URLSearchParams(location.hash.slice(1)).get("token") ?? "");
  useEffect(forgetQuery, []);
  return token;
}

export function Reset() {
  const text = useText();
  const t = text.reset;
  const token = useMailedToken();
  const [password, setPassword] = useState("");
  const set = useAction(async () => {
    await api.call("POST /v1/password-reset/confirm", { body: { token, new_password: password } }, { keepSession: true });
  });
  return (
    <PublicPage narrow>
      <PageTitle title={t.title} site={text.site} />
      {token === "" ? (
        <Notice kind="warning">
          {t.noLink} <Link to={routes.forgot}>{text.forgot.title}</Link>
        </Notice>
      ) : set.done ? (
        <Notice kind="good">
          {t.done} <Link to={routes.login}>{text.login.title}</Link>
        </Notice>
      ) : (
        <Form onSend={set.run}>
          <p class="lead">{t.lead}</p>
          <TextInput label={t.password} name="new-password" type="password" autocomplete="new-password" value={password} onValue={setPassword} error={fieldText(text, set, "new_password")} />
          <Outcome action={set} wrong={fieldText(text, set, "token")} />
          <Button kind="primary" type="submit" busy={set.busy}>
            {t.send}
          </Button>
        </Form>
      )}
    </PublicPage>
  );
}

export function Verify() {
  const text = useText();
  const t = text.verify;
  const token = useMailedToken();
  const confirm = useAction(async () => {
    await api.call("POST /v1/verify-email", { body: { token } }, { keepSession: true });
  });
  useEffect(() => {
    if (token !== "") confirm.run();
  }, [token]);
  return (
    <PublicPage narrow>
      <PageTitle title={t.title} site={text.site} />
      {token === "" ? <Notice kind="warning">{t.noLink}</Notice> : confirm.busy && <Notice>{t.working}</Notice>}
      <Outcome action={confirm} done={t.done} wrong={fieldText(text, confirm, "token")} />
      <p>
        <Link to={routes.overview}>{t.dashboard}</Link>
      </p>
    </PublicPage>
  );
}
