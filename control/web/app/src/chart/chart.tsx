// A chart of bars, stacked by series. All that it shows is in a table below it, too.
import { useEffect, useMemo, useState } from "preact/hooks";
import { Table } from "../controls/controls";
import type { Formats } from "../language/formats";
import { type Share, stack } from "./stack";

type ChartProps = {
  shares: readonly Share[];
  from: number;
  to: number;
  formats: Formats;
  text: { label: string; day: string; total: string; others: string; table: string; unnamed: string };
};

const height = 240;
const left = 48;
const bottom = 22;
const top = 8;
/** Of the longest name of a day, which must not leave the picture. */
const dayWidth = 68;
/** As the styles have it. */
const phone = "(max-width: 40rem)";

/**
 * Whether the page is as narrow as on a phone. The picture is drawn for one of two widths, for what is drawn for a
 * desk has letters on a phone that nobody can read.
 */
function useNarrow(): boolean {
  const [narrow, set] = useState(() => matchMedia(phone).matches);
  useEffect(() => {
    const media = matchMedia(phone);
    const changed = () => set(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, []);
  return narrow;
}

export function Chart({ shares, from, to, formats, text }: ChartProps) {
  const s = useMemo(() => stack(shares, from, to), [shares, from, to]);
  const [at, setAt] = useState<number | undefined>();
  const narrow = useNarrow();
  const width = narrow ? 290 : 720;
  const inner = { width: width - left - 4, height: height - bottom - top };
  const step = inner.width / Math.max(s.bars.length, 1);
  const y = (value: number) => top + inner.height * (1 - value / s.top);
  const name = (series: string) => series || (s.series.length > 1 ? text.others : text.unnamed);
  const every = Math.max(Math.ceil(s.bars.length / (narrow ? 3 : 8)), 1);
  const shown = at === undefined ? undefined : s.bars[at];
  const total = s.bars.reduce((n, b) => n + b.total, 0);
  return (
    <div class="chart">
      <svg viewBox={`0 0 ${width} ${height}`} role="img" aria-label={`${text.label}. ${text.total}: ${formats.whole(total)}`} onMouseLeave={() => setAt(undefined)}>
        {s.ticks.map((t) => (
          <g key={t}>
            <line class="grid" x1={left} x2={width} y1={y(t)} y2={y(t)} />
            <text class="axis" x={left - 6} y={y(t) + 4} text-anchor="end">
              {formats.short(t)}
            </text>
          </g>
        ))}
        {s.bars.map((bar, i) => {
          let base = 0;
          return (
            <g key={bar.day} onMouseEnter={() => setAt(i)} class={i === at ? "bar at" : "bar"}>
              <rect class="hit" x={left + i * step} y={top} width={step} height={inner.height} />
              {bar.parts.map((value, k) => {
                if (value <= 0) return null;
                const from = base;
                base += value;
                return <rect key={k} class={`series-${k + 1}`} x={left + i * step + step * 0.12} width={step * 0.76} y={y(base)} height={Math.max(y(from) - y(base), 0.5)} />;
              })}
              {i % every === 0 && (
                <text class="axis" x={Math.min(left + (i + 0.5) * step, width - dayWidth / 2)} y={height - 6} text-anchor="middle">
                  {formats.day(new Date(bar.day))}
                </text>
              )}
            </g>
          );
        })}
      </svg>
      <ul class="legend">
        {s.series.map((series, k) => (
          <li key={series}>
            <span class={`swatch series-${k + 1}`} aria-hidden="true" />
            {name(series)}
            {shown && <strong> {formats.whole(shown.parts[k] ?? 0)}</strong>}
          </li>
        ))}
        <li class="at">{shown ? `${formats.day(new Date(shown.day))}: ${formats.whole(shown.total)}` : `${text.total}: ${formats.whole(total)}`}</li>
      </ul>
      <details>
        <summary>{text.table}</summary>
        <Table caption={text.label} head={[text.day, ...s.series.map(name), text.total]}>
          {s.bars
            .filter((b) => b.total > 0)
            .map((b) => (
              <tr key={b.day}>
                <th scope="row">{formats.day(new Date(b.day))}</th>
                {b.parts.map((v, k) => (
                  <td key={k} class="number">
                    {formats.whole(v)}
                  </td>
                ))}
                <td class="number">{formats.whole(b.total)}</td>
              </tr>
            ))}
        </Table>
      </details>
    </div>
  );
}
