// What all pages of the console share: the api for operators, texts, who is signed in, and how something
// is done that needs a reason.
import { createContext, type ComponentChildren } from "preact";
import { useContext, useState } from "preact/hooks";
import type { Routes } from "../api/operators.gen";
import { Client, type ProblemError } from "../api/client";
import { type Action, type Loaded, useAction } from "../controls/ask";
import { Button, Dialog, Failure, Form, Loading, Notice, TextInput } from "../controls/controls";
import { type Catalogue, useLanguage } from "../language/language";
import { en, type Text } from "./text/en";
import { ptBR } from "./text/pt-BR";

export const api = new Client<Routes>();

const catalogue: Catalogue<Text> = { en, "pt-BR": ptBR };

export function useText(): Text {
  return catalogue[useLanguage().language];
}

export type Role = "support" | "operator" | "admin";

export const RoleContext = createContext<Role>("support");

/** Whether who is signed in may do what this role may. The api decides; this is for what is offered. */
export function useMay(role: Role): boolean {
  const order: readonly Role[] = ["support", "operator", "admin"];
  return order.indexOf(useContext(RoleContext)) >= order.indexOf(role);
}

/** Says what went wrong. Operators read the api's own words too: it tells them what its rules say. */
export function Problem({ problem }: { problem: ProblemError }) {
  const text = useText();
  const known: Record<string, unknown> = text.problems;
  const said = known[problem.kind];
  return (
    <>
      {typeof said === "string" ? said : text.problems.other} {problem.detail}{" "}
      {problem.requestId !== "" && <small>{text.problems.request(problem.requestId)}</small>}
    </>
  );
}

export function Outcome({ action, done }: { action: Action<never[]>; done?: string }) {
  if (action.problem) {
    return (
      <Notice kind="trouble">
        <Problem problem={action.problem} />
      </Notice>
    );
  }
  return action.done && done ? <Notice kind="good">{done}</Notice> : null;
}

/** Shows what was loaded, or that it is not there yet, or why it cannot be. */
export function Show<T>({ loaded, again, children }: { loaded: Loaded<T>; again: () => void; children: (value: T) => ComponentChildren }) {
  const text = useText();
  const known: Record<string, unknown> = text.problems;
  switch (loaded.state) {
    case "loading":
      return <Loading text={text.loading} />;
    case "failed": {
      const said = known[loaded.problem.kind];
      return <Failure text={`${typeof said === "string" ? said : text.problems.other} ${loaded.problem.detail}`} again={text.again} onAgain={again} />;
    }
    case "there":
      return (
        <>
          {loaded.problem && (
            <Notice kind="warning">
              <Problem problem={loaded.problem} />
            </Notice>
          )}
          {children(loaded.value)}
        </>
      );
  }
}

/** A button for something that is asked about first, and that the audit log has the reason of. */
export function WithReason(props: { title: string; about: string; danger?: boolean; withoutReason?: boolean; act: (reason: string) => Promise<void> }) {
  const text = useText();
  const [asked, setAsked] = useState(false);
  const [reason, setReason] = useState("");
  const action = useAction(async () => {
    await props.act(reason.trim());
    setAsked(false);
    setReason("");
  });
  return (
    <>
      <Button kind={props.danger ? "danger" : "plain"} onClick={() => setAsked(true)}>
        {props.title}
      </Button>
      {asked && (
        <Dialog title={props.title} onClose={() => setAsked(false)}>
          <Form onSend={action.run}>
            <p>{props.about}</p>
            {!props.withoutReason && <TextInput label={text.reason} name="reason" autocomplete="off" maxLength={500} value={reason} onValue={setReason} />}
            <Outcome action={action} />
            <div class="row">
              <Button onClick={() => setAsked(false)}>{text.cancel}</Button>
              <Button kind={props.danger ? "danger" : "primary"} type="submit" busy={action.busy} disabled={!props.withoutReason && reason.trim() === ""}>
                {props.title}
              </Button>
            </div>
          </Form>
        </Dialog>
      )}
    </>
  );
}
