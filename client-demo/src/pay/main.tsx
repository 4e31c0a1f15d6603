/** Entry of the demo provider's pay page (/pay.html#token): money is not involved. */

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import "../design.css";
import "../host/forms.css";
import "./pay.css";
import { followLang, t } from "../i18n";
import { type ApiError, call } from "../ui/api";
import { money } from "../ui/format";
import { attempt, Failure, LangSwitch } from "../ui/parts";

type Outcome = "paid" | "failed" | "silent";

/** What a pay link is for; `amount` in minor units. */
interface Intent {
  payment_id: string;
  show: string;
  order_id: number;
  amount: number;
  currency: string;
  description: string;
}

const DELAY_S_MAX = 600;
const REPEAT_MAX = 20;

function App({ token }: { token: string }) {
  const [intent, setIntent] = useState<Intent | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    attempt(async () => {
      setIntent(await call("POST", "/demo/pay/intent", { body: { token } }));
    }).then(setError);
  }, [token]);
  return (
    <main class="pay-card">
      <header class="pay-head">
        <b>{t("pay.title")}</b>
        <LangSwitch />
      </header>
      <Failure error={error} />
      {intent && <Payment intent={intent} token={token} />}
    </main>
  );
}

function Payment({ intent, token }: { intent: Intent; token: string }) {
  const [told, setTold] = useState<Outcome | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [behaviour, setBehaviour] = useState({ delay_ms: 0, repeat: 1, reorder: false });
  const tell = async (outcome: Outcome) => {
    const body = { token, outcome, ...behaviour };
    const failure = await attempt(() => call("POST", "/demo/pay", { body }));
    setError(failure);
    if (failure === null) setTold(outcome);
  };
  return (
    <>
      <p class="pay-amount" data-amount={intent.amount}>
        {money(intent.amount, intent.currency)}
      </p>
      <p class="pay-what">
        {intent.description} <small>{t("claim.number", { n: intent.order_id })}</small>
      </p>
      <p class="help">{t("pay.help")}</p>
      <button type="button" class="primary" disabled={told !== null} onClick={() => tell("paid")}>
        {t("pay.pay")}
      </button>
      <button type="button" class="plain" disabled={told !== null} onClick={() => tell("failed")}>
        {t("pay.fail")}
      </button>
      <details>
        <summary>{t("pay.trouble")}</summary>
        <Trouble behaviour={behaviour} onChange={setBehaviour} />
        <button type="button" class="plain" onClick={() => tell("silent")}>
          {t("pay.silent")}
        </button>
      </details>
      <Failure error={error} />
      {told && (
        <p class="pay-told" role="status" data-told={told}>
          {t(`pay.told.${told}`)} <a href={`/watch/${intent.show}`}>{t("pay.back")}</a>
        </p>
      )}
    </>
  );
}

interface Behaviour {
  delay_ms: number;
  repeat: number;
  reorder: boolean;
}

interface TroubleProps {
  behaviour: Behaviour;
  onChange: (behaviour: Behaviour) => void;
}

/** How the provider's webhooks misbehave. */
function Trouble({ behaviour, onChange }: TroubleProps) {
  const number = (event: { currentTarget: HTMLInputElement }, max: number) =>
    Math.min(max, Math.max(0, Math.floor(Number(event.currentTarget.value) || 0)));
  return (
    <div class="fields">
      <label class="field">
        <span>{t("pay.delay_s")}</span>
        <input
          name="delay_s"
          type="number"
          min={0}
          max={DELAY_S_MAX}
          value={behaviour.delay_ms / 1000}
          onChange={(event) =>
            onChange({ ...behaviour, delay_ms: number(event, DELAY_S_MAX) * 1000 })
          }
        />
      </label>
      <label class="field">
        <span>{t("pay.repeat")}</span>
        <input
          name="repeat"
          type="number"
          min={1}
          max={REPEAT_MAX}
          value={behaviour.repeat}
          onChange={(event) =>
            onChange({ ...behaviour, repeat: Math.max(1, number(event, REPEAT_MAX)) })
          }
        />
      </label>
      <label class="check">
        <input
          name="reorder"
          type="checkbox"
          checked={behaviour.reorder}
          onChange={(event) => onChange({ ...behaviour, reorder: event.currentTarget.checked })}
        />
        <span>{t("pay.reorder")}</span>
      </label>
    </div>
  );
}

followLang();
const root = document.getElementById("app");
if (root) render(<App token={location.hash.slice(1)} />, root);
