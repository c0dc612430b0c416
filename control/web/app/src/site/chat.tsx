// The conversation by which somebody becomes a customer. What is said in it the onboarding agent decides;
// without one there is a form.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { listen } from "../api/live";
import { useAction, useLoaded } from "../controls/ask";
import { Button, Form, Loading } from "../controls/controls";
import { useLanguage } from "../language/language";
import { go, Link, PageTitle } from "../router/router";
import { type Conversation, conversation, conversationEvents, withoutTokens } from "./conversation";
import routes from "./routes.json";
import { SignUp } from "./signup";
import { api, Outcome, PublicPage, useText } from "./site";
import { Steps } from "./steps";

export function Start() {
  const text = useText();
  const { language } = useLanguage();
  const [form, setForm] = useState(false);
  const [begun] = useLoaded(async (signal) => {
    const options = { signal, keepSession: true };
    try {
      return await conversation.call("GET /onboarding/v1/conversation", {}, options);
    } catch (err) {
      if (!(err instanceof Error && "status" in err && err.status === 404)) throw err;
    }
    const tier = new URLSearchParams(location.search).get("plan");
    const body = { language, time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone, ...(tier ? { tier } : {}) };
    return conversation.call("POST /onboarding/v1/conversation", { body }, options);
  }, []);
  // Whoever cannot have a conversation is not kept waiting for one.
  if (form || begun.state === "failed") return <SignUp />;
  return (
    <PublicPage narrow>
      {begun.state === "loading" ? (
        <>
          <PageTitle title={text.start.title} site={text.site} />
          <Loading text={text.loading} />
        </>
      ) : (
        <Chat first={begun.value}>
          <p class="row">
            <Button onClick={() => setForm(true)}>{text.chat.form}</Button> <Link to={routes.login}>{text.start.have}</Link>
          </p>
          <OnTelegram plan={new URLSearchParams(location.search).get("plan") ?? ""} />
        </Chat>
      )}
    </PublicPage>
  );
}

// Whoever is on Telegram anyway may have the conversation there.
function OnTelegram({ plan }: { plan: string }) {
  const t = useText().chat;
  const [installation] = useLoaded((signal) => api.call("GET /v1/installation", {}, { signal, keepSession: true }), []);
  const bot = installation.state === "there" ? installation.value.telegram_bot : undefined;
  if (!bot) return null;
  const simulated = new URL(bot).hostname !== "t.me";
  return (
    <p class="hint">
      <a href={`${bot}?start=${plan === "" ? "web" : `plan_${plan}`}`}>{t.telegram}</a>
      {simulated && (
        <>
          {" "}
          {t.simulated} <a href={new URL("/", bot).href}>{t.makeBot}</a>
        </>
      )}
    </p>
  );
}

/** In these no question is open any more, and there is no other way to become a customer. */
const settled = new Set<Conversation["state"]>(["awaiting_payment", "provisioning", "complete", "failed", "abandoned"]);

/** children are other ways to become a customer, while that is not done. */
function Chat({ first, children }: { first: Conversation; children: ComponentChildren }) {
  const text = useText();
  const t = text.chat;
  const [now, setNow] = useState(first);
  const [draft, setDraft] = useState("");
  const [sent, setSent] = useState("");
  const end = useRef<HTMLDivElement>(null);
  const say = useAction(async (body: { text: string } | { choice: string }, shown: string) => {
    setSent(withoutTokens(shown));
    setDraft("");
    try {
      setNow(await conversation.call("POST /onboarding/v1/conversation/messages", { body }, { keepSession: true }));
    } finally {
      setSent("");
    }
  });
  const enter = useAction(async () => {
    await conversation.call("POST /onboarding/v1/conversation/session", {}, { keepSession: true });
    go(routes.overview, { replace: true });
  });
  useEffect(
    () =>
      now.final // nothing follows
        ? undefined
        : listen(conversationEvents, {
            on: { conversation: (data) => setNow(data as Conversation) },
            onConnection: () => {},
            renew: () => Promise.resolve(true), // it is known by its own cookie
          }),
    [now.final],
  );
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [now.history.length, sent]);
  const write = () => {
    const written = draft.trim();
    if (written !== "") say.run({ text: written }, written);
  };
  const title = now.state === "provisioning" ? text.start.making : now.state === "complete" ? text.start.ready : text.start.title;
  return (
    <>
      <PageTitle title={title} site={text.site} />
      <div class="chat" role="log" tabIndex={0} aria-label={text.start.title}>
        {now.history.map((turn, i) => (
          <p key={i} class={turn.ours ? "ours" : "theirs"}>
            <span class="hidden">{turn.ours ? t.agent : t.you}: </span>
            {turn.text}
          </p>
        ))}
        {sent !== "" && <p class="theirs">{sent}</p>}
        {say.busy && <p class="ours">…</p>}
        {now.progress && now.progress.length > 0 && <Steps steps={now.progress.map((p) => ({ ...p, error: p.trouble ?? "" }))} over={now.final} />}
        <div ref={end} />
      </div>
      <Outcome action={say} />
      <Outcome action={enter} />
      <div class="row">
        {now.reply.pay_url && (
          <a class="button primary" href={now.reply.pay_url}>
            {t.pay}
          </a>
        )}
        {(now.reply.quick ?? []).map((q) => (
          <Button key={q.id} onClick={() => say.run({ choice: q.id }, q.label)} disabled={say.busy}>
            {q.label}
          </Button>
        ))}
        {now.state === "complete" && (
          <Button kind="primary" onClick={enter.run} busy={enter.busy}>
            {text.verify.dashboard}
          </Button>
        )}
      </div>
      {!now.final && (
        <Form onSend={write}>
          <div class="row write">
            <input
              aria-label={t.write}
              placeholder={t.write}
              name="message"
              autocomplete="off"
              maxLength={2000}
              value={draft}
              onInput={(e) => setDraft(e.currentTarget.value)}
            />
            <Button kind="primary" type="submit" busy={say.busy} disabled={draft.trim() === ""}>
              {t.send}
            </Button>
          </div>
        </Form>
      )}
      {!settled.has(now.state) && children}
    </>
  );
}
