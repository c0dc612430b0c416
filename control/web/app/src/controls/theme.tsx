// Light, dark, or as the reader's system has it.
import { useLayoutEffect, useState } from "preact/hooks";
import { remember, remembered } from "../language/language";

export type Theme = "system" | "light" | "dark";

const kept = "openclaw-theme";

function themeOf(s: string | null): Theme {
  return s === "light" || s === "dark" ? s : "system";
}

export function useTheme(): [Theme, (t: Theme) => void] {
  const [theme, set] = useState(() => themeOf(remembered(kept)));
  useLayoutEffect(() => {
    if (theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
  }, [theme]);
  return [
    theme,
    (t) => {
      remember(kept, t === "system" ? null : t);
      set(t);
    },
  ];
}

/** Two choices that every page has: its language, and light or dark. */
export function Preferences(props: {
  text: { language: string; theme: string; system: string; light: string; dark: string };
  language: string;
  onLanguage: (l: "en" | "pt-BR") => void;
}) {
  const [theme, setTheme] = useTheme();
  const { text } = props;
  return (
    <div class="preferences">
      <select aria-label={text.language} value={props.language} onChange={(e) => props.onLanguage(e.currentTarget.value as "en" | "pt-BR")}>
        <option value="pt-BR" lang="pt-BR">
          Português
        </option>
        <option value="en" lang="en">
          English
        </option>
      </select>
      <select aria-label={text.theme} value={theme} onChange={(e) => setTheme(e.currentTarget.value as Theme)}>
        <option value="system">{text.system}</option>
        <option value="light">{text.light}</option>
        <option value="dark">{text.dark}</option>
      </select>
    </div>
  );
}
