// Asking the api from a page: what is loaded, what is under way, and what went wrong.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ProblemError, unreachable } from "../api/client";

export type Loaded<T> =
  | { state: "loading" }
  | { state: "failed"; problem: ProblemError }
  /** problem is why it could not be loaded again: what is there may be old. */
  | { state: "there"; value: T; problem?: ProblemError };

/** Makes a ProblemError of anything that was thrown, and lets mistakes of ours be seen. */
export function problemOf(err: unknown): ProblemError {
  if (err instanceof ProblemError) return err;
  console.error(err);
  return new ProblemError(unreachable, 0);
}

/** Loads something anew; quietly: without saying so in place of why it could not be loaded. */
export type Again = (quietly?: boolean) => void;

/** Loads something when the page is shown, and again when deps change or again is called. */
export function useLoaded<T>(load: (signal: AbortSignal) => Promise<T>, deps: readonly unknown[]): [Loaded<T>, Again] {
  const [loaded, set] = useState<Loaded<T>>({ state: "loading" });
  const [round, setRound] = useState(0);
  const lastRound = useRef(0);
  const quiet = useRef(false);
  useEffect(() => {
    const stop = new AbortController();
    const same = round !== lastRound.current; // the same is asked for once more
    lastRound.current = round;
    // What is there stays to be seen until the new one is.
    const keep = same && quiet.current;
    set((before) => (before.state === "there" || keep ? before : { state: "loading" }));
    load(stop.signal).then(
      (value) => {
        if (!stop.signal.aborted) set({ state: "there", value });
      },
      (err: unknown) => {
        if (stop.signal.aborted) return;
        const problem = problemOf(err);
        set((before) => (same && before.state === "there" ? { ...before, problem } : { state: "failed", problem }));
      },
    );
    return () => stop.abort();
  }, [...deps, round]);
  const again = useCallback((quietly = false) => {
    quiet.current = quietly;
    setRound((n) => n + 1);
  }, []);
  return [loaded, again];
}

/**
 * Asks for something again and again, each time some while after it has come or has failed: of a slow api
 * no answer is given up for the next one. A page that is not seen waits.
 */
export function useRepeated<T>(loaded: Loaded<T>, again: Again, every: number): void {
  useEffect(() => {
    if (loaded.state === "loading") return undefined;
    const tick = () => {
      if (document.hidden) timer = setTimeout(tick, every);
      else again(true);
    };
    let timer = setTimeout(tick, every);
    return () => clearTimeout(timer);
  }, [loaded, again, every]);
}

export interface Action<Args extends unknown[]> {
  run: (...args: Args) => void;
  busy: boolean;
  problem: ProblemError | undefined;
  /** It has been done since the page was shown, and nothing was begun since. */
  done: boolean;
  /** What is wrong with one field of what was sent; undefined if nothing is. */
  field: (name: string) => string | undefined;
}

/** Something that a person does by a button. While it is under way it is not begun again. */
export function useAction<Args extends unknown[]>(act: (...args: Args) => Promise<void>): Action<Args> {
  const [state, set] = useState<{ busy: boolean; problem?: ProblemError; done: boolean }>({ busy: false, done: false });
  const busy = useRef(false);
  const shown = useRef(true);
  useEffect(() => {
    shown.current = true;
    return () => {
      shown.current = false;
    };
  }, []);
  const run = (...args: Args) => {
    if (busy.current) return;
    busy.current = true;
    set({ busy: true, done: false });
    const end = (next: { problem?: ProblemError; done: boolean }) => {
      busy.current = false;
      if (shown.current) set({ busy: false, ...next });
    };
    act(...args).then(
      () => end({ done: true }),
      (err: unknown) => end({ done: false, problem: problemOf(err) }),
    );
  };
  return { run, busy: state.busy, problem: state.problem, done: state.done, field: (name) => state.problem?.fields[name] };
}

/** The time, as it goes on. */
export function useNow(every: number): Date {
  const [now, set] = useState(() => new Date());
  useEffect(() => {
    const timer = setInterval(() => set(new Date()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}
