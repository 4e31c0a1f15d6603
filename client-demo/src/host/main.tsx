/** Entry of the host console (/host and /host/{show}). */

import { render } from "preact";
import { useEffect } from "preact/hooks";
import "../design.css";
import "./host.css";
import "./forms.css";
import "./desk.css";
import "./sales.css";
import "./room.css";
import "./shows.css";
import "./undo.css";
import "./numbers.css";
import { followLang, t } from "../i18n";
import { showOf } from "../ui/live";
import { LangSwitch } from "../ui/parts";
import { Console } from "./console";
import { access, Desk, followSignOut, setToken, token } from "./desk";
import { ActForm, Field } from "./form";
import { ShowList } from "./show-list";

const showId = showOf(location.pathname);
let desk: Desk | undefined;

function App() {
  if (!token.value) return <TokenForm />;
  if (!showId) return <Start />;
  desk ??= new Desk(showId);
  return <Console desk={desk} />;
}

function Start() {
  const { role, show } = access.value;
  if (role !== "moderator") return <ShowList />;
  return show && show !== "*" ? <OwnShow /> : <TokenForm />;
}

/** A moderator has one show: the token's. */
function OwnShow() {
  const { show } = access.value;
  useEffect(() => location.replace(`/host/${encodeURIComponent(show)}`), [show]);
  return null;
}

function TokenForm() {
  return (
    <main class="gate">
      <div class="card">
        <header class="gate-head">
          <h1>{t("host.sign_in")}</h1>
          <LangSwitch />
        </header>
        <p class="help">{t("host.token_help")}</p>
        <ActForm
          label={t("host.enter")}
          act={async ({ token: given = "" }) => setToken(given.trim())}
        >
          <Field label={t("host.token")} name="token" type="password" required />
        </ActForm>
      </div>
    </main>
  );
}

followLang();
followSignOut();
const root = document.getElementById("app");
if (root) render(<App />, root);
