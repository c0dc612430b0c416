// One customer: its limit, which can be changed here and is seen to change, its boxes and tokens.
import { useMemo, useState } from "preact/hooks";
import type { CustomerDetails, PeriodUsage, ProxyToken, QuotaChanged } from "../api/operators.gen";
import { Chart } from "../chart/chart";
import { dayOf } from "../chart/stack";
import { useAction, useLoaded, useRepeated } from "../controls/ask";
import { Button, Card, Empty, Form, Meter, Notice, Select, Table, TextInput } from "../controls/controls";
import { wholeOf } from "../language/amounts";
import { useLanguage } from "../language/language";
import { Link, PageTitle } from "../router/router";
import { AuditTable } from "./audit";
import { api, Outcome, Show, useMay, useText, WithReason } from "./console";
import { statusKind } from "./customers";

/** How often what is used of a limit is asked for: it is what Redis knows, ahead of the ledger. */
const every = 2_000;
const day = 24 * 60 * 60 * 1000;

export function CustomerPage({ id }: { id: string }) {
  const text = useText();
  const [customer, reload] = useLoaded((signal) => api.call("GET /v1/customers/{id}", { path: { id } }, { signal }), [id]);
  const [changes, setChanges] = useState(0); // each is in the audit log
  const again = () => {
    reload();
    setChanges((n) => n + 1);
  };
  return (
    <Show loaded={customer} again={again}>
      {(c) => (
        <>
          <PageTitle title={c.name || c.id} site={text.site} />
          <Status customer={c} onChange={again} />
          <Quota key={id} id={id} onChange={again} />
          <UsageChart id={id} />
          <Boxes customer={c} />
          <Tokens tokens={c.tokens} onChange={again} />
          <Audit id={id} changes={changes} />
        </>
      )}
    </Show>
  );
}

function Status({ customer, onChange }: { customer: CustomerDetails; onChange: () => void }) {
  const text = useText();
  const t = text.customer;
  const { formats } = useLanguage();
  const may = useMay("operator");
  const path = { id: customer.id };
  return (
    <>
      <p>
        <code>{customer.id}</code> · {customer.email ?? text.none} · {customer.tier} ·{" "}
        <span class={`badge ${statusKind(customer.status)}`}>{text.customers.statuses[customer.status]}</span> · {text.customers.since} {formats.date(customer.created_at)}
      </p>
      {customer.subscriptions.length > 0 && (
        <p>
          {t.subscriptions}: {customer.subscriptions.map((s) => `${s.tier}, ${s.status}, ${t.until(formats.date(s.period_end))}`).join("; ")}
        </p>
      )}
      {may && (
        <p class="row">
          {customer.status === "active" && (
            <WithReason
              title={t.suspend}
              about={t.suspendSure}
              danger
              act={async (reason) => {
                await api.call("POST /v1/customers/{id}/suspend", { path, body: { reason } });
                onChange();
              }}
            />
          )}
          {customer.status === "suspended" && (
            <WithReason
              title={t.resume}
              about={t.resumeSure}
              act={async (reason) => {
                await api.call("POST /v1/customers/{id}/resume", { path, body: { reason } });
                onChange();
              }}
            />
          )}
        </p>
      )}
    </>
  );
}

function Quota({ id, onChange }: { id: string; onChange: () => void }) {
  const text = useText();
  const t = text.customer;
  const may = useMay("operator");
  const [quota, again] = useLoaded((signal) => api.call("GET /v1/customers/{id}/quota", { path: { id } }, { signal }), [id]);
  useRepeated(quota, again, every);
  return (
    <Card title={t.quota}>
      {quota.state === "failed" && quota.problem.kind === "not-found" ? (
        <Empty>{t.noQuota}</Empty>
      ) : (
        <Show loaded={quota} again={again}>
          {(period) => (
            <>
              <Used period={period} />
              {may && (
                <ChangeQuota
                  id={id}
                  onChange={() => {
                    again();
                    onChange();
                  }}
                />
              )}
            </>
          )}
        </Show>
      )}
    </Card>
  );
}

function Used({ period }: { period: PeriodUsage }) {
  const t = useText().customer;
  const { formats } = useLanguage();
  const share = period.limit_tokens > 0 ? period.used_tokens / period.limit_tokens : 1;
  const said = t.used(formats.whole(period.used_tokens), formats.whole(period.limit_tokens), formats.whole(period.left_tokens));
  return (
    <>
      <Meter label={t.quota} share={share} text={said} high={share >= 0.9} />
      <p>
        {said} <span class="hint">({period.live ? t.live : t.written})</span>
      </p>
    </>
  );
}

type QuotaAction = "set" | "add" | "reset";

