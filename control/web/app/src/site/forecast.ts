// How many tokens will be used by the end of a period, at the pace of its last days.

export interface Period {
  start: string;
  end: string;
  limit: number;
  used: number;
}

export interface Forecast {
  /** What will be used by the end. */
  tokens: number;
  /** When the limit is reached, if that is before the end. */
  reached: Date | undefined;
}

const day = 24 * 60 * 60 * 1000;
/** A forecast from less than this would be a guess. */
const atLeast = 6 * 60 * 60 * 1000;
/** So many last days say what the pace is: an agent that is new or was away for a while is no measure. */
const paceDays = 7;

/**
 * Says what to expect, or undefined while too little is known. days are tokens by the beginning of their
 * day (UTC), of which some may be missing: nothing was used on them.
 */
export function forecast(p: Period, days: ReadonlyMap<number, number>, now: Date): Forecast | undefined {
  const start = Date.parse(p.start);
  const end = Date.parse(p.end);
  const at = now.getTime();
  if (!(at > start + atLeast) || at >= end || p.used <= 0) return undefined;
  const from = Math.max(start, at - paceDays * day);
  let tokens = 0;
  for (const [begin, n] of days) {
    // Of the first day only the part that lies within counts.
    const overlap = Math.min(begin + day, at) - Math.max(begin, from);
    const known = Math.min(begin + day, at) - Math.max(begin, start);
    if (overlap > 0 && known > 0) tokens += (n * overlap) / known;
  }
  // Sums by day are written a moment after the tokens are used.
  if (tokens === 0) tokens = from === start ? p.used : 0;
  const pace = tokens / (at - from);
  const expected = Math.round(p.used + pace * (end - at));
  const left = p.limit - p.used;
  const reached = left <= 0 ? now : new Date(Math.round(at + left / pace));
  return { tokens: expected, reached: pace > 0 && reached.getTime() < end ? reached : left <= 0 ? now : undefined };
}
