// Usage that could not be written, and having it written after all.
import { useState } from "preact/hooks";
import type { DeadLetter, Replayed } from "../api/operators.gen";
import { useAction } from "../controls/ask";
import { Button, Empty, Notice, Table } from "../controls/controls";
import { useLanguage } from "../language/language";
import { PageTitle } from "../router/router";
import { api, Outcome, Show, useMay, useText, WithReason } from "./console";
import { usePaged } from "./pages";

export function DeadLetters() {
  const text = useText();
  const t = text.deadLetters;
  const [all, setAll] = useState(false);
  const [replayed, setReplayed] = useState<Replayed>();
  const list = usePaged((cursor, signal) => api.call("GET /v1/dead-letters", { query: { cursor, all } }, signal ? { signal } : {}), [all]);
  return (
    <>
      <PageTitle title={t.title} site={text.site} />
      <p>{t.about}</p>
      <label class="check">
        <input type="checkbox" checked={all} onChange={(e) => setAll(e.currentTarget.checked)} /> {t.all}
      </label>
      {replayed && <Notice kind={replayed.parked > 0 ? "warning" : "good"}>{t.result(replayed.inserted, replayed.duplicates, replayed.parked)}</Notice>}
      <Show loaded={list.loaded} again={list.again}>
        {(letters) =>
          letters.length === 0 ? (
            <Empty>{t.nothing}</Empty>
          ) : (
            <Table caption={t.title} head={[t.number, t.seen, t.why, t.replica, t.state, t.content]}>
              {letters.map((d) => (
                <Row
                  key={d.id}
                  letter={d}
                  onReplayed={(r) => {
                    setReplayed(r);
                    list.again();
                  }}
                  onDropped={list.again}
                />
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

/** A payload is base64 of what the stream had: mostly JSON. */
export function payloadText(base64: string): string {
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
  } catch {
    return base64;
  }
}

function Row({ letter: d, onReplayed, onDropped }: { letter: DeadLetter; onReplayed: (r: Replayed) => void; onDropped: () => void }) {
  const text = useText();
  const t = text.deadLetters;
  const { formats } = useLanguage();
  const mayDrop = useMay("admin");
  const path = { id: String(d.id) };
  const replay = useAction(async () => onReplayed(await api.call("POST /v1/dead-letters/{id}/replay", { path })));
  return (
    <tr>
      <th scope="row">{d.id}</th>
      <td>{formats.time(d.seen_at)}</td>
      <td>{d.reason}</td>
      <td>{d.replica ? `${d.replica}, ${d.seq ?? 0}` : text.none}</td>
      <td>
        {d.replayed_at ? (
          `${t.replayed} ${formats.time(d.replayed_at)}`
        ) : d.dropped_at ? (
          `${t.dropped} ${formats.time(d.dropped_at)}`
        ) : (
          <span class="row">
            <span class="badge still">{t.waits}</span>
            <Button onClick={replay.run} busy={replay.busy}>
              {t.replay}
            </Button>
            {mayDrop && (
              <WithReason
                title={t.drop}
                about={t.dropSure}
                danger
                act={async (reason) => {
                  await api.call("POST /v1/dead-letters/{id}/drop", { path, body: { reason } });
                  onDropped();
                }}
              />
            )}
            <Outcome action={replay} />
          </span>
        )}
      </td>
      <td>
        <details>
          <summary>{t.content}</summary>
          <code class="secret">{payloadText(d.payload)}</code>
        </details>
      </td>
    </tr>
  );
}
