/** The audit's short form: where every unit of the show is, and whether they add up. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import { count, timeOfDay } from "../ui/format";
import type { Desk } from "./desk";
import type { AuditSummary, PoolBalance } from "./types";
import { Unfold } from "./unfold";

export function AuditCard({ desk }: { desk: Desk }) {
  const [audit, setAudit] = useState<AuditSummary | null>(null);
  return (
    <Unfold title={t("audit.title")} load={async () => setAudit(await desk.audit())}>
      {audit && <Verdict audit={audit} />}
      {audit?.pools.length === 0 && <p class="empty">{t("audit.none")}</p>}
      {audit && audit.pools.length > 0 && <Balances desk={desk} pools={audit.pools} />}
    </Unfold>
  );
}

function Verdict({ audit }: { audit: AuditSummary }) {
  return (
    <p class={audit.ok ? "verdict" : "verdict verdict-bad"} data-audit={audit.ok ? "ok" : "bad"}>
      {audit.ok ? t("audit.ok") : t("audit.problems", { n: audit.found })}{" "}
      <small>{t("audit.at", { time: timeOfDay(audit.at) })}</small>
    </p>
  );
}

const PARTS = ["available", "backlog", "reserved", "sold", "dead", "pending_give"] as const;

function Balances({ desk, pools }: { desk: Desk; pools: readonly PoolBalance[] }) {
  return (
    <div class="table">
      <table>
        <thead>
          <tr>
            <th>{t("audit.pool")}</th>
            {PARTS.map((part) => (
              <th key={part} class="number">
                {t(`audit.${part}`)}
              </th>
            ))}
            <th class="number">{t("audit.total")}</th>
          </tr>
        </thead>
        <tbody>
          {pools.map((pool) => (
            <tr key={pool.pool} data-pool={pool.pool}>
              <td>{nameOf(desk, pool.pool)}</td>
              {PARTS.map((part) => (
                <td key={part} class="number">
                  {count(pool[part])}
                </td>
              ))}
              <td class="number">
                {count(pool.initial + pool.restocked - pool.lowered)}
                {pool.difference !== 0 && <b class="off-by"> {count(pool.difference)}</b>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function nameOf(desk: Desk, pool: number): string {
  const sale = desk.sales.value.find((one) => one.sale === pool);
  return sale ? `${sale.product_title} · ${sale.sku_title}` : String(pool);
}
