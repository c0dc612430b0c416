// Boxes: which there are, how one is, and what can be done to it.
import { useState } from "preact/hooks";
import type { Box, OperatorsBox } from "../api/operators.gen";
import { useAction, useLoaded, useNow, useRepeated } from "../controls/ask";
import { Button, Card, Empty, Select, Table } from "../controls/controls";
import { useLanguage } from "../language/language";
import { Link, PageTitle } from "../router/router";
import { api, Outcome, Show, useMay, useText, WithReason } from "./console";
import { usePaged } from "./pages";

const every = 3_000;

const states: readonly Box["state"][] = ["pending", "provisioning", "active", "updating", "suspended", "unhealthy", "failed", "destroying", "destroyed"];

export function stateKind(state: Box["state"]): string {
  switch (state) {
    case "active":
      return "good";
    case "unhealthy":
    case "failed":
      return "trouble";
    case "provisioning":
    case "updating":
    case "destroying":
      return "busy";
    default:
      return "still";
  }
}

export function Boxes() {
  const text = useText();
  const t = text.boxes;
  const { formats } = useLanguage();
  const [state, setState] = useState<"" | Box["state"]>("");
  const list = usePaged((cursor, signal) => api.call("GET /v1/boxes", { query: { cursor, ...(state === "" ? {} : { state }) } }, signal ? { signal } : {}), [state]);
  return (
    <>
      <PageTitle title={t.title} site={text.site} />
      <Select label={t.state} value={state} onValue={(v) => setState(v as typeof state)} options={[["", text.all], ...states.map((s) => [s, t.states[s]] as const)]} />
      <Show loaded={list.loaded} again={list.again}>
        {(boxes) =>
          boxes.length === 0 ? (
            <Empty>{t.nothing}</Empty>
          ) : (
            <Table caption={t.title} head={[t.box, t.customer, t.state, t.wants, t.changed, t.message]}>
              {boxes.map((b) => (
                <tr key={b.id}>
                  <th scope="row">
                    <Link to={`/boxes/${encodeURIComponent(b.id)}`}>{b.id}</Link>
                  </th>
                  <td>
                    <Link to={`/customers/${encodeURIComponent(b.customer_id)}`}>{b.customer_id}</Link>
                  </td>
                  <td>
                    <span class={`badge ${stateKind(b.state)}`}>{t.states[b.state]}</span>
                  </td>
                  <td>{t.wanted[b.wants]}</td>
                  <td>{formats.time(b.changed_at)}</td>
                  <td>{b.message ?? text.none}</td>
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

export function BoxPage({ id }: { id: string }) {
  const text = useText();
  const [box, again] = useLoaded((signal) => api.call("GET /v1/boxes/{id}", { path: { id } }, { signal }), [id]);
  useRepeated(box, again, every);
  return (
    <Show loaded={box} again={again}>
      {(b) => (
        <>
          <PageTitle title={b.id} site={text.site} />
          <State box={b} />
          <Actions box={b} onChange={again} />
          <Steps box={b} />
          <Events id={id} />
          <Logs id={id} />
        </>
      )}
    </Show>
  );
}

function State({ box }: { box: OperatorsBox }) {
  const text = useText();
  const t = text.boxes;
  const { formats } = useLanguage();
  return (
    <Card title={t.state}>
      <p>
        <span class={`badge ${stateKind(box.state)}`}>{t.states[box.state]}</span> {box.message}
      </p>
      <p>
        {t.wants}: {t.wanted[box.wants]} · {t.generation}: {t.seen(box.observed_generation, box.generation)} · {t.changed}: {formats.time(box.changed_at)} · {t.customer}:{" "}
        <Link to={`/customers/${encodeURIComponent(box.customer_id)}`}>{box.customer_id}</Link>
      </p>
      {box.detail && (
        <p>
          {t.detail}: <code class="secret">{box.detail}</code>
        </p>
      )}
    </Card>
  );
}

/** What may be decided on a box, for a reason. */
type Decision = `POST /v1/boxes/{id}/${"restart" | "suspend" | "resume" | "rotate-token" | "destroy"}`;

function Actions({ box, onChange }: { box: OperatorsBox; onChange: () => void }) {
  const t = useText().boxes;
  const may = useMay("operator");
  const admin = useMay("admin");
  if (!may || box.wants === "destroy") return null;
  const path = { id: box.id };
  const act = (route: Decision) => async (reason: string) => {
    await api.call(route, { path, body: { reason } });
    onChange();
  };
  return (
    <p class="row">
      {box.wants === "run" && <WithReason title={t.restart} about={t.sure.restart} act={act("POST /v1/boxes/{id}/restart")} />}
      {box.wants === "run" && <WithReason title={t.suspend} about={t.sure.suspend} act={act("POST /v1/boxes/{id}/suspend")} />}
      {box.wants === "suspend" && <WithReason title={t.resume} about={t.sure.resume} act={act("POST /v1/boxes/{id}/resume")} />}
      <WithReason title={t.rotate} about={t.sure.rotate} act={act("POST /v1/boxes/{id}/rotate-token")} />
      {admin && <WithReason title={t.destroy} about={t.sure.destroy} danger act={act("POST /v1/boxes/{id}/destroy")} />}
    </p>
  );
}

function Steps({ box }: { box: OperatorsBox }) {
  const text = useText();
  const { formats } = useLanguage();
  const now = useNow(1000);
  return (
    <Card title={text.boxes.steps}>
      {box.steps.length === 0 && <Empty>{text.none}</Empty>}
      <ol class="progress" aria-live="polite">
        {box.steps.map((s) => (
          <li key={s.name} class={s.finished_at ? "done" : s.error ? "trouble" : "running"}>
            <span>
              {s.name} {s.error} {s.detail && <code class="secret">{s.detail}</code>}
            </span>
            {/* While it counts it is not read out: it would be with every second. */}
            <span class="hint" aria-hidden={!s.finished_at}>
              {formats.duration((s.finished_at ? Date.parse(s.finished_at) : now.getTime()) - Date.parse(s.started_at))}
            </span>
          </li>
        ))}
      </ol>
    </Card>
  );
}

function Events({ id }: { id: string }) {
  const text = useText();
  const { formats } = useLanguage();
  const [events, again] = useLoaded((signal) => api.call("GET /v1/boxes/{id}/events", { path: { id } }, { signal }), [id]);
  return (
    <Card title={text.boxes.events}>
      <Show loaded={events} again={again}>
        {(list) =>
          list.items.length === 0 ? (
            <Empty>{text.none}</Empty>
          ) : (
            <ul>
              {list.items.map((e, i) => (
                <li key={i}>
                  {formats.time(e.time)} <strong>{e.reason}</strong> {e.object} ×{e.count}: {e.message}
                </li>
              ))}
            </ul>
          )
        }
      </Show>
    </Card>
  );
}

function Logs({ id }: { id: string }) {
  const text = useText();
  const t = text.boxes;
  const may = useMay("operator");
  const [log, setLog] = useState<string>(); // until it was read
  const read = useAction(async () => setLog((await api.call("GET /v1/boxes/{id}/logs", { path: { id }, query: { tail: 200 } })) ?? ""));
  if (!may) return null;
  return (
    <Card title={t.logs}>
      <p>{t.logsText}</p>
      <Outcome action={read} />
      <Button onClick={read.run} busy={read.busy}>
        {t.logsShow}
      </Button>
      {log === "" && <Empty>{t.logsEmpty}</Empty>}
      {log && (
        <pre class="table" tabIndex={0}>
          {log}
        </pre>
      )}
    </Card>
  );
}