function ChangeQuota({ id, onChange }: { id: string; onChange: () => void }) {
  const text = useText();
  const t = text.customer;
  const [action, setAction] = useState<QuotaAction>("set");
  const [tokens, setTokens] = useState("");
  const [reason, setReason] = useState("");
  const [changed, setChanged] = useState<QuotaChanged>();
  const number = wholeOf(tokens);
  const wrong = action !== "reset" && (number === undefined || (action === "set" && number < 0) || (action === "add" && number === 0));
  const change = useAction(async () => {
    setChanged(undefined);
    const body = { action, reason: reason.trim(), ...(action === "reset" || number === undefined ? {} : { tokens: number }) };
    setChanged(await api.call("POST /v1/customers/{id}/quota", { path: { id }, body }));
    setReason("");
    onChange();
  });
  return (
    <Form onSend={change.run}>
      <div class="columns">
        <Select label={t.action} value={action} onValue={(v) => setAction(v as QuotaAction)} options={Object.entries(t.actions)} />
        {action !== "reset" && <TextInput label={t.tokens} name="tokens" inputMode="numeric" autocomplete="off" value={tokens} onValue={setTokens} error={wrong && tokens.trim() !== "" ? t.noNumber : change.field("tokens")} />}
        <TextInput label={text.reason} name="reason" autocomplete="off" maxLength={500} value={reason} onValue={setReason} error={change.field("reason")} />
      </div>
      <Outcome action={change} />
      {changed && <Changed changed={changed} />}
      <Button kind="primary" type="submit" busy={change.busy} disabled={wrong || reason.trim() === ""}>
        {t.change}
      </Button>
    </Form>
  );
}

/** What a limit was changed to, and which proxies apply it. */
function Changed({ changed }: { changed: QuotaChanged }) {
  const t = useText().customer;
  const { formats } = useLanguage();
  const replicas = changed.replicas;
  const applied = replicas?.applied.filter((a) => a.applied).length ?? 0;
  const late = (replicas?.applied.length ?? 0) - applied;
  return (
    <Notice kind={replicas && late === 0 ? "good" : "warning"}>
      {t.changed(formats.whole(changed.limit_tokens_before), formats.whole(changed.limit_tokens))}{" "}
      {replicas ? t.applied(applied, formats.whole(replicas.took_ms)) : t.unknown} {late > 0 && t.notAll(late)}
    </Notice>
  );
}

function UsageChart({ id }: { id: string }) {
  const text = useText();
  const { formats } = useLanguage();
  const [usage, again] = useLoaded(
    (signal) => {
      const to = dayOf(Date.now()) + day;
      const query = { from: new Date(to - 30 * day).toISOString(), to: new Date(to).toISOString() };
      return api.call("GET /v1/customers/{id}/usage", { path: { id }, query }, { signal });
    },
    [id],
  );
  const days = usage.state === "there" ? usage.value.days : undefined;
  const shares = useMemo(() => (days ?? []).map((d) => ({ day: Date.parse(d.day), series: d.model, value: d.settled_tokens })), [days]);
  return (
    <Card title={text.customer.usage}>
      <Show loaded={usage} again={again}>
        {(u) =>
          u.days.length === 0 ? (
            <Empty>{text.customer.nothing}</Empty>
          ) : (
            <Chart shares={shares} from={dayOf(Date.parse(u.from))} to={dayOf(Date.parse(u.to) - 1)} formats={formats} text={{ ...text.chart, label: text.customer.usage }} />
          )
        }
      </Show>
    </Card>
  );
}

function Boxes({ customer }: { customer: CustomerDetails }) {
  const text = useText();
  return (
    <Card title={text.customer.boxes}>
      {customer.boxes.length === 0 ? (
        <Empty>{text.customer.nothing}</Empty>
      ) : (
        <ul>
          {customer.boxes.map((b) => (
            <li key={b.id}>
              <Link to={`/boxes/${encodeURIComponent(b.id)}`}>{b.id}</Link> {text.boxes.states[b.state]} {b.message}
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function Tokens({ tokens, onChange }: { tokens: readonly ProxyToken[]; onChange: () => void }) {
  const text = useText();
  const t = text.customer;
  const { formats } = useLanguage();
  const may = useMay("operator");
  return (
    <Card title={t.tokensTitle}>
      {tokens.length === 0 ? (
        <Empty>{t.nothing}</Empty>
      ) : (
        <Table caption={t.tokensTitle} head={[t.token, t.hint, t.made, t.tokenStatus, t.revoke]}>
          {tokens.map((k) => (
            <tr key={k.id}>
              <th scope="row">
                <code>{k.id}</code>
              </th>
              <td>
                <code>…{k.hint}</code>
              </td>
              <td>{formats.time(k.created_at)}</td>
              <td>
                <span class={`badge ${statusKind(k.status)}`}>{t.tokenStatuses[k.status]}</span>
              </td>
              <td>
                {may && k.status !== "revoked" && (
                  <WithReason
                    title={t.revoke}
                    about={t.revokeSure}
                    danger
                    withoutReason
                    act={async () => {
                      await api.call("DELETE /v1/tokens/{id}", { path: { id: k.id } });
                      onChange();
                    }}
                  />
                )}
              </td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}

function Audit({ id, changes }: { id: string; changes: number }) {
  const text = useText();
  const [entries, again] = useLoaded((signal) => api.call("GET /v1/audit", { query: { customer: id, limit: 20 } }, { signal }), [id, changes]);
  return (
    <Card title={text.customer.audit}>
      <Show loaded={entries} again={again}>
        {(list) => <AuditTable entries={list.items} />}
      </Show>
    </Card>
  );
}
