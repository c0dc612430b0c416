// The first page behind the login: does the agent run, how far do the tokens reach, what is missing.
import { useLoaded, useNow } from "../../controls/ask";
import { Card, Empty, Meter } from "../../controls/controls";
import { useLanguage } from "../../language/language";
import { Link, PageTitle } from "../../router/router";
import type { PeriodUsage } from "../../api/customers.gen";
import { forecast } from "../forecast";
import routes from "../routes.json";
import { api, useText } from "../site";
import { BoxStatus } from "./box";
import { useAccount, useBoxes, useLive } from "./live";

export function Overview() {
  const text = useText();
  const t = text.overview;
  const account = useAccount();
  const boxes = useBoxes();
  const { usage } = useLive();
  return (
    <>
      <PageTitle title={t.title} site={text.site}>
        {t.hello(account.name)}
      </PageTitle>
      <Setup />
      <div class="columns">
        {boxes.length === 0 ? (
          <Card title={t.agent}>
            <Empty>{t.noAgent}</Empty>
          </Card>
        ) : (
          boxes.map((box, i) => (
            <Card
              key={box.id}
              title={boxes.length === 1 ? t.agent : t.agents(i + 1)}
              actions={<Link to={routes.agent}>{t.settings}</Link>}
            >
              <BoxStatus box={box} />
            </Card>
          ))
        )}
        <Card title={t.tokens} actions={<Link to={routes.usage}>{t.details}</Link>}>
          {usage ? <Tokens usage={usage} /> : <Empty>{t.noPeriod}</Empty>}
        </Card>
      </div>
    </>
  );
}

/** What has to be done until an agent runs; nothing once it is done. */
function Setup() {
  const t = useText().overview.setup;
  const account = useAccount();
  const boxes = useBoxes();
  const paid = account.status === "active" || account.status === "suspended";
  const box = boxes[0];
  const steps = [
    { title: t.pay, text: t.payText, done: paid, to: routes.billing },
    { title: t.token, text: t.tokenText, done: box !== undefined && boxes.every((b) => b.has_telegram_token), to: routes.agent },
    { title: t.users, text: t.usersText, done: box !== undefined && boxes.every((b) => (b.settings.telegram_users ?? []).length > 0), to: routes.agent },
  ];
  const next = steps.findIndex((s) => !s.done);
  if (next < 0) return null;
  return (
    <Card title={t.title}>
      <ol class="checklist">
        {steps.map((s, i) => (
          <li key={s.title} class={s.done ? "done" : i === next ? "next" : ""}>
            <strong>{s.title}</strong>
            {" "}
            {s.done ? <span class="badge good">{t.done}</span> : <p>{s.text}</p>}
            {i === next && (
              <Link to={s.to} class="button primary">
                {t.go}
              </Link>
            )}
          </li>
        ))}
      </ol>
    </Card>
  );
}

function Tokens({ usage }: { usage: PeriodUsage }) {
  const t = useText().overview;
  const { formats } = useLanguage();
  const now = useNow(60_000);
  const { used_tokens: used, left_tokens: left, limit_tokens: limit } = usage;
  const text = t.used(formats.whole(used), formats.whole(limit));
  const share = limit > 0 ? used / limit : 1;
  // Sums by day are for the forecast; they change slowly, so they are asked for when the page is shown.
  const [days] = useLoaded((signal) => api.call("GET /v1/me/usage", {}, { signal }), [usage.period_id]);
  const byDay = new Map<number, number>();
  if (days.state === "there") {
    for (const d of days.value.days) {
      const at = Date.parse(d.day);
      byDay.set(at, (byDay.get(at) ?? 0) + d.settled_tokens);
    }
  }
  const expected = days.state === "there" ? forecast({ start: usage.start ?? "", end: usage.end ?? "", limit, used }, byDay, now) : undefined;
  return (
    <>
      <p class="big">{t.left(formats.whole(left))}</p>
      <Meter label={t.tokens} share={share} text={text} high={share >= 0.9} />
      <p>
        {text} <span class="hint">({usage.live ? t.live : t.notLive})</span>
      </p>
      {usage.end && <p>{t.resets(formats.date(usage.end), formats.relative(usage.end, now))}</p>}
      {days.state === "there" && share < 1 && (
        <p>
          {expected === undefined ? t.forecastNone : expected.reached ? t.forecastReached(formats.date(expected.reached)) : t.forecast(formats.whole(expected.tokens))}
        </p>
      )}
    </>
  );
}
