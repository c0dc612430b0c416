// Which language a page is in, and how numbers and times are written in it.
import { createContext, type ComponentChildren } from "preact";
import { useContext, useLayoutEffect, useMemo, useState } from "preact/hooks";
import { type Formats, formatsOf } from "./formats";

export type Language = "en" | "pt-BR";

/** What a page says, in each language. A text that one of them lacks does not compile. */
export type Catalogue<Text> = Record<Language, Text>;

const kept = "openclaw-language";

/** The language of an IETF tag; undefined if it is none of ours. */
export function languageOf(tag: string | null | undefined): Language | undefined {
  const primary = tag?.toLowerCase().split("-")[0];
  return primary === "pt" ? "pt-BR" : primary === "en" ? "en" : undefined;
}

/**
 * The language to begin with: what the link asked for, what was chosen before, the first of the
 * reader's own that there is, and otherwise Brazilian Portuguese.
 */
export function choose(asked: string | null, chosen: string | null, preferred: readonly string[]): Language {
  return languageOf(asked) ?? languageOf(chosen) ?? preferred.map(languageOf).find((l) => l !== undefined) ?? "pt-BR";
}

/** Storage may be forbidden; then a choice lasts as long as the page. */
export function remembered(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function remember(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // As remembered says.
  }
}

interface Spoken {
  language: Language;
  setLanguage: (l: Language) => void;
  formats: Formats;
}

const Context = createContext<Spoken | undefined>(undefined);

export function LanguageProvider({ children }: { children: ComponentChildren }) {
  const [language, set] = useState(() => choose(new URLSearchParams(location.search).get("lang"), remembered(kept), navigator.languages));
  useLayoutEffect(() => {
    document.documentElement.lang = language;
  }, [language]);
  const spoken = useMemo(
    () => ({
      language,
      formats: formatsOf(language),
      setLanguage: (l: Language) => {
        remember(kept, l);
        set(l);
      },
    }),
    [language],
  );
  return <Context.Provider value={spoken}>{children}</Context.Provider>;
}

export function useLanguage(): Spoken {
  const spoken = useContext(Context);
  if (!spoken) throw new Error("BUG: used outside of LanguageProvider");
  return spoken;
}
