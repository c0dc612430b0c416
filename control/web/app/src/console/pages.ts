// Lists of the api that come page by page.
import { useEffect, useRef, useState } from "preact/hooks";
import { type Action, type Loaded, useAction, useLoaded } from "../controls/ask";

interface List<T> {
  items: T[];
  next?: string;
}

export interface Paged<T> {
  loaded: Loaded<T[]>;
  /** Loads the list anew, from its first page on. */
  again: () => void;
  /** Loads the next page; undefined if there is none. */
  more: Action<[]> | undefined;
}

/** Loads a list: load gets the cursor of a page, or undefined for the first. */
export function usePaged<T>(load: (cursor: string | undefined, signal?: AbortSignal) => Promise<List<T>>, deps: readonly unknown[]): Paged<T> {
  const [first, again] = useLoaded((signal) => load(undefined, signal), deps);
  const [later, setLater] = useState<{ items: T[]; next: string | undefined }>();
  useEffect(() => setLater(undefined), [first]);
  const present = useRef(first);
  present.current = first;
  const next = first.state === "there" ? (later ? later.next : first.value.next) : undefined;
  const more = useAction(async () => {
    const list = await load(next);
    if (present.current !== first) return; // another list is shown by now
    setLater((before) => ({ items: [...(before?.items ?? []), ...list.items], next: list.next }));
  });
  const loaded: Loaded<T[]> = first.state === "there" ? { ...first, value: [...first.value.items, ...(later?.items ?? [])] } : first;
  return { loaded, again, more: next === undefined ? undefined : more };
}
