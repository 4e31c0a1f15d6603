/** A part of the books that is read when it comes on screen, and again when asked. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ApiError } from "../ui/api";
import { attempt, Failure } from "../ui/parts";
import { ActButton } from "./form";

interface LeafProps {
  title: string;
  load: () => Promise<unknown>;
  children: ComponentChildren;
}

export function Leaf({ title, load, children }: LeafProps) {
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    attempt(load).then(setError);
  }, []);
  return (
    <section class="card">
      <header class="row">
        <h2>{title}</h2>
        <ActButton class="tiny" label={t("refresh")} act={load} onError={setError} />
      </header>
      <Failure error={error} />
      {children}
    </section>
  );
}
