// Numbers, money and times as a reader of a language expects them.

export interface Formats {
  /** 1,234,567 */
  whole: (n: number) => string;
  /** 1.2M */
  short: (n: number) => string;
  /** 0.25 as 25% */
  percent: (share: number) => string;
  /** US cents as $19 or $19.50; another currency by its code. */
  money: (cents: number, currency?: string) => string;
  /** A date in the reader's own time zone. */
  date: (at: string | Date) => string;
  /** A date and a time in the reader's own time zone. */
  time: (at: string | Date) => string;
  /** A day of UTC, by which usage is counted. */
  day: (at: string | Date) => string;
  /** "in 3 days", "2 hours ago" */
  relative: (at: string | Date, now: Date) => string;
  /** "2 d 3 h" since a time, in whole parts. */
  duration: (ms: number) => string;
}

const minute = 60_000;
const hour = 60 * minute;
const dayLength = 24 * hour;

export function formatsOf(language: string): Formats {
  const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
  const short = new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 });
  const percent = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
  const date = new Intl.DateTimeFormat(language, { dateStyle: "medium" });
  const time = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  const day = new Intl.DateTimeFormat(language, { day: "numeric", month: "short", timeZone: "UTC" });
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const of = (at: string | Date) => (typeof at === "string" ? new Date(at) : at);
  return {
    whole: (n) => whole.format(n),
    short: (n) => short.format(n),
    percent: (share) => percent.format(share),
    money: (cents, currency = "usd") =>
      new Intl.NumberFormat(language, {
        style: "currency",
        currency: currency.toUpperCase(),
        minimumFractionDigits: cents % 100 === 0 ? 0 : 2,
      }).format(cents / 100),
    date: (at) => date.format(of(at)),
    time: (at) => time.format(of(at)),
    day: (at) => day.format(of(at)),
    relative: (at, now) => {
      const ms = of(at).getTime() - now.getTime();
      const far = Math.abs(ms);
      if (far >= dayLength) return relative.format(Math.round(ms / dayLength), "day");
      if (far >= hour) return relative.format(Math.round(ms / hour), "hour");
      if (far >= minute) return relative.format(Math.round(ms / minute), "minute");
      return relative.format(Math.round(ms / 1000), "second");
    },
    duration: (ms) => {
      const parts: [number, string][] = [
        [Math.floor(ms / dayLength), "d"],
        [Math.floor((ms % dayLength) / hour), "h"],
        [Math.floor((ms % hour) / minute), "min"],
        [Math.floor((ms % minute) / 1000), "s"],
      ];
      const first = parts.findIndex(([n]) => n > 0);
      if (first < 0) return "0 s";
      return parts
        .slice(first, first + 2)
        .filter(([n]) => n > 0)
        .map(([n, unit]) => `${n} ${unit}`)
        .join(" ");
    },
  };
}
