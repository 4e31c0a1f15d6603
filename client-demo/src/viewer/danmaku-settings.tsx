/** How much danmaku, how strong, held still or not at all. */

import { t } from "../i18n";
import { Sheet } from "../ui/parts";
import { change, DENSITIES, OPACITY_MAX, OPACITY_MIN, paused, prefs } from "./prefs";

export function DanmakuSettings({ onClose }: { onClose: () => void }) {
  const { shown, opacity } = prefs.value;
  return (
    <Sheet title={t("danmaku.settings")} name="settings" onClose={onClose}>
      <div class="setting-row">
        <button type="button" class="plain" onClick={() => change({ shown: !shown })}>
          {t(shown ? "danmaku.hide" : "danmaku.show")}
        </button>
        <button
          type="button"
          class="plain"
          disabled={!shown}
          onClick={() => (paused.value = !paused.value)}
        >
          {t(paused.value ? "danmaku.resume" : "danmaku.pause")}
        </button>
      </div>
      <Densities />
      <label class="setting">
        <span>{t("danmaku.opacity")}</span>
        <input
          type="range"
          name="opacity"
          min={OPACITY_MIN}
          max={OPACITY_MAX}
          step={10}
          value={opacity}
          onInput={(event) => change({ opacity: Number(event.currentTarget.value) })}
        />
        <output>{opacity}%</output>
      </label>
    </Sheet>
  );
}

function Densities() {
  return (
    <fieldset class="setting">
      <legend>{t("danmaku.density")}</legend>
      <span class="segments">
        {DENSITIES.map((density) => (
          <label key={density}>
            <input
              type="radio"
              name="density"
              checked={prefs.value.density === density}
              onChange={() => change({ density })}
            />
            <span>{t(`danmaku.density.${density}`)}</span>
          </label>
        ))}
      </span>
    </fieldset>
  );
}
