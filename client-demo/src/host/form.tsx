/** Forms of the console: values by field name, errors beside the form, never a lost click. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { attempt, Failure } from "../ui/parts";

export type Values = Readonly<Record<string, string>>;

interface ActFormProps {
  label: string;
  /** Does the act; throws ApiError. */
  act: (values: Values) => Promise<unknown>;
  children?: ComponentChildren;
  class?: string;
  /** Empty the fields after a success. */
  clears?: boolean;
}

const SAVED_SHOWN_MS = 2_000;

export function ActForm({ label, act, children, class: extra = "", clears }: ActFormProps) {
  const [busy, setBusy] = useState(false);
  const [saved, setSaved] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => setSaved(false), SAVED_SHOWN_MS);
    return () => clearTimeout(timer);
  }, [saved]);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    setBusy(true);
    const failure = await attempt(() => act(valuesOf(form)));
    setBusy(false);
    setError(failure);
    setSaved(failure === null);
    if (failure === null && clears) form.reset();
  };
  return (
    <form class={`act ${extra}`} onSubmit={submit} aria-busy={busy}>
      {children}
      <div class="act-end">
        <button type="submit" class="primary" disabled={busy}>
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

/** An amount in major units, as people write it ("99.50"). */
export function MoneyField(props: FieldProps) {
  return <Field {...props} inputMode="decimal" pattern="\d{1,10}([.]\d{1,3})?" required />;
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
  /** Ask for a second click. */
  confirms?: boolean;
  onError?: (error: ApiError | null) => void;
}

const CONFIRM_MS = 4_000;

export function ActButton(props: ActButtonProps) {
  const { label, act, class: kind = "plain", title, disabled, confirms, onError } = props;
  const [busy, setBusy] = useState(false);
  const [armed, setArmed] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    const timer = setTimeout(() => setArmed(false), CONFIRM_MS);
    return () => clearTimeout(timer);
  }, [armed]);
  const press = async () => {
    if (confirms && !armed) return setArmed(true);
    setArmed(false);
    setBusy(true);
    const failure = await attempt(act);
    setBusy(false);
    if (onError) onError(failure);
    else setError(failure);
  };
  return (
    <>
      <button
        type="button"
        class={armed ? `${kind} armed` : kind}
        title={title}
        disabled={busy || disabled === true}
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
