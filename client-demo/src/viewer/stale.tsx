/** Says how old the numbers are while the connection is not live. */

import { t } from "../i18n";
import { link, live } from "./page";

export function Stale() {
  const { value } = link;
  if (value.state !== "catching_up" && value.state !== "offline") return null;
  if (value.heardAt === 0) return null;
  const ago = Math.max(0, Math.round((live.second.value - value.heardAt) / 1000));
  return (
    <p class="stale-note" data-stale={ago}>
      {t("stale", { n: ago })}
      {value.state === "offline" && <Retry at={value.retryAt} />}
    </p>
  );
}

/** `at` is local time, as no server is heard. */
function Retry({ at }: { at: number }) {
  const inMs = at - Date.now();
  return inMs > 0 ? <span> · {t("link.retry", { n: Math.ceil(inMs / 1000) })}</span> : null;
}
