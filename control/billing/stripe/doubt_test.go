package stripe_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andreabadesso/openclaw-cloud/internal/stripesim"
)

// debtor is a customer who uses tokens above its limit, of which 100 cost 20000 microcents.
type debtor struct {
	*env
	id, stripe string
}

const hundred = 100 * 200

func newDebtor(t *testing.T, e *env) debtor {
	t.Helper()
	e.query("UPDATE meter_reports SET reported_at = now() WHERE reported_at IS NULL") // of other accounts of Stripe
	d := debtor{env: e}
	d.id, _ = e.buy(t, "team")
	e.deliver(t)
	if _, err := e.checkout.SetOverage(t.Context(), "customer", d.id, 1000); err != nil {
		t.Fatal(err)
	}
	d.stripe = e.query("SELECT stripe_customer_id FROM customers WHERE id = '%s'", d.id)
	e.use(t, d.id, 20_000_000)
	return d
}

// report has all reports that wait sent, and wants so many to be taken and errors to say something.
func (d debtor) report(t *testing.T, taken int, says ...string) {
	t.Helper()
	d.query("UPDATE meter_reports SET next_attempt_at = now() WHERE reported_at IS NULL")
	n, err := d.meter.ReportDue(t.Context())
	if n != taken || (err != nil) != (len(says) > 0) {
		t.Errorf("reported %d, %v, want %d", n, err, taken)
	}
	for _, text := range says {
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %v", text, err)
		}
	}
}

// lost makes it so that no answer of Stripe's was noted.
func (d debtor) lost() {
	d.query("UPDATE meter_reports SET reported_at = NULL WHERE customer_id = '%s'", d.id)
}

func (d debtor) later(by time.Duration) { d.sim.Advance(d.sim.Now().Add(by)) }

// counts wants Stripe to count so many microcents, and so many reports to wait.
func (d debtor) counts(t *testing.T, want int64, waiting string) {
	t.Helper()
	if got := d.sim.Metered(d.stripe); got != want {
		t.Errorf("Stripe counts %d, want %d", got, want)
	}
	if got := d.query("SELECT count(*) FROM meter_reports WHERE reported_at IS NULL AND customer_id = '%s'", d.id); got != waiting {
		t.Errorf("%s reports wait, want %s", got, waiting)
	}
}

const meterEvents = "POST /v1/billing/meter_events"

// A report of which it is not known whether Stripe has it is not sent any more once Stripe may have forgotten
// its identifier: what Stripe counts of its minute tells, or somebody has to look.
func TestReportInDoubt(t *testing.T) {
	t.Parallel()
	s := newShared(t)
	for name, test := range map[string]func(*testing.T, debtor){
		"Stripe has it": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.lost()
			d.later(23*time.Hour - time.Second)
			d.report(t, 1) // which Stripe knows by its identifier
			d.lost()
			asked := d.sim.Requests(meterEvents)
			d.later(time.Second)
			d.report(t, 0, "may have it already", "it is not known what became of it; from ")
			d.later(time.Hour)
			d.report(t, 1)
			d.counts(t, hundred, "0")
			if n := d.sim.Requests(meterEvents); n != asked {
				t.Errorf("it was sent %d times more", n-asked)
			}
		},
		"Stripe does not have it": func(t *testing.T, d debtor) {
			d.sim.FailRoute(meterEvents, 1)
			d.report(t, 0, "500")
			d.later(24 * time.Hour)
			d.report(t, 1)
			d.counts(t, hundred, "0")
		},
		"Stripe took it when it was sent again": func(t *testing.T, d debtor) {
			d.sim.FailRoute(meterEvents, 1)
			d.report(t, 0, "500")
			d.later(22 * time.Hour)
			d.report(t, 1)
			d.lost()
			d.later(25 * time.Hour)
			d.report(t, 1)
			d.counts(t, hundred, "0")
		},
		"Stripe counts something else": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.lost()
			id := d.query("SELECT id FROM meter_reports WHERE customer_id = '%s'", d.id)
			d.query("UPDATE meter_reports SET tokens_to = tokens_to + 1 WHERE id = '%s'", id)
			for range 2 {
				d.later(48 * time.Hour)
				d.report(t, 0, "counts 20000 microcents", "known to have 0", "and 20200 are in doubt", "identifier "+id)
				d.counts(t, hundred, "1")
			}
			check, err := d.meter.Verify(t.Context(), d.id, d.sim.Now().AddDate(-1, 0, 0))
			if err != nil || check.Waiting != hundred+200 || !strings.Contains(check.Why, "in doubt") {
				t.Errorf("verify: %+v, %v", check, err)
			}
			// Whoever has looked may say that Stripe does not have it.
			_, sql, _ := strings.Cut(check.Why, "if not, ")
			sql, _, _ = strings.Cut(sql, ": then")
			if !strings.HasPrefix(sql, "UPDATE meter_reports") {
				t.Fatalf("what to do is not said: %s", check.Why)
			}
			d.query("%s", sql)
			d.report(t, 1)
			d.counts(t, hundred+hundred+200, "0")
		},
		"Stripe cannot be asked": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.lost()
			d.later(48 * time.Hour)
			d.sim.FailRoute("GET /v1/billing/meters/{id}/event_summaries", 1)
			d.report(t, 0, "may have it already", "500")
			d.counts(t, hundred, "1")
			d.report(t, 1)
			d.counts(t, hundred, "0")
		},
		"another one of the minute": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.use(t, d.id, 50)
			d.sim.FailRoute(meterEvents, 1)
			d.report(t, 0, "500")
			d.later(48 * time.Hour)
			d.report(t, 0, "once it has summed up report") // which Stripe took a moment ago, by Postgres' clock
			d.counts(t, hundred, "1")
			d.query("UPDATE meter_reports SET reported_at = reported_at - interval '1 hour'")
			d.report(t, 1)
			d.counts(t, hundred+hundred/2, "0")
		},
		"two of the minute": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.use(t, d.id, 50)
			d.report(t, 1)
			d.lost()
			d.later(48 * time.Hour)
			d.query("UPDATE meter_reports SET next_attempt_at = now() WHERE tokens_from > 0 AND customer_id = '%s'", d.id)
			if n, err := d.meter.ReportDue(t.Context()); n != 1 || err != nil { // of which the other one follows
				t.Errorf("reported %d, %v", n, err)
			}
			d.counts(t, hundred+hundred/2, "0")
		},
		"others before and after": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.later(time.Minute)
			d.use(t, d.id, 50)
			d.sim.FailRoute(meterEvents, 1)
			d.report(t, 0, "500")
			d.query("UPDATE meter_reports SET next_attempt_at = now() + interval '1 day' WHERE reported_at IS NULL")
			d.later(time.Minute)
			d.use(t, d.id, 30)
			if n, err := d.meter.ReportDue(t.Context()); n != 1 || err != nil {
				t.Errorf("reported %d, %v", n, err)
			}
			d.later(48 * time.Hour)
			d.report(t, 1)
			d.counts(t, 180*200, "0")
		},
		"one of two of the minute": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.lost()
			d.use(t, d.id, 50)
			d.sim.FailRoute(meterEvents, 2)
			d.report(t, 0, "500")
			d.later(48 * time.Hour)
			d.report(t, 0, "counts 20000 microcents", "known to have 0", "and 30000 are in doubt")
			d.counts(t, hundred, "2")
		},
		"who leaves": func(t *testing.T, d debtor) {
			d.report(t, 1)
			d.lost()
			d.later(23 * time.Hour)
			if err := d.billing(t).End(t.Context(), d.id); err != nil {
				t.Errorf("whoever leaves is held up: %v", err)
			}
			d.counts(t, hundred, "1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDebtor(t, s.newEnv(t, someMonthsAgo()))
			d.use(t, d.id, 100)
			test(t, d)
		})
	}
}

