// The settings of an agent: who may write to it, and how it works.
import { useState } from "preact/hooks";
import type { BoxDetail, TierView } from "../../api/customers.gen";
import { useAction, useLoaded } from "../../controls/ask";
import { Button, Card, Empty, Field, Form, Select, TextInput } from "../../controls/controls";
import type { Language } from "../../language/language";
import { PageTitle } from "../../router/router";
import { api, fieldText, Outcome, useText } from "../site";
import { BoxStatus } from "./box";
import { useAccount, useBoxes, useLive } from "./live";

export function Agent() {
  const text = useText();
  const account = useAccount();
  const boxes = useBoxes();
  const [tiers] = useLoaded((signal) => api.call("GET /v1/tiers", {}, { signal }), []);
  const tier = tiers.state === "there" ? tiers.value.items.find((one) => one.name === account.tier) : undefined;
  return (
    <>
      <PageTitle title={text.agent.title} site={text.site} />
      {boxes.length === 0 && <Empty>{text.overview.noAgent}</Empty>}
      {boxes.map((box, i) => (
        <section key={box.id} class="box" aria-label={boxes.length > 1 ? text.overview.agents(i + 1) : text.overview.agent}>
          {boxes.length > 1 && <h2>{text.overview.agents(i + 1)}</h2>}
          <Card title={text.overview.agent}>
            <BoxStatus box={box} />
          </Card>
          <Telegram box={box} tier={tier} />
          <Behaviour box={box} tier={tier} />
          <Restart box={box} />
        </section>
      ))}
    </>
  );
}

/** Telegram's numbers of people, as they were written; undefined if something is no number. */
export function numbersOf(s: string): number[] | undefined {
  const parts = s.split(/[\s,;]+/).filter((p) => p !== "");
  const numbers = parts.map(Number);
  return numbers.every((n, i) => /^\d+$/.test(parts[i] ?? "") && Number.isSafeInteger(n) && n > 0) ? numbers : undefined;
}

function Telegram({ box, tier }: { box: BoxDetail; tier: TierView | undefined }) {
  const text = useText();
  const t = text.agent;
  const { changedBox } = useLive();
  const [token, setToken] = useState("");
  const [users, setUsers] = useState(() => (box.settings.telegram_users ?? []).join(", "));
  const path = { id: box.id };
  const saveToken = useAction(async () => {
    changedBox(await api.call("PUT /v1/me/boxes/{id}/telegram-token", { path, body: { token: token.trim() } }));
    setToken(""); // it is a secret, and has no business in a page any more
  });
  const saveUsers = useAction(async () => {
    const telegram_users = numbersOf(users) ?? [];
    changedBox(await api.call("PATCH /v1/me/boxes/{id}/settings", { path, body: { telegram_users } }));
  });
  const noNumbers = numbersOf(users) === undefined;
  return (
    <Card title={t.telegram}>
      <Form onSend={saveToken.run}>
        {box.has_telegram_token && <p>{t.tokenHave}</p>}
        <TextInput
          label={t.token}
          hint={t.tokenHint}
          name={`telegram-token-${box.id}`}
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={token}
          onValue={setToken}
          error={fieldText(text, saveToken, "token", "telegram_token")}
        />
        <Outcome action={saveToken} done={text.saved} />
        <Button kind={box.has_telegram_token ? "plain" : "primary"} type="submit" busy={saveToken.busy} disabled={token.trim() === ""}>
          {t.tokenSave}
        </Button>
      </Form>
      <Form onSend={saveUsers.run}>
        <TextInput
          label={t.users}
          hint={t.usersHint(tier?.telegram_users ?? 1)}
          name={`telegram-users-${box.id}`}
          inputMode="numeric"
          autocomplete="off"
          value={users}
          onValue={setUsers}
          error={noNumbers ? text.fields.telegram_users : fieldText(text, saveUsers, "telegram_users")}
        />
        <Outcome action={saveUsers} done={text.saved} />
        <Button kind="primary" type="submit" busy={saveUsers.busy} disabled={noNumbers}>
          {text.save}
        </Button>
      </Form>
    </Card>
  );
}

function Behaviour({ box, tier }: { box: BoxDetail; tier: TierView | undefined }) {
  const text = useText();
  const t = text.agent;
  const { changedBox } = useLive();
  const [language, setLanguage] = useState<string>(box.settings.language ?? "");
  const [zone, setZone] = useState(box.settings.time_zone ?? "");
  const [thinking, setThinking] = useState(box.settings.thinking ?? "");
  const [prompt, setPrompt] = useState(box.settings.system_prompt ?? "");
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const may = tier?.custom_system_prompt ?? prompt !== "";
  const save = useAction(async () => {
    const body = {
      language: language as "" | Language, // "" is the account's
      time_zone: zone.trim(),
      thinking,
      ...(may ? { system_prompt: prompt.trim() } : {}),
    };
    changedBox(await api.call("PATCH /v1/me/boxes/{id}/settings", { path: { id: box.id }, body }));
  });
  const levels = Object.entries(text.landing.thinking);
  return (
    <Card title={t.behaviour}>
      <Form onSend={save.run}>
        <Select
          label={t.language}
          value={language}
          onValue={setLanguage}
          options={[
            ["", t.languageOwn],
            ["pt-BR", "Português"],
            ["en", "English"],
          ]}
          error={fieldText(text, save, "language")}
        />
        <TextInput label={t.zone} hint={t.zoneHint} name={`zone-${box.id}`} autocomplete="off" spellcheck={false} value={zone} onValue={setZone} error={fieldText(text, save, "time_zone")} />
        {here && here !== zone && <Button onClick={() => setZone(here)}>{t.zoneHere(here)}</Button>}
        <Select label={t.thinking} value={thinking} onValue={setThinking} options={[["", t.thinkingPlan], ...levels]} error={fieldText(text, save, "thinking")} />
        {may ? (
          <Field label={t.instructions} hint={t.instructionsHint} error={fieldText(text, save, "system_prompt")}>
            {(attributes) => <textarea {...attributes} rows={8} maxLength={8000} value={prompt} onInput={(e) => setPrompt(e.currentTarget.value)} />}
          </Field>
        ) : (
          <>
            <h3>{t.instructions}</h3>
            <p class="hint">{t.instructionsNot}</p>
          </>
        )}
        <p class="hint">{t.later}</p>
        <Outcome action={save} done={text.saved} />
        <Button kind="primary" type="submit" busy={save.busy}>
          {text.save}
        </Button>
      </Form>
    </Card>
  );
}

function Restart({ box }: { box: BoxDetail }) {
  const text = useText();
  const { changedBox } = useLive();
  const restart = useAction(async () => {
    changedBox(await api.call("POST /v1/me/boxes/{id}/restart", { path: { id: box.id } }));
  });
  return (
    <Card title={text.agent.restart}>
      <p>{text.agent.restartText}</p>
      <Outcome action={restart} done={text.box.restarting} />
      <Button onClick={restart.run} busy={restart.busy} disabled={box.wants !== "run"}>
        {text.box.restart}
      </Button>
    </Card>
  );
}
