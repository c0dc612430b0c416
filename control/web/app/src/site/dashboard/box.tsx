// How a box is, and what is being done to it.
import type { BoxDetail } from "../../api/customers.gen";
import { useNow } from "../../controls/ask";
import { useLanguage } from "../../language/language";
import { useText } from "../site";
import { Steps } from "../steps";

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
  const about = () => {
    if (box.held) return t.held;
    if (box.state === "pending" && waits.length > 0) return waits.join(" ");
    if (box.message_kind && kind !== "good") return t.trouble[box.message_kind];
    return box.state === "active" && !box.has_telegram_token ? t.noBot : t.about[box.state];
  };
  return (
    <>
      <p class="box-state" role="status">
        <span class={`badge ${kind}`}>{t.states[box.state]}</span> {about()}
      </p>
      <p class="hint">{box.state === "active" ? text.overview.uptime(formats.duration(since)) : text.overview.since(formats.time(box.changed_at))}</p>
      {(kind === "busy" || kind === "trouble") && box.steps.length > 0 && (
        <>
          <h3>{t.steps}</h3>
          <Steps steps={box.steps} />
        </>
      )}
    </>
  );
}
