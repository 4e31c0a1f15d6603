/**
 * Forms of the console: values by field name, errors beside the form, never a lost click. A button
 * whose act is under way is only marked as disabled: one that is loses the focus.
 */

import type { ComponentChildren } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { parseMoney } from "../ui/format";
import { attempt, Failure } from "../ui/parts";

export type Values = Readonly<Record<string, string>>;

interface ActFormProps {
  label: string;
  /** Does the act; false when it was taken back. Throws ApiError. */
  act: (values: Values) => Promise<unknown>;
  children?: ComponentChildren;
  class?: string;
  /** Empty the fields after a success. */
  clears?: boolean;
  /** What these values would do, shown while they are typed. */
  preview?: (values: Values) => ComponentChildren;
  /** The currency of the form's amounts. */
  currency?: (values: Values) => string;
}

export function ActForm(props: ActFormProps) {
  const { label, act, children, class: extra = "", clears, preview, currency } = props;
  const form = useRef<HTMLFormElement>(null);
  const [typed, setTyped] = useState<Values>({});
  const [busy, setBusy] = useState(false);
  const [saved, setSaved] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const look = () => {
    if (!form.current) return;
    const values = valuesOf(form.current);
    if (currency) checkAmounts(form.current, currency(values));
    if (preview) setTyped(values);
  };
  useLayoutEffect(() => void look(), []);
  const edit = () => {
    setSaved(false); // what stands there now is not
    look();
  };
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    if (!form.current || busy) return;
    const values = valuesOf(form.current);
    setBusy(true);
    setSaved(false);
    try {
      let done: unknown;
      const failure = await attempt(async () => {
        done = await act(values);
      });
      const isDone = failure === null && done !== false;
      setError(failure);
      setSaved(isDone);
      if (!isDone || !clears) return;
      form.current?.reset();
      look();
    } finally {
      setBusy(false);
    }
  };
  return (
    <form ref={form} class={`act ${extra}`} onSubmit={submit} onInput={edit} aria-busy={busy}>
      {children}
      {preview?.(typed)}
      <div class="act-end">
        <button type="submit" class="primary" aria-disabled={busy}>
          {label}
        </button>
        {saved && <output class="saved">{t("saved")}</output>}
      </div>
      <Failure error={error} />
    </form>
  );
}

function valuesOf(form: HTMLFormElement): Values {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, String(value)]));
}

type FieldProps = {
  label: string;
  name: string;
  value?: string | number;
  type?: string;
  min?: number;
  max?: number;
  maxLength?: number;
  required?: boolean;
  step?: string;
  placeholder?: string;
  pattern?: string;
  inputMode?: "decimal" | "numeric";
};

export function Field({ label, value, ...input }: FieldProps) {
  return (
    <label class="field">
      <span>{label}</span>
      {/* Preact types the attributes per input type; FieldProps allows those all of them share. */}
      <input
        {...(input as object)}
        defaultValue={value === undefined ? "" : String(value)}
        autoComplete="off"
      />
    </label>
  );
}

interface LinesFieldProps {
  label: string;
  name: string;
  value?: string;
  rows: number;
  required?: boolean;
}

/** Several lines of text. The label stands beside it: what is typed is no part of its name. */
export function LinesField({ label, value = "", ...area }: LinesFieldProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <textarea id={id} defaultValue={value} {...area} />
    </div>
  );
}

/** An amount in major units, as people write it ("99.50"). */
export function MoneyField(props: FieldProps) {
  return <Field {...props} inputMode="decimal" pattern={AMOUNT} required />;
}

const AMOUNT = "\\d{1,10}([.]\\d{1,3})?";
const CURRENCY = /^[A-Z]{3}$/i;

/** No form is sent with an amount that `currency` cannot express. An odd currency is told as such. */
function checkAmounts(form: HTMLFormElement, currency: string): void {
  if (!CURRENCY.test(currency)) return;
  for (const input of form.querySelectorAll<HTMLInputElement>("input[inputmode=decimal]")) {
    const isBad = input.value !== "" && Number.isNaN(parseMoney(input.value, currency));
    input.setCustomValidity(isBad ? t("money.bad") : "");
  }
}

export function UnitsField(props: FieldProps) {
  return <Field type="number" min={1} max={1_000_000} step="1" required {...props} />;
}

interface ActButtonProps {
  label: string;
  act: () => Promise<unknown>;
  class?: string;
  title?: string;
  disabled?: boolean;
  /** For one of several choices: whether it is the one. */
  pressed?: boolean;
  /** Ask for a second click. */
  confirms?: boolean;
  onError?: (error: ApiError | null) => void;
}

const CONFIRM_MS = 4_000;

export function ActButton(props: ActButtonProps) {
  const { label, act, class: kind = "plain", title, disabled, pressed, confirms, onError } = props;
  const [busy, setBusy] = useState(false);
  const [armed, setArmed] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => setArmed(false), CONFIRM_MS);
    return () => clearTimeout(timer);
  }, [armed]);
  const press = async () => {
    if (busy) return;
    if (confirms && !armed) return setArmed(true);
    setArmed(false);
    setBusy(true);
    try {
      const failure = await attempt(act);
      (onError ?? setError)(failure);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <button
        type="button"
        class={armed ? `${kind} armed` : kind}
        title={title}
        aria-pressed={pressed}
        disabled={disabled === true}
        aria-disabled={busy}
        onClick={press}
      >
        {armed ? t("confirm_again") : label}
      </button>
      <Failure error={error} />
    </>
  );
}

/** Milliseconds of a datetime-local field; 0 when empty. */
export function momentOf(text: string | undefined): number {
  const ms = text ? new Date(text).getTime() : 0;
  return Number.isFinite(ms) ? ms : 0;
}

/** The value of a datetime-local field in this machine's zone; "" for 0. */
export function localMoment(ms: number): string {
  if (ms === 0) return "";
  const zone = new Date(ms).getTimezoneOffset() * 60_000;
  return new Date(ms - zone).toISOString().slice(0, 16);
}
