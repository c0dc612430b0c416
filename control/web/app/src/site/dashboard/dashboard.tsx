// The pages behind the login: their frame, and what all of them show.
import { useState } from "preact/hooks";
import { useAction } from "../../controls/ask";
import { Button, Failure, Loading, Notice } from "../../controls/controls";
import { Preferences } from "../../controls/theme";
import { useLanguage } from "../../language/language";
import { forgetQuery, go, Link } from "../../router/router";
import routes from "../routes.json";
import { api, Brand, Outcome, problemText, useText } from "../site";
import { Account } from "./account";
import { Agent } from "./agent";
import { Billing } from "./billing";
import { LiveProvider, useLive } from "./live";
import { Overview } from "./overview";
import { Usage } from "./usage";

type Page = "overview" | "usage" | "agent" | "billing" | "account";

const pages: readonly Page[] = ["overview", "usage", "agent", "billing", "account"];

export function Dashboard({ page }: { page: Page }) {
  return (
    <LiveProvider>
      <Frame page={page} />
    </LiveProvider>
  );
}

function Frame({ page }: { page: Page }) {
  const text = useText();
  const { language, setLanguage } = useLanguage();
  const live = useLive();
  const logout = useAction(async () => {
    await api.call("DELETE /v1/session", {}, { keepSession: true });
    go(routes.landing, { replace: true });
  });
  return (
    <>
      <a class="skip" href="#content">
        {text.skip}
      </a>
      <header class="top">
        <Brand />
        <div class="top-end">
          <Preferences text={text.preferences} language={language} onLanguage={setLanguage} />
          <Button onClick={logout.run} busy={logout.busy}>
            {text.dashboard.logout}
          </Button>
        </div>
      </header>
      <nav class="pages" aria-label={text.menu}>
        <ul>
          {pages.map((p) => (
            <li key={p}>
              <Link to={routes[p]} current={p === page}>
                {text.dashboard.pages[p]}
              </Link>
            </li>
          ))}
        </ul>
        <span class={`connection ${live.connection}`} role="status">
          {text.dashboard.connection[live.connection]}
        </span>
      </nav>
      <main id="content" tabIndex={-1}>
        <Outcome action={logout} />
        {live.account ? (
          <>
            <Banners />
            {page === "overview" && <Overview />}
            {page === "usage" && <Usage />}
            {page === "agent" && <Agent />}
            {page === "billing" && <Billing />}
            {page === "account" && <Account />}
          </>
        ) : live.problem ? (
          <Failure text={problemText(text, live.problem)} again={text.again} onAgain={live.reload} />
        ) : (
          <Loading text={text.loading} />
        )}
      </main>
    </>
  );
}

/** What a customer has to know on whatever page. */
function Banners() {
  const text = useText();
  const t = text.dashboard.banners;
  const { formats } = useLanguage();
  const { account, usage } = useLive();
  const [checkout] = useState(() => {
    const said = new URLSearchParams(location.search).get("checkout");
    if (said !== null) forgetQuery();
    return said;
  });
  const mail = useAction(async () => {
    await api.call("POST /v1/me/verify-email");
  });
  if (!account) return null;
  const share = usage && usage.limit_tokens > 0 ? usage.used_tokens / usage.limit_tokens : 0;
  const late = account.subscription?.status === "past_due" || account.subscription?.status === "unpaid";
  return (
    <div class="banners">
      {checkout === "paid" && account.status !== "active" && <Notice kind="good">{t.paid}</Notice>}
      {checkout === "cancelled" && <Notice>{t.cancelled}</Notice>}
      {account.status === "suspended" && !late && <Notice kind="trouble">{t.suspended}</Notice>}
      {account.status === "cancelled" && (
        <Notice kind="warning">
          {t.ended} <Link to={routes.billing}>{t.more}</Link>
        </Notice>
      )}
      {late && (
        <Notice kind="trouble">
          {t.pastDue} <Link to={routes.billing}>{t.more}</Link>
        </Notice>
      )}
      {share >= 1 ? (
        <Notice kind="trouble">
          {t.atLimit} <Link to={routes.billing}>{t.more}</Link>
        </Notice>
      ) : (
        share >= 0.9 && (
          <Notice kind="warning">
            {t.nearLimit(formats.percent(Math.floor(share * 100) / 100))} <Link to={routes.billing}>{t.more}</Link>
          </Notice>
        )
      )}
      {!account.email_confirmed && account.email && (
        <Notice>
          {t.unconfirmed}{" "}
          <Button onClick={mail.run} busy={mail.busy}>
            {t.mailAgain}
          </Button>
          <Outcome action={mail} done={t.mailSent} />
        </Notice>
      )}
    </div>
  );
}
