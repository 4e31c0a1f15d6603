/** "You got it": once for every claim that this page saw being confirmed. */

import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import type { ClaimRecord } from "../live";
import { Picture } from "../ui/parts";
import { celebrate } from "./celebrate";
import { wantsLessMotion } from "./danmaku";
import { itemOf, state, values } from "./page";

const SHOWN_MS = 2_600;

export function Celebration() {
  const won = useConfirmed(state.value.claims);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (won && box.current && !wantsLessMotion()) celebrate(box.current);
  }, [won]);
  return (
    <div class="won" aria-hidden="true">
      {won && <Card key={won.claim_id} won={won} />}
      <div class="pieces" ref={box} />
    </div>
  );
}

function Card({ won }: { won: ClaimRecord }) {
  const sale = values.value.sales[won.sale];
  const product = sale && itemOf(sale).product;
  return (
    <p class="won-card paper">
      <Picture url={product?.image_url ?? ""} title={product?.title ?? ""} />
      <b>{t("buy.got_it")}</b>
      <span>
        {product?.title ?? ""} × {won.answer?.quantity ?? won.quantity}
      </span>
    </p>
  );
}

/** The claim that was just confirmed, for a moment; claims that were so before do not count. */
function useConfirmed(claims: readonly ClaimRecord[]): ClaimRecord | null {
  const [won, setWon] = useState<ClaimRecord | null>(null);
  const open = useRef(new Set<string>());
  useEffect(() => {
    const fresh = claims.find((one) => isConfirmed(one) && open.current.has(one.claim_id));
    open.current = new Set(claims.filter((one) => !isConfirmed(one)).map((one) => one.claim_id));
    if (fresh) setWon(fresh);
  }, [claims]);
  useEffect(() => {
    if (!won) return;
    const timer = setTimeout(() => setWon(null), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [won]);
  return won;
}

function isConfirmed({ answer }: ClaimRecord): boolean {
  return answer?.status === "confirmed" || answer?.status === "paid";
}
