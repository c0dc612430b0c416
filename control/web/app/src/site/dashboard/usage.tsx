// What was used, by day and model.
import { useMemo, useState } from "preact/hooks";
import { dayOf } from "../../chart/stack";
import { Chart } from "../../chart/chart";
import { useLoaded } from "../../controls/ask";
import { Card, Empty, Failure, Loading, Select, Table } from "../../controls/controls";
import { useLanguage } from "../../language/language";
import { PageTitle } from "../../router/router";
import type { Usage as UsageAnswer, UsageShare } from "../../api/customers.gen";
import { api, problemText, useText } from "../site";

const day = 24 * 60 * 60 * 1000;

type Range = "period" | "7" | "30" | "90";

export function Usage() {
  const text = useText();
  const t = text.usage;
  const [range, setRange] = useState<Range>("period");
  const [usage, again] = useLoaded(
    (signal) => {
      if (range === "period") return api.call("GET /v1/me/usage", {}, { signal });
      const to = dayOf(Date.now()) + day;
      const query = { from: new Date(to - Number(range) * day).toISOString(), to: new Date(to).toISOString() };
      return api.call("GET /v1/me/usage", { query }, { signal });
    },
    [range],
  );
  const ranges = Object.entries(t.ranges).sort(([a], [b]) => order(a) - order(b));
  return (
    <>
      <PageTitle title={t.title} site={text.site} />
      <Select label={t.range} value={range} onValue={(v) => setRange(v as Range)} options={ranges} />
      {usage.state === "loading" && <Loading text={text.loading} />}
      {usage.state === "failed" && <Failure text={problemText(text, usage.problem)} again={text.again} onAgain={again} />}
      {usage.state === "there" && <Used usage={usage.value} />}
    </>
  );
}

/** Names that are numbers come before others in an object, and the period is the first choice. */
function order(range: string): number {
  return range === "period" ? 0 : Number(range);
}

function Used({ usage }: { usage: UsageAnswer }) {
  const t = useText().usage;
  const { formats } = useLanguage();
  const shares = useMemo(() => usage.days.map((d) => ({ day: Date.parse(d.day), series: d.model, value: d.settled_tokens })), [usage]);
  const models = useMemo(() => byModel(usage.days), [usage]);
  if (usage.days.length === 0) {
    return (
      <Card title={t.chart}>
        <Empty>{t.nothing}</Empty>
      </Card>
    );
  }
  // Of days that are still to come there is nothing to see.
  const to = Math.min(dayOf(Date.parse(usage.to) - 1), dayOf(Date.now()));
  return (
    <>
      <Card title={t.chart}>
        <Chart shares={shares} from={dayOf(Date.parse(usage.from))} to={to} formats={formats} text={{ ...t, label: t.chart }} />
        <p class="hint">{t.note}</p>
      </Card>
      <Card title={t.models}>
        <Table caption={t.models} head={[t.model, t.requests, t.prompt, t.cached, t.completion, t.settled]}>
          {models.map((m) => (
            <tr key={m.model}>
              <th scope="row">{m.model || t.unnamed}</th>
              {[m.requests, m.prompt_tokens, m.cached_tokens, m.completion_tokens, m.settled_tokens].map((n, i) => (
                <td key={i} class="number">
                  {formats.whole(n)}
                </td>
              ))}
            </tr>
          ))}
        </Table>
      </Card>
    </>
  );
}

/** Sums by model, what was used most first. */
function byModel(days: readonly UsageShare[]): UsageShare[] {
  const sums = new Map<string, UsageShare>();
  for (const d of days) {
    const sum = sums.get(d.model);
    if (!sum) {
      sums.set(d.model, { ...d });
      continue;
    }
    sum.requests += d.requests;
    sum.prompt_tokens += d.prompt_tokens;
    sum.cached_tokens += d.cached_tokens;
    sum.completion_tokens += d.completion_tokens;
    sum.reasoning_tokens += d.reasoning_tokens;
    sum.settled_tokens += d.settled_tokens;
  }
  return [...sums.values()].sort((a, b) => b.settled_tokens - a.settled_tokens);
}
