// What a chart of stacked bars draws, without drawing it.

export interface Share {
  /** The beginning of a day (UTC), in milliseconds. */
  day: number;
  series: string;
  value: number;
}

export interface Stack {
  /** The largest first; what is beyond the most is one series named "". */
  series: string[];
  bars: { day: number; total: number; parts: number[] }[];
  /** The top of the scale: round, and not below any bar. */
  top: number;
  /** Where lines go, from 0 to top. */
  ticks: number[];
}

const dayLength = 24 * 60 * 60 * 1000;

/** Stacks shares by day from one day to another, both included; days without any are there, and empty. */
export function stack(shares: readonly Share[], from: number, to: number, most = 4): Stack {
  const totals = new Map<string, number>();
  for (const s of shares) totals.set(s.series, (totals.get(s.series) ?? 0) + s.value);
  const named = [...totals].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  const series = named.length > most ? [...named.slice(0, most - 1), ""] : named;
  const index = new Map(series.map((name, i) => [name, i]));
  const bars: Stack["bars"] = [];
  const byDay = new Map<number, Stack["bars"][number]>();
  for (let day = from; day <= to; day += dayLength) {
    const bar = { day, total: 0, parts: series.map(() => 0) };
    bars.push(bar);
    byDay.set(day, bar);
  }
  let highest = 0;
  for (const s of shares) {
    const bar = byDay.get(s.day);
    if (!bar) continue;
    const i = index.get(s.series) ?? series.length - 1;
    bar.parts[i] = (bar.parts[i] ?? 0) + s.value;
    bar.total += s.value;
    highest = Math.max(highest, bar.total);
  }
  const step = roundStep(highest / 4);
  const top = Math.max(Math.ceil(highest / step), 1) * step;
  const ticks: number[] = [];
  for (let t = 0; t <= top; t += step) ticks.push(t);
  return { series, bars, top, ticks };
}

/** The next of 1, 2, 2.5, 5 and 10 times a power of ten. */
export function roundStep(atLeast: number): number {
  if (!(atLeast > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(atLeast));
  for (const f of [1, 2, 2.5, 5, 10]) {
    // What is no whole number of tokens is no step.
    if (f * power >= atLeast * (1 - 1e-9) && Number.isInteger(f * power)) return f * power;
  }
  return Math.max(10 * power, 1);
}

/** The beginning of a day of UTC. */
export function dayOf(at: number): number {
  return Math.floor(at / dayLength) * dayLength;
}
