// Finding customers.
import { useEffect, useState } from "preact/hooks";
import type { Customer } from "../api/operators.gen";
import { Button, Empty, Form, Select, Table, TextInput } from "../controls/controls";
import { useLanguage } from "../language/language";
import { Link, PageTitle } from "../router/router";
import { api, Outcome, Show, useText } from "./console";
import { usePaged } from "./pages";

/** A search is sent when nothing was typed for this long. */
const pause = 300;

/** The parts of a limit, in percent, that can be asked for: at the last two customers are written to. */
const parts = [50, 80, 90, 100];

export function Customers() {
  const text = useText();
  const t = text.customers;
  const { formats } = useLanguage();
  const [typed, setTyped] = useState("");
  const [search, setSearch] = useState("");
  const [status, setStatus] = useState<"" | Customer["status"]>("");
  const [usedFrom, setUsedFrom] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setSearch(typed.trim()), pause);
    return () => clearTimeout(timer);
  }, [typed]);
  const list = usePaged(
    (cursor, signal) => {
      const query = { search, cursor, ...(status === "" ? {} : { status }), ...(usedFrom === "" ? {} : { used_from: Number(usedFrom) }) };
      return api.call("GET /v1/customers", { query }, signal ? { signal } : {});
    },
    [search, status, usedFrom],
  );
  const statuses = Object.entries(t.statuses);
  return (
    <>
      <PageTitle title={t.title} site={text.site} />
      <Form onSend={() => setSearch(typed.trim())}>
        <div class="columns">
          <TextInput label={t.search} name="search" type="search" autocomplete="off" value={typed} onValue={setTyped} />
          <Select label={t.status} value={status} onValue={(v) => setStatus(v as typeof status)} options={[["", text.all], ...statuses]} />
          <Select label={t.usedOfLimit} value={usedFrom} onValue={setUsedFrom} options={[["", text.all], ...parts.map((n) => [String(n), t.usedFrom(formats.percent(n / 100))] as const)]} />
        </div>
      </Form>
      <Show loaded={list.loaded} again={list.again}>
        {(customers) =>
          customers.length === 0 ? (
            <Empty>{t.nobody}</Empty>
          ) : (
            <Table caption={t.title} head={[t.name, t.email, t.tier, t.status, t.used, t.since]}>
              {customers.map((c) => (
                <tr key={c.id}>
                  <th scope="row">
                    <Link to={`/customers/${encodeURIComponent(c.id)}`}>{c.name || c.id}</Link>
                  </th>
                  <td>{c.email ?? text.none}</td>
                  <td>{c.tier}</td>
                  <td>
                    <span class={`badge ${statusKind(c.status)}`}>{t.statuses[c.status]}</span>
                  </td>
                  <td class="number">{c.period ? formats.percent(c.period.used_percent / 100) : text.none}</td>
                  <td>{formats.date(c.created_at)}</td>
                </tr>
              ))}
            </Table>
          )
        }
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

export function statusKind(status: string): string {
  return status === "active" ? "good" : status === "suspended" || status === "revoked" ? "trouble" : "still";
}
