// What goes through the platform now.
import { useEffect, useRef, useState } from "preact/hooks";
import { type Connection, listen } from "../api/live";
import type { PlatformUsage, ProxyTraffic, Replica, Traffic as Passes, TrafficRates } from "../api/operators.gen";
import { useLoaded, useNow, useRepeated } from "../controls/ask";
import { Card, Empty, Loading, Notice, Table } from "../controls/controls";
import { useLanguage } from "../language/language";
import { PageTitle } from "../router/router";
import { api, Show, useText } from "./console";
import { type Heard, type Passing, passingBy } from "./passing";

const every = 3_000;
/** Rates are over this time: the ledger books in batches. */
const rateOver = 60_000;
/** A replica that has not been heard of for this long is silent. */
const silentAfter = 15_000;

interface Sample {
  at: number;
  requests: number;
  tokens: number;
}

export function Traffic() {
  const text = useText();
  const t = text.traffic;
  const [usage, usageAgain] = useLoaded((signal) => api.call("GET /v1/usage", {}, { signal }), []);
  const [replicas, replicasAgain] = useLoaded((signal) => api.call("GET /v1/replicas", {}, { signal }), []);
  useRepeated(usage, usageAgain, every);
  useRepeated(replicas, replicasAgain, every);
  const passing = usePassing();
  return (
    <>
      <PageTitle title={t.title} site={text.site} />
      <Card title={t.rate}>
        {passing.state === "loading" && <Loading text={text.loading} />}
        {passing.state === "there" && <Now passing={passing.value} />}
        {(passing.state === "broken" || passing.state === "away") && (
          <>
            <Notice kind="warning">{passing.state === "away" ? t.noLive : t.broken}</Notice>
            {usage.state === "there" && <Rate usage={usage.value} />}
            <p class="hint">{t.rateText}</p>
          </>
        )}
      </Card>
      <Card title={t.now}>
        <Show loaded={usage} again={usageAgain}>
          {(u) => <Tiers usage={u} />}
        </Show>
      </Card>
      <Card title={t.replicas}>
        <Show loaded={replicas} again={replicasAgain}>
          {(list) => <Replicas list={list.items} passing={passing.state === "there" ? passing.value.proxies : []} />}
        </Show>
      </Card>
    </>
  );
}

/** Listens to what passes through the proxies for as long as the page is shown. */
function usePassing(): Passing {
  const [heard, setHeard] = useState<Heard>();
  const [connection, setConnection] = useState<Connection>("connecting");
  const now = useNow(1000);
  useEffect(
    () =>
      listen("/v1/traffic", {
        on: {
          traffic: (data) => setHeard({ at: Date.now(), value: data as Passes }),
          away: () => setHeard({ at: Date.now(), value: undefined }),
        },
        onConnection: setConnection,
        renew: async () => {
          const there = await api.renew();
          if (!there) api.onSignedOut();
          return there;
        },
      }),
    [],
  );
  // Between two looks at the clock something may have come.
  return passingBy(heard, connection, Math.max(now.getTime(), heard?.at ?? 0));
}

/** All that was refused, for whatever reason. */
function refusedOf(rates: TrafficRates): number {
  return Object.values(rates.refused_per_second).reduce((sum, n) => sum + n, 0);
}

/** What passes through the proxies, as they say. Nothing of it is read out: it changes all the time. */
function Now({ passing }: { passing: Passes }) {
  const t = useText().traffic;
  const { formats } = useLanguage();
  const { rates } = passing;
  const names: Record<string, unknown> = t.refusals;
  const refused = Object.entries(rates?.refused_per_second ?? {}).sort(([, a], [, b]) => b - a);
  return (
    <>
      {passing.proxies.length === 0 ? (
        <Empty>{t.nobody}</Empty>
      ) : (
        <>
          <p class="big">{t.inFlight(formats.whole(passing.in_flight), formats.whole(passing.streams))}</p>
          <p>{rates ? t.perSecond(formats.short(rates.answered_per_second), formats.short(rates.tokens_per_second), formats.short(refusedOf(rates))) : t.measuring}</p>
        </>
      )}
      {refused.length > 0 && (
        <>
          <h3>{t.refused}</h3>
          <ul>
            {refused.map(([why, n]) => (
              <li key={why}>
                <span class="number">{formats.short(n)}</span> {typeof names[why] === "string" ? names[why] : why}
              </li>
            ))}
          </ul>
        </>
      )}
      {passing.silent.length > 0 && <Notice kind="warning">{t.quiet(passing.silent.join(", "))}</Notice>}
      {passing.untold.length > 0 && <Notice>{t.untold(passing.untold.join(", "))}</Notice>}
      <p class="hint">{t.liveText}</p>
    </>
  );
}

