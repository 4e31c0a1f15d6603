/** The audit in full: where every unit of each sale is, and what does not add up. */

import { t } from "../i18n";
import { count, timeOfDay } from "../ui/format";
import { Failure } from "../ui/parts";
import { problemText } from "./audit-badge";
import type { Desk } from "./desk";
import { PLACES } from "./equation";
import { ActButton } from "./form";
import type { Audit, Problem } from "./number-types";
import { TableBox } from "./table-box";
import type { PoolBalance } from "./types";

const PROBLEMS_SHOWN = 50;

export function AuditCard({ desk }: { desk: Desk }) {
  const { audit } = desk.numbers;
  const known = audit.reading.value?.value;
  return (
    <section class="card">
      <header class="row">
        <h2>{t("audit.title")}</h2>
        <ActButton class="tiny" label={t("refresh")} act={() => audit.ask()} />
      </header>
      <Failure error={audit.error.value} />
      {known && <Said audit={known} />}
      {known && known.problems.length > 0 && <Problems desk={desk} problems={known.problems} />}
      {desk.numbers.started.value.length === 0 && <p class="empty">{t("audit.none")}</p>}
      {known && known.pools.length > 0 && <Balances desk={desk} pools={known.pools} />}
    </section>
  );
}

function Said({ audit }: { audit: Audit }) {
  return (
    <p class={audit.ok ? "verdict" : "verdict verdict-bad"}>
      {audit.ok ? t("audit.ok") : t("audit.problems", { n: audit.found })}{" "}
      <small>{t("audit.at", { time: timeOfDay(audit.at) })}</small>
    </p>
  );
}

/** Each in the page's language, with the server's own words (English) for the operator. */
function Problems({ desk, problems }: { desk: Desk; problems: readonly Problem[] }) {
  return (
    <ol class="acts">
      {problems.slice(0, PROBLEMS_SHOWN).map((problem) => (
        <li key={JSON.stringify(problem)} data-problem={problem.kind}>
          <b class="verdict-bad">{problemText(problem)}</b>
          {problem.pool > 0 && <> · {nameOf(desk, problem.pool)}</>}
          {problem.order_id > 0 && (
            <>
              {" "}
              · {t("order.id")} {problem.order_id}
            </>
          )}{" "}
          <code>{problem.detail}</code>
        </li>
      ))}
    </ol>
  );
}

function Balances({ desk, pools }: { desk: Desk; pools: readonly PoolBalance[] }) {
  return (
    <TableBox label={t("audit.title")}>
      <table>
        <thead>
          <tr>
            <th>{t("audit.pool")}</th>
            <th class="number">{t("audit.total")}</th>
            {PLACES.map((place) => (
              <th key={place} class="number">
                {t(`audit.place.${place}`)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {pools.map((pool) => (
            <Balance key={pool.pool} desk={desk} pool={pool} />
          ))}
        </tbody>
      </table>
    </TableBox>
  );
}

function Balance({ desk, pool }: { desk: Desk; pool: PoolBalance }) {
  return (
    <tr data-pool={pool.pool}>
      <td class="wraps">{nameOf(desk, pool.pool)}</td>
      <td class="number">
        <b>{count(pool.initial + pool.restocked - pool.lowered)}</b>
        {pool.difference !== 0 && (
          <b class="off-by"> {t("audit.off_by", { n: signed(pool.difference) })}</b>
        )}
      </td>
      {PLACES.map((place) => (
        <td key={place} class={pool[place] === 0 ? "number nought" : "number"}>
          {count(pool[place])}
        </td>
      ))}
    </tr>
  );
}

function signed(units: number): string {
  return units > 0 ? `+${count(units)}` : count(units);
}

function nameOf(desk: Desk, pool: number): string {
  const sale = desk.sales.value.find((one) => one.sale === pool);
  return sale ? `${sale.product_title} · ${sale.sku_title}` : String(pool);
}
