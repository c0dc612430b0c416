// The customers' pages. Those behind the login are loaded when they are needed: whoever reads what it
// costs need not wait for charts.
import { type ComponentType, render } from "preact";
import { useEffect, useState } from "preact/hooks";
import "../style/style.css";
import { Failure, Loading } from "../controls/controls";
import { LanguageProvider } from "../language/language";
import { go, Link, match, PageTitle, usePath } from "../router/router";
import { Start } from "./chat";
import { Landing } from "./landing";
import routes from "./routes.json";
import { Forgot, Login, Reset, Verify } from "./signin";
import { api, PublicPage, useText } from "./site";

function NotFound() {
  const text = useText();
  return (
    <PublicPage narrow>
      <PageTitle title={text.notFound.title} site={text.site} />
      <p>{text.notFound.text}</p>
      <Link to={routes.landing} class="button primary">
        {text.notFound.home}
      </Link>
    </PublicPage>
  );
}

type DashboardPage = "overview" | "usage" | "agent" | "billing" | "account";

function Dashboard({ page }: { page: DashboardPage }) {
  const text = useText();
  const [Loaded, setLoaded] = useState<ComponentType<{ page: DashboardPage }>>();
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    import("./dashboard/dashboard").then(
      (m) => setLoaded(() => m.Dashboard),
      () => setFailed(true),
    );
  }, []);
  if (Loaded) return <Loaded page={page} />;
  // It may be that another release was made since this page was loaded: its files have other names.
  if (failed) return <Failure text={text.problems.unreachable} again={text.again} onAgain={() => location.reload()} />;
  return <Loading text={text.loading} />;
}

function Site() {
  const path = usePath();
  const name = match(routes, path)?.name;
  const query = new URLSearchParams(location.search);
  const back = name === "landing" && query.has("checkout");
  useEffect(() => {
    // Stripe's pages lead back to the address of the site.
    if (back) go(`${routes.overview}?checkout=${encodeURIComponent(query.get("checkout") ?? "")}`, { replace: true });
  }, [back]);
  switch (name) {
    case "landing":
      return back ? null : <Landing />;
    case "start":
      return <Start />;
    case "login":
      return <Login />;
    case "forgot":
      return <Forgot />;
    case "reset":
      return <Reset />;
    case "verify":
      return <Verify />;
    case undefined:
      return <NotFound />;
    default:
      return <Dashboard page={name} />;
  }
}

api.onSignedOut = () => {
  // Whoever has gone to another page meanwhile, such as by logging out, is not taken away from it.
  if (!location.pathname.startsWith(routes.overview)) return;
  go(`${routes.login}?why=ended&next=${encodeURIComponent(location.pathname)}`, { replace: true });
};

const root = document.getElementById("app");
if (!root) throw new Error("BUG: the page has no place for what it shows");
render(
  <LanguageProvider>
    <Site />
  </LanguageProvider>,
  root,
);