function Rate({ usage }: { usage: PlatformUsage }) {
  const t = useText().traffic;
  const { formats } = useLanguage();
  const samples = useRef<Sample[]>([]);
  const [rate, setRate] = useState<{ requests: number; tokens: number }>();
  useEffect(() => {
    const now: Sample = { at: Date.parse(usage.at), requests: 0, tokens: 0 };
    for (const tier of usage.tiers) {
      now.requests += tier.totals.requests;
      now.tokens += tier.totals.settled_tokens;
    }
    const last = samples.current[samples.current.length - 1];
    // A period that ends takes its sums away.
    if (last && now.requests < last.requests) samples.current = [];
    samples.current = [...samples.current.filter((s) => s.at >= now.at - rateOver), now];
    const first = samples.current[0];
    if (!first || now.at - first.at < 2 * every) return;
    const seconds = (now.at - first.at) / 1000;
    setRate({ requests: (now.requests - first.requests) / seconds, tokens: ((now.tokens - first.tokens) / seconds) * 60 });
  }, [usage]);
  return <p class="big">{rate ? t.rates(formats.short(rate.requests), formats.short(rate.tokens)) : t.measuring}</p>;
}

function Tiers({ usage }: { usage: PlatformUsage }) {
  const t = useText().traffic;
  const { formats } = useLanguage();
  if (usage.tiers.length === 0) return <Empty>{t.nothing}</Empty>;
  return (
    <Table caption={t.now} head={[t.tier, t.customers, t.requests, t.tokens, t.limit, t.used, t.unbilled]}>
      {usage.tiers.map((tier) => (
        <tr key={tier.tier}>
          <th scope="row">{tier.tier}</th>
          <td class="number">{formats.whole(tier.customers)}</td>
          <td class="number">{formats.whole(tier.totals.requests)}</td>
          <td class="number">{formats.whole(tier.totals.settled_tokens)}</td>
          <td class="number">{formats.short(tier.limit_tokens)}</td>
          <td class="number">{formats.percent(tier.limit_tokens > 0 ? tier.totals.settled_tokens / tier.limit_tokens : 0)}</td>
          <td class="number">{formats.whole(tier.totals.unbilled_tokens)}</td>
        </tr>
      ))}
    </Table>
  );
}

function Replicas({ list, passing }: { list: readonly Replica[]; passing: readonly ProxyTraffic[] }) {
  const text = useText();
  const t = text.traffic;
  const { formats } = useLanguage();
  const now = useNow(1000);
  if (list.length === 0) return <Empty>{t.noReplicas}</Empty>;
  const state = (r: Replica) => {
    if (r.status === "lost") return { text: t.statuses.lost, kind: "trouble" };
    if (!r.registered_at) return { text: t.statuses.unregistered, kind: "still" };
    const heard = Math.max(Date.parse(r.last_beat ?? r.registered_at), Date.parse(r.registered_at));
    return now.getTime() - heard > silentAfter ? { text: t.statuses.silent, kind: "trouble" } : { text: t.statuses.live, kind: "good" };
  };
  const cells = (r: Replica) => {
    const p = passing.find((one) => one.id === r.id);
    if (!p) return [text.none, text.none, text.none, text.none];
    return [formats.whole(p.in_flight), formats.whole(p.streams), ...(p.rates ? [formats.short(p.rates.answered_per_second), formats.short(refusedOf(p.rates))] : [text.none, text.none])];
  };
  return (
    <Table caption={t.replicas} head={[t.replica, t.status, t.requestsNow, t.streamsNow, t.answeredNow, t.refusedNow, t.beat, t.events]}>
      {list.map((r) => (
        <tr key={r.id}>
          <th scope="row">
            <code>{r.id}</code>
          </th>
          <td>
            <span class={`badge ${state(r).kind}`}>{state(r).text}</span>
          </td>
          {cells(r).map((cell, i) => (
            <td key={i} class="number">
              {cell}
            </td>
          ))}
          <td>{r.last_beat ? formats.relative(r.last_beat, now) : "–"}</td>
          <td class="number">{formats.whole(Math.max(r.highest_seq - r.acked_seq, 0))}</td>
        </tr>
      ))}
    </Table>
  );
}
