// The front page: what it is, and what it costs. The prices are the api's.
import type { TierView } from "../api/customers.gen";
import { useLoaded } from "../controls/ask";
import { Failure, Loading } from "../controls/controls";
import { useLanguage } from "../language/language";
import { Link, PageTitle } from "../router/router";
import routes from "./routes.json";
import { api, PaymentsNote, PublicPage, useText } from "./site";

export function Landing() {
  const text = useText();
  const t = text.landing;
  return (
    <PublicPage
      actions={
        <Link to={routes.login} class="button plain">
          {t.login}
        </Link>
      }
    >
      <div class="hero">
        <PageTitle title={t.title} site={text.site} />
        <p class="lead">{t.lead}</p>
        <Link to={routes.start} class="button primary large">
          {t.start}
        </Link>
      </div>
      <section aria-labelledby="how">
        <h2 id="how">{t.howTitle}</h2>
        <ol class="steps-cards">
          {t.how.map((one) => (
            <li key={one.title}>
              <h3>{one.title}</h3>
              <p>{one.text}</p>
            </li>
          ))}
        </ol>
      </section>
      <section aria-labelledby="why">
        <h2 id="why">{t.whyTitle}</h2>
        <ul class="points">
          {t.why.map((one) => (
            <li key={one.title}>
              <h3>{one.title}</h3>
              <p>{one.text}</p>
            </li>
          ))}
        </ul>
      </section>
      <section aria-labelledby="pricing">
        <h2 id="pricing">{t.pricing}</h2>
        <p>{t.pricingNote}</p>
        <PaymentsNote />
        <Pricing />
        <p class="hint">{t.tokensNote}</p>
      </section>
    </PublicPage>
  );
}

function Pricing() {
  const text = useText();
  const t = text.landing;
  const [tiers, again] = useLoaded((signal) => api.call("GET /v1/tiers", {}, { signal, keepSession: true }), []);
  if (tiers.state === "loading") return <Loading text={text.loading} />;
  if (tiers.state === "failed") return <Failure text={t.pricingFailed} again={text.again} onAgain={again} />;
  return (
    <ul class="tiers">
      {tiers.value.items.map((tier) => (
        <li key={tier.name}>
          <TierFacts tier={tier} />
          <Link to={`${routes.start}?plan=${encodeURIComponent(tier.name)}`} class="button primary">
            {t.choose(tier.title)}
          </Link>
        </li>
      ))}
    </ul>
  );
}

/** What a plan is, and what it costs. */
export function TierFacts({ tier }: { tier: TierView }) {
  const t = useText().landing;
  const { formats } = useLanguage();
  const thinking: Record<string, string> = t.thinking;
  return (
    <>
      <h3>{tier.title}</h3>
      <p class="price">
        <strong>{formats.money(tier.price_cents)}</strong> {t.perMonth}
      </p>
      <ul class="facts">
        <li>{t.tokens(formats.whole(tier.monthly_tokens))}</li>
        <li>{t.telegramUsers(tier.telegram_users)}</li>
        <li>{thinking[tier.thinking] ?? tier.thinking}</li>
        <li>{t.concurrent(tier.concurrent)}</li>
        {tier.custom_system_prompt && <li>{t.instructions}</li>}
        {tier.overage_cents_per_million > 0 && <li>{t.overage(formats.money(tier.overage_cents_per_million))}</li>}
      </ul>
    </>
  );
}
