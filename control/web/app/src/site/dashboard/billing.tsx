// The plan, what it may cost on top, and invoices. Money itself is Stripe's pages' business.
import { useState } from "preact/hooks";
import type { MySubscription, TierView } from "../../api/customers.gen";
import { useAction, useLoaded } from "../../controls/ask";
import { Button, Card, Dialog, Empty, Failure, Form, Loading, Notice, Table, TextInput } from "../../controls/controls";
import { centsOf } from "../../language/amounts";
import { useLanguage } from "../../language/language";
import { PageTitle } from "../../router/router";
import { TierFacts } from "../landing";
import { api, fieldText, Outcome, PaymentsNote, problemText, useText } from "../site";
import { useAccount, useLive } from "./live";

export function Billing() {
  const text = useText();
  const t = text.billing;
  const account = useAccount();
  const [tiers, again] = useLoaded((signal) => api.call("GET /v1/tiers", {}, { signal }), []);
  return (
    <>
      <PageTitle title={t.title} site={text.site} />
      {tiers.state === "loading" && <Loading text={text.loading} />}
      {tiers.state === "failed" && <Failure text={text.landing.pricingFailed} again={text.again} onAgain={again} />}
      {tiers.state === "there" && (
        <>
          <Plan tiers={tiers.value.items} subscription={account.subscription} />
          {account.subscription && <Overage tiers={tiers.value.items} subscription={account.subscription} />}
        </>
      )}
      <Portal />
      <Invoices />
    </>
  );
}

function Plan({ tiers, subscription }: { tiers: readonly TierView[]; subscription: MySubscription | undefined }) {
  const text = useText();
  const t = text.billing;
  const { formats } = useLanguage();
  const { changedAccount } = useLive();
  const [asked, setAsked] = useState<"cancel" | TierView>();
  const buy = useAction(async (tier: string) => {
    const { url } = await api.call("POST /v1/me/checkout", { body: { tier } });
    location.assign(url);
  });
  const change = useAction(async (tier: string) => {
    setAsked(undefined);
    changedAccount(await api.call("POST /v1/me/subscription/tier", { body: { tier } }));
  });
  const end = useAction(async (action: "cancel" | "resume") => {
    setAsked(undefined);
    changedAccount(await api.call(action === "cancel" ? "POST /v1/me/subscription/cancel" : "POST /v1/me/subscription/resume"));
  });
  const title = (name: string) => tiers.find((one) => one.name === name)?.title ?? name;
  const present = tiers.find((one) => one.name === subscription?.tier);
  const verb = (tier: TierView) => (tier === present ? t.keep : t.change(tier.title));
  const until = subscription ? formats.date(subscription.period_end) : "";
  const invoice = buy.problem?.payURL;
  return (
    <Card title={t.plan}>
      <PaymentsNote />
      {!subscription && <p>{t.noPlan}</p>}
      {subscription && !subscription.pending_tier && <p>{subscription.cancel_at_period_end ? t.ends(until) : t.renews(until)}</p>}
      {subscription?.pending_tier && <Notice>{t.pending(title(subscription.pending_tier), until)}</Notice>}
      <ul class="tiers">
        {tiers.map((tier) => (
          <li key={tier.name} class={tier === present ? "present" : ""}>
            <TierFacts tier={tier} />
            {!subscription ? (
              <Button kind="primary" onClick={() => buy.run(tier.name)} busy={buy.busy}>
                {t.buy(tier.title)}
              </Button>
            ) : tier === present && !subscription.pending_tier ? (
              <span class="badge good">{t.current}</span>
            ) : tier.name === subscription.pending_tier ? (
              <span class="badge still">{t.from(until)}</span>
            ) : (
              <Button onClick={() => setAsked(tier)}>{verb(tier)}</Button>
            )}
          </li>
        ))}
      </ul>
      {invoice ? (
        <Notice kind="trouble">
          {t.unpaid} <a href={invoice}>{t.payIt}</a>
        </Notice>
      ) : (
        <Outcome action={buy} wrong={buy.problem?.kind === "unavailable" ? t.noPayments : undefined} />
      )}
      <Outcome action={change} done={text.saved} />
      <Outcome action={end} done={text.saved} />
      {subscription && (
        <p>
          {subscription.cancel_at_period_end ? (
            <Button onClick={() => end.run("resume")} busy={end.busy}>
              {t.resume}
            </Button>
          ) : (
            <Button onClick={() => setAsked("cancel")} busy={end.busy}>
              {t.cancel}
            </Button>
          )}
        </p>
      )}
      {asked === "cancel" && (
        <Dialog title={t.cancel} onClose={() => setAsked(undefined)}>
          <p>{t.cancelSure(until)}</p>
          <div class="row">
            <Button onClick={() => setAsked(undefined)}>{t.keep}</Button>
            <Button kind="danger" onClick={() => end.run("cancel")}>
              {t.cancel}
            </Button>
          </div>
        </Dialog>
      )}
      {asked !== undefined && asked !== "cancel" && (
        <Dialog title={verb(asked)} onClose={() => setAsked(undefined)}>
          <p>{present && asked.monthly_tokens < present.monthly_tokens ? t.changeDown(asked.title, until) : asked === present ? t.keepSure(asked.title) : t.changeUp(asked.title)}</p>
          <div class="row">
            <Button onClick={() => setAsked(undefined)}>{text.cancel}</Button>
            <Button kind="primary" onClick={() => change.run(asked.name)}>
              {verb(asked)}
            </Button>
          </div>
        </Dialog>
      )}
    </Card>
  );
}

