/** What each pinned product brought while it was pinned. */

import { t } from "../i18n";
import { count, span, timeOfDay } from "../ui/format";
import type { Desk } from "./desk";
import { amountsText } from "./figures";
import type { PinWindow } from "./number-types";
import { TableBox } from "./table-box";
import { conversionText } from "./top-numbers";

/** Newest first. */
export function PinWindows({ desk }: { desk: Desk }) {
  const pins = desk.numbers.pins.reading.value?.value ?? [];
  const now = desk.status.value === "ended" ? undefined : pins.at(-1);
  const isOn = now !== undefined && now.product === desk.pinned.value;
  return (
    <section class="card">
      <h2>{t("pins.title")}</h2>
      {pins.length === 0 ? (
        <p class="empty">{t("pins.none")}</p>
      ) : (
        <PinTable desk={desk} pins={[...pins].reverse()} current={isOn ? now : undefined} />
      )}
    </section>
  );
}

interface PinTableProps {
  desk: Desk;
  pins: readonly PinWindow[];
  /** The one that is not over. */
  current?: PinWindow | undefined;
}

export function PinTable({ desk, pins, current }: PinTableProps) {
  const money = desk.may("see_money");
  const best = Math.max(1, ...pins.map((pin) => pin.conversion_pm));
  return (
    <TableBox label={t("pins.title")}>
      <table>
        <thead>
          <tr>
            <th>{t("pins.product")}</th>
            <th>{t("pins.when")}</th>
            <th class="number">{t("pins.online")}</th>
            <th class="number">{t("pins.buyers")}</th>
            <th class="number">{t("pins.units")}</th>
            {money && <th class="number">{t("pins.amount")}</th>}
            <th class="number">{t("pins.conversion")}</th>
          </tr>
        </thead>
        <tbody>
          {pins.map((pin) => (
            <PinRow key={pin.since} {...{ pin, best, money }} isCurrent={pin === current} />
          ))}
        </tbody>
      </table>
    </TableBox>
  );
}

interface PinRowProps {
  pin: PinWindow;
  /** The best conversion of all windows. */
  best: number;
  /** Whether sums are shown. */
  money: boolean;
  isCurrent: boolean;
}

function PinRow({ pin, best, money, isCurrent }: PinRowProps) {
  const share = Math.max(0, pin.conversion_pm) / best;
  return (
    <tr data-pin={pin.product}>
      <td class="wraps">
        {pin.title} {isCurrent && <b class="pin-mark">{t("pins.now")}</b>}
      </td>
      <td>
        {timeOfDay(pin.since)} · {span(pin.until - pin.since)}
      </td>
      <td class="number">{pin.online > 0 ? count(pin.online) : "–"}</td>
      <td class="number">{count(pin.buyers)}</td>
      <td class="number">{count(pin.units)}</td>
      {money && <td class="number">{amountsText(pin.amounts) || "–"}</td>}
      <td class="number share">
        <i aria-hidden="true" style={{ transform: `scaleX(${share})` }} />
        {conversionText(pin)}
      </td>
    </tr>
  );
}
