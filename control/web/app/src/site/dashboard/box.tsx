// How a box is, and what is being done to it.
import type { BoxDetail, BoxStep } from "../../api/customers.gen";
import { useNow } from "../../controls/ask";
import { useLanguage } from "../../language/language";
import { useText } from "../site";

const kinds: Record<BoxDetail["state"], "good" | "busy" | "trouble" | "still"> = {
  pending: "still",
  provisioning: "busy",
  active: "good",
  updating: "busy",
  suspended: "still",
  unhealthy: "trouble",
  failed: "trouble",
  destroying: "busy",
  destroyed: "still",
};

export function BoxStatus({ box }: { box: BoxDetail }) {
  const text = useText();
  const t = text.box;
  const { formats } = useLanguage();
  const now = useNow(1000);
  const kind = kinds[box.state];
  const since = Math.max(now.getTime() - Date.parse(box.changed_at), 0);
  const waits = [!box.has_telegram_token && t.waitsToken, (box.settings.telegram_users ?? []).length === 0 && t.waitsUsers].filter((s) => s !== false);
  return (
    <>
      <p class="box-state" role="status">
        <span class={`badge ${kind}`}>{t.states[box.state]}</span>{" "}
        {box.held ? t.held : box.state === "pending" && waits.length > 0 ? waits.join(" ") : t.about[box.state]}
      </p>
      <p class="hint">{box.state === "active" ? text.overview.uptime(formats.duration(since)) : text.overview.since(formats.time(box.changed_at))}</p>
      {(kind === "busy" || kind === "trouble") && box.steps.length > 0 && (
        <>
          <h3>{t.steps}</h3>
          <ol class="progress" aria-live="polite">
            {box.steps.map((step) => (
              <Step key={step.name} step={step} now={now} />
            ))}
          </ol>
        </>
      )}
    </>
  );
}

function Step({ step, now }: { step: BoxStep; now: Date }) {
  const t = useText().box;
  const { formats } = useLanguage();
  const names: Record<string, unknown> = t.step;
  const known = names[step.name];
  const name = typeof known === "string" ? known : t.step.other(step.name);
  const done = step.finished_at !== undefined;
  const took = (done ? Date.parse(step.finished_at ?? "") : now.getTime()) - Date.parse(step.started_at);
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
