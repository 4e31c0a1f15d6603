/** The books of a show: orders, the audit, what was parked, whom to tell, and the log of acts. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import { dateTime } from "../ui/format";
import { AuditCard } from "./audit";
import { DeadLetters } from "./dead-letters";
import type { Desk } from "./desk";
import { Orders } from "./orders";
import { RehearsalCard } from "./rehearsal";
import type { Act } from "./types";
import { Unfold } from "./unfold";
import { Webhooks } from "./webhooks";

export function Books({ desk }: { desk: Desk }) {
  return (
    <div class="books">
      <AuditCard desk={desk} />
      <RehearsalCard desk={desk} />
      <Orders desk={desk} />
      <DeadLetters desk={desk} />
      <Webhooks desk={desk} />
      <Acts desk={desk} />
    </div>
  );
}

function Acts({ desk }: { desk: Desk }) {
  const [acts, setActs] = useState<readonly Act[]>([]);
  return (
    <Unfold title={t("acts.title")} load={async () => setActs(await desk.acts())}>
      {acts.length === 0 && <p class="empty">{t("acts.none")}</p>}
      <ol class="acts">
        {acts.map((act) => (
          <li key={act.act}>
            <time>{dateTime(act.at)}</time> <b>{act.actor}</b> {act.action}{" "}
            <code>{JSON.stringify(act.detail)}</code>
          </li>
        ))}
      </ol>
    </Unfold>
  );
}
