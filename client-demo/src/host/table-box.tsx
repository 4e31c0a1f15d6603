/** A table that may be wider than its place: it scrolls there, also by keyboard. */

import type { ComponentChildren } from "preact";

interface TableBoxProps {
  label: string;
  children: ComponentChildren;
}

export function TableBox({ label, children }: TableBoxProps) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reachable by keyboard
    <section class="table" aria-label={label} tabIndex={0}>
      {children}
    </section>
  );
}
