/** Whom the show's events are told to, and the log of what was sent. */

import { useState } from "preact/hooks";
import { t } from "../i18n";
import { dateTime } from "../ui/format";
import type { Desk } from "./desk";
import { ActButton, ActForm, Field } from "./form";
import { Leaf } from "./leaf";
import type { Delivery, Webhook } from "./types";

export function Webhooks({ desk }: { desk: Desk }) {
  const [hooks, setHooks] = useState<readonly Webhook[]>([]);
  const [secret, setSecret] = useState("");
  const load = async () => setHooks(await desk.webhooks());
  const add = async (url: string) => {
    setSecret((await desk.addWebhook(url)).secret);
    await load();
  };
  return (
    <Leaf title={t("hook.title")} load={load}>
      {hooks.length === 0 && <p class="empty">{t("hook.none")}</p>}
      {hooks.map((hook) => (
        <OneWebhook key={hook.webhook} desk={desk} hook={hook} onGone={load} />
      ))}
      <ActForm class="inline" label={t("hook.add")} clears act={({ url = "" }) => add(url.trim())}>
        <Field label={t("hook.url")} name="url" type="url" required maxLength={1024} />
      </ActForm>
      {secret && (
        <p class="help">
          {t("hook.secret")} <code data-secret>{secret}</code>
        </p>
      )}
    </Leaf>
  );
}

interface OneWebhookProps {
  desk: Desk;
  hook: Webhook;
  onGone: () => Promise<void>;
}

function OneWebhook({ desk, hook, onGone }: OneWebhookProps) {
  const [deliveries, setDeliveries] = useState<readonly Delivery[]>([]);
  const load = async () => setDeliveries(await desk.deliveries(hook.webhook));
  const remove = async () => {
    await desk.removeWebhook(hook.webhook);
    await onGone();
  };
  return (
    <article class="hook" data-hook={hook.webhook}>
      <p class="row">
        <code>{hook.url}</code>
        <ActButton class="tiny" label={t("hook.deliveries")} act={load} />
        <ActButton class="tiny" label={t("hook.remove")} confirms act={remove} />
      </p>
      <ol class="acts">
        {deliveries.map((row) => (
          <li key={row.delivery}>
            <time>{dateTime(row.at)}</time> {row.topic} · {t(`hook.status.${row.status}`)} ·{" "}
            {t("hook.attempts")} {row.attempts}
            {row.http_status > 0 && ` · ${row.http_status}`} {row.last_error}
            {row.status !== "pending" && (
              <ActButton
                class="tiny"
                label={t("hook.resend")}
                act={() => desk.resend(hook.webhook, row.delivery).then(load)}
              />
            )}
          </li>
        ))}
      </ol>
    </article>
  );
}
