package stripesim

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// clock is one that tests move.
type clock struct{ seconds atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.seconds.Store(time.Now().Unix())
	return c
}

func (c *clock) now() time.Time           { return time.Unix(c.seconds.Load(), 0) }
func (c *clock) forward(by time.Duration) { c.seconds.Add(int64(by / time.Second)) }

// people is a server of Open, and somebody with a browser.
type people struct {
	*Server
	t      *testing.T
	server *httptest.Server
	closed sync.Once
}

func openTest(t *testing.T, state string, c *clock) *people {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	s, err := Open(Options{URL: "http://" + server.Listener.Addr().String(), State: state, Now: c.now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = s.Handler()
	server.Start()
	p := &people{Server: s, t: t, server: server}
	t.Cleanup(p.stop)
	return p
}

func (p *people) stop() {
	p.closed.Do(func() {
		p.server.Close()
		p.Server.Close()
	})
}

// make asks for something new and returns its id.
func (p *people) make(path string, pairs ...string) string {
	p.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	status, out := ask(p.t, p.Server, "POST", "/v1/"+path, form, "")
	id, _ := out["id"].(string)
	if status != http.StatusOK || id == "" {
		p.t.Fatalf("POST %s: %d %v", path, status, out)
	}
	return id
}

func (p *people) get(path string) map[string]any {
	p.t.Helper()
	status, out := ask(p.t, p.Server, "GET", "/v1/"+path, nil, "")
	if status != http.StatusOK {
		p.t.Fatalf("GET %s: %d %v", path, status, out)
	}
	return out
}

// browse opens a page, or with something to do presses its button, and returns the status, where it
// leads, and the text.
func (p *people) browse(page string, form ...string) (status int, to, text string, h http.Header) {
	p.t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var resp *http.Response
	var err error
	if len(form) == 0 {
		resp, err = client.Get(page)
	} else {
		v := url.Values{"do": {form[0]}}
		if len(form) > 1 {
			v.Set("subscription", form[1])
		}
		resp, err = client.PostForm(page, v)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Location"), string(b), resp.Header
}

// press presses a button, and wants to be led somewhere.
func (p *people) press(page, to string, form ...string) {
	p.t.Helper()
	status, got, text, _ := p.browse(page, form...)
	if status != http.StatusSeeOther || got != to {
		p.t.Errorf("%v on %s: %d to %q, want %q: %s", form, page, status, got, to, text)
	}
}

// sell makes a customer and a page on which it pays.
func (p *people) sell(name string, more ...string) (customer, session, page string) {
	p.t.Helper()
	customer = p.make("customers", "email", "ada@example.com", "preferred_locales[0]", "pt-BR")
	product := p.make("products", "name", name)
	price := p.make("prices", "product", product, "currency", "usd", "unit_amount", "1905", "recurring[interval]", "month")
	session = p.make("checkout/sessions", append([]string{
		"mode", "subscription", "customer", customer, "success_url", "http://127.0.0.1:3000/?checkout=paid&of={CHECKOUT_SESSION_ID}",
		"cancel_url", "http://127.0.0.1:3000/?checkout=cancelled", "line_items[0][price]", price, "line_items[0][quantity]", "1",
	}, more...)...)
	page, _ = p.get("checkout/sessions/" + session)["url"].(string)
	if page != p.URL()+"/pay/"+session {
		p.t.Fatalf("the page is at %q", page)
	}
	return customer, session, page
}

// hook is a webhook endpoint that says what it gets.
func (p *people) hook(serve http.HandlerFunc) (secret string) {
	p.t.Helper()
	receiver := httptest.NewServer(serve)
	p.t.Cleanup(receiver.Close)
	p.make("webhook_endpoints", "url", receiver.URL, "enabled_events[0]", "*")
	return p.EndpointSecret()
}

func TestPayOnAPage(t *testing.T) {
	t.Parallel()
	p := openTest(t, "", newClock())
	customer, session, page := p.sell("A <script> & more", "locale", "pt-BR", "subscription_data[trial_period_days]", "7")
	status, _, text, h := p.browse(page)
	for _, want := range []string{`lang="pt-BR"`, "Simulação", "A &lt;script&gt; &amp; more", "US$ 19,05 por mês", "7 dias", "Pagar</button>", "recusado</button>", "Voltar</button>"} {
		if status != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%d, without %q: %s", status, want, text)
		}
	}
	if policy := h.Get("Content-Security-Policy"); !strings.Contains(policy, "form-action 'self' http://127.0.0.1:3000") || !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("what the page may do: %s", policy)
	}
	p.press(page, "/pay/"+session+"?declined", "decline") // in a trial nothing is paid
	if n := len(p.get("subscriptions?customer=" + customer)["data"].([]any)); n != 0 {
		t.Errorf("declined, there are %d subscriptions", n)
	}
	p.press(page, "http://127.0.0.1:3000/?checkout=cancelled", "back")
	paid := "http://127.0.0.1:3000/?checkout=paid&of=" + session
	p.press(page, paid, "pay")
	p.press(page, paid, "pay") // a second press buys nothing more
	if n := len(p.get("subscriptions?customer=" + customer)["data"].([]any)); n != 1 {
		t.Errorf("paid, there are %d subscriptions", n)
	}
	if _, _, text, _ := p.browse(page); !strings.Contains(text, "já foi pago") || strings.Contains(text, "<button") {
		t.Errorf("paid, the page says: %s", text)
	}

	_, other, page := p.sell("Plain", "locale", "en")
	if _, _, text, _ := p.browse(page); !strings.Contains(text, "Simulated") || !strings.Contains(text, "$19.05 a month") || strings.Contains(text, "Trial") {
		t.Errorf("in English: %s", text)
	}
	p.make("checkout/sessions/" + other + "/expire")
	if _, _, text, _ := p.browse(page); !strings.Contains(text, "closed") || strings.Contains(text, "<button") {
		t.Errorf("expired, the page says: %s", text)
	}
	p.press(page, "/pay/"+other, "pay")
	for _, path := range []string{"/pay/cs_none", "/portal/bps_none", "/invoice/in_none", "/none"} {
		if status, _, _, _ := p.browse(p.URL() + path); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// What another site sends from somebody's browser is refused.
func TestPagesAreOfOneOrigin(t *testing.T) {
	t.Parallel()
	p := openTest(t, "", newClock())
	_, session, page := p.sell("Plan")
	r, err := http.NewRequestWithContext(t.Context(), "POST", page, strings.NewReader("do=pay"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if status := p.get("checkout/sessions/" + session)["status"]; resp.StatusCode != http.StatusForbidden || status != "open" {
		t.Errorf("status %d, the session is %v", resp.StatusCode, status)
	}
}

func TestDeclinedCard(t *testing.T) {
	t.Parallel()
	p := openTest(t, "", newClock())
	customer, session, page := p.sell("Plan")
	subscription := func() (id, status string) {
		list := p.get("subscriptions?customer=" + customer)["data"].([]any)
		if len(list) != 1 {
			t.Fatalf("%d subscriptions", len(list))
		}
		o := list[0].(map[string]any)
		return o["id"].(string), o["status"].(string)
	}
	p.press(page, "/pay/"+session+"?declined", "decline")
	if _, _, text, _ := p.browse(page + "?declined"); !strings.Contains(text, `role="alert"`) || !strings.Contains(text, "declined (simulated)") {
		t.Errorf("the page says: %s", text)
	}
	begun, status := subscription()
	if status != "incomplete" || p.get("checkout/sessions/" + session)["status"] != "open" {
		t.Errorf("the subscription is %s", status)
	}
	p.press(page, "/pay/"+session+"?declined", "decline")
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	if id, status := subscription(); id != begun || status != "active" {
		t.Errorf("paid in the end: %s is %s, begun was %s", id, status, begun)
	}
}

func TestPortal(t *testing.T) {
	t.Parallel()
	c := newClock()
	p := openTest(t, "", c)
	customer, session, page := p.sell("Plan")
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	_, other, theirs := p.sell("Other")
	p.press(theirs, "http://127.0.0.1:3000/?checkout=paid&of="+other, "pay")
	sub := p.get("checkout/sessions/" + session)["subscription"].(string)
	foreign := p.get("checkout/sessions/" + other)["subscription"].(string)
	configuration := p.make("billing_portal/configurations", "features[invoice_history][enabled]", "true")
	visit := p.make("billing_portal/sessions", "customer", customer, "configuration", configuration, "return_url", "http://127.0.0.1:3000/back", "locale", "pt-BR")
	portal, here := p.URL()+"/portal/"+visit, "/portal/"+visit
	says := func(want ...string) {
		t.Helper()
		_, _, text, _ := p.browse(portal)
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("without %q: %s", w, text)
			}
		}
	}
	says("Simulação", "ativa", "renova em", "SIM-1", "Cancelar no fim do período", "O cartão funciona.")
	p.press(portal, here, "cancel", sub)
	says("termina em", "Não cancelar")
	if p.get("subscriptions/" + sub)["cancel_at_period_end"] != true {
		t.Error("it does not end with its period")
	}
	p.press(portal, here, "resume", sub)
	says("renova em")
	if status, _, _, _ := p.browse(portal, "cancel", foreign); status != http.StatusNotFound || p.get("subscriptions/" + foreign)["cancel_at_period_end"] != false {
		t.Errorf("somebody else's is cancelled: %d", status)
	}
	p.press(portal, here, "deadcard")
	c.forward(32 * 24 * time.Hour)
	says("pagamento atrasado", "em aberto", "O cartão será recusado.")
	open := p.get("invoices?customer=" + customer + "&status=open")["data"].([]any)
	if len(open) != 1 {
		t.Fatalf("%d invoices are open", len(open))
	}
	invoice := open[0].(map[string]any)["hosted_invoice_url"].(string)
	if _, _, text, _ := p.browse(invoice); !strings.Contains(text, "US$ 19,05") || !strings.Contains(text, "<button") {
		t.Errorf("the invoice says: %s", text)
	}
	p.press(portal, here, "card")
	says("ativa", "O cartão funciona.")
	p.press(portal, here, "deadcard")
	c.forward(32 * 24 * time.Hour)
	open = p.get("invoices?customer=" + customer + "&status=open")["data"].([]any)
	invoice = open[0].(map[string]any)["hosted_invoice_url"].(string)
	p.press(invoice, strings.TrimPrefix(invoice, p.URL()), "pay")
	if status := p.get("subscriptions/" + sub)["status"]; status != "active" {
		t.Errorf("with its invoice paid it is %v", status)
	}
	p.press(portal, "http://127.0.0.1:3000/back", "back")
}

// Everything but what nobody has paid for is as it was, and so are events that nobody took.
func TestRestart(t *testing.T) {
	t.Parallel()
	state, c := filepath.Join(t.TempDir(), "journal"), newClock()
	p := openTest(t, state, c)
	var mu sync.Mutex
	var got []string
	away := false
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got = append(got, string(b))
	}))
	t.Cleanup(receiver.Close)
	await := func(n int) []string {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			list := slices.Clone(got)
			mu.Unlock()
			// Taken is an event once that is written down.
			if p.mu.Lock(); len(list) >= n && len(p.endpoints[0].waits) == 0 {
				p.mu.Unlock()
				return list
			}
			p.mu.Unlock()
			if time.Now().After(deadline) {
				t.Fatalf("%d events, want %d", len(list), n)
			}
		}
	}
	p.make("webhook_endpoints", "url", receiver.URL, "enabled_events[0]", "*")
	secret := p.EndpointSecret()
	customer, session, page := p.sell("Plan")
	p.press(page, "/pay/"+session+"?declined", "decline")
	await(2) // the payment failed, the subscription was made
	mu.Lock()
	away = true
	mu.Unlock()
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	sub := p.get("checkout/sessions/" + session)["subscription"].(string)
	_, keyed := ask(t, p.Server, "POST", "/v1/customers", url.Values{"name": {"a"}}, "k")
	before := p.get("subscriptions/" + sub)
	c.forward(3 * time.Second)
	p.stop()

	mu.Lock()
	away = false
	mu.Unlock()
	p = openTest(t, state, c)
	if now := p.get("subscriptions/" + sub); now["status"] != "active" || now["created"] != before["created"] || now["latest_invoice"] != before["latest_invoice"] {
		t.Errorf("the subscription was %v, is %v", before, now)
	}
	if p.EndpointSecret() != secret || p.get("customers/" + customer)["email"] != "ada@example.com" {
		t.Error("the account is another one")
	}
	if _, again := ask(t, p.Server, "POST", "/v1/customers", url.Values{"name": {"a"}}, "k"); again["id"] != keyed["id"] {
		t.Errorf("the idempotency key gives %v, gave %v", again, keyed)
	}
	list := await(5)
	for n, want := range []string{
		"invoice.payment_failed", "customer.subscription.created", "invoice.payment_succeeded", "customer.subscription.updated", "checkout.session.completed",
	} {
		if !strings.Contains(list[n], `"type":"`+want+`"`) {
			t.Errorf("event %d is %s, want %s", n+1, list[n], want)
		}
	}
	// It renews when it is due, also while nothing ran.
	p.stop()
	c.forward(32 * 24 * time.Hour)
	p = openTest(t, state, c)
	if n := len(p.get("invoices?customer=" + customer)["data"].([]any)); n != 2 {
		t.Errorf("after a month there are %d invoices", n)
	}
	if list := await(7); len(list) != 7 || !strings.Contains(list[5], "invoice.payment_succeeded") {
		t.Errorf("after a month %d events came: %v", len(list), list)
	}
}

