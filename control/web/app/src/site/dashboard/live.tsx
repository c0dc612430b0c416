// What the pages show of a customer, as it changes: the api's event stream, and where that cannot be
// opened, what is asked for instead.
import { createContext, type ComponentChildren } from "preact";
import { useCallback, useContext, useEffect, useMemo, useState } from "preact/hooks";
import type { BoxDetail, PeriodUsage, Profile } from "../../api/customers.gen";
import type { ProblemError } from "../../api/client";
import { type Connection, listen } from "../../api/live";
import { problemOf } from "../../controls/ask";
import { api } from "../site";

interface Live {
  account: Profile | undefined;
  usage: PeriodUsage | undefined;
  boxes: readonly BoxDetail[];
  connection: Connection;
  problem: ProblemError | undefined;
  reload: () => void;
  /** Shows what a change was answered with at once, and not only when the stream tells of it. */
  changedAccount: (p: Profile) => void;
  changedBox: (b: BoxDetail) => void;
}

const Context = createContext<Live | undefined>(undefined);

export function LiveProvider({ children }: { children: ComponentChildren }) {
  const [account, setAccount] = useState<Profile>();
  const [usage, setUsage] = useState<PeriodUsage>();
  const [boxes, setBoxes] = useState<readonly BoxDetail[]>([]);
  const [connection, setConnection] = useState<Connection>("connecting");
  const [problem, setProblem] = useState<ProblemError>();

  const reload = useCallback(() => {
    setProblem(undefined);
    Promise.all([api.call("GET /v1/me"), api.call("GET /v1/me/usage"), api.call("GET /v1/me/boxes")]).then(
      ([me, used, list]) => {
        setAccount(me);
        setUsage(used.period);
        setBoxes(list.items);
      },
      (err: unknown) => setProblem(problemOf(err)),
    );
  }, []);

  useEffect(
    () =>
      listen("/v1/me/events", {
        on: {
          account: (data) => setAccount(data as Profile),
          usage: (data) => setUsage(data as PeriodUsage),
          boxes: (data) => setBoxes(data as BoxDetail[]),
        },
        onConnection: setConnection,
        renew: async () => {
          const there = await api.renew();
          if (!there) api.onSignedOut();
          // There is a session, and no stream: too many of them are open, or the api is away for a moment.
          else reload();
          return there;
        },
      }),
    [reload],
  );

  const live = useMemo<Live>(
    () => ({
      account,
      usage,
      boxes,
      connection,
      problem,
      reload,
      changedAccount: setAccount,
      changedBox: (b) => setBoxes((list) => list.map((one) => (one.id === b.id ? b : one))),
    }),
    [account, usage, boxes, connection, problem, reload],
  );
  return <Context.Provider value={live}>{children}</Context.Provider>;
}

export function useLive(): Live {
  const live = useContext(Context);
  if (!live) throw new Error("BUG: used outside of LiveProvider");
  return live;
}

/** The account, on pages that are only shown once it is there. */
export function useAccount(): Profile {
  const { account } = useLive();
  if (!account) throw new Error("BUG: a page is shown before the account is there");
  return account;
}

/** Boxes that are, or will be, of some use: those that were destroyed are history. */
export function useBoxes(): readonly BoxDetail[] {
  return useLive().boxes.filter((b) => b.wants !== "destroy" && b.state !== "destroyed");
}
