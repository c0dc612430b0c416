// What pages are made of: buttons, fields, notices. Each is the element that browsers and screen readers
// know, with our looks.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";

type ButtonProps = {
  children: ComponentChildren;
  kind?: "primary" | "plain" | "danger";
  type?: "button" | "submit";
  busy?: boolean;
  disabled?: boolean;
  onClick?: () => void;
};

/** A button. While it is busy it does nothing, and keeps the focus. */
export function Button({ children, kind = "plain", type = "button", busy = false, disabled = false, onClick }: ButtonProps) {
  return (
    <button
      type={type}
      class={`button ${kind}`}
      aria-busy={busy}
      aria-disabled={busy || disabled}
      onClick={(e) => {
        if (busy || disabled) e.preventDefault();
        else onClick?.();
      }}
    >
      {children}
      {busy && <span class="spinner" aria-hidden="true" />}
    </button>
  );
}

type FieldProps = {
  label: string;
  hint?: string | undefined;
  error?: string | undefined;
  children: (attributes: { id: string; "aria-describedby": string | undefined; "aria-invalid": boolean }) => ComponentChildren;
};

/** A labelled control with its hint and what is wrong with it. */
export function Field({ label, hint, error, children }: FieldProps) {
  const id = useId();
  const about = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {children({ id, "aria-describedby": about, "aria-invalid": Boolean(error) })}
      {error && (
        <p class="error" id={`${id}-error`}>
          {error}
        </p>
      )}
    </div>
  );
}

type InputProps = Omit<FieldProps, "children"> & {
  value: string;
  onValue: (v: string) => void;
  name?: string;
  type?: "text" | "email" | "password" | "search";
  inputMode?: "text" | "email" | "numeric" | "decimal";
  autocomplete?: string;
  maxLength?: number;
  spellcheck?: boolean;
};

export function TextInput({ label, hint, error, value, onValue, type = "text", ...rest }: InputProps) {
  return (
    <Field label={label} hint={hint} error={error}>
      {(attributes) => (
        // Preact has a type of its own for each type of input, and none for a choice of them.
        <input {...attributes} {...({ ...rest, type } as object)} value={value} onInput={(e) => onValue(e.currentTarget.value)} />
      )}
    </Field>
  );
}

type SelectProps = Omit<FieldProps, "children"> & {
  value: string;
  onValue: (v: string) => void;
  options: readonly (readonly [value: string, text: string])[];
};

export function Select({ label, hint, error, value, onValue, options }: SelectProps) {
  return (
    <Field label={label} hint={hint} error={error}>
      {(attributes) => (
        <select {...attributes} value={value} onChange={(e) => onValue(e.currentTarget.value)}>
          {options.map(([v, text]) => (
            <option key={v} value={v}>
              {text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

/** Something to know. Trouble is read out at once, other things when there is a pause. */
export function Notice({ kind = "info", children }: { kind?: "info" | "good" | "warning" | "trouble"; children: ComponentChildren }) {
  return (
    <div class={`notice ${kind}`} role={kind === "trouble" ? "alert" : "status"}>
      {children}
    </div>
  );
}

export function Loading({ text }: { text: string }) {
  return (
    <p class="loading" role="status">
      <span class="spinner" aria-hidden="true" /> {text}
    </p>
  );
}

/** What could not be shown, and how to try again. */
export function Failure({ text, again, onAgain }: { text: string; again: string; onAgain: () => void }) {
  return (
    <Notice kind="trouble">
      <p>{text}</p>
      <Button onClick={onAgain}>{again}</Button>
    </Notice>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export function Card({ title, children, actions }: { title: string; children: ComponentChildren; actions?: ComponentChildren }) {
  const id = useId();
  return (
    <section class="card" aria-labelledby={id}>
      <div class="card-head">
        <h2 id={id}>{title}</h2>
        {actions}
      </div>
      {children}
    </section>
  );
}

/** How much of something there is. The text beside it says the same. */
export function Meter({ label, share, text, high }: { label: string; share: number; text: string; high: boolean }) {
  const percent = Math.min(Math.max(share, 0), 1) * 100;
  return (
    <div class={high ? "meter high" : "meter"} role="meter" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(percent)} aria-valuetext={text}>
      <div style={{ width: `${percent}%` }} />
    </div>
  );
}

type DialogProps = { title: string; children: ComponentChildren; onClose: () => void };

/** A dialog over the page: the browser keeps the focus in it, and Escape closes it. */
export function Dialog({ title, children, onClose }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const d = dialog.current;
    d?.showModal();
    return () => d?.close();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}

/** A form that is sent by its button and by Enter, and never leaves the page. */
export function Form({ onSend, children }: { onSend: () => void; children: ComponentChildren }) {
  return (
    <form
      noValidate
      onSubmit={(e) => {
        e.preventDefault();
        onSend();
      }}
    >
      {children}
    </form>
  );
}

/** Rows with headings; wide ones are scrolled sideways, also by keyboard. */
export function Table({ caption, head, children }: { caption: string; head: readonly string[]; children: ComponentChildren }) {
  const table = useRef<HTMLTableElement>(null);
  // Where there is no room for columns, style/data.css shows each cell with the name of its column.
  useLayoutEffect(() => {
    for (const row of table.current?.tBodies[0]?.rows ?? []) {
      head.forEach((name, i) => row.cells[i]?.setAttribute("data-label", name));
    }
  });
  return (
    <div class="table" tabIndex={0} role="region" aria-label={caption}>
      <table ref={table}>
        <thead>
          <tr>
            {head.map((h, i) => (
              <th key={i} scope="col">
                {h}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
