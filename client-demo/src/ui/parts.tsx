/** Small parts both pages use. */

import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { type Key, switchLang, t } from "../i18n";
import type { LiveState, StockState } from "../live";
import { ApiError } from "./api";
import { count } from "./format";

export function LangSwitch() {
  return (
    <button type="button" class="lang" onClick={switchLang} aria-label={t("lang.switch")}>
      {t("lang.other")}
    </button>
  );
}

const OVER_TEXTS: Readonly<Record<string, Key>> = {
  removed: "link.removed",
  unknown_show: "link.unknown_show",
  token_invalid: "link.token_invalid",
};

/** The connection in words, with the reason why it ended for good. */
export function linkText(link: LiveState["link"]): string {
  const over = link.state === "over" ? OVER_TEXTS[link.name] : undefined;
  return t(over ?? `link.${link.state}`);
}

/** The connection at a glance; the colour dot only repeats the words. */
export function LinkBadge({ link }: { link: LiveState["link"] }) {
  return (
    <output class={`link link-${link.state}`} data-link={link.state}>
      <i aria-hidden="true" />
      <span>{t(`link.${link.state}`)}</span>
    </output>
  );
}

/** left / held / sold as one bar; the numbers stand beside it as text. */
export function StockBar({ stock }: { stock: StockState }) {
  const share = (units: number) => `${stock.total > 0 ? (100 * units) / stock.total : 0}%`;
  const { left, held, sold, total } = stock;
  return (
    <div class="stock" role="img" aria-label={t("sale.stock", { left, held, sold, total })}>
      <span class="stock-sold" style={{ width: share(sold) }} />
      <span key={held} class="stock-held" style={{ width: share(held) }} />
    </div>
  );
}

export function StockNumbers({ stock }: { stock: StockState }) {
  return (
    <p class="stock-numbers">
      <Figure name="left" label={t("sale.left")} value={stock.left} />
      <Figure name="held" label={t("sale.held")} value={stock.held} />
      <Figure name="sold" label={t("sale.sold")} value={stock.sold} />
      <span class="stock-total">{t("sale.total", { n: count(stock.total) })}</span>
    </p>
  );
}

function Figure({ name, label, value }: { name: string; label: string; value: number }) {
  return (
    <span class={`figure figure-${name}`}>
      <i aria-hidden="true" />
      {label}{" "}
      <b key={value} class="roll" data-stock={name}>
        {count(value)}
      </b>
    </span>
  );
}

/** A picture that may be missing: the first letter of its product stands in. */
export function Picture({ url, title }: { url: string; title: string }) {
  const [broken, setBroken] = useState(false);
  if (!url || broken) {
    return (
      <span class="picture picture-none" aria-hidden="true">
        {[...title][0] ?? "·"}
      </span>
    );
  }
  return <img class="picture" src={url} alt="" loading="lazy" onError={() => setBroken(true)} />;
}

interface SheetProps {
  title: string;
  /** A class of its own. */
  name?: string;
  onClose: () => void;
  children: ComponentChildren;
}

/**
 * A modal sheet: from below on phones, in the middle of wide windows. Escape closes it; the focus
 * goes back to where it was.
 */
export function Sheet({ title, name = "", onClose, children }: SheetProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  // Before the paint, not after it: no frame shows the sheet's content outside of its layer, and
  // no Escape is lost between the two. Going away, it is closed first: that returns the focus.
  useLayoutEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => {
      if (shown) shown.onclose = null;
      shown?.close();
    };
  }, []);
  useLayoutEffect(() => {
    if (dialog.current) dialog.current.onclose = onClose;
  });
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes a modal dialog by itself
    <dialog
      ref={dialog}
      class={`sheet paper ${name}`}
      aria-label={title}
      onClick={(event) => event.target === dialog.current && onClose()}
    >
      <div class="sheet-body">
        <header class="sheet-head">
          <h2>{title}</h2>
          <button type="button" class="icon" onClick={onClose} aria-label={t("close")}>
            ×
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** A failure in the page's language, beside the form it belongs to. */
export function Failure({ error }: { error: ApiError | null }) {
  if (!error) return null;
  return (
    <p class="failure" role="alert">
      {error.text()}
    </p>
  );
}

/** Run `work`; what the API refuses comes back, everything else is a bug and is thrown. */
export async function attempt(work: () => Promise<unknown>): Promise<ApiError | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof ApiError) return error;
    throw error;
  }
}