function Overage({ tiers, subscription }: { tiers: readonly TierView[]; subscription: MySubscription }) {
  const text = useText();
  const t = text.billing;
  const { formats } = useLanguage();
  const { changedAccount } = useLive();
  const [dollars, setDollars] = useState(() => String((subscription.overage_cap_cents ?? 0) / 100));
  const cents = centsOf(dollars);
  const wrong = cents === undefined || cents > 1_000_000;
  const set = useAction(async () => {
    if (cents === undefined) return;
    changedAccount(await api.call("PUT /v1/me/subscription/overage", { body: { cap_cents: cents } }));
  });
  const price = tiers.find((one) => one.name === subscription.tier)?.overage_cents_per_million ?? 0;
  if (price <= 0) return null;
  return (
    <Card title={t.overage}>
      <Form onSend={set.run}>
        <p>{t.overageText(formats.money(price))}</p>
        <TextInput label={t.overageCap} inputMode="decimal" name="overage" autocomplete="off" value={dollars} onValue={setDollars} error={wrong ? text.fields.cap_cents : fieldText(text, set, "cap_cents")} />
        <Outcome action={set} done={text.saved} />
        <Button kind="primary" type="submit" busy={set.busy} disabled={wrong}>
          {text.save}
        </Button>
      </Form>
    </Card>
  );
}

function Portal() {
  const text = useText();
  const t = text.billing;
  const open = useAction(async () => {
    const { url } = await api.call("POST /v1/me/portal");
    location.assign(url);
  });
  const unavailable = open.problem?.kind === "unavailable";
  return (
    <Card title={t.portal}>
      <p>{t.portalText}</p>
      <Outcome action={open} wrong={unavailable ? t.noPayments : open.problem?.kind === "conflict" ? t.noPlan : undefined} />
      <Button onClick={open.run} busy={open.busy}>
        {t.portal}
      </Button>
    </Card>
  );
}

function Invoices() {
  const text = useText();
  const t = text.billing;
  const { formats } = useLanguage();
  const [list, again] = useLoaded((signal) => api.call("GET /v1/me/invoices", {}, { signal }), []);
  const statuses: Record<string, unknown> = t.statuses;
  const status = (s: string) => {
    const known = statuses[s];
    return typeof known === "string" ? known : t.statuses.other(s);
  };
  return (
    <Card title={t.invoices}>
      {list.state === "loading" && <Loading text={text.loading} />}
      {list.state === "failed" &&
        (list.problem.kind === "unavailable" ? <Empty>{t.noPayments}</Empty> : <Failure text={problemText(text, list.problem)} again={text.again} onAgain={again} />)}
      {list.state === "there" && list.value.items.length === 0 && <Empty>{t.noInvoices}</Empty>}
      {list.state === "there" && list.value.items.length > 0 && (
        <Table caption={t.invoices} head={[t.invoice.date, t.invoice.number, t.invoice.amount, t.invoice.status, t.invoice.view]}>
          {list.value.items.map((one) => (
            <tr key={one.id}>
              <td>{formats.date(one.created_at)}</td>
              <td>{one.number ?? text.none}</td>
              <td class="number">{formats.money(one.amount_cents, one.currency)}</td>
              <td>{status(one.status)}</td>
              <td>{one.url ? <a href={one.url}>{t.invoice.view}</a> : text.none}</td>
            </tr>
          ))}
        </Table>
      )}
    </Card>
  );
}
