// Server-sent events, with what EventSource leaves out: it gives up for good on any answer but 200, such
// as when the session has ended or the api is restarted.

export type Connection = "connecting" | "open" | "lost";

export interface Listener {
  /** By the name of the event. What comes is of the api that this page was built for. */
  on: Record<string, (data: unknown) => void>;
  onConnection: (state: Connection) => void;
  /** Says whether there is a session; asked after a stream could not be opened. */
  renew: () => Promise<boolean>;
}

const firstWait = 1_000;
const longestWait = 30_000;

/**
 * Listens to a stream until the returned function is called. While the page is not seen it lets go of
 * the stream: an account has few of them, and many tabs.
 */
export function listen(url: string, l: Listener): () => void {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wait = firstWait;
  let ended = false;

  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  };
  const open = () => {
    close();
    if (ended || document.hidden) return;
    l.onConnection("connecting");
    const s = new EventSource(url);
    source = s;
    s.onopen = () => {
      wait = firstWait;
      l.onConnection("open");
    };
    s.onerror = () => {
      if (source !== s) return;
      l.onConnection("lost");
      if (s.readyState !== EventSource.CLOSED) return; // it tries again by itself
      close();
      const again = wait * (0.5 + Math.random() / 2);
      wait = Math.min(wait * 2, longestWait);
      l.renew().then(
        (there) => {
          if (there && !ended) timer = setTimeout(open, again);
        },
        () => {
          if (!ended) timer = setTimeout(open, again); // not reachable either
        },
      );
    };
    for (const [name, handle] of Object.entries(l.on)) {
      s.addEventListener(name, (e) => handle(JSON.parse((e as MessageEvent<string>).data)));
    }
  };
  document.addEventListener("visibilitychange", open);
  open();
  return () => {
    ended = true;
    document.removeEventListener("visibilitychange", open);
    close();
  };
}
