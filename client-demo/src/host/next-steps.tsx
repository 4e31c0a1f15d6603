/**
 * The way from an empty show to a running sale, for somebody who has never seen the console. It
 * goes when a sale opens: nothing moves under the pointer while people buy.
 */

import { t } from "../i18n";
import type { Desk } from "./desk";

type Step = "product" | "sale" | "start" | "pin" | "open";

/** Where each step is done, for document.querySelector. */
const PLACES = {
  product: "#goods > details input",
  sale: "#sales input[name=price]",
  start: "#turns button",
  pin: "#goods .item .accent",
  open: "#sales .start .primary",
} as const satisfies Record<Step, string>;

/** The steps in order with whether they are done, by what the server says. */
function stepsOf(desk: Desk): [Step, boolean][] {
  const on = desk.status.value !== "scheduled";
  const opened = desk.sales.value.some((sale) => sale.status !== "draft");
  return [
    ["product", desk.products.value.length > 0],
    ["sale", desk.sales.value.length > 0],
    ["start", on],
    ["pin", desk.pinned.value > 0],
    ["open", on && opened],
  ];
}

export function NextSteps({ desk, goTo }: { desk: Desk; goTo: (place: string) => void }) {
  const steps = stepsOf(desk);
  const next = steps.find(([, done]) => !done)?.[0];
  const sold = desk.sales.value.some((sale) => sale.sold > 0);
  if (!next || sold) return null;
  return (
    <nav class="next-steps" aria-label={t("next.title")}>
      <ol>
        {steps.map(([step, done]) => (
          <li key={step} class={done ? "step step-done" : "step"}>
            {/* biome-ignore lint/a11y/useValidAnchor: it leads to a place; the act is done there */}
            <a
              href="#console"
              aria-current={step === next ? "step" : false}
              onClick={(event) => {
                event.preventDefault();
                goTo(PLACES[step]);
              }}
            >
              {t(`next.${step}`)}
            </a>
          </li>
        ))}
      </ol>
      <p class="help">{t(`next.hint.${next}`)}</p>
    </nav>
  );
}
