// What is being done to an agent, step by step: in the conversation that ends with one, and on the dashboard.
import { useNow } from "../controls/ask";
import { useLanguage } from "../language/language";
import { useText } from "./site";

export interface Step {
  name: string;
  started_at: string;
  finished_at?: string;
  /** Why it does not go on by itself just now; that it is there is enough. */
  error?: string;
}

/** over says that nothing is heard of them any more: what has no end then is not counted on. */
export function Steps({ steps, over = false }: { steps: readonly Step[]; over?: boolean }) {
  const now = useNow(1000);
  return (
    <ol class="progress" aria-live="polite">
      {steps.map((step) => (
        <OneStep key={step.name} step={step} now={now} over={over} />
      ))}
    </ol>
  );
}

function OneStep({ step, now, over }: { step: Step; now: Date; over: boolean }) {
  const t = useText().box;
  const { formats } = useLanguage();
  const names: Record<string, unknown> = t.step;
  const known = names[step.name];
  const name = typeof known === "string" ? known : t.step.other(step.name);
  const done = step.finished_at !== undefined;
  const took = (done ? Date.parse(step.finished_at ?? "") : over ? 0 : now.getTime()) - Date.parse(step.started_at);
  return (
    <li class={done ? "done" : step.error ? "trouble" : "running"}>
      <span>{name}</span>
      <span class="hint">
        {done ? t.stepDone : step.error ? t.stepTrouble : t.stepRunning}
        {/* While it counts it is not read out: it would be with every second. */}
        {took >= 1000 && <span aria-hidden={!done}>, {formats.duration(took)}</span>}
      </span>
    </li>
  );
}