func TestTornJournal(t *testing.T) {
	t.Parallel()
	state, c := filepath.Join(t.TempDir(), "journal"), newClock()
	p := openTest(t, state, c)
	first := p.make("customers", "name", "a")
	if _, err := Open(Options{URL: "http://127.0.0.1:1", State: state}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	p.stop()
	whole, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	if err := os.WriteFile(state, append(whole, `{"at":1,"ids":1,"requ`...), 0o600); err != nil {
		t.Fatal(err)
	}
	p = openTest(t, state, c)
	second := p.make("customers", "name", "b")
	p.stop()
	p = openTest(t, state, c)
	if p.Customers() != 2 || p.get("customers/" + first)["name"] != "a" || p.get("customers/" + second)["name"] != "b" {
		t.Errorf("%d customers", p.Customers())
	}
	p.stop()
	for name, c := range map[string]struct{ text, says string }{
		"a broken line":   {lines[0] + "{\n" + lines[1], "line 2"},
		"another file":    {"{}\n", "no file of this version"},
		"other numbering": {lines[0] + strings.Replace(lines[1], `"ids":0`, `"ids":7`, 1), "another version"},
	} {
		if err := os.WriteFile(state, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{URL: "http://127.0.0.1:1", State: state}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Killed before its first line was whole.
	if err := os.WriteFile(state, []byte(`{"stripe`), 0o600); err != nil {
		t.Fatal(err)
	}
	if p = openTest(t, state, c); p.Customers() != 0 {
		t.Error("there are customers in an empty account")
	}
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// Events come in order and signed, each again if it is not taken.
func TestDelivery(t *testing.T) {
	t.Parallel()
	p := openTest(t, "", newClock())
	type delivery struct{ body, signature string }
	got := make(chan delivery, 100)
	var asked atomic.Int64
	secret := p.hook(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		switch asked.Add(1) {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case 2:
			panic(http.ErrAbortHandler)
		case 3:
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		got <- delivery{string(b), r.Header.Get("Stripe-Signature")}
	})
	p.make("webhook_endpoints", "url", "http://192.0.2.1/hook", "enabled_events[0]", "*")
	_, session, page := p.sell("Plan")
	p.press(page, "http://127.0.0.1:3000/?checkout=paid&of="+session, "pay")
	for _, want := range []string{"invoice.payment_succeeded", "customer.subscription.created", "customer.subscription.updated", "checkout.session.completed"} {
		select {
		case d := <-got:
			at, _, _ := strings.Cut(strings.TrimPrefix(d.signature, "t="), ",")
			seconds, err := strconv.ParseInt(at, 10, 64)
			if err != nil || d.signature != Sign([]byte(d.body), secret, time.Unix(seconds, 0)) {
				t.Errorf("the signature is %q", d.signature)
			}
			if !strings.Contains(d.body, `"type":"`+want+`"`) {
				t.Errorf("got %s, want %s", d.body, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no %s", want)
		}
	}
	_, _, text, _ := p.browse(p.URL() + "/")
	if !strings.Contains(text, "http://192.0.2.1/hook – not on this machine") {
		t.Errorf("the front page says: %s", text)
	}
}

func TestOnlyThisMachine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"http://127.0.0.1:8000/x": true, "http://[::1]/": true, "http://localhost:1/": true, "https://127.9.9.9/": true,
		"http://192.0.2.1/": false, "http://localhost.example.com/": false, "http://0.0.0.0/": false, "ftp://127.0.0.1/": false, "": false,
	} {
		if here(text) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// Both languages say everything.
func TestWords(t *testing.T) {
	t.Parallel()
	en, pt := english(), portuguese()
	for key, text := range en {
		if other := pt[key]; other == "" || text == "" || strings.Count(text, "%") != strings.Count(other, "%") {
			t.Errorf("%s: %q and %q", key, text, other)
		}
	}
	if len(en) != len(pt) {
		t.Errorf("%d and %d words", len(en), len(pt))
	}
	files, err := pageFiles.ReadDir("pages")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := pageFiles.ReadFile("pages/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(string(text), ".T.") {
			end := strings.IndexFunc(part, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') })
			if end > 0 && !strings.HasPrefix(string(text), part) && en[part[:end]] == "" {
				t.Errorf("%s: no word %s", f.Name(), part[:end])
			}
		}
	}
}
