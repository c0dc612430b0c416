// What is known of what passes through the proxies, by what was heard of the api's stream.
import type { Connection } from "../api/live";
import type { Traffic } from "../api/operators.gen";

/** For how long what was heard last is what there is. */
const freshFor = 15_000;

/** What was heard last, and when; without a value: that it is not known. */
export interface Heard {
  at: number;
  value: Traffic | undefined;
}

export type Passing =
  | { state: "loading" }
  | { state: "there"; value: Traffic }
  /** The api answers, and does not know it: Redis does not tell it. */
  | { state: "away" }
  /** There is no stream, or nothing comes by it. */
  | { state: "broken" };

export function passingBy(heard: Heard | undefined, connection: Connection, now: number): Passing {
  if (connection === "lost") return { state: "broken" };
  const fresh = heard !== undefined && now - heard.at <= freshFor;
  if (fresh && heard.value) return { state: "there", value: heard.value };
  if (connection === "connecting") return { state: "loading" }; // also a page that was not seen for a while
  // That it is not known is said once.
  return { state: heard && !heard.value ? "away" : heard ? "broken" : "loading" };
}
