// The audit log.
import type { AuditEntry } from "../api/operators.gen";
import { Button, Empty, Table } from "../controls/controls";
import { useLanguage } from "../language/language";
import { Link, PageTitle } from "../router/router";
import { api, Outcome, Show, useText } from "./console";
import { usePaged } from "./pages";

export function AuditPage() {
  const text = useText();
  const list = usePaged((cursor, signal) => api.call("GET /v1/audit", { query: { cursor } }, signal ? { signal } : {}), []);
  return (
    <>
      <PageTitle title={text.audit.title} site={text.site} />
      <Show loaded={list.loaded} again={list.again}>
        {(entries) => <AuditTable entries={entries} />}
      </Show>
      {list.more && (
        <>
          <Outcome action={list.more} />
          <Button onClick={list.more.run} busy={list.more.busy}>
            {text.more}
          </Button>
        </>
      )}
    </>
  );
}

export function AuditTable({ entries }: { entries: readonly AuditEntry[] }) {
  const text = useText();
  const t = text.audit;
  const { formats } = useLanguage();
  if (entries.length === 0) return <Empty>{t.nothing}</Empty>;
  return (
    <Table caption={t.title} head={[t.at, t.actor, t.action, t.target, t.customer, t.detail]}>
      {entries.map((e) => (
        <tr key={e.id}>
          <td>{formats.time(e.at)}</td>
          <td>{e.actor}</td>
          <th scope="row">{e.action}</th>
          <td>
            <code>{e.target}</code>
          </td>
          <td>{e.customer_id ? <Link to={`/customers/${encodeURIComponent(e.customer_id)}`}>{e.customer_id}</Link> : text.none}</td>
          <td>
            {e.detail && Object.keys(e.detail).length > 0 && (
              <details>
                <summary>{t.detail}</summary>
                <code class="secret">{JSON.stringify(e.detail)}</code>
              </details>
            )}
          </td>
        </tr>
      ))}
    </Table>
  );
}
