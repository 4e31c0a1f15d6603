/** A part of the books that is read when it is opened, and again when asked. */

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { attempt, Failure } from "../ui/parts";
import { ActButton } from "./form";

interface UnfoldProps {
  title: string;
  load: () => Promise<unknown>;
  children: ComponentChildren;
}

export function Unfold({ title, load, children }: UnfoldProps) {
  const [error, setError] = useState<ApiError | null>(null);
  const toggle = (event: Event) => {
    if ((event.currentTarget as HTMLDetailsElement).open) attempt(load).then(setError);
  };
  return (
    <details class="card" onToggle={toggle}>
      <summary>{title}</summary>
      <Failure error={error} />
      {children}
      <p class="row">
        <ActButton class="tiny" label={t("refresh")} act={load} onError={setError} />
      </p>
    </details>
  );
}