// What Stripe has refused it does not have, however long ago that was; but it may have what it did not answer
// before.
func TestRefusedReportIsNotInDoubt(t *testing.T) {
	t.Parallel()
	s, sim := newShared(t), stripesim.New(someMonthsAgo())
	t.Cleanup(sim.Close)
	behind, err := url.Parse(sim.URL())
	if err != nil {
		t.Fatal(err)
	}
	var status atomic.Int32 // what meter events are answered with, unless 0
	proxy := httputil.NewSingleHostReverseProxy(behind)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := int(status.Load()); n != 0 && strings.HasSuffix(r.URL.Path, "/meter_events") {
			w.Header().Set("Stripe-Should-Retry", "false")
			w.WriteHeader(n)
			_, _ = io.WriteString(w, `{"error": {"type": "api_error", "message": "no"}}`) // the client may have gone
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	d := newDebtor(t, s.envOf(t, sim, front.URL))
	refused := func() {
		t.Helper()
		d.query("UPDATE customers SET stripe_customer_id = 'cus_none'")
		d.report(t, 0, "answers 404")
		d.query("UPDATE customers SET stripe_customer_id = '%s'", d.stripe)
	}
	d.use(t, d.id, 100)
	refused()
	d.later(48 * time.Hour)
	refused()
	d.report(t, 1)
	d.counts(t, hundred, "0")

	d.use(t, d.id, 50)
	d.report(t, 1)
	d.query("UPDATE meter_reports SET reported_at = NULL WHERE tokens_from = 100")
	d.later(time.Hour)
	refused()
	d.later(22 * time.Hour)
	d.report(t, 0, "may have it already")
	d.counts(t, hundred+hundred/2, "1")
	// Of some answers it is not known what became of the request.
	for code, doubt := range map[int32]string{408: "true", 409: "true", 429: "true", 500: "true", 401: "false", 403: "false"} {
		d.query("UPDATE meter_reports SET sent_at = NULL, event_at = NULL WHERE reported_at IS NULL")
		status.Store(code)
		d.report(t, 0, "tell Stripe")
		if got := d.query("SELECT string_agg((sent_at IS NOT NULL)::text, '') FROM meter_reports WHERE reported_at IS NULL"); got != doubt {
			t.Errorf("after %d it is in doubt: %s", code, got)
		}
	}
}

// What waits to be reported is shown.
func TestWaitingReportsAreShown(t *testing.T) {
	t.Parallel()
	d := newDebtor(t, newTest(t))
	shown := func(waiting, failing, oldest float64) {
		t.Helper()
		if err := d.processor.Observe(t.Context()); err != nil {
			t.Fatal(err)
		}
		age := d.metric(t, "billing_stripe_reports_oldest_seconds", "")
		if w, f := d.metric(t, "billing_stripe_reports_waiting", ""), d.metric(t, "billing_stripe_reports_failing", ""); w != waiting || f != failing ||
			age < oldest || age > oldest+600 {
			t.Errorf("%v wait, %v fail, the oldest for %v s; want %v, %v, %v", w, f, age, waiting, failing, oldest)
		}
	}
	shown(0, 0, 0)
	d.use(t, d.id, 100)
	d.sim.FailRoute(meterEvents, 1)
	d.report(t, 0, "500")
	d.query("UPDATE meter_reports SET created_at = created_at - interval '7 hours'")
	if _, err := d.service.ReportOverage(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown(1, 1, 7*3600)
	d.use(t, d.id, 100)
	if _, err := d.service.ReportOverage(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown(2, 1, 7*3600)
	d.report(t, 2)
	shown(0, 0, 0)
}
