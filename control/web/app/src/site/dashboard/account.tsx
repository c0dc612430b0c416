// The account itself: name, password, keys of programs, and all data, to take along or to delete.
import { useState } from "preact/hooks";
import { useAction, useLoaded } from "../../controls/ask";
import { Button, Card, Dialog, Empty, Failure, Form, Loading, Notice, Select, Table, TextInput } from "../../controls/controls";
import { type Language, useLanguage } from "../../language/language";
import { go, PageTitle } from "../../router/router";
import routes from "../routes.json";
import { api, fieldText, Outcome, problemText, useText } from "../site";
import { useAccount, useLive } from "./live";

export function Account() {
  const text = useText();
  return (
    <>
      <PageTitle title={text.account.title} site={text.site} />
      <Profile />
      <Password />
      <Keys />
      <Data />
    </>
  );
}

function Profile() {
  const text = useText();
  const t = text.account;
  const account = useAccount();
  const { changedAccount } = useLive();
  const spoken = useLanguage();
  const [name, setName] = useState(account.name);
  const [language, setLanguage] = useState<string>(account.language);
  const save = useAction(async () => {
    changedAccount(await api.call("PATCH /v1/me", { body: { name: name.trim(), language: language as Language } }));
    spoken.setLanguage(language as Language);
  });
  return (
    <Card title={t.profile}>
      <Form onSend={save.run}>
        <p>
          {t.email}: {account.email ?? text.none}
        </p>
        <TextInput label={t.name} name="name" autocomplete="name" value={name} onValue={setName} error={fieldText(text, save, "name")} />
        <Select
          label={t.language}
          value={language}
          onValue={setLanguage}
          options={[
            ["pt-BR", "Português"],
            ["en", "English"],
          ]}
        />
        <Outcome action={save} done={text.saved} />
        <Button kind="primary" type="submit" busy={save.busy}>
          {text.save}
        </Button>
      </Form>
    </Card>
  );
}

function Password() {
  const text = useText();
  const t = text.account;
  const account = useAccount();
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  const [revoke, setRevoke] = useState(false);
  const change = useAction(async () => {
    await api.call("POST /v1/me/password", { body: { current_password: current, new_password: next, revoke_api_keys: revoke } });
    setCurrent("");
    setNext("");
  });
  return (
    <Card title={t.password}>
      <Form onSend={change.run}>
        {/* Password managers want to know whose it is. */}
        <input type="text" class="hidden" name="username" autocomplete="username" value={account.email ?? ""} readOnly tabIndex={-1} aria-hidden="true" />
        <TextInput label={t.current} name="current" type="password" autocomplete="current-password" value={current} onValue={setCurrent} error={fieldText(text, change, "current_password")} />
        <TextInput label={t.next} hint={text.start.passwordHint} name="next" type="password" autocomplete="new-password" value={next} onValue={setNext} error={fieldText(text, change, "new_password")} />
        <label class="check">
          <input type="checkbox" checked={revoke} onChange={(e) => setRevoke(e.currentTarget.checked)} /> {t.revokeKeys}
        </label>
        <Outcome action={change} done={t.changed} />
        <Button kind="primary" type="submit" busy={change.busy} disabled={current === "" || next === ""}>
          {t.change}
        </Button>
      </Form>
    </Card>
  );
}

function Keys() {
  const text = useText();
  const t = text.account;
  const { formats } = useLanguage();
  const [list, again] = useLoaded((signal) => api.call("GET /v1/me/api-keys", {}, { signal }), []);
  const [name, setName] = useState("");
  const [made, setMade] = useState("");
  const [copied, setCopied] = useState(false);
  const make = useAction(async () => {
    const { key } = await api.call("POST /v1/me/api-keys", { body: { name: name.trim() } });
    setMade(key ?? "");
    setCopied(false);
    setName("");
    again();
  });
  const revoke = useAction(async (id: string) => {
    await api.call("DELETE /v1/me/api-keys/{id}", { path: { id } });
    again();
  });
  return (
    <Card title={t.keys}>
      <p>{t.keysText}</p>
      {list.state === "loading" && <Loading text={text.loading} />}
      {list.state === "failed" && <Failure text={problemText(text, list.problem)} again={text.again} onAgain={again} />}
      {list.state === "there" && list.value.items.length === 0 && <Empty>{t.noKeys}</Empty>}
      {list.state === "there" && list.value.items.length > 0 && (
        <Table caption={t.keys} head={[t.keyList.name, t.keyList.hint, t.keyList.made, t.keyList.used, t.keyList.revoke]}>
          {list.value.items.map((key) => (
            <tr key={key.id}>
              <th scope="row">{key.name}</th>
              <td>
                <code>…{key.hint}</code>
              </td>
              <td>{formats.date(key.created_at)}</td>
              <td>{key.last_used_at ? formats.time(key.last_used_at) : t.keyList.never}</td>
              <td>
                {key.revoked_at ? (
                  t.keyList.ended
                ) : (
                  <Button onClick={() => revoke.run(key.id)} busy={revoke.busy}>
                    {t.keyList.revoke}
                  </Button>
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
      <Outcome action={revoke} />
      {made !== "" && (
        <Notice kind="good">
          {t.keyOnce} <code class="secret">{made}</code>{" "}
          <Button
            onClick={() => {
              navigator.clipboard.writeText(made).then(
                () => setCopied(true),
                () => setCopied(false), // it can be marked and copied by hand
              );
            }}
          >
            {copied ? text.copied : text.copy}
          </Button>{" "}
          <Button onClick={() => setMade("")}>{text.close}</Button>
        </Notice>
      )}
      <Form onSend={make.run}>
        <TextInput label={t.keyName} name="key-name" autocomplete="off" maxLength={100} value={name} onValue={setName} error={fieldText(text, make, "name")} />
        <Outcome action={make} />
        <Button type="submit" busy={make.busy} disabled={name.trim() === ""}>
          {t.keyMake}
        </Button>
      </Form>
    </Card>
  );
}

function Data() {
  const text = useText();
  const t = text.account;
  const account = useAccount();
  const [asked, setAsked] = useState(false);
  const [typed, setTyped] = useState("");
  const name = account.email || account.name;
  const take = useAction(async () => {
    const address = URL.createObjectURL(await api.file("GET /v1/me/export"));
    const link = document.createElement("a");
    link.href = address;
    link.download = "openclaw-export.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
  const erase = useAction(async () => {
    await api.call("DELETE /v1/me");
    go(`${routes.login}?why=deleted`, { replace: true });
  });
  return (
    <Card title={t.data}>
      <p>{t.exportText}</p>
      <Outcome action={take} />
      <p>
        <Button onClick={take.run} busy={take.busy}>
          {t.export}
        </Button>
      </p>
      <h3>{t.delete}</h3>
      <p>{t.deleteText}</p>
      <Button kind="danger" onClick={() => setAsked(true)}>
        {t.delete}
      </Button>
      {asked && (
        <Dialog title={t.deleteSure} onClose={() => setAsked(false)}>
          <Form onSend={erase.run}>
            <p>{t.deleteText}</p>
            <TextInput label={t.deleteType(name)} name="confirm" autocomplete="off" spellcheck={false} value={typed} onValue={setTyped} />
            <Outcome action={erase} />
            <div class="row">
              <Button onClick={() => setAsked(false)}>{text.cancel}</Button>
              <Button kind="danger" type="submit" busy={erase.busy} disabled={typed.trim() !== name}>
                {t.delete}
              </Button>
            </div>
          </Form>
        </Dialog>
      )}
    </Card>
  );
}
