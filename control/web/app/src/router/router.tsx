// Pages by their path. Links are links: they can be opened in another tab, and read out.
import type { ComponentChildren, TargetedMouseEvent } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Match<Name extends string> {
  name: Name;
  path: Readonly<Record<string, string>>;
}

/** Finds the route of a path: patterns are like /boxes/{id}. */
export function match<Name extends string>(routes: Readonly<Record<Name, string>>, path: string): Match<Name> | undefined {
  const parts = split(path);
  for (const name in routes) {
    const pattern = split(routes[name]);
    if (pattern.length !== parts.length) continue;
    const found: Record<string, string> = {};
    const fits = pattern.every((p, i) => {
      const part = parts[i] ?? "";
      if (!p.startsWith("{")) return p === part;
      try {
        found[p.slice(1, -1)] = decodeURIComponent(part);
      } catch {
        return false;
      }
      return part !== "";
    });
    if (fits) return { name, path: found };
  }
  return undefined;
}

function split(path: string): string[] {
  return path.split("/").filter((p) => p !== "");
}

const moved = "openclaw:moved";

/** Marks entries of the history that were made by a page of ours, and not by loading one. */
const within = "within";

function hasMoved(): boolean {
  return history.state === within;
}

/** Goes to another page of this site. */
export function go(to: string, options: { replace?: boolean } = {}): void {
  if (options.replace) history.replaceState(within, "", to);
  else history.pushState(within, "", to);
  dispatchEvent(new Event(moved));
}

/** Takes query and fragment away from the address, so that they are neither kept nor shown. */
export function forgetQuery(): void {
  history.replaceState(history.state, "", location.pathname);
}

export function usePath(): string {
  const [path, setPath] = useState(location.pathname);
  useEffect(() => {
    const follow = () => setPath(location.pathname);
    addEventListener("popstate", follow);
    addEventListener(moved, follow);
    return () => {
      removeEventListener("popstate", follow);
      removeEventListener(moved, follow);
    };
  }, []);
  return path;
}

type LinkProps = { to: string; current?: boolean; class?: string; children: ComponentChildren };

export function Link({ to, current, children, ...rest }: LinkProps) {
  const follow = (e: TargetedMouseEvent<HTMLAnchorElement>) => {
    if (e.defaultPrevented || e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    e.preventDefault();
    go(to);
  };
  return (
    <a href={to} onClick={follow} aria-current={current ? "page" : undefined} {...rest}>
      {children}
    </a>
  );
}

/**
 * The heading of a page. Whoever came here by a link within the site is put there, as if the page had
 * been loaded: screen readers read it, and the keyboard goes on from it.
 */
export function PageTitle({ title, site, children }: { title: string; site: string; children?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => {
    document.title = `${title} · ${site}`;
  }, [title, site]);
  useLayoutEffect(() => {
    if (!hasMoved()) return;
    heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, []);
  return (
    <h1 tabIndex={-1} ref={heading}>
      {children ?? title}
    </h1>
  );
}
