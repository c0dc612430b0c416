// Signing up by a form: for who would rather not talk, and while no onboarding agent leads a conversation.
import { useEffect, useState } from "preact/hooks";
import { useAction, useLoaded } from "../controls/ask";
import { Button, Form, Select, TextInput } from "../controls/controls";
import { useLanguage } from "../language/language";
import { go, Link, PageTitle } from "../router/router";
import routes from "./routes.json";
import { api, fieldText, Outcome, PublicPage, useText } from "./site";

export function SignUp() {
  const text = useText();
  const t = text.start;
  const { language, formats } = useLanguage();
  const [name, setName] = useState("");
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [plan, setPlan] = useState(() => new URLSearchParams(location.search).get("plan") ?? "");
  const [tiers] = useLoaded((signal) => api.call("GET /v1/tiers", {}, { signal, keepSession: true }), []);
  const signUp = useAction(async () => {
    const body = { name: name.trim(), email: email.trim(), password, language, ...(plan ? { tier: plan } : {}) };
    await api.call("POST /v1/signup", { body }, { keepSession: true });
    go(routes.overview, { replace: true });
  });
  const options = tiers.state === "there" ? tiers.value.items.map((one) => [one.name, t.planOption(one.title, formats.money(one.price_cents))] as const) : [];
  const known = options.some(([v]) => v === plan);
  useEffect(() => {
    // A link may name a plan that is not sold any more.
    const first = options[0]?.[0];
    if (first !== undefined && !known) setPlan(first);
  }, [known, options.length]);
  return (
    <PublicPage narrow>
      <PageTitle title={t.title} site={text.site} />
      <p class="lead">{t.lead}</p>
      <Form onSend={signUp.run}>
        <TextInput label={t.name} name="name" autocomplete="name" value={name} onValue={setName} error={fieldText(text, signUp, "name")} />
        <TextInput label={t.email} name="email" type="email" autocomplete="email" inputMode="email" value={email} onValue={setEmail} error={fieldText(text, signUp, "email")} />
        <TextInput label={t.password} hint={t.passwordHint} name="password" type="password" autocomplete="new-password" value={password} onValue={setPassword} error={fieldText(text, signUp, "password")} />
        {options.length > 0 && <Select label={t.plan} value={plan} onValue={setPlan} options={options} error={fieldText(text, signUp, "tier")} />}
        <Outcome action={signUp} />
        <Button kind="primary" type="submit" busy={signUp.busy}>
          {t.send}
        </Button>
      </Form>
      <p>
        <Link to={routes.login}>{t.have}</Link>
      </p>
    </PublicPage>
  );
}
