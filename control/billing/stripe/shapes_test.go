package stripe_test

import (
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/control"
	"github.com/andreabadesso/openclaw-cloud/control/billing/stripe"
	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
	"github.com/andreabadesso/openclaw-cloud/internal/testenv"
)

// mock runs stripe-mock, which checks requests against Stripe's own description of its API.
func mock(t *testing.T) string {
	t.Helper()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(testenv.FreePort(t)))
	log := filepath.Join(t.TempDir(), "stripe-mock.log")
	p := testenv.Start(t, os.Environ(), log, testenv.BuildBinary(t, "github.com/stripe/stripe-mock"), "-http-addr", addr, "-https-addr", "127.0.0.1:0")
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + addr)
		if err == nil {
			response.Body.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) || p.Ended() {
			b, _ := os.ReadFile(log)
			t.Fatalf("stripe-mock does not answer: %v\n%s", err, b)
		}
	}
}

// judge stands between the account and the simulator, which remembers and answers, and has
// stripe-mock look at each request first, which knows Stripe's own description of its API.
type judge struct {
	t    *testing.T
	mock string // URLs
	sim  string

	mu      sync.Mutex
	asked   map[string]bool // such as "POST /v1/subscriptions/{id} cancel_at_period_end=true", and without a parameter
	refused []string
}

var anID = regexp.MustCompile(`/(cus|cs|price|sub|in|we|mtr|bpc|openclaw)_[a-z0-9_]+`)

func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		j.t.Error(err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		j.t.Error(err)
	}
	judged, why := j.send(r, j.mock, "sk_test_123", body)
	answered, answer := j.send(r, j.sim, stripesim.Key, body)
	j.mu.Lock()
	route := r.Method + " " + anID.ReplaceAllString(r.URL.Path, "/{id}")
	if judged != http.StatusOK {
		j.refused = append(j.refused, route+" "+string(body)+r.URL.RawQuery+": "+string(why))
	} else if answered == http.StatusOK {
		j.asked[route] = true
		for _, values := range []url.Values{form, r.URL.Query()} {
			for name := range values {
				j.asked[route+" "+name+"="+values.Get(name)] = true
			}
		}
	}
	j.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Stripe-Should-Retry", "false")
	w.WriteHeader(answered)
	_, _ = w.Write(answer)
}

func (j *judge) send(r *http.Request, to, key string, body []byte) (status int, answer []byte) {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		j.t.Error(err)
		return http.StatusInternalServerError, nil
	}
	request.Header = r.Header.Clone()
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Del("Accept-Encoding")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		j.t.Error(err)
		return http.StatusInternalServerError, nil
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err != nil {
		j.t.Error(err)
	}
	return response.StatusCode, answer
}

// Stripe's own description of its API takes each request that a customer's life makes. The
// simulator, which was written beside them, cannot tell.
func TestRequestShapes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	sim := stripesim.New(someMonthsAgo())
	t.Cleanup(sim.Close)
	j := &judge{t: t, mock: mock(t), sim: sim.URL(), asked: make(map[string]bool)}
	server := httptest.NewServer(j)
	t.Cleanup(server.Close)
	e := newShared(t).envOf(t, sim, server.URL) // which has Bootstrap run
	b := e.billing(t)
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	// Bootstrap again, when everything is there and differs.
	e.sim.PortalSetting("features[subscription_cancel][mode]", "immediately")
	list := e.tiers.All()
	for i := range list {
		list[i].PriceCents, list[i].Title = list[i].PriceCents+100, list[i].Title+" II"
	}
	dearer, err := control.NewTiers(list)
	step("tiers", err)
	_, err = stripe.Bootstrap(ctx, e.account, dearer, hook)
	step("bootstrap", err)

	customer := e.signUp(t).ID
	_, err = e.checkout.CheckoutURL(ctx, customer, "pro")
	step("checkout", err)
	page, err := e.checkout.CheckoutURL(ctx, customer, "starter") // closes the other one
	step("checkout of another tier", err)
	_, err = e.sim.Complete(page)
	step("pay", err)
	e.deliver(t)
	step("overage", b.SetOverage(ctx, "customer", customer, 600))
	e.use(t, customer, 1_100_000)
	if n, err := e.meter.ReportDue(ctx); n != 1 || err != nil {
		t.Errorf("reported %d, %v", n, err)
	}
	check, err := e.meter.Verify(ctx, customer, e.sim.Now().AddDate(-1, 0, 0))
	if err != nil || check.Differs() || check.Stripe == 0 {
		t.Errorf("verify: %+v, %v", check, err)
	}
	step("upgrade", b.ChangeTier(ctx, customer, "pro"))
	step("downgrade", b.ChangeTier(ctx, customer, "starter"))
	step("cancel", b.Cancel(ctx, customer))
	step("resume", b.Resume(ctx, customer))
	_, err = e.checkout.PortalURL(ctx, customer)
	step("portal", err)
	invoices, err := e.checkout.Invoices(ctx, customer, 10)
	if err != nil || len(invoices) == 0 {
		t.Errorf("invoices %+v, %v", invoices, err)
	}
	step("end", b.End(ctx, customer))

	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.refused {
		t.Errorf("refused: %s", r)
	}
	const update = "POST /v1/subscriptions/{id}"
	for _, want := range []string{
		"GET /v1/billing/meters", "POST /v1/billing/meters", "GET /v1/products/{id}", "POST /v1/products", "POST /v1/products/{id}",
		"GET /v1/prices", "POST /v1/prices", "POST /v1/prices transfer_lookup_key=true", "POST /v1/prices recurring[usage_type]=metered",
		"GET /v1/billing_portal/configurations", "POST /v1/billing_portal/configurations", "POST /v1/billing_portal/configurations/{id}",
		"GET /v1/webhook_endpoints", "POST /v1/webhook_endpoints",
		"POST /v1/customers", "POST /v1/customers/{id}", "GET /v1/checkout/sessions", "POST /v1/checkout/sessions",
		"POST /v1/checkout/sessions/{id}/expire",
		"GET /v1/subscriptions", "GET /v1/subscriptions/{id}",
		update + " payment_behavior=pending_if_incomplete", update + " proration_behavior=always_invoice",
		update + " proration_behavior=none", update + " cancel_at_period_end=true", update + " cancel_at_period_end=false",
		"DELETE /v1/subscriptions/{id} invoice_now=true",
		"POST /v1/billing/meter_events", "GET /v1/billing/meters/{id}/event_summaries",
		"POST /v1/billing_portal/sessions", "GET /v1/invoices",
	} {
		if !j.asked[want] {
			t.Errorf("nothing asked %s", want)
		}
	}
	if t.Failed() {
		t.Logf("asked: %s", strings.Join(slices.Sorted(maps.Keys(j.asked)), "\n"))
	}
}

// What Stripe would not take is refused: the judge of TestRequestShapes can say no. What is
// within a list, stripe-mock does not look at.
func TestRequestShapesAreJudged(t *testing.T) {
	t.Parallel()
	sim := stripesim.New(time.Now())
	t.Cleanup(sim.Close)
	j := &judge{t: t, mock: mock(t), sim: sim.URL(), asked: make(map[string]bool)}
	for n, body := range []string{"cancel_at_period_end=perhaps", "proration_behavior=sometimes", "nonsense=1"} {
		r := httptest.NewRequest(http.MethodPost, "/v1/subscriptions/sub_1", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		j.ServeHTTP(httptest.NewRecorder(), r)
		if len(j.refused) != n+1 || len(j.asked) != 0 {
			t.Fatalf("%s is not refused: %q", body, j.refused)
		}
	}
}
