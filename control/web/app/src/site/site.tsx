// What all pages of customers share: the api, their texts, how trouble is told.
import type { ComponentChildren } from "preact";
import type { Routes } from "../api/customers.gen";
import { Client, type ProblemError } from "../api/client";
import { type Action, useLoaded } from "../controls/ask";
import { Notice } from "../controls/controls";
import { Preferences } from "../controls/theme";
import { type Catalogue, useLanguage } from "../language/language";
import { Link } from "../router/router";
import routes from "./routes.json";
import { en, type Text } from "./text/en";
import { ptBR } from "./text/pt-BR";

export const api = new Client<Routes>();

const catalogue: Catalogue<Text> = { en, "pt-BR": ptBR };

export function useText(): Text {
  return catalogue[useLanguage().language];
}

/** Says what went wrong, in the reader's language. The api's own words are English, and for programs. */
export function problemText(text: Text, p: ProblemError): string {
  const known: Record<string, unknown> = text.problems;
  const said = known[p.kind];
  return typeof said === "string" ? said : text.problems.other;
}

/** Says what is wrong with a field of a form, by the name under which the page knows it. */
export function fieldText(text: Text, action: Action<never[]>, field: string, name: string = field): string | undefined {
  if (action.field(field) === undefined) return undefined;
  const known: Record<string, string> = text.fields;
  return known[name] ?? text.fields.other;
}

/** What became of an action: nothing while all is well. */
export function Outcome({ action, done, wrong }: { action: Action<never[]>; done?: string; wrong?: string | undefined }) {
  const text = useText();
  if (action.problem) {
    const ours = action.problem.status >= 500 && action.problem.requestId !== "";
    return (
      <Notice kind="trouble">
        {wrong ?? problemText(text, action.problem)}
        {ours && <small> {text.problems.request(action.problem.requestId)}</small>}
      </Notice>
    );
  }
  return action.done && done ? <Notice kind="good">{done}</Notice> : null;
}

/** Says that no real money moves, where it does not. */
export function PaymentsNote() {
  const t = useText().billing.payments;
  const [installation] = useLoaded((signal) => api.call("GET /v1/installation", {}, { signal, keepSession: true }), []);
  const said = installation.state === "there" ? t[installation.value.payments] : "";
  return said ? <Notice>{said}</Notice> : null;
}

export function Brand() {
  return (
    <Link to={routes.landing} class="brand">
      <svg viewBox="0 0 32 32" aria-hidden="true">
        <rect width="32" height="32" rx="8" />
        <path d="M9 20c0-7 4-11 7-11s7 4 7 11M9 20l-2 4m16-4l2 4M16 9v6" />
      </svg>
      OpenClaw Cloud
    </Link>
  );
}

/** The frame of pages that are seen without logging in. */
export function PublicPage({ children, narrow = false, actions }: { children: ComponentChildren; narrow?: boolean; actions?: ComponentChildren }) {
  const text = useText();
  const { language, setLanguage } = useLanguage();
  return (
    <>
      <a class="skip" href="#content">
        {text.skip}
      </a>
      <header class="top">
        <Brand />
        <div class="top-end">
          <Preferences text={text.preferences} language={language} onLanguage={setLanguage} />
          {actions}
        </div>
      </header>
      <main id="content" tabIndex={-1} class={narrow ? "narrow" : ""}>
        {children}
      </main>
      <footer>{text.landing.footer}</footer>
    </>
  );
}
