// The api, typed by what its OpenAPI documents say (see *.gen.ts).

/** A table of routes, as the generated files have one. */
export type RouteTable<R> = { [K in keyof R]: { input: object; answer: unknown } };

type Arguments<Input> = {} extends Input ? [input?: Input, options?: CallOptions] : [input: Input, options?: CallOptions];

export interface CallOptions {
  signal?: AbortSignal;
  /** Do not try to renew the session if the answer is 401: it is what the call is about. */
  keepSession?: boolean;
}

interface AnyInput {
  path?: Record<string, string>;
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
}

/** Why a call failed. kind is the last part of the problem's type, which never changes its meaning. */
export class ProblemError extends Error {
  constructor(
    readonly kind: string,
    readonly status: number,
    readonly detail = "",
    readonly fields: Readonly<Record<string, string>> = {},
    /** When to come again, in seconds; 0 if nobody said. */
    readonly retryAfter = 0,
    readonly requestId = "",
    /** Where to pay what is open; undefined if that is not what is wrong. */
    readonly payURL: string | undefined = undefined,
  ) {
    super(detail || kind);
  }
}

/** The kind of a failure that is not the api's answer. */
export const unreachable = "unreachable";

const typePrefix = "urn:openclaw:problem:";

async function problemOf(res: Response): Promise<ProblemError> {
  const retryAfter = Number(res.headers.get("Retry-After") ?? 0) || 0;
  const requestId = res.headers.get("X-Request-Id") ?? "";
  if (res.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    try {
      const p = (await res.json()) as { type?: string; detail?: string; fields?: Record<string, string>; pay_url?: string };
      return new ProblemError((p.type ?? "").replace(typePrefix, ""), res.status, p.detail, p.fields, retryAfter, requestId, p.pay_url);
    } catch {
      // It broke off; what is known of it is below.
    }
  }
  return new ProblemError(res.status >= 500 ? "unavailable" : unreachable, res.status, "", {}, retryAfter, requestId);
}

/** Fills in a route's path. */
export function address(route: string, input: AnyInput = {}): string {
  const path = route.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(input.path?.[name] ?? ""));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(input.query ?? {})) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

const sessionPath = "/v1/session";

export class Client<R extends RouteTable<R>> {
  private renewing: Promise<boolean> | undefined;
  /** Called when a session has ended and cannot be renewed. */
  onSignedOut: () => void = () => {};

  async call<K extends keyof R & string>(route: K, ...args: Arguments<R[K]["input"]>): Promise<R[K]["answer"]> {
    const [input, options] = args as unknown as [AnyInput?, CallOptions?];
    const res = await this.respond(route, input, options);
    const text = await res.text();
    if (text === "") return undefined as R[K]["answer"];
    return (res.headers.get("Content-Type")?.startsWith("application/json") ? JSON.parse(text) : text) as R[K]["answer"];
  }

  /** What a route answers as a file to keep. */
  async file<K extends keyof R & string>(route: K): Promise<Blob> {
    return (await this.respond(route)).blob();
  }

  private async respond(route: string, input: AnyInput = {}, options: CallOptions = {}): Promise<Response> {
    const [method = "GET", template = ""] = route.split(" ");
    const init: RequestInit = { method, headers: headers(method, input.body !== undefined), cache: "no-store" };
    if (input.body !== undefined) init.body = JSON.stringify(input.body);
    if (options.signal) init.signal = options.signal;
    let res = await send(address(template, input), init);
    if (res.status === 401 && !options.keepSession) {
      if (!(await this.renew())) {
        this.onSignedOut();
        throw await problemOf(res);
      }
      res = await send(address(template, input), init);
    }
    if (!res.ok) throw await problemOf(res);
    return res;
  }

  /**
   * Exchanges the refresh token, and says whether there is a session now. A refresh token is good once,
   * and shown twice it ends the session: so of all pages of a browser one at a time does it, and looks
   * first whether another one has.
   */
  renew(): Promise<boolean> {
    this.renewing ??= navigator.locks
      .request("openclaw-renew-session", async () => {
        const now = await send(sessionPath, { cache: "no-store" });
        if (now.ok) return true;
        if (now.status !== 401) throw await problemOf(now);
        const res = await send(`${sessionPath}/renew`, { method: "POST", headers: headers("POST", false) });
        if (res.status >= 500) throw await problemOf(res);
        return res.ok;
      })
      .finally(() => {
        this.renewing = undefined;
      });
    return this.renewing;
  }
}

function headers(method: string, withBody: boolean): Record<string, string> {
  const h: Record<string, string> = { Accept: "application/json" };
  if (withBody) h["Content-Type"] = "application/json";
  // No form of another site can send it.
  if (method !== "GET") h["X-OpenClaw-CSRF"] = "1";
  return h;
}

/** How long an answer may take, to its last byte: as long as an export. */
const answerWithin = 90_000;

async function send(path: string, init: RequestInit): Promise<Response> {
  const late = AbortSignal.timeout(answerWithin);
  try {
    const signal = init.signal ? AbortSignal.any([init.signal, late]) : late;
    return await fetch(path, { ...init, signal, credentials: "same-origin", redirect: "error" });
  } catch (err) {
    if (init.signal?.aborted) throw err;
    throw new ProblemError(unreachable, 0);
  }
}
